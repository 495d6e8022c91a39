//! Applies the meta group's log to the topology.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::command::Command;
use crate::raft::{EntryPosition, SnapshotProgress, StateMachine};
use crate::ring::Topology;

/// The replicated topology; `None` until the cluster is created.
#[derive(Debug)]
pub struct TopologyMachine {
    latest: watch::Sender<Option<Arc<Topology>>>,
    snapshot: Mutex<Option<Arc<Topology>>>,
}

impl TopologyMachine {
    /// A machine that knows of no cluster yet.
    pub fn new() -> Self {
        Self { latest: watch::Sender::new(None), snapshot: Mutex::new(None) }
    }

    /// Follows the topology.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Topology>>> {
        self.latest.subscribe()
    }

    /// The topology as applied here.
    pub fn latest(&self) -> Option<Arc<Topology>> {
        self.latest.borrow().clone()
    }

    fn next(&self, command: Command) -> Option<Topology> {
        let latest = self.latest();
        match (command, latest) {
            (Command::Create(topology), None) => Some(*topology),
            (Command::SetDoors { node, doors }, Some(topology)) => {
                let next = topology.with_doors(node, doors).ok()?;
                (next.epoch() != topology.epoch()).then_some(next)
            }
            (Command::Create(_), Some(_)) | (Command::SetDoors { .. }, None) => None,
        }
    }
}

impl Default for TopologyMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for TopologyMachine {
    fn apply(&self, position: EntryPosition, proposal: &Bytes) {
        match Command::decode(proposal) {
            Ok(command) => {
                if let Some(next) = self.next(command) {
                    self.latest.send_replace(Some(Arc::new(next)));
                }
            }
            Err(error) => tracing::error!(index = position.index, %error, "skipped an entry"),
        }
    }

    fn begin_snapshot(&self) {
        *self.snapshot.lock() = self.latest();
    }

    fn snapshot_step(&self, _budget: usize, out: &mut Vec<u8>) -> SnapshotProgress {
        if let Some(topology) = self.snapshot.lock().take() {
            out.extend_from_slice(&Command::Create(Box::new((*topology).clone())).encode());
        }
        SnapshotProgress::Done
    }

    fn abort_snapshot(&self) {
        *self.snapshot.lock() = None;
    }

    fn restore(&self, chunks: &mut dyn Iterator<Item = io::Result<Bytes>>) -> io::Result<()> {
        let topology = match chunks.next().transpose()? {
            None => None,
            Some(chunk) => match Command::decode(&chunk) {
                Ok(Command::Create(topology)) => Some(Arc::new(*topology)),
                Ok(Command::SetDoors { .. }) | Err(_) => {
                    let text = "the topology's snapshot is damaged";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            },
        };
        self.latest.send_replace(topology);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::ring::{Doors, Node, TopologySpec, VIRTUAL_NODES_DEFAULT};

    fn topology(cluster_id: u64) -> Topology {
        let node = Node {
            id: NodeId::of_name("n1"),
            name: "n1".into(),
            host: "127.0.0.1".into(),
            peer_port: 1,
            weight: 1,
            zone: String::new(),
            doors: None,
        };
        Topology::new(TopologySpec {
            cluster_id,
            shard_count: 2,
            replication_factor: 3,
            virtual_nodes: VIRTUAL_NODES_DEFAULT,
            nodes: vec![node],
        })
        .unwrap()
    }

    fn apply(machine: &TopologyMachine, command: &Command) {
        machine.apply(EntryPosition { term: 1, index: 1 }, &command.encode());
    }

    #[test]
    fn a_cluster_is_created_once() {
        let machine = TopologyMachine::new();
        apply(&machine, &Command::Create(Box::new(topology(1))));
        apply(&machine, &Command::Create(Box::new(topology(2))));
        assert_eq!(machine.latest().unwrap().cluster_id(), 1);
    }

    #[test]
    fn doors_are_announced_and_survive_a_snapshot() {
        let machine = TopologyMachine::new();
        apply(&machine, &Command::Create(Box::new(topology(1))));
        let doors = Doors { host: "h".into(), port: 1, cluster_port: 2 };
        let node = NodeId::of_name("n1");
        apply(&machine, &Command::SetDoors { node, doors: doors.clone() });
        apply(&machine, &Command::SetDoors { node: NodeId(7), doors: doors.clone() });

        let mut chunk = Vec::new();
        machine.begin_snapshot();
        assert_eq!(machine.snapshot_step(usize::MAX, &mut chunk), SnapshotProgress::Done);
        let restored = TopologyMachine::new();
        restored.restore(&mut std::iter::once(Ok(chunk.into()))).unwrap();
        assert_eq!(restored.latest(), machine.latest());
        assert_eq!(restored.latest().unwrap().node(node).unwrap().doors, Some(doors));
    }

    #[test]
    fn damaged_bytes_change_nothing() {
        let machine = TopologyMachine::new();
        machine.apply(EntryPosition { term: 1, index: 1 }, &Bytes::from_static(b"\x01\xff\xff"));
        assert_eq!(machine.latest(), None);
        assert!(machine.restore(&mut std::iter::once(Ok(Bytes::from_static(b"?")))).is_err());
    }
}
