//! The shard's time: one source, on every node, for stamps, reads, purges and what is said of deadlines.
//!
//! A TTL is a promise about real time: a lock must not be handed to a second holder early because some node's wall clock
//! stepped, or because the new leader's clock is an hour ahead of the old one's. So nobody asks a wall clock what time it
//! is. The leader's time goes on by its monotonic clock and nears its wall clock by at most 1 % of the time passed (the
//! drift that Redlock assumes), as long as a majority follows it. It travels with every message of the leader
//! (`raft::Timekeeper`), and followers keep to it: a message may be late but never early, so of one leader a later time
//! than one's own is taken at once, an earlier one approached slowly; a new leader's is taken as it is. Whoever becomes
//! leader goes on with what the last word said, among it and its voters: every quorum has heard it.
//!
//! **A node that was restarted knows no time** until a leader or, as candidate, a voter has told it. Only where nobody whom a
//! candidate can ask knows any, the wall clocks of those asked decide; the time that all were down has really passed. That
//! is the shard's time if the candidate comes to lead, and else forgotten.
//!
//! **Time never goes back**, from read to write to read, nor from one leader to the next.
//! - A read is given the time at which the leader was known to lead, or earlier, and no later one than the oldest stamp
//!   that is proposed and not applied ([`Stamps`]): what applies after the read is stamped later than it.
//! - The next leader's time is at least that, however late messages were. A read at R rests on a message sent at s, by the
//!   leader's own time, at which a majority was heard: R ≤ s + 425 ms. One of them votes for the next leader, 500 ms at
//!   the earliest after a message of s or later came, and its clock then says s + 500 ms at least, for it was set to s when
//!   that came. Of all words asked for the last counts, so the next leader goes by this one or a later one. Who is handed the
//!   lead was told so by a message that took as long as those that brought the time, after the last read.
//!
//! How late it may be is another matter: where the only word of a leader that somebody heard was late by a second, because
//! that process stood still, and the leader is gone, its successor is behind by that second, and locks live so much longer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::raft::{Estimate, Timekeeper, Word};
use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use crate::stdx::latest::Latest;
use crate::stdx::planted::{Bug, is_planted};

/// How much faster or slower than the monotonic clock a leader's time may run to near its wall clock, in µs per second.
const LEADER_SLEW: i64 = 10_000;

/// How much slower a follower's may, where its leader's is behind. More than the leader's, or it would never get there.
const FOLLOWER_SLEW: i64 = 20_000;

/// For how long a rate holds that is not renewed, in µs; the time in which a smaller difference is made good.
const PERIOD_US: i64 = 1_000_000;

/// A leader's time earlier than one's own by less than this, in µs, is the way of the message.
const WAY_US: i64 = 1_000;

/// What is known of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Knowledge {
    /// Nothing.
    #[default]
    None,
    /// What a candidate and its voters made of their wall clocks.
    Agreed,
    /// What a leader goes by, and its last word.
    Known(Word),
}

/// From `at` on the time is `base` and runs at `rate` against the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// µs since the Unix epoch.
    base: i64,
    /// By the monotonic clock, in µs.
    at: i64,
    /// µs per second, for one [`PERIOD_US`].
    rate: i64,
    knowledge: Knowledge,
}

impl Course {
    fn of([base, at, rate, knowledge, term, said]: [i64; 6]) -> Self {
        let knowledge = match knowledge {
            0 => Knowledge::None,
            1 => Knowledge::Agreed,
            _ => Knowledge::Known(Word { term: unsigned(term), micros: unsigned(said) }),
        };
        Self { base, at, rate, knowledge }
    }

    fn words(self) -> [i64; 6] {
        let Self { base, at, rate, knowledge } = self;
        match knowledge {
            Knowledge::None => [base, at, rate, 0, 0, 0],
            Knowledge::Agreed => [base, at, rate, 1, 0, 0],
            Knowledge::Known(word) => [base, at, rate, 2, signed(word.term), signed(word.micros)],
        }
    }

    /// The time at `at`, which may be before the course began: then as if it had run at no rate.
    fn time(self, at: i64) -> i64 {
        let passed = at.saturating_sub(self.at);
        let slewed = passed.clamp(0, PERIOD_US) * self.rate / PERIOD_US;
        self.base.saturating_add(passed).saturating_add(slewed)
    }

    /// The same time at `at`, and from there on at another rate.
    fn bent(self, at: i64, rate: i64) -> Self {
        Self { base: self.time(at), at, rate, ..self }
    }

