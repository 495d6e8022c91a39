//! The replicated table that makes a retried packet apply once.
//!
//! Per front end (a directory, and a start of it): the replies of packets it may still ask about. A packet
//! seen again gets its old replies; one the front end has given up is never applied late. Bounded by the
//! number of nodes times the packets each may have in flight.
//!
//! Source: Raft thesis §6.3 (linearizable semantics through sessions).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::proposal::PacketId;
use super::reply::Replies;
use crate::ids::{Incarnation, Session};

/// What a packet is to this table.
#[derive(Debug)]
pub(super) enum Admission {
    /// Never seen: apply it, then [`SessionTable::record`] its replies.
    New,
    /// Applied before, with these replies.
    Duplicate(Arc<Replies>),
    /// Its front end is gone or has given it up: nobody waits, and it must not be applied.
    Stale,
}

#[derive(Debug, Default)]
struct Known {
    session: Session,
    /// Packets below are forgotten by their front end.
    floor: u64,
    /// Replies by sequence, ascending.
    replies: VecDeque<(u64, Arc<Replies>)>,
}

/// The sessions of a shard, by directory: a newer start ends the older one. A node that comes back with an empty
/// directory is another front end, and gets nothing that was meant for the one before.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    sessions: BTreeMap<Incarnation, Known>,
}

impl SessionTable {
    /// Decides what to do with packet `id`, whose front end has forgotten all below `floor`.
    pub(super) fn admit(&mut self, id: PacketId, floor: u64) -> Admission {
        let session = self.sessions.entry(id.incarnation).or_default();
        if id.session != session.session {
            // Of two copies of a directory that have counted the same number of starts, the first to come wins.
            if id.session.number <= session.session.number {
                return Admission::Stale;
            }
            *session = Known { session: id.session, ..Known::default() };
        }
        session.floor = session.floor.max(floor);
        while session.replies.front().is_some_and(|(sequence, _)| *sequence < session.floor) {
            session.replies.pop_front();
        }
        if id.sequence < session.floor {
            return Admission::Stale;
        }
        match session.replies.binary_search_by_key(&id.sequence, |(sequence, _)| *sequence) {
            Ok(found) => Admission::Duplicate(Arc::clone(&session.replies[found].1)),
            Err(_) => Admission::New,
        }
    }

    /// Remembers the replies of a packet that was admitted as new.
    pub(super) fn record(&mut self, id: PacketId, replies: Arc<Replies>) {
        let Some(session) = self.sessions.get_mut(&id.incarnation) else { return };
        if let Err(place) =
            session.replies.binary_search_by_key(&id.sequence, |(sequence, _)| *sequence)
        {
            session.replies.insert(place, (id.sequence, replies));
        }
    }

    /// Appends the table's bytes: `sessions u32`, each `incarnation u128 |
    /// session u64, u64 | floor u64 | replies u32`, each
    /// `sequence u64 | ends u32 | ends × u32 | length u64 | bytes`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.sessions.len(), out);
        for (incarnation, session) in &self.sessions {
            out.extend_from_slice(&incarnation.0.to_le_bytes());
            let Session { number, random } = session.session;
            for number in [number, random, session.floor] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            put_count(session.replies.len(), out);
            for (sequence, replies) in &session.replies {
                out.extend_from_slice(&sequence.to_le_bytes());
                replies.encode(out);
            }
        }
    }

    /// The table in `bytes`.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut table = Self::default();
        for _ in 0..take_u32(bytes)? {
            let (incarnation, tail) = bytes.split_first_chunk()?;
            *bytes = tail;
            let incarnation = Incarnation(u128::from_le_bytes(*incarnation));
            let started = Session { number: take_u64(bytes)?, random: take_u64(bytes)? };
            let mut session =
                Known { session: started, floor: take_u64(bytes)?, ..Known::default() };
            for _ in 0..take_u32(bytes)? {
                let sequence = take_u64(bytes)?;
                session.replies.push_back((sequence, Arc::new(Replies::decode(bytes)?)));
            }
            table.sessions.insert(incarnation, session);
        }
        Some(table)
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("nodes and packets in flight are few");
    out.extend_from_slice(&count.to_le_bytes());
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(u32::from_le_bytes(*head))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(u64::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64, sequence: u64) -> PacketId {
        let session = Session { number, random: number };
        PacketId { incarnation: Incarnation(1), session, sequence }
    }

    fn replies(text: &str) -> Arc<Replies> {
        let mut replies = Replies::default();
        replies.bytes.extend_from_slice(text.as_bytes());
        replies.end();
        Arc::new(replies)
    }

    #[test]
    fn a_retried_packet_gets_its_old_replies() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 5), 5), Admission::New));
        table.record(id(1, 5), replies(":1\r\n"));
        match table.admit(id(1, 5), 5) {
            Admission::Duplicate(old) => assert_eq!(old.bytes, b":1\r\n"),
            other @ (Admission::New | Admission::Stale) => panic!("{other:?}"),
        }
    }

    #[test]
    fn packets_may_arrive_out_of_order() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 6), 5), Admission::New));
        table.record(id(1, 6), replies("b"));
        assert!(matches!(table.admit(id(1, 5), 5), Admission::New));
        table.record(id(1, 5), replies("a"));
        assert!(matches!(table.admit(id(1, 5), 5), Admission::Duplicate(_)));
        assert!(matches!(table.admit(id(1, 6), 5), Admission::Duplicate(_)));
    }

    #[test]
    fn a_packet_given_up_is_never_applied_late() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 9), 8), Admission::New));
        assert!(matches!(table.admit(id(1, 7), 3), Admission::Stale));
    }

    #[test]
    fn a_restarted_front_end_ends_its_older_session() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 5), 1), Admission::New));
        table.record(id(1, 5), replies("old"));
        assert!(matches!(table.admit(id(2, 5), 1), Admission::New));
        assert!(matches!(table.admit(id(1, 6), 1), Admission::Stale));
    }

    /// faults.md R1: a node whose directory was emptied was given the reply that its name had once been given.
    #[test]
    fn an_emptied_directory_gets_nothing_that_was_meant_for_the_one_before() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 1), 1), Admission::New));
        table.record(id(1, 1), replies("of another client"));
        let emptied = PacketId { incarnation: Incarnation(2), ..id(1, 1) };
        assert!(matches!(table.admit(emptied, 1), Admission::New));
        // Nor does a copy of the directory, which has counted as many starts.
        let mut copied = id(1, 1);
        copied.session.random = 99;
        assert!(matches!(table.admit(copied, 1), Admission::Stale));
    }

    #[test]
    fn the_floor_drops_replies() {
        let mut table = SessionTable::default();
        for sequence in 1..=4 {
            assert!(matches!(table.admit(id(1, sequence), sequence), Admission::New));
            table.record(id(1, sequence), replies("x"));
        }
        assert_eq!(table.sessions[&Incarnation(1)].replies.len(), 1);
    }

    #[test]
    fn the_table_survives_a_snapshot() {
        let mut table = SessionTable::default();
        table.admit(id(3, 5), 4);
        table.record(id(3, 5), replies("+OK\r\n"));
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let mut back = SessionTable::decode(&mut bytes.as_slice()).unwrap();
        assert!(matches!(back.admit(id(3, 5), 4), Admission::Duplicate(_)));
        for length in 0..bytes.len() {
            assert!(SessionTable::decode(&mut &bytes[..length]).is_none());
        }
    }
}
