//! Is a history linearizable? A search for one order of the operations that respects real time and Redis.
//!
//! Keys are independent, so each is judged alone. An operation whose outcome is unknown has no end: it may be
//! placed anywhere after its start, or nowhere.
//!
//! Sources: Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for
//! linearizability" (2017) for the memory of configurations; Herlihy and Wing (1990), theorem 1, for judging
//! each object alone.

use std::collections::{BTreeMap, HashSet};

use super::operation::{Action, Answer, Operation};

/// Configurations looked at per key before the search gives up, undecided.
const CONFIGURATIONS_MAX: usize = 4_000_000;

/// Why a history is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// There is no order; the text shows where the longest attempt got stuck.
    NotLinearizable { key: String, stuck: String },
    /// A key without a completed read or without a completed write, or no operation at all.
    NothingChecked { key: String },
    /// The search was cut off: see [`CONFIGURATIONS_MAX`].
    Undecided { key: String },
}

/// A value of one key; `None` when it does not exist.
type State = Option<Vec<u8>>;

/// Judges `history`; returns how many completed operations it vouches for.
pub(crate) fn check(history: &[Operation]) -> Result<usize, Violation> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    if keys.is_empty() {
        return Err(Violation::NothingChecked { key: String::new() });
    }
    let mut checked = 0;
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.invoked);
        let completed = || operations.iter().filter(|operation| operation.returned.is_some());
        let has_read = completed().any(|operation| !matches!(operation.action, Action::Set(_)));
        let has_write = completed().any(|operation| operation.action != Action::Get);
        if !has_read || !has_write {
            return Err(Violation::NothingChecked { key: key.into() });
        }
        check_key(key, &operations)?;
        checked += completed().count();
    }
    Ok(checked)
}

/// The operations placed so far, one bit each.
type Placed = Vec<u64>;

fn is_placed(placed: &Placed, index: usize) -> bool {
    placed[index / 64] >> (index % 64) & 1 == 1
}

/// One step of the depth-first search: a state, and who may come next.
struct Frame {
    state: State,
    candidates: Vec<usize>,
    next: usize,
    /// What was placed to get here.
    placed_last: Option<usize>,
}

fn check_key(key: &str, operations: &[&Operation]) -> Result<(), Violation> {
    let mut placed: Placed = vec![0; operations.len().div_ceil(64)];
    let mut seen: HashSet<(Placed, State)> = HashSet::new();
    let mut open = operations.iter().filter(|operation| operation.returned.is_some()).count();
    let mut deepest = (usize::MAX, String::new());
    let first = Frame {
        state: None,
        candidates: candidates(operations, &placed),
        next: 0,
        placed_last: None,
    };
    let mut stack = vec![first];
    while let Some(frame) = stack.last_mut() {
        if open == 0 {
            return Ok(());
        }
        let Some(&index) = frame.candidates.get(frame.next) else {
            if open < deepest.0 {
                deepest = (open, describe(operations, frame));
            }
            if let Some(index) = frame.placed_last {
                placed[index / 64] &= !(1 << (index % 64));
                open += usize::from(operations[index].returned.is_some());
            }
            stack.pop();
            continue;
        };
        frame.next += 1;
        let operation = operations[index];
        let (state, answer) = step(&frame.state, &operation.action);
        if operation.returned.as_ref().is_some_and(|(_, seen)| *seen != answer) {
            continue;
        }
        placed[index / 64] |= 1 << (index % 64);
        if !seen.insert((placed.clone(), state.clone())) {
            placed[index / 64] &= !(1 << (index % 64));
            continue;
        }
        if seen.len() > CONFIGURATIONS_MAX {
            return Err(Violation::Undecided { key: key.into() });
        }
        open -= usize::from(operation.returned.is_some());
        let candidates = candidates(operations, &placed);
        stack.push(Frame { state, candidates, next: 0, placed_last: Some(index) });
    }
    Err(Violation::NotLinearizable { key: key.into(), stuck: deepest.1 })
}