    /// Another time at `at`.
    fn set(self, time: i64, at: i64) -> Self {
        Self { base: time, at, rate: 0, ..self }
    }

    fn is_known(self) -> bool {
        matches!(self.knowledge, Knowledge::Known(_))
    }

    /// The term of the last word.
    fn term(self) -> u64 {
        match self.knowledge {
            Knowledge::Known(word) => word.term,
            Knowledge::None | Knowledge::Agreed => 0,
        }
    }
}

/// One shard's time on one node.
pub(super) struct ShardTime {
    clock: Arc<dyn Clock>,
    course: Latest<6>,
    /// The latest stamp applied here, in ms since the Unix epoch: no time is earlier.
    applied: AtomicU64,
    stamps: Stamps,
}

impl fmt::Debug for ShardTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl ShardTime {
    /// A time that is not known yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let course = Latest::new(Course::default().words());
        Self { clock, course, applied: AtomicU64::new(0), stamps: Stamps::default() }
    }

    /// Forgets it all: the replica has ended, and the next one here may be of a group that has lost some.
    pub(super) fn forget(&self) {
        self.change(|_, _| Course::default());
        self.applied.store(0, Ordering::Relaxed);
    }

    /// Whether it is the shard's: heard from a leader or told by a voter who had, or this node leads with it.
    pub(super) fn is_known(&self) -> bool {
        self.course().is_known()
    }

    /// The time now; long ago while it is not known.
    pub(super) fn now(&self) -> UnixMillis {
        self.at(self.clock.monotonic())
    }

    /// The time at `clock`; long ago while it is not known.
    #[inline]
    pub(super) fn at(&self, clock: MonotonicMicros) -> UnixMillis {
        let course = self.course();
        let time = if course.is_known() { course.time(signed(clock.0)) } else { 0 };
        UnixMillis(unsigned(time / 1000))
    }

    /// The latest time that a read may be given whose right was vouched for at `clock` or later: no later than any stamp
    /// on its way.
    #[inline]
    pub(super) fn for_read(&self, clock: MonotonicMicros) -> UnixMillis {
        if is_planted(Bug::ReadByWall) {
            return self.clock.now();
        }
        if is_planted(Bug::ReadAheadOfStamps) {
            return self.at(clock);
        }
        self.at(clock).min(self.stamps.oldest())
    }

    /// The stamp of an entry that this node, leading, is about to propose. On its way until [`Self::settle`].
    pub(super) fn stamp(&self) -> UnixMillis {
        self.lead();
        self.stamps.issue(self)
    }

    /// The entry stamped `stamp` is applied here, or will not be by this leadership.
    pub(super) fn settle(&self, stamp: UnixMillis) {
        self.stamps.settle(stamp);
    }

    /// The clock that [`Self::at`] goes by.
    pub(super) fn monotonic(&self) -> MonotonicMicros {
        self.clock.monotonic()
    }

    /// This node leads: what it stood for election with is the shard's time.
    pub(super) fn lead(&self) {
        if !self.is_known() {
            self.change(|course, at| self.led(course, at));
        }
    }

    /// Notes that an entry stamped `stamp` is applied: it is no earlier now. Looks again at every call, since what is known
    /// of the time may have changed.
    pub(super) fn pass(&self, stamp: UnixMillis) {
        self.applied.fetch_max(stamp.0, Ordering::Relaxed);
        let applied = self.applied();
        let is_behind = |course: Course, at| course.is_known() && course.time(at) < applied;
        if is_behind(self.course(), self.monotonic_us()) {
            self.change(
                |course, at| {
                    if is_behind(course, at) { course.set(applied, at) } else { course }
                },
            );
        }
    }

    /// Nears the wall clock, as a leader does that a majority follows; to be called again within a second.
    pub(super) fn steer(&self) {
        self.change(|course, at| {
            let drift = micros(self.clock.now()).saturating_sub(course.time(at));
            if course.is_known() {
                course.bent(at, drift.clamp(-LEADER_SLEW, LEADER_SLEW))
            } else {
                course
            }
        });
    }

    fn course(&self) -> Course {
        Course::of(self.course.read())
    }

    /// Puts what `change` makes of the course at this moment in its place.
    fn change(&self, change: impl FnOnce(Course, i64) -> Course) {
        // The clock is read under the lock, so that no course begins before the one it follows.
        self.course.update(|words| {
            let course = Course::of(words);
            let at = self.monotonic_us().max(course.at);
            change(course, at).words()
        });
    }

    fn monotonic_us(&self) -> i64 {
        signed(self.clock.monotonic().0)
    }

    /// In µs.
    fn applied(&self) -> i64 {
        micros(UnixMillis(self.applied.load(Ordering::Relaxed)))
    }

    /// What the wall clock makes of it, where nobody knows better.
    fn guess(&self) -> i64 {
        micros(self.clock.now()).max(self.applied())
    }

    /// The course of a leader's time, known from now on.
    fn led(&self, course: Course, at: i64) -> Course {
        let time = match course.knowledge {
            Knowledge::Known(_) => return course,
            Knowledge::Agreed => course.time(at).max(self.applied()),
            // Without a candidacy leads who founds a group: there was no time before.
            Knowledge::None => self.guess(),
        };
        let word = Word { term: 0, micros: unsigned(time) };
        Course { knowledge: Knowledge::Known(word), ..course.set(time, at) }
    }
}

