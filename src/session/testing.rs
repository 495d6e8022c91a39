//! A client on a node of its own, without a socket: scripts of commands and the replies they must get.

use std::sync::Arc;

use super::batch::Batch;
use super::dispatch::{Line, Scene, dispatch};
use super::state::{ClientState, Door};
use crate::command::testing::{split_args, split_unquoted};
use crate::command::{self, Registry};
use crate::node::ClientGuard;
use crate::node::testing::{TestNode, enter};
use crate::resp::testing::Value;
use crate::stdx::rope::Rope;

/// One client of one node.
pub(crate) struct Bench {
    pub(crate) state: ClientState,
    guard: ClientGuard,
    batch: Batch,
    _test: TestNode,
}

impl Bench {
    /// Starts a node with these flags and connects to it by `door`.
    pub(crate) async fn start(flags: &[&str], door: Door) -> Self {
        let data = command::all().map(|command| command.spec);
        let registry = Registry::new(data.chain(crate::node::specs()).chain(super::specs()));
        let test = TestNode::start_with(flags, registry).await;
        let guard = enter(&test.started.node, door);
        let state = ClientState::new(Arc::clone(&test.started.node), Arc::clone(&guard.client));
        Self { state, guard, batch: Batch::default(), _test: test }
    }

    /// Leaves and comes again.
    pub(crate) fn reconnect(&mut self) {
        let node = Arc::clone(&self.state.node);
        self.guard = enter(&node, self.state.door);
        self.state = ClientState::new(node, Arc::clone(&self.guard.client));
    }

    /// What the command in `line` answers, in the spelling of [`Value::compact`]; empty for no reply.
    pub(crate) async fn run(&mut self, line: &str) -> String {
        let words = split_args(line).expect("quotes are closed");
        let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let scene = Scene::of(&self.state);
        dispatch(&mut self.state, &mut self.batch, &scene, &Line::from(&argv[..]));
        let mut out = Rope::new();
        self.batch.finish(&mut self.state, &mut out).await;
        if out.is_empty() { String::new() } else { Value::parse(&out.to_vec()).compact() }
    }

    /// Runs `command => reply; command => reply; …`.
    pub(crate) async fn check(&mut self, script: &str) {
        for step in split_unquoted(script, "; ") {
            let step = step.trim();
            let (line, expected) = step.split_once(" => ").expect("a reply");
            assert_eq!(self.run(line).await.trim_end(), expected.trim(), "{line}");
        }
    }
}

/// Runs `script` on the plain door of a node with these flags.
pub(crate) async fn check(flags: &[&str], script: &str) {
    Bench::start(flags, Door::Plain).await.check(script).await;
}
