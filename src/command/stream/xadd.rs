//! XADD: add an entry to a stream, and trim the stream when asked.

use super::id::NewId;
use super::trim::TrimOptions;
use crate::command::prelude::*;
use crate::keyspace::{AppendError, At, Stream, StreamId, Trimming};

pub(super) const XADD: DataCommand =
    DataCommand::write(&SPEC, xadd).weighed_beyond(PLAIN_WORDS, weigh);

/// Words without options and with one field.
const PLAIN_WORDS: usize = 5;

const SPEC: Spec = Spec {
    name: "xadd",
    group: Group::Stream,
    since: "5.0.0",
    summary: "Adds an entry to a stream and creates the stream when the key is missing.",
    complexity: "O(1), and O(N) to trim N entries",
    arity: Arity::AtLeast(5),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    tips: &[Tip::NondeterministicOutput],
    args: &[
        Arg::key("key"),
        Arg::pure_token("nomkstream", "NOMKSTREAM").optional().since("6.2.0"),
        Arg::block(
            "trim",
            &[
                Arg::one_of(
                    "strategy",
                    &[
                        Arg::pure_token("maxlen", "MAXLEN"),
                        Arg::pure_token("minid", "MINID").since("6.2.0"),
                    ],
                ),
                Arg::one_of(
                    "operator",
                    &[Arg::pure_token("equal", "="), Arg::pure_token("approximately", "~")],
                )
                .optional(),
                Arg::string("threshold"),
                Arg::integer("count").token("LIMIT").optional().since("6.2.0"),
            ],
        )
        .optional(),
        Arg::one_of("id-selector", &[Arg::pure_token("auto-id", "*"), Arg::string("id")]),
        Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple(),
    ],
    history: &[
        ("6.2.0", "Knows NOMKSTREAM, MINID and LIMIT."),
        ("7.0.0", "Completes ids of the form ms-*."),
    ],
    ..Spec::EMPTY
};

fn xadd<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let mut is_created = true;
    let mut trim = TrimOptions::default();
    loop {
        if args.token("NOMKSTREAM") {
            is_created = false;
        } else if !trim.take(args)? {
            break;
        }
    }
    let new_id = NewId::parse(args.next_bytes()?)?;
    let trim = trim.finish()?;
    let fields = args.pairs()?;
    if new_id == NewId::Given(StreamId::MIN) {
        return Err(ErrorReply::XADD_ID_ZERO);
    }
    // Before a stream is created, which a refusal would leave behind.
    if !Stream::admits(fields.clone()) {
        return Err(ErrorReply::XADD_TOO_LARGE);
    }

    if !is_created && keyspace.stream(context.at, key)?.is_none() {
        return Ok(Reply::Null);
    }
    let stream = keyspace.stream_or_create(context.at, key)?;
    let id = next_id(stream, new_id, context)?;
    stream.append(id, fields).map_err(|refusal| match refusal {
        AppendError::NotGreater => ErrorReply::XADD_ID_NOT_GREATER,
        AppendError::TooLarge => ErrorReply::XADD_TOO_LARGE,
    })?;
    if let Some((keep, trimming)) = trim {
        stream.trim(keep, trimming);
    }
    Ok(Reply::text(id.to_string()))
}

/// What is trimmed.
fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let mut options = Args::of_words(SPEC.name, invocation.argv.get(2..).unwrap_or_default());
    let mut trim = TrimOptions::default();
    while options.token("NOMKSTREAM") || trim.take(&mut options).unwrap_or(false) {}
    // What is refused trims nothing.
    let Ok(Some((keep, trimming))) = trim.finish() else { return 0 };
    let Some(key) = invocation.first_key(keyspace) else { return 0 };
    let Ok(Some(stream)) = keyspace.stream(at, key) else { return 0 };
    let surplus = stream.surplus(keep);
    match trimming {
        Trimming::Approximate { limit } if limit > 0 => {
            surplus.min(usize::try_from(limit).unwrap_or(usize::MAX))
        }
        Trimming::Approximate { .. } | Trimming::Exact => surplus,
    }
}

/// The id that `new_id` asks for; whether it is free, appending tells.
fn next_id(stream: &Stream, new_id: NewId, context: &Context) -> Result<StreamId, ErrorReply> {
    let last = stream.last_id();
    let following = last.next().ok_or(ErrorReply::XADD_ID_EXHAUSTED)?;
    Ok(match new_id {
        // The clock may stand still or go back: ids never do.
        NewId::Auto => following.max(StreamId::new(context.now().0, 0)),
        // With no number left, `following` would be in another millisecond than the client asked for.
        NewId::AutoSeq(ms) if ms == last.ms && following.ms != ms => {
            return Err(ErrorReply::XADD_ID_NOT_GREATER);
        }
        NewId::AutoSeq(ms) if ms == last.ms => following,
        NewId::AutoSeq(ms) => StreamId::new(ms, 0),
        NewId::Given(id) => id,
    })
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn ids_follow_the_time_of_the_log_entry() {
        check("XADD s * f v => $1700000000000-0; XADD s * f v => $1700000000000-1");
        check(
            "@+5; XADD s * f v => $1700000000005-0; XADD s 1700000000009-7 f v; XADD s * f v => $1700000000009-8",
        );
    }

    #[test]
    fn ids_only_grow() {
        check(
            "XADD s 5-1 f v => $5-1; XADD s 5-* f v => $5-2; XADD s 7-* f v => $7-0; XADD s 8 f v => $8-0",
        );
        let error =
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item";
        check(&format!("XADD s 5-1 f v; XADD s 5-1 f v => {error}; XADD s 4-* f v => {error}"));
        check(&format!(
            "XADD s 5-18446744073709551615 f v; XADD s 5-* f v => {error}; XADD s * f v"
        ));
        check("XADD s 0-* f v => $0-1");
    }

    #[test]
    fn the_last_id_ends_the_stream() {
        let last = "18446744073709551615-18446744073709551615";
        let error = "-ERR The stream has exhausted the last possible ID, unable to add more items";
        check(&format!(
            "XADD s {last} f v => ${last}; XADD s * f v => {error}; XADD s 1 f v => {error}"
        ));
    }

    #[test]
    fn a_missing_stream_may_stay_missing() {
        check(
            "XADD s NOMKSTREAM 1 f v => $-1; GET s => $-1; XADD s 1 f v; XADD s nomkstream 2 f v => $2-0",
        );
    }

    #[test]
    fn a_stream_that_was_trimmed_to_nothing_exists() {
        check("XADD s MAXLEN 0 1 f v => $1-0; XLEN s => :0; XADD s NOMKSTREAM 2 f v => $2-0");
        check("XADD s 1 f v; XADD s MINID = 2 2 f v; XRANGE s - + => *1 *2 $2-0 *2 $f $v");
    }
}
