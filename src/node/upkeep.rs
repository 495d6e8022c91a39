//! What a node does by itself: follow the topology, tick its shards, have them close the sessions of those who are gone,
//! and campaign early when a leader's process is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::error::NodeError;
use super::leaders;
use super::membership::{End, Membership};
use super::node::Node;
use super::process::Strain;
use super::switchboard::Switchboard;
use crate::ids::{GroupId, NodeId};
use crate::raft::Timing;
use crate::shard::Shard;
use crate::transport::PeerClient;

/// How often groups look whether a heartbeat or a campaign is due.
const BEAT: Duration = Duration::from_millis(50);

/// How often shards and the node look for what is due.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at snapshots.
const SLOW_EVERY: u32 = 10;

/// Starts the node's own tasks, which keep its log below `log_bytes_max`. They end with the runtime.
pub(super) fn spawn(
    node: &Arc<Node>,
    membership: Arc<Membership>,
    timing: Timing,
    log_bytes_max: u64,
) {
    tokio::spawn(follow_cluster(Arc::clone(node)));
    tokio::spawn(watch_membership(Arc::clone(node), membership));
    tokio::spawn(tick(Arc::clone(node), log_bytes_max));
    tokio::spawn(leaders::spread(Arc::clone(node)));
    for peer in node.peers().all() {
        tokio::spawn(campaign_when_gone(Arc::clone(node), peer, timing));
    }
}

/// Stops the node when its directory must not go on.
async fn watch_membership(node: Arc<Node>, membership: Arc<Membership>) {
    let error = match membership.watch_over().await {
        Ok(End::Gone) => NodeError::Gone(node.name().to_owned()),
        Ok(End::Copy) => NodeError::Copy(node.name().to_owned()),
        Err(error) => error,
    };
    node.fail(error);
}

async fn follow_cluster(node: Arc<Node>) {
    let mut latest = node.meta().watch();
    loop {
        if let Some(cluster) = latest.borrow_and_update().clone() {
            node.note_level(cluster.level());
            if cluster.topology().epoch() != node.epoch() {
                node.adopt_topology(Arc::clone(cluster.topology()));
            }
        }
        if latest.changed().await.is_err() {
            return;
        }
    }
}

/// Does what is due at `shards`, which live on this runtime: what that takes, such as purges, is theirs to spend.
pub(super) async fn tick_shards(shards: Vec<Arc<Shard>>) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        for shard in &shards {
            shard.tick();
        }
    }
}

async fn tick(node: Arc<Node>, log_bytes_max: u64) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    let mut strain = Strain::default();
    loop {
        timer.tick().await;
        ticks = ticks.wrapping_add(1);
        node.note_size();
        node.budget().set(node.config().options().maxmemory);
        strain.look();
        if ticks.is_multiple_of(SLOW_EVERY) {
            if node.wal().live_bytes() > log_bytes_max
                && node.wal().pinned_by() == Some(GroupId::META)
            {
                node.meta().release_log().await;
            }
            let cluster = node.cluster();
            for shard in node.shards() {
                shard.snapshot_if_due(log_bytes_max).await;
                if let Some(cluster) = &cluster {
                    shard.close_sessions(|incarnation| cluster.last_ended_session(incarnation));
                }
            }
        }
    }
}

/// When the connection to a peer breaks, its process is probably gone. Whoever it led campaigns as soon as the
/// leader's lease has run out, rather than after a whole election timeout; the first in preference order first.
async fn campaign_when_gone(node: Arc<Node>, peer: PeerClient, timing: Timing) {
    let mut connected = peer.connected();
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        if connected.wait_for(|connected| !*connected).await.is_err() {
            return;
        }
        let gone = peer.remote();
        tokio::time::sleep(timing.lease).await;
        if peer.is_connected() {
            continue; // Only the connection broke.
        }
        for shard in node.shards() {
            tokio::spawn(take_over(Arc::clone(shard), node.id(), gone));
        }
        node.meta().take_over_from(gone);
    }
}

async fn take_over(shard: Arc<Shard>, node: NodeId, gone: NodeId) {
    const STAGGER: Duration = Duration::from_millis(40);
    let mut candidates = shard.replicas().iter().filter(|replica| **replica != gone);
    let Some(rank) = candidates.position(|replica| *replica == node) else { return };
    tokio::time::sleep(STAGGER * u32::try_from(rank).unwrap_or(0)).await;
    if shard.leader() == Some(gone) {
        shard.campaign();
    }
}

/// Drives the elections and heartbeats of all groups together, from the first group on.
pub(super) async fn keep_time(switchboard: Arc<Switchboard>) {
    let mut timer = tokio::time::interval(BEAT);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        switchboard.meta().keep_time().await;
        for shard in switchboard.shards() {
            shard.keep_time().await;
        }
    }
}
