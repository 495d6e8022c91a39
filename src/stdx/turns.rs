//! Workers for tests and simulations, on the thread that has work for them: what is done when, and known when, is for the test to say.
//!
//! A job is run where it is handed over; what it changed is seen at once, its end is known when its report is due. Reports are made
//! in the order of when they are due, those of one time in that of their jobs. An entry may be held instead: then what takes the
//! state's lock waits behind it, in order, and the disk goes on. So nobody ever waits for a lock, which on one thread would be
//! for ever: what was handed over before the entry has run, and what comes later runs after it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

use super::workers::{Job, Report, Work, Workers};

/// See the file's head.
#[derive(Default)]
pub struct Turns(Mutex<Table>);

#[derive(Default)]
struct Table {
    now: u64,
    delay: u64,
    /// Jobs so far.
    number: u64,
    holds_entries: bool,
    held: VecDeque<Job>,
    /// By when they are due, and the numbers of their jobs.
    reports: BTreeMap<(u64, u64), Report>,
    has_ended: bool,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Turns {
    /// From now on the end of a job becomes known so much later.
    pub fn delay(&self, by: u64) {
        self.0.lock().delay = by;
    }

    /// Lets `time` pass: makes the reports that are due by then.
    pub fn pass(&self, time: u64) {
        self.0.lock().now += time;
        while let Some(report) = self.due() {
            report();
        }
    }

    fn due(&self) -> Option<Report> {
        let mut table = self.0.lock();
        let now = table.now;
        let first = table.reports.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// From now on entries are held.
    pub fn hold_entries(&self) {
        self.0.lock().holds_entries = true;
    }

    /// How many jobs are held, entries and what waits behind them.
    pub fn held(&self) -> usize {
        self.0.lock().held.len()
    }

    /// Runs what is held, and holds nothing any more.
    pub fn release(&self) {
        self.0.lock().holds_entries = false;
        while let Some(job) = self.next_held() {
            self.do_now(job);
        }
    }

    fn next_held(&self) -> Option<Job> {
        self.0.lock().held.pop_front()
    }

    /// The process ends: what has not been done or told never is.
    pub fn end(&self) {
        let (held, reports) = {
            let mut table = self.0.lock();
            table.has_ended = true;
            (std::mem::take(&mut table.held), std::mem::take(&mut table.reports))
        };
        // Without the lock: what goes may hand over further work.
        drop((held, reports));
    }

    fn do_now(&self, job: Job) {
        let key = {
            let mut table = self.0.lock();
            table.number += 1;
            (table.now + table.delay, table.number)
        };
        let done = catch_unwind(AssertUnwindSafe(job));
        let mut table = self.0.lock();
        if let Ok(report) = done
            && !table.has_ended
        {
            table.reports.insert(key, report);
        }
    }
}

impl Workers for Turns {
    fn run(&self, work: Work, job: Job) {
        let mut table = self.0.lock();
        if table.has_ended {
            return;
        }
        let is_held = match work {
            Work::Disk => false,
            Work::State => !table.held.is_empty(),
            Work::Entry => table.holds_entries || !table.held.is_empty(),
        };
        if is_held {
            table.held.push_back(job);
            return;
        }
        drop(table);
        self.do_now(job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Notes what happens.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<&'static str>>>);

    impl Notes {
        fn note(&self, what: &'static str) {
            self.0.lock().push(what);
        }

        fn take(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.0.lock())
        }

        /// A job that notes when it is done, and when that is known.
        fn job(&self, done: &'static str, known: &'static str) -> Job {
            let notes = self.clone();
            Box::new(move || {
                notes.note(done);
                Box::new(move || notes.note(known))
            })
        }
    }

    #[test]
    fn work_is_done_at_once_and_known_when_it_is_due_then_in_order() {
        let (turns, notes) = (Turns::default(), Notes::default());
        for (delay, done, known) in [(7, "a", "A"), (3, "b", "B"), (3, "c", "C"), (0, "d", "D")] {
            turns.delay(delay);
            turns.run(Work::Disk, notes.job(done, known));
            assert_eq!(notes.take(), [done]);
        }
        turns.pass(0);
        assert_eq!(notes.take(), ["D"]);
        turns.pass(2);
        assert!(notes.take().is_empty());
        turns.pass(1);
        assert_eq!(notes.take(), ["B", "C"]);
        turns.pass(4);
        assert_eq!(notes.take(), ["A"]);
    }

    #[test]
    fn behind_a_held_entry_the_state_waits_in_order_and_the_disk_does_not() {
        let (turns, notes) = (Turns::default(), Notes::default());
        turns.hold_entries();
        turns.run(Work::State, notes.job("before", ""));
        assert_eq!(notes.take(), ["before"], "nothing is held yet");
        turns.run(Work::Entry, notes.job("entry", ""));
        turns.run(Work::State, notes.job("state", ""));
        turns.run(Work::Disk, notes.job("disk", ""));
        turns.run(Work::Entry, notes.job("next entry", ""));
        turns.run(Work::State, notes.job("next state", ""));
        assert_eq!(notes.take(), ["disk"]);
        turns.release();
        assert_eq!(notes.take(), ["entry", "state", "next entry", "next state"]);
        turns.run(Work::Entry, notes.job("later", ""));
        assert_eq!(notes.take(), ["later"]);
    }

    /// An entry that has ended has what it buried freed, while others wait for their turn.
    #[test]
    fn a_job_hands_over_another() {
        let (turns, notes) = (Arc::new(Turns::default()), Notes::default());
        let job = |work| -> Job {
            let (turns, notes) = (Arc::clone(&turns), notes.clone());
            Box::new(move || {
                turns.run(work, notes.job("inner", "Inner"));
                notes.note("outer");
                Box::new(move || notes.note("Outer"))
            })
        };
        turns.run(Work::State, job(Work::State));
        assert_eq!(notes.take(), ["inner", "outer"]);
        turns.pass(0);
        assert_eq!(notes.take(), ["Outer", "Inner"]);

        turns.hold_entries();
        turns.run(Work::Entry, job(Work::State));
        turns.run(Work::State, notes.job("waited", "Waited"));
        turns.release();
        assert_eq!(notes.take(), ["outer", "waited", "inner"], "not before its turn");
    }

    #[test]
    fn a_panic_makes_no_report_and_what_the_job_held_goes() {
        let (turns, held) = (Turns::default(), Arc::new(()));
        let in_job = Arc::clone(&held);
        turns.run(
            Work::State,
            Box::new(move || {
                assert_eq!(Arc::strong_count(&in_job), 0, "as the test wants");
                Box::new(|| ())
            }),
        );
        assert_eq!(Arc::strong_count(&held), 1);
        let notes = Notes::default();
        turns.run(Work::State, notes.job("next", "Next"));
        turns.pass(0);
        assert_eq!(notes.take(), ["next", "Next"]);
    }

    #[test]
    fn a_process_that_ends_drops_what_was_under_way_and_what_comes_later() {
        let (turns, notes) = (Turns::default(), Notes::default());
        turns.run(Work::Disk, notes.job("disk", "Disk"));
        turns.hold_entries();
        turns.run(Work::Entry, notes.job("entry", "Entry"));
        assert_eq!(Arc::strong_count(&notes.0), 3);
        turns.end();
        turns.run(Work::Disk, notes.job("later", "Later"));
        assert_eq!(Arc::strong_count(&notes.0), 1);
        turns.release();
        turns.pass(1);
        assert_eq!(notes.take(), ["disk"]);
    }
}
