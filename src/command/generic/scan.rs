//! SCAN: all keys, a few at a time.
//!
//! Works on the cursor it is given and returns the next one of this shard, 0 when its slots are done; the
//! router leads a client from shard to shard.

use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{At, ScanCursor};
use crate::stdx::glob;

pub(super) const SCAN: DataCommand = DataCommand::read(&SPEC, scan).weighed(weigh);

const SPEC: Spec = Spec {
    name: "scan",
    group: Group::Generic,
    since: "2.8.0",
    summary: "Returns a few keys and a cursor with which to ask for the next few.",
    complexity: "O(1) for each call and O(N) for a whole turn over N keys",
    arity: Arity::AtLeast(2),
    flags: &[ReadOnly],
    tips: &[
        Tip::NondeterministicOutput,
        Tip::Request(RequestPolicy::Special),
        Tip::Response(ResponsePolicy::Special),
    ],
    args: &[
        Arg::integer("cursor"),
        Arg::pattern("pattern").token("MATCH").optional(),
        Arg::integer("count").token("COUNT").optional(),
        Arg::string("type").token("TYPE").since("6.0.0").optional(),
    ],
    history: &[("6.0.0", "Takes `TYPE`.")],
    ..Spec::EMPTY
};

/// How many keys are looked at when the client does not say.
const COUNT: usize = 10;

fn scan<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let cursor = parse_cursor(args.next_bytes()?)?;
    let options = Options::parse(args)?;
    let mut found = Vec::new();
    let next = keyspace.scan(context.at, cursor, options.count, &mut |entry| {
        if options.accept(entry.key(), entry.value.type_name()) {
            found.push(Reply::bulk(entry.key()));
        }
    });
    let next = next.map_or(0, |cursor| cursor.0);
    Ok(Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(found)]))
}

/// The keys that are asked for, of those there are.
fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let mut args = Args::of_words(SPEC.name, invocation.argv.get(1..).unwrap_or_default());
    let cursor = args.next_bytes().and_then(parse_cursor);
    // What is refused looks at none.
    let (Ok(cursor), Ok(options)) = (cursor, Options::parse(&mut args)) else { return 0 };
    weight::keys_scanned(keyspace, at, (cursor, options.count), options.pattern)
}

/// The cursor `text` writes: an unsigned 64-bit decimal number.
fn parse_cursor(text: &[u8]) -> Result<ScanCursor, ErrorReply> {
    // Leading zeros are fine, a sign is not: `str::parse` would take `+`.
    let digits = Some(text).filter(|text| text.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.map(ScanCursor).ok_or(ErrorReply::INVALID_CURSOR)
}

#[derive(Clone, Copy, Debug)]
struct Options<'a> {
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Options<'a> {
    fn parse(args: &mut Args<'a>) -> Result<Self, ErrorReply> {
        let mut options = Self { pattern: None, type_name: None, count: COUNT };
        while !args.is_empty() {
            if args.token("COUNT") {
                let count = crate::command::parse_i64(args.option_value()?)?;
                if count < 1 {
                    return Err(ErrorReply::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if args.token("MATCH") {
                let pattern = args.option_value()?;
                options.pattern = Some(pattern).filter(|&pattern| pattern != b"*");
            } else if args.token("TYPE") {
                options.type_name = Some(args.option_value()?);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
        }
        Ok(options)
    }

    fn accept(&self, key: &[u8], type_name: &str) -> bool {
        self.type_name.is_none_or(|wanted| wanted.eq_ignore_ascii_case(type_name.as_bytes()))
            && self.pattern.is_none_or(|pattern| glob::matches(pattern, key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::command::testing::{Bench, check};
    use crate::resp::testing::Value;

    #[test]
    fn small_databases_are_done_at_once() {
        check("SCAN 0 => *2 $0 *0; SET k v; SCAN 0 => *2 $0 *1 $k; @db 1; SCAN 0 => *2 $0 *0");
    }

    #[test]
    fn options_filter_what_is_found() {
        check("MSET aa 1 ab 2 b 3; SCAN 0 MATCH a? COUNT 100 TYPE string => *2 $0 *2 $aa $ab");
        check("SET k v; SCAN 0 TYPE STRING => *2 $0 *1 $k; SCAN 0 TYPE list => *2 $0 *0");
        check("SET k v; SCAN 0 TYPE nothing => *2 $0 *0; SCAN 0 MATCH * => *2 $0 *1 $k");
        check("SET a v PX 1; @+1; SCAN 0 => *2 $0 *0");
    }

    #[test]
    fn what_is_no_option_is_refused() {
        let syntax = "-ERR syntax error";
        for options in
            ["COUNT", "COUNT 0", "COUNT -5", "FOO", "FOO 1", "MATCH", "TYPE", "COUNT 5 MATCH"]
        {
            check(&format!("SCAN 0 {options} => {syntax}"));
        }
        check("SCAN 0 COUNT x => -ERR value is not an integer or out of range");
    }

    #[test]
    fn a_cursor_is_an_unsigned_number() {
        for cursor in ["x", "-1", "+1", "1.0", "\"\"", "\" 1\"", "18446744073709551616"] {
            check(&format!("SCAN {cursor} FOO => -ERR invalid cursor"));
        }
        check("SCAN 18446744073709551615 => *2 $0 *0; SCAN 007 => *2 $0 *0");
    }

    #[test]
    fn a_whole_turn_returns_every_key() {
        for count in [1, 7, 100, 5000] {
            let mut bench = Bench::default();
            let keys: BTreeSet<Vec<u8>> =
                (0..500).map(|nth| format!("key:{nth}").into_bytes()).collect();
            for key in &keys {
                bench.run(&[b"SET", key, b"v"]);
            }
            let (mut cursor, mut found) = (b"0".to_vec(), BTreeSet::new());
            loop {
                let count = count.to_string();
                let reply = bench.run(&[b"SCAN", &cursor, b"COUNT", count.as_bytes()]);
                let Value::Array(parts) = reply else { panic!("no array") };
                let [Value::Bulk(next), Value::Array(some)] = &parts[..] else { panic!("not two") };
                for key in some {
                    let Value::Bulk(key) = key else { panic!("no key") };
                    found.insert(key.clone());
                }
                cursor.clone_from(next);
                if cursor == b"0" {
                    break;
                }
            }
            assert_eq!(found, keys, "COUNT {count}");
        }
    }
}
