//! What the meta group's log holds: postcard, behind a version byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::ring::{Doors, Topology};

const VERSION: u8 = 1;

/// A change of the topology. Variants are append-only: their order is their code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The cluster begins; ignored when it already has.
    Create(Box<Topology>),
    /// A node says where its clients' doors are; ignored for a node that is not in the cluster.
    SetDoors {
        /// The node.
        node: NodeId,
        /// Its doors.
        doors: Doors,
    },
}

/// Bytes that no version of this program wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed topology command")]
pub struct MalformedCommand;

impl Command {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: a topology command is plain data that postcard can always encode.
    pub fn encode(&self) -> Bytes {
        postcard::to_extend(self, vec![VERSION])
            .expect("a topology command is plain data that postcard can always encode")
            .into()
    }

    /// The command in `bytes`.
    ///
    /// # Errors
    /// When `bytes` are not what [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedCommand> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| MalformedCommand),
            Some(_) | None => Err(MalformedCommand),
        }
    }
}
