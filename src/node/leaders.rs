//! Who leads what: the one place that decides to hand a lead over. While the node runs, to the node that should lead the
//! shard, once that one is fit; when it stops, to whoever can take over at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::node::Node;
use crate::ids::NodeId;
use crate::raft::TransferOutcome;

/// How often a node looks at who leads what.
const LOOK: Duration = Duration::from_secs(1);

/// Looks in a row at which the node that should lead must be fit: not to chase one that flaps.
const FIT_LOOKS_MIN: u32 = 3;

/// Pause after the first transfer of a shard that failed; doubled with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// How long a node that stops takes to hand its leads over, all together.
const HAND_OVER_ALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Times a lead is offered while the node stops.
const OFFERS_MAX: u32 = 20;

/// Pause before a lead is offered again to somebody while the node stops.
const OFFER_PAUSE: Duration = Duration::from_millis(50);

/// What a node knows of one shard it may have to hand over.
#[derive(Clone, Copy, Debug)]
struct Sight {
    /// It leads the shard, and another node should.
    is_misplaced: bool,
    /// That node could take over right now.
    is_fit: bool,
}

/// When a shard is to be handed over. Pure: it is told the time and what is seen.
#[derive(Debug, Default)]
struct Spreading {
    fit_looks: u32,
    failures: u32,
    not_before: Option<Instant>,
}

impl Spreading {
    /// Whether to hand over now.
    fn is_due(&mut self, now: Instant, sight: Sight) -> bool {
        if !sight.is_misplaced {
            *self = Self::default();
            return false;
        }
        self.fit_looks = if sight.is_fit { self.fit_looks + 1 } else { 0 };
        self.fit_looks >= FIT_LOOKS_MIN && self.not_before.is_none_or(|until| now >= until)
    }

    /// Takes note of what became of it.
    fn ended(&mut self, now: Instant, outcome: TransferOutcome) {
        match outcome {
            TransferOutcome::Accepted => *self = Self::default(),
            TransferOutcome::Refused(_) | TransferOutcome::Unknown => {
                let doubled = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16));
                self.failures += 1;
                self.fit_looks = 0;
                self.not_before = Some(now + doubled.min(BACKOFF_MAX));
            }
        }
    }
}

/// Hands shards over to the nodes that should lead them. Never returns.
pub(super) async fn spread(node: Arc<Node>) {
    let mut timer = tokio::time::interval(LOOK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shards: Vec<Spreading> = node.shards().iter().map(|_| Spreading::default()).collect();
    loop {
        timer.tick().await;
        if node.is_stopping() {
            return;
        }
        for (shard, spreading) in node.shards().iter().zip(&mut shards) {
            let preferred = node.topology().preferred_leader(shard.id());
            let sight = Sight {
                is_misplaced: preferred != node.id() && shard.leader() == Some(node.id()),
                is_fit: shard.could_hand_over(preferred),
            };
            if spreading.is_due(Instant::now(), sight) {
                let outcome = shard.hand_over(preferred).await;
                spreading.ended(Instant::now(), outcome);
            }
        }
    }
}

/// Hands every lead over, before this node stops. Where nobody can take one in time, an election will.
pub(super) async fn hand_over_all(node: &Node) {
    let mut all = JoinSet::new();
    let meta = Arc::clone(node.meta());
    all.spawn(async move {
        give_away(|| meta.successors(), |target| meta.hand_over(target)).await;
    });
    for shard in node.shards().iter().map(Arc::clone) {
        all.spawn(async move {
            give_away(|| shard.successors(), |target| shard.hand_over(target)).await;
        });
    }
    let all = async { while all.join_next().await.is_some() {} };
    if timeout(HAND_OVER_ALL_TIMEOUT, all).await.is_err() {
        tracing::warn!("not every lead could be handed over: the other nodes will elect");
    }
}

/// Offers a lead to the best of the `successors` until one has taken it or it is gone. Who votes alone has none, and
/// nobody waits for it.
async fn give_away<T: Future<Output = TransferOutcome>>(
    successors: impl Fn() -> Vec<NodeId>,
    hand_over: impl Fn(NodeId) -> T,
) {
    for _ in 0..OFFERS_MAX {
        let Some(target) = successors().first().copied() else { return };
        if hand_over(target).await == TransferOutcome::Accepted {
            return;
        }
        sleep(OFFER_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::TransferRefusal;

    const FIT: Sight = Sight { is_misplaced: true, is_fit: true };
    const UNFIT: Sight = Sight { is_misplaced: true, is_fit: false };
    const PLACED: Sight = Sight { is_misplaced: false, is_fit: true };

    /// The looks, one a second, at which a shard seen so is handed over; each ends as `outcome` says.
    fn handed_over(sights: &[Sight], outcome: TransferOutcome) -> Vec<usize> {
        let start = Instant::now();
        let mut spreading = Spreading::default();
        let mut looks = Vec::new();
        for (look, sight) in sights.iter().enumerate() {
            let now = start + LOOK * u32::try_from(look).unwrap();
            if spreading.is_due(now, *sight) {
                looks.push(look);
                spreading.ended(now, outcome);
            }
        }
        looks
    }

    #[test]
    fn only_to_who_stays_fit() {
        let accepted = TransferOutcome::Accepted;
        assert_eq!(handed_over(&[FIT; 3], accepted), [2]);
        assert_eq!(handed_over(&[UNFIT; 20], accepted), [] as [usize; 0]);
        assert_eq!(handed_over(&[PLACED; 20], accepted), [] as [usize; 0]);
        let flapping: Vec<Sight> = [FIT, FIT, UNFIT].repeat(9);
        assert_eq!(handed_over(&flapping, accepted), [] as [usize; 0]);
    }

    #[test]
    fn failures_are_not_repeated_soon() {
        let refused = TransferOutcome::Refused(TransferRefusal::Silent);
        assert_eq!(handed_over(&[FIT; 80], refused), [2, 7, 17, 37, 77]);
        assert_eq!(handed_over(&[FIT; 80], TransferOutcome::Unknown), [2, 7, 17, 37, 77]);
    }
}
