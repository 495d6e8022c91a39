//! Who is at the admin door: so many at a time, and nobody keeps another out by saying nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Whether a request of a connection has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connections that are served, the oldest first.
#[derive(Debug)]
pub(in crate::server) struct Visits {
    max: usize,
    present: VecDeque<(AbortHandle, Asked)>,
}

impl Visits {
    /// None yet, and room for `max` of them.
    pub(in crate::server) const fn new(max: usize) -> Self {
        Self { max, present: VecDeque::new() }
    }

    /// Another one has come, which `task` serves. If they are too many, the oldest that has yet to ask is closed, or else the
    /// oldest: an answer takes moments, but for one whose client does not read it.
    pub(super) fn add(&mut self, task: AbortHandle, asked: Asked) {
        self.present.retain(|(task, _)| !task.is_finished());
        if self.present.len() >= self.max {
            let silent = self.present.iter().position(|(_, asked)| !asked.is_noted());
            if let Some((task, _)) = self.present.remove(silent.unwrap_or(0)) {
                task.abort();
            }
        }
        self.present.push_back((task, asked));
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::CONNECTIONS_MAX;
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn silent_ones_go_first_and_then_the_oldest() {
        let mut visits = Visits::new(CONNECTIONS_MAX);
        let mut tasks = Vec::new();
        let mut add = |visits: &mut Visits, has_asked: bool| {
            let task = tokio::spawn(std::future::pending::<()>());
            let asked = Asked::default();
            if has_asked {
                asked.note();
            }
            visits.add(task.abort_handle(), asked);
            tasks.push(task);
        };
        add(&mut visits, true);
        add(&mut visits, false);
        for _ in 2..CONNECTIONS_MAX + 2 {
            add(&mut visits, true);
        }
        tokio::task::yield_now().await;
        let gone = tasks.iter().enumerate().filter(|(_, task)| task.is_finished());
        assert_eq!(gone.map(|(number, _)| number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(visits.present.len(), CONNECTIONS_MAX);
    }
}
