//! How much work a command is, judged before it runs: so that what takes long is not run where others wait.
//!
//! A weight decides where and when a command runs and never what it does. It is about right, counts what a command may
//! look at rather than what it will, and is cheap beside it: a lookup or two, one for each key beside a snapshot, and for who lists
//! keys the lengths of some, until that is heavy.

use super::count::parse_count;
use super::invocation::Invocation;
use super::key_spec::KeyFlag;
use super::string::limits::STRING_BYTES_MAX;
use crate::ids::DbIndex;
use crate::keyspace::{At, Key, Keyspace, ScanCursor, Value};
use crate::stdx::num;

/// Bytes of a string that weigh as much as an element: they are copied, and new memory costs more than the copy.
const BYTES_PER_ELEMENT: usize = 256;

/// From here on nobody asks for more: it is heavy wherever it is to run.
pub const WEIGHT_HEAVY: usize = 32 * 1024;

/// Words and elements that `invocation` looks at, at most, about: each takes up to a microsecond.
#[inline]
pub fn weight(invocation: &Invocation<'_>, keyspace: &Keyspace, at: At) -> usize {
    let Invocation { command, argv, .. } = invocation;
    let is_light = argv.len() <= command.light_words;
    let elements = if is_light { 0 } else { (command.weigh)(keyspace, invocation, at) };
    let kept = if command.is_write() && keyspace.is_snapshot_running() {
        kept_for_snapshot(invocation, keyspace, at.db())
    } else {
        0
    };
    argv.len().saturating_add(elements).saturating_add(kept)
}

/// Elements at the keys of a write that a running snapshot first copies, of all that it may not have yet: where the command
/// removes or replaces values, of those that are not handed over to it. What lies beside them is not counted.
#[cold]
fn kept_for_snapshot(invocation: &Invocation<'_>, keyspace: &Keyspace, db: DbIndex) -> usize {
    let Invocation { command, argv, .. } = invocation;
    let hands_over = |flag: &KeyFlag| matches!(flag, KeyFlag::Rm | KeyFlag::Ow);
    let all_go = command.spec.keys.iter().all(|keys| keys.flags.iter().any(hands_over));
    let copied = if all_go { Keyspace::value_to_copy } else { Keyspace::value_to_keep };
    let Ok(positions) = command.spec.key_positions(argv) else { return 0 };
    let keys = positions.iter().filter_map(|&position| argv.get(position));
    let values = keys.filter_map(|key| copied(keyspace, db, key));
    values.map(elements_of).fold(0, usize::saturating_add)
}

/// All elements of the value at the first key.
pub(super) fn whole_value(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    invocation.first_key(keyspace).map_or(0, |key| elements_at(keyspace, at, key))
}

/// As many elements of the value at the first key as the word behind it says.
pub(super) fn counted(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    match invocation.argv {
        [_, _, count] => parse_count(count).unwrap_or(0).min(whole_value(keyspace, invocation, at)),
        _ => 0,
    }
}

/// The string at the first key, which may be as long as the offset behind it says.
pub(super) fn to_offset(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let offset = invocation.argv.get(2).and_then(|offset| num::parse_i64(offset));
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    // One that is beyond what a string may have is refused.
    let offset = offset.filter(|offset| *offset < STRING_BYTES_MAX).unwrap_or(0);
    whole_value(keyspace, invocation, at).max(offset / BYTES_PER_ELEMENT)
}

/// As many keys as there are from a cursor on, up to a count: each is hashed, and compared with `pattern` for as long as both
/// are, multiplied.
pub(super) fn keys_scanned(
    keyspace: &Keyspace,
    at: At,
    (cursor, count): (ScanCursor, usize),
    pattern: Option<&[u8]>,
) -> usize {
    let keys = count.min(keyspace.len(at.db()));
    let enough = WEIGHT_HEAVY.saturating_sub(keys).saturating_mul(BYTES_PER_ELEMENT);
    let times = 1 + pattern.map_or(0, <[u8]>::len);
    let bytes = keyspace.bytes_to_scan(at.db(), cursor, keys, enough.div_ceil(times));
    keys.saturating_add(bytes.saturating_mul(times) / BYTES_PER_ELEMENT)
}

fn elements_at(keyspace: &Keyspace, at: At, key: Key<'_>) -> usize {
    keyspace.get(at, key).map_or(0, elements_of)
}