/// The operations that may come next: those not placed that started before every completed one not placed
/// had returned. Completed ones come first, the earliest return first: most histories are decided without
/// ever placing an unknown one.
fn candidates(operations: &[&Operation], placed: &Placed) -> Vec<usize> {
    let mut found = Vec::new();
    let mut first_return = u64::MAX;
    for (index, operation) in operations.iter().enumerate() {
        if operation.invoked > first_return {
            break;
        }
        if is_placed(placed, index) {
            continue;
        }
        if let Some((returned, _)) = operation.returned {
            first_return = first_return.min(returned);
        }
        found.push(index);
    }
    // Found in order of their start: a later one may have lowered the bound below an earlier one's start only
    // if it returned before it started, which clocks do not do.
    found.sort_by_key(|&index| operations[index].returned.as_ref().map_or(u64::MAX, |(at, _)| *at));
    found
}

/// What Redis does and says.
fn step(state: &State, action: &Action) -> (State, Answer) {
    match action {
        Action::Get => {
            let answer = state.clone().map_or(Answer::Nil, Answer::Bulk);
            (state.clone(), answer)
        }
        Action::Set(value) => (Some(value.clone()), Answer::Ok),
        Action::SetNx(value) if state.is_none() => (Some(value.clone()), Answer::Ok),
        Action::SetNx(_) => (state.clone(), Answer::Nil),
        Action::Del => (None, Answer::Integer(i64::from(state.is_some()))),
        Action::Append(value) => {
            let joined = [state.as_deref().unwrap_or_default(), value].concat();
            let length = i64::try_from(joined.len()).unwrap();
            (Some(joined), Answer::Integer(length))
        }
        Action::Incr => {
            let text = state.as_deref().unwrap_or(b"0");
            let number: Option<i64> =
                std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            match number.and_then(|number| number.checked_add(1)) {
                Some(number) => (Some(number.to_string().into_bytes()), Answer::Integer(number)),
                None => (state.clone(), Answer::Error),
            }
        }
    }
}

fn describe(operations: &[&Operation], frame: &Frame) -> String {
    let value = frame.state.as_deref().map(String::from_utf8_lossy);
    let mut text = format!("the value is {value:?}; next must be one of");
    for &index in &frame.candidates {
        text.push_str(&format!("\n  {}", shown(operations[index])));
    }
    text
}

fn shown(operation: &Operation) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let action = match &operation.action {
        Action::Get => "GET".into(),
        Action::Set(value) => format!("SET {}", text(value)),
        Action::Incr => "INCR".into(),
        Action::SetNx(value) => format!("SET {} NX", text(value)),
        Action::Del => "DEL".into(),
        Action::Append(value) => format!("APPEND {}", text(value)),
    };
    let (from, client) = (operation.invoked, operation.client);
    match &operation.returned {
        Some((to, Answer::Bulk(value))) => {
            format!("client {client} [{from}, {to}] {action} => {}", text(value))
        }
        Some((to, answer)) => format!("client {client} [{from}, {to}] {action} => {answer:?}"),
        None => format!("client {client} [{from}, ?] {action} => unknown"),
    }
}

// The simulation takes this file in by its path, and has no tests of its own.
#[cfg(all(test, not(kvorum_sim)))]
mod tests {
    use kvorum::stdx::prng::SplitMix64;

    use super::*;

    /// `SET a 0 10 OK; GET 11 12 $a; SET b 13 ?`: command, start, end and answer; `?` is unknown.
    fn history(script: &str) -> Vec<Operation> {
        script.split(';').enumerate().map(|(client, line)| operation(client, line)).collect()
    }

    fn operation(client: usize, line: &str) -> Operation {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = || words[1].as_bytes().to_vec();
        let (action, rest) = match words[0] {
            "GET" => (Action::Get, &words[1..]),
            "INCR" => (Action::Incr, &words[1..]),
            "DEL" => (Action::Del, &words[1..]),
            "SET" => (Action::Set(value()), &words[2..]),
            "SETNX" => (Action::SetNx(value()), &words[2..]),
            "APPEND" => (Action::Append(value()), &words[2..]),
            other => panic!("no action {other}"),
        };
        let returned = match rest[1] {
            "?" => None,
            end => Some((end.parse().unwrap(), parse_answer(rest[2]))),
        };
        Operation { client, key: "k".into(), action, invoked: rest[0].parse().unwrap(), returned }
    }

