//! INFO: what there is to know about this node.

use super::{NodeCommand, Outcome};
use crate::command::{
    AclCategory, AclRule, Arg, Arity, Flag, Group, RequestPolicy, ResponsePolicy, Spec, Tip,
};
use crate::node::info::render;
use crate::node::{Client, Node};
use crate::resp::Reply;

pub(super) const INFO: NodeCommand = NodeCommand::new(&SPEC, info);

const SPEC: Spec = Spec {
    name: "info",
    group: Group::Server,
    since: "1.0.0",
    summary: "Returns information and statistics about this node.",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Loading, Flag::Stale],
    tips: &[
        Tip::NondeterministicOutput,
        Tip::Request(RequestPolicy::AllShards),
        Tip::Response(ResponsePolicy::Special),
    ],
    acl: AclRule::Also(&[AclCategory::Dangerous]),
    args: &[Arg::string("section").optional().multiple()],
    history: &[("7.0.0", "Takes several sections.")],
    ..Spec::EMPTY
};

fn info(node: &Node, client: &Client, argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(render(node, client, &argv[1..])))
}