impl Timekeeper for ShardTime {
    fn estimate(&self) -> Estimate {
        let course = self.course();
        match course.knowledge {
            Knowledge::Known(word) => {
                Estimate { micros: unsigned(course.time(self.monotonic_us())), word: Some(word) }
            }
            Knowledge::None | Knowledge::Agreed => {
                Estimate { micros: unsigned(self.guess()), word: None }
            }
        }
    }

    fn hear(&self, word: Word) {
        self.change(|course, at| {
            // Overtaken by a later leader's, or by a later one of its own.
            let word = match course.knowledge {
                Knowledge::Known(last) if last.term > word.term => return course,
                Knowledge::Known(last) if last.term == word.term => word.max(last),
                Knowledge::Known(_) | Knowledge::Agreed | Knowledge::None => word,
            };
            let heard = signed(word.micros);
            let behind = course.time(at).saturating_sub(heard);
            let course = if !course.is_known() || word.term > course.term() {
                course.set(heard.max(self.applied()), at)
            } else if behind < 0 {
                course.set(heard, at)
            } else if behind < WAY_US {
                course.bent(at, 0)
            } else {
                course.bent(at, -behind.min(FOLLOWER_SLEW))
            };
            Course { knowledge: Knowledge::Known(word), ..course }
        });
    }

    fn tell(&self, term: u64) -> u64 {
        let mut told = 0;
        self.change(|course, at| {
            let course = self.led(course, at);
            told = unsigned(course.time(at));
            // Its own word counts as any leader's, unless it was deposed meanwhile.
            let word = Word { term: term.max(course.term()), micros: told };
            if term >= course.term() {
                Course { knowledge: Knowledge::Known(word), ..course }
            } else {
                course
            }
        });
        told
    }

    fn agree(&self, voters: &[Estimate]) {
        if is_planted(Bug::LeadByWall) {
            let time = self.guess();
            let agreed = |course: Course, at| course.set(time, at);
            self.change(|it, at| Course { knowledge: Knowledge::Agreed, ..agreed(it, at) });
            return;
        }
        let own = self.estimate();
        let all = || voters.iter().chain([&own]);
        // A lease rests on a quorum, and so does this candidacy: somebody here heard the last word that backs one.
        let latest = all().filter_map(|it| Some((it.word?, it.micros))).max();
        let mut guesses: SmallVec<[i64; 8]> = all().map(|it| signed(it.micros)).collect();
        guesses.sort_unstable();
        // The middle one, or of two the earlier: a lock that lives too long harms less than one that dies early.
        let middle = guesses[(guesses.len() - 1) / 2];
        self.change(|course, at| match latest {
            // It is this node's.
            Some((word, _)) if course.knowledge == Knowledge::Known(word) => course,
            Some((word, time)) => {
                let time = signed(time).max(self.applied());
                Course { knowledge: Knowledge::Known(word), ..course.set(time, at) }
            }
            None if course.is_known() => course,
            None => {
                let time = middle.max(self.applied());
                Course { knowledge: Knowledge::Agreed, ..course.set(time, at) }
            }
        });
    }
}

/// The stamps of entries that are proposed and not applied.
#[derive(Debug)]
struct Stamps {
    pending: Mutex<SmallVec<[UnixMillis; 8]>>,
    /// None of them is earlier; `u64::MAX` while there are none.
    oldest: AtomicU64,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { pending: Mutex::default(), oldest: AtomicU64::new(u64::MAX) }
    }
}

