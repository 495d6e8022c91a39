//! The replicated state of one shard, and how much that is.

use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::session::{SessionTable, SessionsSize};
use super::session_snapshot::{Stream, TableWriter, malformed};
use crate::ids::DbIndex;
use crate::keyspace::{DecodeError, Keyspace, Loader};
use crate::raft::SnapshotTicket;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;

/// Version of the head of a snapshot: `version u8 | now u64 (Unix ms) | history u64 | index u64 | session table`, then the
/// keyspace's stream.
pub(super) const SNAPSHOT_HEAD_VERSION: u8 = 4;

/// The replicated state of one shard.
#[derive(Debug)]
pub(super) struct State {
    pub(super) keyspace: Keyspace,
    pub(super) sessions: SessionTable,
    /// The latest stamp applied: time never goes back, whoever leads.
    pub(super) now: UnixMillis,
    /// Hash over all entries applied and all replies given; equal on replicas at an equal index.
    pub(super) history: u64,
    /// Index of the last applied entry that carried a proposal.
    pub(super) index: u64,
    /// The snapshot being taken of this state. It goes with the state: who takes it learns that it is gone.
    pub(super) snapshot: Option<BegunSnapshot>,
    /// Whose digest is being found out. A snapshot that begins takes its place.
    pub(super) digest: Option<SnapshotTicket>,
    /// Nobody is to read it: an entry is applied in part, which no other sees unless its rest is never run; or the replica
    /// that it belonged to has ended.
    pub(super) is_unfit: bool,
}

/// A snapshot being taken.
#[derive(Debug)]
pub(super) struct BegunSnapshot {
    pub(super) ticket: SnapshotTicket,
    /// What of its head is yet to be written.
    pub(super) head: TableWriter,
}

impl State {
    pub(super) fn new(slots: RangeInclusive<u16>, hash_key: HashKey) -> Self {
        Self {
            keyspace: Keyspace::new(slots, hash_key),
            sessions: SessionTable::default(),
            now: UnixMillis(0),
            history: 0,
            index: 0,
            snapshot: None,
            digest: None,
            is_unfit: false,
        }
    }
}

/// Loads what a snapshot holds, its head first, into `state`, which is empty.
///
/// # Errors
/// When a chunk cannot be read or the stream is not one that a snapshot of this version holds.
pub(super) fn load(
    chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
    mut state: State,
) -> io::Result<State> {
    let mut stream = Stream::new(chunks);
    if stream.take()? != [SNAPSHOT_HEAD_VERSION] {
        return Err(malformed("is of another version"));
    }
    state.now = UnixMillis(stream.take_u64()?);
    state.history = stream.take_u64()?;
    state.index = stream.take_u64()?;
    state.sessions = stream.take_table()?;
    let (first, chunks) = stream.into_rest();
    let mut loader = Loader::default();
    let damaged = |error: DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
    loader.load(&mut state.keyspace, &first).map_err(damaged)?;
    for chunk in chunks {
        loader.load(&mut state.keyspace, &chunk?).map_err(damaged)?;
    }
    loader.finish().map_err(damaged)?;
    Ok(state)
}

/// How much a replica holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// What it keeps for retries of front ends.
    pub sessions: SessionsSize,
    /// Keys by database, expired ones not yet purged included.
    pub keys: [KeyCounts; DbIndex::COUNT as usize],
}

/// Keys of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// All of them.
    pub keys: usize,
    /// Those with a deadline.
    pub expires: usize,
}

impl Gauges {
    pub(super) fn of(state: &State) -> Self {
        let mut keys = [KeyCounts::default(); DbIndex::COUNT as usize];
        for (db, counts) in (0..).map(DbIndex).zip(&mut keys) {
            let keyspace = &state.keyspace;
            *counts = KeyCounts { keys: keyspace.len(db), expires: keyspace.expires_len(db) };
        }
        Self { sessions: state.sessions.size(), keys }
    }

    /// Keys of all databases.
    pub fn len(&self) -> usize {
        self.keys.iter().map(|counts| counts.keys).sum()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
