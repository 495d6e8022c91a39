//! Who gave a wrong password lately, by address: those at one address guess one after the other, however many
//! connections they come by.
//!
//! A wait that belonged to the connection would be got around by closing it: who hears nothing at once knows that the guess
//! was wrong. So an address has turns, one per [`GUESS_INTERVAL`], and a turn that begins later delays every answer, the
//! right one's too. Addresses that nobody guesses from wait for nothing.
//!
//! The machine's own addresses are no exception: a proxy in front of the doors, which is how TLS is had, makes everybody
//! one of them. What that costs those who know the password and share an address with a guesser: some seconds, or an error
//! that says so. Nothing better can be had: to look at a password at once is to answer a guess at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::stdx::clock::MonotonicMicros;

/// Between two guesses that are answered at one address.
pub const GUESS_INTERVAL: Duration = Duration::from_secs(1);

/// How far ahead turns are given: no further than a stranger may stay.
const TURN_AHEAD_MAX: Duration = Duration::from_secs(5);

/// Addresses remembered. Who has more of them may guess more often than this a second whatever is done.
const ADDRESSES_MAX: usize = 4096;

/// The addresses that passwords are guessed from, and when the next turn of each begins.
#[derive(Debug, Default)]
pub struct Guesses {
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    next: BTreeMap<IpAddr, MonotonicMicros>,
    /// When those whose turn has come were forgotten.
    swept: MonotonicMicros,
}

impl Guesses {
    /// Takes the next turn of `peer`: how long until it begins. `None` when there are enough before it: then the password
    /// must not be looked at.
    pub fn take_turn(&self, peer: IpAddr, now: MonotonicMicros) -> Option<Duration> {
        let mut turns = self.turns.lock();
        let begin = turns.next.get(&origin(peer)).copied().unwrap_or(now).max(now);
        let wait = Duration::from_micros(begin.since(now));
        if wait > TURN_AHEAD_MAX {
            return None;
        }
        turns.make_room(now);
        turns.next.insert(origin(peer), begin.plus(GUESS_INTERVAL));
        Some(wait)
    }

    /// Gives a turn back: the password was right.
    pub fn give_back(&self, peer: IpAddr) {
        let mut turns = self.turns.lock();
        if let Some(next) = turns.next.get_mut(&origin(peer)) {
            let interval = u64::try_from(GUESS_INTERVAL.as_micros()).unwrap_or(u64::MAX);
            next.0 = next.0.saturating_sub(interval);
        }
    }
}

impl Turns {
    /// Makes room for one more address: a sweep an interval at most, as it looks at all.
    fn make_room(&mut self, now: MonotonicMicros) {
        if self.next.len() < ADDRESSES_MAX {
            return;
        }
        if now >= self.swept.plus(GUESS_INTERVAL) {
            self.swept = now;
            self.next.retain(|_, next| *next > now);
        }
        // Whoever is forgotten guesses once more; kept out would be people who did not guess at all.
        while self.next.len() >= ADDRESSES_MAX {
            self.next.pop_first();
        }
    }
}

/// What of an address tells its owners apart: a machine has as many IPv6 addresses of one network as it likes.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonotonicMicros = MonotonicMicros(1_000_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Faults, row D5: a reconnect per guess was as fast as connections are.
    #[test]
    fn guesses_from_one_address_take_turns() {
        let guesses = Guesses::default();
        let mut waits: Vec<_> = (0..8).map(|_| guesses.take_turn(ip("192.0.2.1"), NOW)).collect();
        assert_eq!(waits.split_off(6), [None, None]);
        assert_eq!(waits, (0..6).map(|wait| Some(Duration::from_secs(wait))).collect::<Vec<_>>());
        assert_eq!(
            guesses.take_turn(ip("192.0.2.2"), NOW),
            Some(Duration::from_secs(0)),
            "another address"
        );
        // As fast as one connection that waits for each answer.
        let later = NOW.plus(Duration::from_secs(2));
        assert_eq!(guesses.take_turn(ip("192.0.2.1"), later), Some(Duration::from_secs(4)));
        assert_eq!(
            guesses.take_turn(ip("192.0.2.1"), NOW.plus(Duration::from_mins(1))),
            Some(Duration::from_secs(0))
        );
    }

    #[test]
    fn a_right_password_takes_no_turn() {
        let guesses = Guesses::default();
        for _ in 0..1000 {
            assert_eq!(guesses.take_turn(ip("::1"), NOW), Some(Duration::from_secs(0)));
            guesses.give_back(ip("::1"));
        }
        guesses.give_back(ip("::2"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_so_are_both_forms_of_ipv4() {
        for (one, other, is_same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ] {
            assert_eq!(origin(ip(one)) == origin(ip(other)), is_same, "{one} {other}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_keeps_no_stranger_out() {
        let guesses = Guesses::default();
        for number in 0..u32::try_from(3 * ADDRESSES_MAX).unwrap() {
            assert_eq!(
                guesses.take_turn(IpAddr::V4(number.into()), NOW),
                Some(Duration::from_secs(0))
            );
        }
        assert_eq!(guesses.turns.lock().next.len(), ADDRESSES_MAX);
        let later = NOW.plus(Duration::from_mins(1));
        guesses.take_turn(ip("192.0.2.1"), later);
        assert_eq!(guesses.turns.lock().next.len(), 1, "whose turn has come is forgotten");
    }
}
