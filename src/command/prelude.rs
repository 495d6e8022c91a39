//! What nearly every command's file needs, so that it opens with its declaration.

pub(super) use super::acl_category::{AclCategory, AclRule};
pub(super) use super::apply::{DataCommand, Outcome};
pub(super) use super::arg::Arg;
pub(super) use super::args::Args;
pub(super) use super::context::Context;
pub(super) use super::invocation::Invocation;
pub(super) use super::key_spec::KeyFlag::{
    Access, Delete, Insert, Ow, Rm, Ro, Rw, Update, VariableFlags,
};
pub(super) use super::key_spec::KeySpec;
pub(super) use super::spec::Flag::{DenyOom, Fast, ReadOnly, Write};
pub(super) use super::spec::{Arity, Deprecated, Group, RequestPolicy, ResponsePolicy, Spec, Tip};
pub(super) use crate::keyspace::{Key, Keyspace, Str, Value};
pub(super) use crate::resp::{ErrorReply, Reply};