impl Stamps {
    /// The stamp of a new entry, pending from now on.
    fn issue(&self, time: &ShardTime) -> UnixMillis {
        let mut pending = self.pending.lock();
        if pending.is_empty() {
            // Before the clock is read: whoever does not see this has read its clock before.
            self.oldest.store(time.now().0, Ordering::SeqCst);
        }
        let stamp = time.now();
        // Earlier than those before it where this node has heard of an earlier time meanwhile.
        self.oldest.fetch_min(stamp.0, Ordering::SeqCst);
        pending.push(stamp);
        stamp
    }

    /// The entry stamped `stamp` is applied here, or will not be by this leadership.
    fn settle(&self, stamp: UnixMillis) {
        let mut pending = self.pending.lock();
        if let Some(at) = pending.iter().position(|it| *it == stamp) {
            pending.remove(at);
        }
        let oldest = pending.iter().min().map_or(u64::MAX, |oldest| oldest.0);
        self.oldest.store(oldest, Ordering::SeqCst);
    }

    /// No entry that is yet to be applied is stamped earlier. To be asked after the clock that a read goes by was read.
    #[inline]
    fn oldest(&self) -> UnixMillis {
        UnixMillis(self.oldest.load(Ordering::SeqCst))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn micros(time: UnixMillis) -> i64 {
    signed(time.0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::stdx::clock::ManualClock;
    use crate::stdx::golden::{check, number};

    const NOON: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR_MS: u64 = 3_600_000;

    fn node(wall_ms: u64) -> (Arc<ManualClock>, ShardTime) {
        let clock = Arc::new(ManualClock::at(UnixMillis(wall_ms)));
        let time = ShardTime::new(Arc::clone(&clock) as Arc<dyn Clock>);
        (clock, time)
    }

    fn leader(wall_ms: u64) -> (Arc<ManualClock>, ShardTime) {
        let (clock, time) = node(wall_ms);
        time.agree(&[]);
        time.lead();
        (clock, time)
    }

    fn guess(ms: u64) -> Estimate {
        Estimate { micros: ms * 1000, word: None }
    }

    fn word(term: u64, ms: u64) -> Word {
        Word { term, micros: ms * 1000 }
    }

    /// It is `ms` by a word of `term`, said when it was `said`.
    fn known(ms: u64, term: u64, said: u64) -> Estimate {
        Estimate { micros: ms * 1000, word: Some(word(term, said)) }
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_the_time_by_at_most_one_percent() {
        let (clock, time) = leader(NOON.0);
        for stepped in [NOON.0 + HOUR_MS, NOON.0 - HOUR_MS] {
            let before = time.now();
            clock.set_wall(UnixMillis(stepped));
            let mut last = before;
            for _ in 0..1000 {
                clock.advance(Duration::from_millis(10));
                time.steer();
                assert!(time.now() >= last, "it never goes back");
                last = time.now();
            }
            let passed = last.since(before);
            assert!((9_900..=10_100).contains(&passed), "10 s passed, and {passed} ms of its time");
        }
    }

    #[test]
    fn a_small_difference_from_the_wall_clock_is_made_good() {
        let (clock, time) = leader(NOON.0);
        clock.set_wall(UnixMillis(NOON.0 + 20));
        for _ in 0..100 {
            clock.advance(Duration::from_millis(100));
            time.steer();
        }
        assert!(time.now().0.abs_diff(NOON.0 + 10_020) <= 1, "{:?}", time.now());
    }

    #[test]
    fn a_rate_that_nobody_renews_ends() {
        let (clock, time) = leader(NOON.0);
        clock.set_wall(UnixMillis(NOON.0 + HOUR_MS));
        time.steer();
        clock.advance(Duration::from_mins(1));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 60_010));
    }

    /// faults.md T1, T2: it took its wall clock for the time, or the last stamp in its log.
    #[test]
    fn a_restarted_node_goes_on_with_the_time_it_hears() {
        let (clock, time) = node(NOON.0 + HOUR_MS);
        time.pass(UnixMillis(NOON.0 - 5000));
        assert!(!time.is_known());
        time.hear(word(3, NOON.0));
        clock.advance(Duration::from_secs(2));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 2000));
        time.steer();
        assert_eq!(time.now(), UnixMillis(NOON.0 + 2000));
    }