    fn parse_answer(word: &str) -> Answer {
        match word.split_at(1) {
            ("O", "K") => Answer::Ok,
            ("n", "il") => Answer::Nil,
            ("E", "RR") => Answer::Error,
            (":", number) => Answer::Integer(number.parse().unwrap()),
            ("$", text) => Answer::Bulk(text.as_bytes().to_vec()),
            _ => panic!("no answer {word}"),
        }
    }

    #[test]
    fn correct_histories_are_accepted() {
        for script in [
            "SET a 0 1 OK; GET 2 3 $a",
            "GET 0 1 nil; SET a 2 3 OK; GET 4 5 $a",
            // Two writes at once may end either way, and a read beside a write may see either.
            "SET a 0 9 OK; SET b 0 9 OK; GET 10 11 $a",
            "SET a 0 9 OK; SET b 0 9 OK; GET 10 11 $b",
            "SET a 0 1 OK; SET b 2 9 OK; GET 3 4 $a; GET 5 6 $b",
            // An unknown write may come late, at once, or never.
            "SET a 0 1 OK; SET b 2 ?; GET 3 4 $a; GET 100 101 $b",
            "SET a 0 1 OK; SET b 2 ?; GET 3 4 $b",
            "SET a 0 1 OK; SET b 2 ?; GET 3 4 $a",
            "INCR 0 1 :1; INCR 2 3 :2; INCR 2 4 :3; GET 5 6 $3",
            "INCR 0 1 :1; INCR 2 ?; INCR 3 4 :3; GET 5 6 $3",
            "INCR 0 1 :1; INCR 2 ?; INCR 3 4 :2; GET 5 6 $2",
            "SETNX a 0 1 OK; SETNX b 2 3 nil; DEL 4 5 :1; SETNX b 6 7 OK; GET 8 9 $b",
            "SETNX a 0 9 nil; SETNX b 0 9 OK",
            "APPEND a 0 1 :1; APPEND b 2 3 :2; GET 4 5 $ab",
            "SET x 0 1 OK; INCR 2 3 ERR; GET 4 5 $x",
        ] {
            assert_eq!(check(&history(script)).err(), None, "{script}");
        }
    }

    #[test]
    fn violations_are_found() {
        for (name, script) in [
            ("stale read", "SET a 0 1 OK; SET b 2 3 OK; GET 4 5 $a"),
            ("stale nil", "SET a 0 1 OK; GET 2 3 nil"),
            ("lost update", "INCR 0 1 :1; INCR 2 3 :1"),
            ("lost acknowledged write", "SET a 0 1 OK; APPEND b 2 3 :1"),
            ("applied twice", "INCR 0 1 :1; INCR 2 3 :3"),
            ("unknown applied twice", "INCR 0 1 :1; INCR 2 ?; INCR 3 4 :4"),
            ("appended twice", "APPEND a 0 1 :1; GET 2 3 $aa"),
            ("phantom", "SET a 0 1 OK; GET 2 3 $z"),
            ("before its write", "SET a 0 1 OK; GET 2 3 $b; SET b 4 5 OK"),
            ("before an unknown write", "SET a 0 1 OK; GET 2 3 $b; SET b 4 ?"),
            ("going back", "SET a 0 1 OK; SET b 2 9 OK; GET 3 4 $b; GET 5 6 $a"),
            ("unknown going back", "SET a 0 1 OK; SET b 2 ?; GET 3 4 $b; GET 5 6 $a"),
            ("lock granted twice", "SETNX a 0 1 OK; SETNX b 2 3 OK"),
            ("lock freed twice", "SETNX a 0 1 OK; DEL 2 3 :1; DEL 4 5 :1"),
            ("back after delete", "SET a 0 1 OK; DEL 2 3 :1; GET 4 5 $a"),
        ] {
            let verdict = check(&history(script));
            assert!(
                matches!(verdict, Err(Violation::NotLinearizable { .. })),
                "{name}: {verdict:?}"
            );
        }
    }

