//! What the meta group's log holds: postcard, behind a version byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use crate::ids::{GroupId, Incarnation, NodeId, RaftId, Session};
use crate::ring::Doors;

const VERSION: u8 = 2;

/// A change of the cluster. Variants are append-only: their order is their code. Each says what it rests on and is
/// ignored where that no longer holds, so that a leader that decided on an older state changes nothing by mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster begins; ignored when it already has.
    Create(Box<Cluster>),
    /// A node says where its clients' doors are; ignored for a node that is not in the cluster.
    SetDoors {
        /// The node.
        node: NodeId,
        /// Its doors.
        doors: Doors,
    },
    /// A directory was opened again.
    Start {
        /// The directory.
        incarnation: Incarnation,
        /// This start.
        session: Session,
        /// All its starts since the last that it knows to be recorded.
        starts: Vec<Session>,
        /// The newest behaviour its program knows.
        level: u16,
    },
    /// An empty directory takes the place of one that is lost.
    Admit {
        /// Whose name it goes by.
        node: NodeId,
        /// The lost one.
        replaces: Incarnation,
        /// The new one.
        incarnation: Incarnation,
        /// Its start.
        session: Session,
        /// The newest behaviour its program knows.
        level: u16,
    },
    /// A group is to replace a lost replica.
    Step {
        /// The group.
        group: GroupId,
        /// The lost replica.
        remove: RaftId,
        /// The directory that takes the new one.
        incarnation: Incarnation,
    },
    /// A group has taken its step: reported by its leader, from a committed membership.
    Done {
        /// The group.
        group: GroupId,
        /// The replica it took in.
        add: RaftId,
    },
    /// A directory holds all it is to hold.
    Joined {
        /// The directory.
        incarnation: Incarnation,
    },
    /// A replica has stopped for good, in a directory that is well: said by that. Its group is to replace it by another
    /// in the same place.
    Rebuild {
        /// The group.
        group: GroupId,
        /// The replica that has stopped.
        replica: RaftId,
    },
}

/// Bytes that this version of the program did not write: a newer one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChange {
    /// Their version is another.
    #[error("version {0} of the meta group's changes is not known here (known: {VERSION})")]
    UnknownVersion(u8),
    /// No change of this version looks like that.
    #[error("a change of the meta group that is not known here")]
    Unknown,
}

impl Change {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: a change is plain data that postcard can always encode.
    pub fn encode(&self) -> Bytes {
        postcard::to_extend(self, vec![VERSION])
            .expect("a change is plain data that postcard can always encode")
            .into()
    }

    /// The cluster that it creates; `None` when it is any other change.
    pub(super) fn created(self) -> Option<Cluster> {
        match self {
            Self::Create(cluster) => Some(*cluster),
            Self::SetDoors { .. }
            | Self::Start { .. }
            | Self::Admit { .. }
            | Self::Step { .. }
            | Self::Done { .. }
            | Self::Joined { .. }
            | Self::Rebuild { .. } => None,
        }
    }

    /// The change in `bytes`.
    ///
    /// # Errors
    /// When `bytes` are not what [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedChange> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
                Ok((change, [])) => Ok(change),
                Ok(_) | Err(_) => Err(MalformedChange::Unknown),
            },
            Some((&version, _)) => Err(MalformedChange::UnknownVersion(version)),
            None => Err(MalformedChange::Unknown),
        }
    }
}

/// A cluster travels and lies on disk as the change that creates it.
impl Cluster {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        Change::Create(Box::new(self.clone())).encode()
    }

    /// The cluster in `bytes`; `None` when they are none that this version writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Change::decode(bytes).ok().and_then(Change::created)
    }
}

/// What a stranger asks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Its name.
    pub name: String,
    /// The newest behaviour its program knows.
    pub level: u16,
}

impl JoinRequest {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: it is plain data that postcard can always encode.
    pub fn encode(&self) -> Bytes {
        postcard::to_stdvec(self).expect("plain data that postcard can always encode").into()
    }

    /// The request in `bytes`; `None` when they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