    #[test]
    fn a_candidate_that_has_heard_nothing_asks_its_voters() {
        let begin = |wall: u64, voters: &[Estimate]| {
            let (_, time) = node(wall);
            time.agree(voters);
            assert_eq!(time.now(), UnixMillis(0), "it does not lead yet");
            time.lead();
            time.now()
        };
        let ahead = NOON.0 + HOUR_MS;
        assert_eq!(begin(ahead, &[guess(NOON.0), guess(NOON.0 + 10)]).0, NOON.0 + 10, "the middle");
        assert_eq!(begin(ahead, &[guess(NOON.0)]), NOON, "the earlier one");
        let (_, time) = node(NOON.0);
        time.pass(UnixMillis(NOON.0 + 77));
        time.agree(&[guess(NOON.0 - HOUR_MS)]);
        time.lead();
        assert_eq!(time.now(), UnixMillis(NOON.0 + 77), "no earlier than what was applied");
        let (_, time) = node(ahead);
        time.agree(&[guess(NOON.0 + 7), known(NOON.0, 3, NOON.0 - 1)]);
        assert_eq!(time.now(), NOON, "a voter knows it");
    }

    /// The latest time would be that of whoever was away for long, or led a minority.
    #[test]
    fn the_last_word_counts_and_not_the_latest_time() {
        let (_, time) = node(0);
        time.hear(word(3, NOON.0));
        time.agree(&[known(NOON.0 + 600, 3, NOON.0 - 60_000), known(NOON.0 + HOUR_MS, 2, NOON.0)]);
        assert_eq!(time.now(), NOON);
        time.agree(&[known(NOON.0 - 40, 3, NOON.0 + 1)]);
        assert_eq!(time.now(), UnixMillis(NOON.0 - 40), "a voter heard a later word");
        time.agree(&[known(NOON.0 - HOUR_MS, 4, NOON.0 - HOUR_MS)]);
        assert_eq!(time.now(), UnixMillis(NOON.0 - HOUR_MS), "or one of a later leader");
    }

    #[test]
    fn a_new_leaders_time_is_taken_as_it_is() {
        let (_, time) = node(0);
        time.hear(word(3, NOON.0 + HOUR_MS));
        time.hear(word(4, NOON.0));
        assert_eq!(time.now(), NOON);
    }

    /// Or a node that once stood for election in vain would tell others its wall clock for the shard's time.
    #[test]
    fn what_a_candidate_agreed_on_is_forgotten_unless_it_leads() {
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.agree(&[]);
        assert_eq!((time.now(), time.estimate().word), (UnixMillis(0), None));
        time.hear(word(2, NOON.0));
        assert_eq!(time.now(), NOON);
        assert_eq!(time.estimate().word, Some(word(2, NOON.0)));
        time.forget();
        assert!(!time.is_known());
    }

    #[test]
    fn a_leader_says_its_time_and_goes_by_it() {
        let (clock, time) = node(NOON.0);
        time.agree(&[]);
        assert_eq!(time.tell(5), NOON.0 * 1000);
        clock.advance(Duration::from_millis(30));
        assert_eq!(time.tell(5), (NOON.0 + 30) * 1000);
        assert_eq!(time.estimate(), known(NOON.0 + 30, 5, NOON.0 + 30));
    }