    #[test]
    fn a_history_in_which_nothing_was_checked_fails() {
        let nothing =
            |script| matches!(check(&history(script)), Err(Violation::NothingChecked { .. }));
        assert!(check(&[]).is_err());
        assert!(nothing("SET a 0 1 OK; SET b 2 3 OK"), "no read");
        assert!(nothing("GET 0 1 nil; GET 2 3 nil"), "no write");
        assert!(nothing("GET 0 1 nil; SET a 2 ?"), "no completed write");
        assert!(nothing("INCR 0 ?"), "nothing completed");
    }

    #[test]
    fn each_key_is_judged_alone_and_all_are() {
        let mut both = history("SET a 0 1 OK; GET 2 3 $a");
        let mut other = history("SET b 0 1 OK; GET 2 3 $b");
        other.iter_mut().for_each(|operation| operation.key = "l".into());
        both.extend(other);
        assert_eq!(check(&both), Ok(4));
        both.last_mut().unwrap().returned = Some((3, Answer::Nil));
        let verdict = check(&both).unwrap_err();
        assert!(matches!(&verdict, Violation::NotLinearizable { key, .. } if key == "l"));
    }

    /// The search against the definition: some order of some of the operations, tried one by one.
    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let seed = super::super::seed();
        let mut prng = SplitMix64::new(seed);
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..3000 {
            let operations: Vec<Operation> =
                (0..5).map(|client| random_operation(&mut prng, client)).collect();
            let mut sorted: Vec<&Operation> = operations.iter().collect();
            sorted.sort_by_key(|operation| operation.invoked);
            let verdict = check_key("k", &sorted);
            let expected = has_order(&sorted, &mut vec![false; sorted.len()], &None);
            assert_eq!(verdict.is_ok(), expected, "seed {seed}, round {round}: {operations:#?}");
            if expected { accepted += 1 } else { refused += 1 }
        }
        assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
    }

    fn random_operation(prng: &mut SplitMix64, client: usize) -> Operation {
        let invoked = prng.below(12);
        let value = vec![b'0' + u8::try_from(prng.below(2)).unwrap()];
        let action = match prng.below(6) {
            0 | 1 => Action::Get,
            2 => Action::Set(value.clone()),
            3 => Action::Incr,
            4 => Action::SetNx(value.clone()),
            _ => Action::Del,
        };
        let number = i64::try_from(prng.below(3)).unwrap();
        let answer = match (&action, prng.below(2)) {
            (Action::Get | Action::SetNx(_), 0) => Answer::Nil,
            (Action::Get, _) => Answer::Bulk(value),
            (Action::Set(_) | Action::SetNx(_), _) => Answer::Ok,
            (Action::Incr | Action::Del | Action::Append(_), _) => Answer::Integer(number),
        };
        let returned = (prng.below(5) > 0).then(|| (invoked + 1 + prng.below(8), answer));
        Operation { client, key: "k".into(), action, invoked, returned }
    }

    fn has_order(operations: &[&Operation], used: &mut Vec<bool>, state: &State) -> bool {
        let is_open =
            |index: usize, used: &[bool]| !used[index] && operations[index].returned.is_some();
        if (0..operations.len()).all(|index| !is_open(index, used)) {
            return true;
        }
        for index in 0..operations.len() {
            let is_too_late = (0..operations.len()).any(|other| {
                is_open(other, used)
                    && operations[other].returned.as_ref().unwrap().0 < operations[index].invoked
            });
            if used[index] || is_too_late {
                continue;
            }
            let (after, answer) = step(state, &operations[index].action);
            let returned = operations[index].returned.as_ref();
            if returned.is_none_or(|(_, seen)| *seen == answer) {
                used[index] = true;
                let found = has_order(operations, used, &after);
                used[index] = false;
                if found {
                    return true;
                }
            }
        }
        false
    }
}