fn elements_of(value: &Value) -> usize {
    match value {
        Value::Str(string) => string.len() / BYTES_PER_ELEMENT,
        Value::List(_) | Value::Hash(_) | Value::Set(_) | Value::ZSet(_) | Value::Stream(_) => {
            value.parts()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;
    use crate::command::{all, lookup};
    use crate::stdx::clock::UnixMillis;

    #[test]
    fn what_a_command_looks_at_is_judged_before_it_runs() {
        let mut bench = Bench::default();
        let numbers =
            |times: usize| (0..times).map(|it| it.to_string()).collect::<Vec<_>>().join(" ");
        bench.run_line(&format!("RPUSH l {}", numbers(1000)));
        bench.run_line(&format!("SADD s {}", numbers(500)));
        bench.run_line(&format!("HSET h {}", numbers(400)));
        bench.run_line("XADD x 1 f v");
        bench.run_line("XADD x 2 f v");
        bench.run_line("SETRANGE t 25599 x");
        for id in 1..=300 {
            bench.run_line(&format!("XADD y {id} f v"));
        }
        let rows = [
            ("GET t", 2),
            ("SADD s a b", 4),
            ("DEL l s h", 4),
            ("LPOP l", 2),
            ("LPOP l 10", 3 + 10),
            ("RPOP l 99999", 3 + 1000),
            ("LPOP l x", 3),
            ("LPOP none 10", 3),
            ("LRANGE l 0 -1", 4 + 1000),
            ("LRANGE l 5 14", 4 + 10),
            ("LRANGE l x 14", 4),
            ("SPOP s 100", 3 + 100),
            ("SPOP s", 2),
            ("ZPOPMIN s 100", 3 + 100),
            ("SMEMBERS s", 2 + 500),
            ("HGETALL h", 2 + 200),
            ("XRANGE x - +", 4 + 2),
            ("XRANGE x - + COUNT 1", 6 + 1),
            ("APPEND t y", 3 + 100),
            ("SETRANGE t 3 y", 4 + 100),
            ("SETRANGE new 512000 y", 4 + 2000),
            ("SETRANGE new x y", 4),
            ("SETRANGE new 536870911 y", 4 + 2_097_151),
            ("SETRANGE new 9223372036854775807 y", 4),
            ("SETRANGE t 9223372036854775807 y", 4 + 100),
            ("KEYS *", 2 + 6),
            ("KEYS l*", 2 + 6),
            ("GETDEL t", 2 + 100),
            ("GETSET t y", 3 + 100),
            ("GETEX t", 2 + 100),
            ("SET t y", 3),
            ("SET t y EX 9", 5),
            ("SET t y get", 4 + 100),
            ("SET t y EX 9 GET", 6 + 100),
            ("SCAN 0", 2 + 6),
            ("SCAN 0 COUNT 3", 4 + 3),
            ("SCAN 0 MATCH * COUNT 100000000", 6 + 6),
            ("SCAN 0 COUNT x", 4),
            ("SCAN x", 2),
            ("RANDOMKEY", 1),
            ("XADD y * f v", 5),
            ("XADD y * f v f w", 7),
            ("XADD y MAXLEN = 1000 * f v", 8),
            ("XADD y MAXLEN 100 * f v", 7 + 200),
            ("XADD y MAXLEN ~ 10 LIMIT 50 * f v", 10 + 50),
            ("XADD y MAXLEN ~ 10 LIMIT 0 * f v", 10 + 290),
            ("XADD y NOMKSTREAM MINID 0 * f v", 8),
            ("XADD y MINID = 301 * f v", 8 + 300),
            ("XADD y MINID x * f v", 7),
            ("XADD none MAXLEN 0 * f v", 7),
        ];
        assert_weights(&bench, &rows);
    }

    /// A command of many keys copied 1.2 s' worth of small lists where hearts beat: it weighed its words.
    #[test]
    fn what_a_snapshot_copies_is_weighed() {
        let mut bench = Bench::default();
        bench.run_line("RPUSH {t}few a b c d e");
        bench.run_line(&format!("RPUSH {{t}}many {}", "a ".repeat(1000).trim_end()));
        bench.run_line("SETRANGE {t}long 25599 x");
        assert_weights(&bench, &[("DEL {t}few", 2), ("RPUSH {t}few a", 3)]);
        assert!(bench.keyspace.begin_snapshot());
        let rows = [
            ("DEL {t}few", 2 + 5),
            ("UNLINK {t}many {t}few {t}none", 4 + 5),
            ("DEL {t}many {t}long", 3),
            ("MSET {t}few v {t}many v", 5 + 5),
            ("SETEX {t}few 9 v", 4 + 5),
            ("RPUSH {t}many b", 3 + 1000),
            ("RPUSH {t}few b", 3 + 5),
            // It is shared with the snapshot.
            ("APPEND {t}long y", 3 + 100),
            ("LLEN {t}many", 2),
        ];
        assert_weights(&bench, &rows);
        bench.run_line("SET {t}new v");
        let rows = [("RPUSH {t}few b", 3), ("DEL {t}few", 2), ("RPUSH {t}many b", 3 + 1000)];
        assert_weights(&bench, &rows);
    }

    #[track_caller]
    fn assert_weights(bench: &Bench, rows: &[(&str, usize)]) {
        let at = At::new(bench.db, bench.now);
        for &(line, expected) in rows {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = lookup(argv[0]).unwrap();
            let invocation = Invocation::new(command, &argv);
            assert_eq!(weight(&invocation, &bench.keyspace, at), expected, "{line}");
        }
    }

    fn weight_at(bench: &Bench, argv: &[&[u8]], after_ms: u64) -> usize {
        let at = At::new(bench.db, UnixMillis(bench.now.0 + after_ms));
        weight(&Invocation::new(lookup(argv[0]).unwrap(), argv), &bench.keyspace, at)
    }

    /// A pattern that fits nothing is compared as often as both are long, multiplied; and each key is hashed.
    #[test]
    fn keys_weigh_as_long_as_they_take_to_hash_and_to_match() {
        let mut bench = Bench::default();
        bench.run_line(&format!("MSET {} v b v", "a".repeat(100 * BYTES_PER_ELEMENT)));
        let pattern = "*a".repeat(50) + "z";
        let pattern = pattern.as_bytes();
        let rows: [(&[&[u8]], usize); 5] = [
            (&[b"KEYS", b"*"], 2 + 2 + 100),
            (&[b"KEYS", pattern], 2 + 2 + 100 * 102),
            (&[b"SCAN", b"0"], 2 + 2 + 100),
            (&[b"SCAN", b"0", b"MATCH", pattern], 4 + 2 + 100 * 102),
            (&[b"SCAN", b"0", b"COUNT", b"9", b"MATCH", pattern], 6 + 2 + 100 * 102),
        ];
        for (argv, expected) in rows {
            assert_eq!(weight_at(&bench, argv, 0), expected, "{argv:?}");
        }
    }

    /// How long an element is costs every pop a lookup more to know, at every replica: a long one is copied in place.
    #[test]
    fn pops_weigh_their_number_however_long_what_goes_is() {
        let mut bench = Bench::default();
        let long = "x".repeat(30 * BYTES_PER_ELEMENT);
        bench.run_line(&format!("RPUSH l {long} {long}"));
        bench.run_line(&format!("SADD s {long}"));
        bench.run_line(&format!("ZADD z 1 {long}"));
        for (line, expected) in [
            ("LPOP l", 2),
            ("RPOP l", 2),
            ("LPOP l 1", 3 + 1),
            ("SPOP s", 2),
            ("ZPOPMIN z", 2),
            ("ZPOPMAX z", 2),
        ] {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(weight_at(&bench, &argv, 0), expected, "{line}");
        }
    }

    /// It walked over all of them where hearts are beaten.
    #[test]
    fn who_draws_a_key_may_meet_only_expired_ones() {
        for (tag, bucket_keys) in [("", 2), ("{t}", 1001)] {
            let mut bench = Bench::default();
            bench.run_line("SET live v");
            for number in 0..1000 {
                bench.run_line(&format!("SET {tag}k{number} v PX 10"));
            }
            assert_eq!(weight_at(&bench, &[b"RANDOMKEY"], 0), 1, "nothing has expired");
            bench.run_line("DEL live");
            assert_eq!(weight_at(&bench, &[b"RANDOMKEY"], 10), 1 + 1000);
            for number in 0..1000 {
                bench.run_line(&format!("PERSIST {tag}k{number}"));
            }
            bench.run_line("SET k v PX 10");
            let weight = weight_at(&bench, &[b"RANDOMKEY"], 10);
            assert!(weight <= 1 + bucket_keys, "a live one is near: {weight}");
        }
    }

    /// What has no weight of its own costs what its words do, or why it need not.
    #[test]
    fn every_command_is_weighed_or_has_a_reason_not_to_be() {
        const UNWEIGHED: &[(&str, &[&str])] = &[
            (
                "looks at what its words name; a long reply is copied in place (ARCHITECTURE §11)",
                &[
                    "get",
                    "mget",
                    "getrange",
                    "substr",
                    "strlen",
                    "exists",
                    "touch",
                    "type",
                    "expiretime",
                    "pexpiretime",
                    "ttl",
                    "pttl",
                    "hexists",
                    "hget",
                    "hlen",
                    "llen",
                    "scard",
                    "sismember",
                    "zcard",
                    "zscore",
                    "xlen",
                    "dbsize",
                ],
            ),
            ("goes down a tree, or over the chunks of a list", &["lindex", "zrank", "zrevrank"]),
            (
                "puts what its words say, whose bytes count; what goes is one piece or left to be freed elsewhere",
                &[
                    "setex", "psetex", "setnx", "mset", "msetnx", "hset", "hmset", "lpush",
                    "rpush", "lpushx", "rpushx", "sadd", "zadd",
                ],
            ),
            ("takes out what its words name, and replies a number", &["hdel", "srem", "zrem"]),
            (
                "what goes is left to be freed elsewhere",
                &[
                    "del",
                    "unlink",
                    "flushall",
                    "flushdb",
                    "expire",
                    "pexpire",
                    "expireat",
                    "pexpireat",
                ],
            ),
            ("changes a deadline", &["persist"]),
            (
                "takes a number, and none is long",
                &["incr", "decr", "incrby", "decrby", "incrbyfloat"],
            ),
        ];
        let reasons: Vec<&str> = UNWEIGHED.iter().flat_map(|(_, names)| *names).copied().collect();
        for command in all() {
            let name = command.spec.name;
            let is_weighed = command.light_words < usize::MAX;
            let count = reasons.iter().filter(|reason| **reason == name).count();
            assert_eq!(count, usize::from(!is_weighed), "{name}: {}", command.spec.complexity);
        }
        assert!(reasons.iter().all(|name| lookup(name.as_bytes()).is_some()));
    }
}