    /// Its log was applied after it had stood for election; it would show one time for an hour.
    #[test]
    fn time_goes_on_from_what_is_applied_however_late_that_is_known() {
        let (clock, time) = node(NOON.0 - HOUR_MS);
        time.agree(&[]);
        time.pass(NOON);
        time.lead();
        assert_eq!(time.now(), NOON);
        let (_, late) = node(NOON.0 - HOUR_MS);
        late.agree(&[]);
        late.lead();
        late.pass(NOON);
        assert_eq!(late.now(), NOON);
        clock.advance(Duration::from_secs(5));
        time.pass(NOON);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 5000));
    }

    #[test]
    fn a_read_is_given_the_time_of_its_own_clock() {
        let (clock, time) = leader(NOON.0);
        clock.advance(Duration::from_secs(1));
        let asked = time.monotonic();
        clock.advance(Duration::from_secs(5));
        time.steer();
        assert_eq!(time.at(asked), UnixMillis(NOON.0 + 1000));
    }

    /// A key was seen expired, and then its deadline was moved by what had been stamped before.
    #[test]
    fn no_read_is_later_than_a_stamp_on_its_way() {
        let (clock, time) = leader(NOON.0);
        let first = time.stamp();
        clock.advance(Duration::from_millis(10));
        let second = time.stamp();
        assert_eq!((first, second), (NOON, UnixMillis(NOON.0 + 10)));
        clock.advance(Duration::from_millis(10));
        let read = || time.for_read(time.monotonic());
        assert_eq!(read(), first);
        time.settle(first);
        assert_eq!(read(), second);
        time.settle(second);
        assert_eq!(read(), UnixMillis(NOON.0 + 20));
    }

    #[test]
    fn a_late_message_does_not_take_a_follower_back() {
        let (clock, time) = node(0);
        time.hear(word(3, NOON.0));
        clock.advance(Duration::from_secs(1));
        time.hear(word(3, NOON.0 + 400));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1000));
        clock.advance(Duration::from_millis(100));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1098), "2 % slower");
        time.hear(word(3, NOON.0 + 1100));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1100), "until a punctual one comes");
        clock.advance(Duration::from_millis(100));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1200));
    }

    /// Its time would run ahead of that of a leader which slews back, and jump when it leads.
    #[test]
    fn a_follower_keeps_to_a_leader_that_slows_down() {
        let (leaders_clock, leader) = leader(NOON.0);
        let (clock, follower) = node(0);
        leaders_clock.set_wall(UnixMillis(NOON.0 - HOUR_MS));
        for _ in 0..1000 {
            leader.steer();
            follower.hear(Word { term: 3, micros: leader.tell(3) });
            leaders_clock.advance(Duration::from_millis(100));
            clock.advance(Duration::from_millis(100));
        }
        let apart = follower.now().since(leader.now());
        assert!(apart < 40, "{apart} ms ahead after 1 s less");
    }

    #[test]
    fn what_is_applied_carries_the_time_along() {
        let (clock, time) = leader(NOON.0);
        time.pass(UnixMillis(NOON.0 + 50));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 50));
        clock.advance(Duration::from_millis(10));
        time.pass(UnixMillis(NOON.0 + 20));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 60));
    }

    #[test]
    fn time_spent_switched_off_counts() {
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.pass(NOON);
        time.agree(&[]);
        time.lead();
        assert_eq!(time.now(), UnixMillis(NOON.0 + HOUR_MS));
    }

    /// Replicas by name, and the last word that one of them said.
    struct Play {
        nodes: BTreeMap<String, (Arc<ManualClock>, ShardTime)>,
        said: Word,
    }

    fn from_noon(ms: &str) -> UnixMillis {
        UnixMillis(NOON.0.saturating_add_signed(number(ms)))
    }

    fn spelled(time: UnixMillis) -> String {
        format!("{:+}", signed(time.0) - signed(NOON.0))
    }

    impl Play {
        fn pass(&self, ms: u64) {
            self.nodes.values().for_each(|(clock, _)| clock.advance(Duration::from_millis(ms)));
        }

        fn answer(&mut self, words: &[&str]) -> String {
            let (&name, words) = words.split_first().expect("a command");
            match (name, words) {
                ("node", [name, wall]) => {
                    self.nodes.insert((*name).to_owned(), node(from_noon(wall).0));
                    String::new()
                }
                ("pass", [ms]) => {
                    self.pass(number(ms));
                    String::new()
                }
                _ => self.of_node(name, words),
            }
        }

        fn of_node(&mut self, name: &str, words: &[&str]) -> String {
            let (clock, time) = &self.nodes[name];
            match *words {
                ["leads"] => time.lead(),
                ["stands", ref voters @ ..] => {
                    let told = voters.iter().map(|voter| self.nodes[*voter].1.estimate());
                    time.agree(&told.collect::<Vec<_>>());
                }
                ["tells", term] => {
                    let term = number(term);
                    self.said = Word { term, micros: time.tell(term) };
                }
                ["hears"] => time.hear(self.said),
                ["steps", ms] => {
                    let wall = clock.now().0.saturating_add_signed(number(ms));
                    clock.set_wall(UnixMillis(wall));
                }
                ["steers", every, count] => {
                    for _ in 0..number(count) {
                        time.steer();
                        self.pass(number(every));
                    }
                }
                ["applies", ms] => time.pass(from_noon(ms)),
                ["stamps"] => return spelled(time.stamp()),
                ["settles", ms] => time.settle(from_noon(ms)),
                ["reads"] => return spelled(time.for_read(time.monotonic())),
                ["time"] if time.is_known() => return spelled(time.now()),
                ["time"] => return "unknown".to_owned(),
                _ => panic!("no such command: {name} {words:?}"),
            }
            String::new()
        }
    }

    #[test]
    fn the_time_runs_as_the_script_says() {
        let mut play = Play { nodes: BTreeMap::new(), said: word(0, 0) };
        check("shard/time.txt", |words| play.answer(words));
    }
}
