//! The replicated table that makes a retried packet apply once.
//!
//! Per front end (a directory, and a start of it): the replies of packets it may still ask about. A packet
//! seen again gets its old replies; one the front end has given up is never applied late.
//!
//! **Bounds.** A front end says with each packet what it has received, and with an empty one when it has no other to send;
//! it sends nothing new while much is unconfirmed (`limits::UNCONFIRMED_BYTES_MAX`). So what is kept are replies on their way.
//! A session that was silent for an hour of the shard's time lost its front end, or has none for it: its replies go. It may
//! begin again where it was, for what it had sent is given up with them. A session that meta knows as ended is closed by an
//! entry of the log: nothing of it is applied from then on, and an hour later it is forgotten. A packet of it cannot come
//! after that: its front end keeps one for `REQUEST_DEADLINE`, and is refused at the doors of those who know what meta knows.
//!
//! Source: Raft thesis §6.3 (linearizable semantics through sessions).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::limits::SESSION_SILENCE_MAX;
use super::proposal::PacketId;
use super::reply::Replies;
use crate::ids::{Incarnation, Session};
use crate::stdx::clock::UnixMillis;
use crate::stdx::planted::{Bug, is_planted};

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

/// What the table remembers of one directory.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) session: Session,
    /// Packets below are forgotten by their front end.
    pub(super) floor: u64,
    /// The stamp of its last packet.
    pub(super) heard: UnixMillis,
    pub(super) closed: Option<Closed>,
    /// Replies by sequence, ascending. They say which submissions of the packet are done: until submissions can be held
    /// back, all.
    pub(super) replies: VecDeque<(u64, Arc<Replies>)>,
}

/// That sessions of a directory have ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The number of the last of them.
    pub(super) upto: u64,
    /// The stamp of the entry that said so.
    pub(super) at: UnixMillis,
}

/// How large a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionsSize {
    /// Front ends it knows, closed ones included.
    pub sessions: usize,
    /// Packets whose replies it keeps.
    pub packets: usize,
    /// Bytes of these replies.
    pub bytes: usize,
}

/// The sessions of a shard, by directory: a newer start ends the older one. A node that comes back with an empty
/// directory is another front end, and gets nothing that was meant for the one before.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    sessions: BTreeMap<Incarnation, Known>,
    /// No session changes by time alone before this. Not replicated: it only saves looks.
    look_at: UnixMillis,
}

impl Known {
    /// Whether nothing of `session` is applied any more. Of two copies of a directory that have counted the same number of
    /// starts, the first to come wins.
    fn has_ended(&self, session: Session) -> bool {
        self.closed.is_some_and(|closed| session.number <= closed.upto)
            || (session != self.session && session.number <= self.session.number)
    }

    /// Drops the replies and gives up whatever was sent.
    fn forget(&mut self) {
        if let Some((last, _)) = self.replies.back() {
            self.floor = self.floor.max(last + 1);
        }
        self.replies = VecDeque::new();
    }
}

