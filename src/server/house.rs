//! The node as the doors see it: what it waits for, and then itself.

use std::sync::Arc;

use tokio::sync::watch;

use crate::node::{Node, Progress};

/// A node that is there, or will be.
#[derive(Debug)]
pub(super) struct House {
    progress: Arc<Progress>,
    node: watch::Sender<Option<Arc<Node>>>,
}

impl House {
    /// A house whose node has yet to come.
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        Self { progress, node: watch::Sender::new(None) }
    }

    /// A house with `node` in it.
    #[cfg(test)]
    pub(super) fn of(node: Arc<Node>) -> Self {
        let house = Self::new(Arc::default());
        house.enter(node);
        house
    }

    /// The node is there.
    pub(super) fn enter(&self, node: Arc<Node>) {
        self.node.send_replace(Some(node));
    }

    /// What the node waits for.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The node, once it is there.
    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.node.borrow().clone()
    }

    /// Waits for the node.
    pub(super) async fn entered(&self) -> Arc<Node> {
        let mut node = self.node.subscribe();
        loop {
            if let Some(node) = node.borrow_and_update().clone() {
                return node;
            }
            if node.changed().await.is_err() {
                // The sender is borrowed for as long as this runs.
                return std::future::pending().await;
            }
        }
    }
}
