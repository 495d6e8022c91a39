//! What a node waits for before its clients' doors may open, in one line that operators can read.

use tokio::sync::watch;

/// The line, and who follows it. Empty once nothing is waited for.
#[derive(Debug)]
pub struct Progress {
    waits_for: watch::Sender<String>,
}

impl Progress {
    /// A node that has just begun to start.
    pub fn new() -> Self {
        Self { waits_for: watch::Sender::new("starting".to_owned()) }
    }

    /// Says what is waited for now; logged when it is news.
    pub(super) fn say(&self, text: &str) {
        self.waits_for.send_if_modified(|waits_for| {
            if waits_for == text {
                return false;
            }
            tracing::info!("{text}");
            text.clone_into(waits_for);
            true
        });
    }

    /// Nothing is waited for any more.
    pub(crate) fn finish(&self) {
        self.waits_for.send_if_modified(|waits_for| !std::mem::take(waits_for).is_empty());
    }

    /// What is waited for; `None` once the doors may open.
    pub fn waits_for(&self) -> Option<String> {
        Some(self.waits_for.borrow().clone()).filter(|text| !text.is_empty())
    }

    /// Resolves once the doors may open.
    pub async fn finished(&self) {
        let mut waits_for = self.waits_for.subscribe();
        // The sender is borrowed for as long as this runs, so it ends by that alone.
        let _finished = waits_for.wait_for(String::is_empty).await;
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn doors_open_once_nothing_is_waited_for() {
        let progress = Progress::new();
        assert_eq!(progress.waits_for().as_deref(), Some("starting"));
        progress.say("waiting for n2");
        assert!(progress.finished().now_or_never().is_none());
        assert_eq!(progress.waits_for().as_deref(), Some("waiting for n2"));
        progress.finish();
        progress.finished().await;
        assert_eq!(progress.waits_for(), None);
    }
}