impl SessionTable {
    /// Decides what to do with packet `id`, applied at `now`, whose front end has forgotten all below `floor`.
    pub(super) fn admit(&mut self, id: PacketId, floor: u64, now: UnixMillis) -> Admission {
        let known = self.sessions.entry(id.incarnation).or_default();
        if known.has_ended(id.session) {
            return Admission::Stale;
        }
        if id.session != known.session {
            *known = Known { session: id.session, ..Known::default() };
        }
        known.heard = now;
        known.floor = known.floor.max(floor);
        while known.replies.front().is_some_and(|(sequence, _)| *sequence < known.floor) {
            known.replies.pop_front();
        }
        if id.sequence < known.floor && !is_planted(Bug::FloorIgnored) {
            return Admission::Stale;
        }
        match known.replies.binary_search_by_key(&id.sequence, |(sequence, _)| *sequence) {
            Ok(_) if is_planted(Bug::DuplicateApplied) => Admission::New,
            Ok(found) => Admission::Duplicate(Arc::clone(&known.replies[found].1)),
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

    /// Ends the sessions of `incarnation` up to the number `upto`.
    pub(super) fn close(&mut self, incarnation: Incarnation, upto: u64, now: UnixMillis) {
        let Some(known) = self.sessions.get_mut(&incarnation) else { return };
        let is_news = known.closed.is_none_or(|closed| closed.upto < upto);
        if known.session.number <= upto && is_news {
            known.forget();
            known.closed = Some(Closed { upto, at: now });
        }
    }

    /// Does what an hour of the shard's time does: to be called before an entry stamped `now` is applied.
    pub(super) fn pass_time(&mut self, now: UnixMillis) {
        if now < self.look_at {
            return;
        }
        let silence = u64::try_from(SESSION_SILENCE_MAX.as_millis()).unwrap_or(u64::MAX);
        let mut look_at = UnixMillis(now.0.saturating_add(silence));
        self.sessions.retain(|_, known| {
            let since = known.closed.map_or(known.heard, |closed| closed.at);
            let due = UnixMillis(since.0.saturating_add(silence));
            if due > now {
                look_at = look_at.min(due);
                return true;
            }
            known.forget();
            known.closed.is_none()
        });
        self.look_at = look_at;
    }

    /// The sessions that have not ended, as far as this table knows.
    pub(super) fn open(&self) -> impl Iterator<Item = (Incarnation, Session)> + '_ {
        let open = self.sessions.iter().filter(|(_, known)| !known.has_ended(known.session));
        open.map(|(incarnation, known)| (*incarnation, known.session))
    }

    pub(super) fn sessions(&self) -> &BTreeMap<Incarnation, Known> {
        &self.sessions
    }

    /// Puts back what a snapshot has of `incarnation`.
    pub(super) fn restore(&mut self, incarnation: Incarnation, known: Known) {
        self.sessions.insert(incarnation, known);
    }

    /// How large it is.
    pub(super) fn size(&self) -> SessionsSize {
        let mut size = SessionsSize { sessions: self.sessions.len(), ..SessionsSize::default() };
        for (_, replies) in self.sessions.values().flat_map(|known| &known.replies) {
            size.packets += 1;
            size.bytes += replies.bytes.len();
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::stdx::golden::{check, number};

    const HOUR: u64 = 3_600_000;
    const NOW: UnixMillis = UnixMillis(1000);

    fn id(number: u64, sequence: u64) -> PacketId {
        let session = Session { number, random: number };
        PacketId { incarnation: Incarnation(1), session, sequence }
    }

    fn replies(text: &str) -> Arc<Replies> {
        Arc::new(Replies::of(&[&[text]]))
    }

    #[test]
    fn a_retried_packet_gets_its_old_replies() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 5), 5, NOW), Admission::New));
        table.record(id(1, 5), replies(":1\r\n"));
        match table.admit(id(1, 5), 5, NOW) {
            Admission::Duplicate(old) => assert_eq!(old.bytes.to_vec(), b":1\r\n"),
            other @ (Admission::New | Admission::Stale) => panic!("{other:?}"),
        }
    }

    #[test]
    fn packets_may_arrive_out_of_order() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 6), 5, NOW), Admission::New));
        table.record(id(1, 6), replies("b"));
        assert!(matches!(table.admit(id(1, 5), 5, NOW), Admission::New));
        table.record(id(1, 5), replies("a"));
        assert!(matches!(table.admit(id(1, 5), 5, NOW), Admission::Duplicate(_)));
        assert!(matches!(table.admit(id(1, 6), 5, NOW), Admission::Duplicate(_)));
    }

    #[test]
    fn a_packet_given_up_is_never_applied_late() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 9), 8, NOW), Admission::New));
        assert!(matches!(table.admit(id(1, 7), 3, NOW), Admission::Stale));
    }

    #[test]
    fn a_restarted_front_end_ends_its_older_session() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 5), 1, NOW), Admission::New));
        table.record(id(1, 5), replies("old"));
        assert!(matches!(table.admit(id(2, 5), 1, NOW), Admission::New));
        assert!(matches!(table.admit(id(1, 6), 1, NOW), Admission::Stale));
    }

    /// faults.md R1: a node whose directory was emptied was given the reply that its name had once been given.
    #[test]
    fn an_emptied_directory_gets_nothing_that_was_meant_for_the_one_before() {
        let mut table = SessionTable::default();
        assert!(matches!(table.admit(id(1, 1), 1, NOW), Admission::New));
        table.record(id(1, 1), replies("of another client"));
        let emptied = PacketId { incarnation: Incarnation(2), ..id(1, 1) };
        assert!(matches!(table.admit(emptied, 1, NOW), Admission::New));
        // Nor does a copy of the directory, which has counted as many starts.
        let mut copied = id(1, 1);
        copied.session.random = 99;
        assert!(matches!(table.admit(copied, 1, NOW), Admission::Stale));
    }

    #[test]
    fn the_floor_drops_replies() {
        let mut table = SessionTable::default();
        for sequence in 1..=4 {
            assert!(matches!(table.admit(id(1, sequence), sequence, NOW), Admission::New));
            table.record(id(1, sequence), replies("x"));
        }
        assert_eq!(table.sessions[&Incarnation(1)].replies.len(), 1);
    }

    /// A table with replies to packets 5 and 7 of one front end, last heard at 1000.
    fn table_of_two() -> SessionTable {
        let mut table = SessionTable::default();
        for sequence in [5, 7] {
            assert!(matches!(table.admit(id(1, sequence), 5, NOW), Admission::New));
            table.record(id(1, sequence), replies("kept"));
        }
        table
    }

    /// faults.md R17: the replies of a front end that fell silent stayed for ever.
    #[test]
    fn an_hour_of_silence_drops_the_replies_and_gives_up_what_was_sent() {
        let mut table = table_of_two();
        table.pass_time(UnixMillis(1000 + HOUR - 1));
        assert_eq!(table.size(), SessionsSize { sessions: 1, packets: 2, bytes: 8 });
        let now = UnixMillis(1000 + HOUR);
        table.pass_time(now);
        assert_eq!(table.size(), SessionsSize { sessions: 1, packets: 0, bytes: 0 });
        for sequence in 5..=7 {
            assert!(matches!(table.admit(id(1, sequence), 5, now), Admission::Stale), "{sequence}");
        }
        assert!(matches!(table.admit(id(1, 8), 5, now), Admission::New), "it may begin again");
        assert_eq!(table.open().count(), 1);
    }

    #[test]
    fn a_sign_of_life_keeps_a_session() {
        let mut table = table_of_two();
        table.pass_time(NOW);
        assert!(matches!(table.admit(id(1, 8), 5, UnixMillis(2000)), Admission::New));
        table.pass_time(UnixMillis(1000 + HOUR));
        assert!(matches!(
            table.admit(id(1, 7), 5, UnixMillis(1000 + HOUR)),
            Admission::Duplicate(_)
        ));
    }

    #[test]
    fn a_closed_session_is_stale_and_forgotten_an_hour_later() {
        let mut table = table_of_two();
        table.close(Incarnation(1), 0, UnixMillis(2000));
        assert_eq!(table.size().packets, 2, "that was an older one");
        table.close(Incarnation(1), 1, UnixMillis(2000));
        assert_eq!(table.size(), SessionsSize { sessions: 1, packets: 0, bytes: 0 });
        assert_eq!(table.open().count(), 0);
        assert!(matches!(table.admit(id(1, 9), 5, UnixMillis(2001)), Admission::Stale));
        table.close(Incarnation(1), 1, UnixMillis(3000));
        table.pass_time(UnixMillis(2000 + HOUR - 1));
        assert_eq!(table.size().sessions, 1);
        table.pass_time(UnixMillis(2000 + HOUR));
        assert_eq!(table.size(), SessionsSize::default());
    }

    #[test]
    fn a_newer_start_of_a_closed_directory_is_admitted_unless_all_have_ended() {
        let mut table = table_of_two();
        table.close(Incarnation(1), 1, UnixMillis(2000));
        assert!(matches!(table.admit(id(2, 1), 1, UnixMillis(2000)), Admission::New));
        assert_eq!(table.open().count(), 1);
        table.close(Incarnation(1), u64::MAX, UnixMillis(2000));
        assert!(matches!(table.admit(id(3, 1), 1, UnixMillis(2000)), Admission::Stale));
        table.close(Incarnation(9), u64::MAX, UnixMillis(2000));
        assert_eq!(table.size().sessions, 1, "nothing is noted of who was never heard");
    }

    /// Whatever a replica remembers of its looks, the same entries have the same effect.
    #[test]
    fn a_restored_table_changes_by_time_at_the_same_entry() {
        for started in [0, 500, 1000 + HOUR / 2] {
            let mut table = table_of_two();
            table.look_at = UnixMillis(started);
            table.pass_time(UnixMillis(1000 + HOUR / 2));
            assert_eq!(table.size().packets, 2);
            table.pass_time(UnixMillis(1000 + HOUR));
            assert_eq!(table.size().packets, 0);
        }
    }

    /// A table, and the stamp of the entry that is applied to it.
    struct Play {
        table: SessionTable,
        now: UnixMillis,
    }

    /// The directory of a letter.
    fn directory(letter: &str) -> Incarnation {
        Incarnation(u128::from(letter.as_bytes()[0]))
    }

    impl Play {
        fn packet(&mut self, from: &str, sequence: &str, floor: &str) -> String {
            let (letter, start) = from.split_at(1);
            let session = Session { number: number(start), random: number(start) };
            let sequence = number(sequence);
            let id = PacketId { incarnation: directory(letter), session, sequence };
            match self.table.admit(id, number(floor), self.now) {
                Admission::New => {
                    self.table.record(id, replies(&format!("reply to {from} {sequence}")));
                    "new".to_owned()
                }
                Admission::Duplicate(old) => String::from_utf8(old.bytes.to_vec()).unwrap(),
                Admission::Stale => "stale".to_owned(),
            }
        }

        fn told(&self) -> String {
            let mut lines = String::new();
            for (incarnation, known) in self.table.sessions() {
                let Known { session, floor, heard, closed, replies } = known;
                let (letter, start) = (char::from(incarnation.0.to_le_bytes()[0]), session.number);
                write!(lines, "{letter}{start} heard {} floor {floor}", heard.0).unwrap();
                let kept = replies.iter().map(|(sequence, _)| format!(" {sequence}"));
                write!(lines, ", replies to{}", kept.collect::<String>()).unwrap();
                if let Some(Closed { upto, at }) = closed {
                    write!(lines, ", closed up to {upto} at {}", at.0).unwrap();
                }
                lines.push('\n');
            }
            if lines.is_empty() { "empty".to_owned() } else { lines }
        }

        fn answer(&mut self, words: &[&str]) -> String {
            match *words {
                ["begin"] => *self = Self { table: SessionTable::default(), now: UnixMillis(0) },
                ["at", stamp] => {
                    self.now = UnixMillis(number(stamp));
                    self.table.pass_time(self.now);
                }
                ["packet", from, sequence, "floor", floor] => {
                    return self.packet(from, sequence, floor);
                }
                ["close", letter, upto] => {
                    self.table.close(directory(letter), number(upto), self.now);
                }
                ["table"] => return self.told(),
                _ => panic!("no such command: {words:?}"),
            }
            String::new()
        }
    }

    #[test]
    fn packets_are_admitted_as_the_script_says() {
        let mut play = Play { table: SessionTable::default(), now: UnixMillis(0) };
        check("shard/sessions.txt", |words| play.answer(words));
    }
}
