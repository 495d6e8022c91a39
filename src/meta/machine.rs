//! Applies the meta group's log to the cluster.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::change::Change;
use super::cluster::Cluster;
use crate::raft::{
    Applied, EntryPosition, Origin, Restored, SnapshotProgress, SnapshotTicket, StateMachine,
    UnknownEntry,
};

/// The replicated cluster; `None` until it is created.
#[derive(Debug)]
pub(super) struct ClusterMachine {
    latest: watch::Sender<Option<Arc<Cluster>>>,
    snapshot: Mutex<Begun>,
}

/// The snapshot begun last, until it is written.
#[derive(Debug, Default)]
struct Begun {
    ticket: u64,
    is_under_way: bool,
    cluster: Option<Arc<Cluster>>,
}

/// Longest encoding of a cluster in a snapshot, in bytes; some thousand nodes take one.
const CLUSTER_BYTES_MAX: usize = 64 << 20;

impl ClusterMachine {
    /// A machine that knows of no cluster yet.
    pub(super) fn new() -> Self {
        Self { latest: watch::Sender::new(None), snapshot: Mutex::default() }
    }

    /// Follows the cluster.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.latest.subscribe()
    }

    /// The cluster as applied here.
    pub(super) fn latest(&self) -> Option<Arc<Cluster>> {
        self.latest.borrow().clone()
    }

    /// Forgets everything: the replica it belonged to has ended.
    pub(super) fn clear(&self) {
        let mut begun = self.snapshot.lock();
        begun.is_under_way = false;
        begun.cluster = None;
        drop(begun);
        self.latest.send_replace(None);
    }

    fn next(&self, change: Change) -> Option<Cluster> {
        let Some(latest) = self.latest() else { return change.created() };
        match change {
            Change::Create(_) => None,
            Change::SetDoors { node, doors } => latest.with_doors(node, doors),
            Change::Start { incarnation, session, starts, level } => {
                latest.with_start(incarnation, session, &starts, level)
            }
            Change::Admit { node, replaces, incarnation, session, level } => {
                latest.with_admitted(node, replaces, incarnation, session, level)
            }
            Change::Step { group, remove, incarnation } => {
                latest.with_step(group, remove, incarnation)
            }
            Change::Done { group, add } => latest.with_done(group, add),
            Change::Joined { incarnation } => latest.with_joined(incarnation),
            Change::Rebuild { group, replica } => latest.with_rebuilt(group, replica),
        }
    }
}

impl Default for ClusterMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for ClusterMachine {
    fn apply(
        &self,
        _position: EntryPosition,
        _origin: Origin,
        proposal: &Bytes,
    ) -> Result<Applied, UnknownEntry> {
        let change = Change::decode(proposal).map_err(UnknownEntry::because)?;
        if let Some(next) = self.next(change) {
            self.latest.send_replace(Some(Arc::new(next)));
        }
        Ok(Applied::Whole)
    }

    fn begin_snapshot(&self) -> SnapshotTicket {
        let mut begun = self.snapshot.lock();
        begun.ticket += 1;
        begun.is_under_way = true;
        begun.cluster = self.latest();
        SnapshotTicket(begun.ticket)
    }

    fn snapshot_step(
        &self,
        ticket: SnapshotTicket,
        _budget: usize,
        out: &mut Vec<u8>,
    ) -> SnapshotProgress {
        let mut begun = self.snapshot.lock();
        if begun.ticket != ticket.0 || !begun.is_under_way {
            return SnapshotProgress::Lost;
        }
        begun.is_under_way = false;
        let cluster = begun.cluster.take();
        if let Some(cluster) = cluster {
            out.extend_from_slice(&cluster.encode());
        }
        SnapshotProgress::Done
    }

    fn abort_snapshot(&self, ticket: SnapshotTicket) {
        let mut begun = self.snapshot.lock();
        if begun.ticket == ticket.0 {
            begun.is_under_way = false;
            begun.cluster = None;
        }
    }

    fn prepare(
        self: Arc<Self>,
        chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
    ) -> io::Result<Restored> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the cluster's snapshot is damaged");
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > CLUSTER_BYTES_MAX {
                return Err(damaged());
            }
        }
        let cluster = if bytes.is_empty() {
            None
        } else {
            Some(Arc::new(Cluster::decode(&bytes).ok_or_else(damaged)?))
        };
        Ok(Box::new(move || {
            self.snapshot.lock().is_under_way = false;
            self.latest.send_replace(cluster);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cluster, node, topology};
    use super::*;
    use crate::ids::ClusterId;
    use crate::ring::Doors;

    fn apply(machine: &ClusterMachine, change: &Change) {
        let position = EntryPosition { term: 1, index: 1 };
        machine.apply(position, Origin::Here, &change.encode()).unwrap().finish();
    }

    #[test]
    fn a_cluster_is_created_once() {
        let machine = ClusterMachine::new();
        apply(&machine, &Change::Create(Box::new(cluster(topology(1, 1, 2)))));
        apply(&machine, &Change::Create(Box::new(cluster(topology(2, 1, 2)))));
        assert_eq!(machine.latest().unwrap().id(), ClusterId(1));
    }

    #[test]
    fn doors_are_announced_and_survive_a_snapshot() {
        let machine = ClusterMachine::new();
        apply(&machine, &Change::Create(Box::new(cluster(topology(1, 1, 2)))));
        let doors = Doors { host: "h".into(), port: 1, cluster_port: 2 };
        let n1 = node(1);
        apply(&machine, &Change::SetDoors { node: n1, doors: doors.clone() });
        apply(&machine, &Change::SetDoors { node: node(7), doors: doors.clone() });

        let mut chunk = Vec::new();
        let ticket = machine.begin_snapshot();
        assert_eq!(machine.snapshot_step(ticket, 1, &mut chunk), SnapshotProgress::Done);
        let restored = Arc::new(ClusterMachine::new());
        let mut pieces = chunk.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        Arc::clone(&restored).prepare(&mut pieces).unwrap()();
        assert_eq!(restored.latest(), machine.latest());
        let restored = restored.latest().unwrap();
        assert_eq!(restored.topology().node(n1).unwrap().doors, Some(doors));
    }

    #[test]
    fn unknown_entries_stop_and_damaged_bytes_change_nothing() {
        let machine = Arc::new(ClusterMachine::new());
        let known = Change::Joined { incarnation: crate::ids::Incarnation(1) }.encode();
        let newer_version = [&[known[0] + 1], &known[1..]].concat();
        let longer = [&known[..], &[0]].concat();
        for unknown in [&b"\x02\xff\xff"[..], b"\x02\x40", b"", &newer_version, &longer] {
            let bytes = Bytes::copy_from_slice(unknown);
            let applied = machine.apply(EntryPosition { term: 1, index: 1 }, Origin::Here, &bytes);
            assert!(applied.is_err(), "{unknown:?}");
        }
        assert_eq!(machine.latest(), None);
        assert!(machine.prepare(&mut std::iter::once(Ok(Bytes::from_static(b"?")))).is_err());
    }
}
