//! One command of a client, as the checker judges it. `tests/sim` takes this file in by its path.

use super::reply::Value;

/// What a client asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Set(Vec<u8>),
    Incr,
    SetNx(Vec<u8>),
    Del,
    Append(Vec<u8>),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    Nil,
    Integer(i64),
    Bulk(Vec<u8>),
    /// The command was refused by its own rules, as INCR of a text is.
    Error,
}

/// One command of a client. Times are µs of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) key: String,
    pub(crate) action: Action,
    pub(crate) invoked: u64,
    /// When it returned and with what; `None` when the outcome is unknown: it may take effect at any time
    /// after `invoked`, or never.
    pub(crate) returned: Option<(u64, Answer)>,
}

/// The words of a command.
pub(crate) fn argv(key: &str, action: &Action) -> Vec<Vec<u8>> {
    let key = key.as_bytes();
    let words: Vec<&[u8]> = match action {
        Action::Get => vec![b"GET", key],
        Action::Set(value) => vec![b"SET", key, value],
        Action::Incr => vec![b"INCR", key],
        Action::SetNx(value) => vec![b"SET", key, value, b"NX"],
        Action::Del => vec![b"DEL", key],
        Action::Append(value) => vec![b"APPEND", key, value],
    };
    words.into_iter().map(<[u8]>::to_vec).collect()
}

/// What a reply without an error of the cluster says.
pub(crate) fn answer(value: &Value) -> Answer {
    match value {
        Value::Simple(_) => Answer::Ok,
        Value::Null => Answer::Nil,
        Value::Integer(number) => Answer::Integer(*number),
        Value::Bulk(bytes) => Answer::Bulk(bytes.clone()),
        other => panic!("no command of the history answers {other:?}"),
    }
}
