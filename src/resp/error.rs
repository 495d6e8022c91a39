//! Every error kvorum can say to a client, in one table: a code, a space, and Redis' own text.
//!
//! An error that a command answers is part of the replicated state, so its text must be the same bytes on every
//! replica: build it from the request alone. Texts are those of Redis 7.0 where Redis has one; the rest (quorum,
//! unknown outcome) exist only here.

use std::borrow::Cow;
use std::fmt;

/// A refusal as the client sees it: one line, `CODE text`, without CR and LF.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ErrorReply {
    line: Cow<'static, str>,
}

impl ErrorReply {
    /// The error `code text`. Each CR and LF in `text` becomes a space, as in Redis: a line break would end the reply.
    ///
    /// `code` is one word in capitals, for most errors `ERR`.
    pub fn new(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let text: Cow<'static, str> = text.into();
        Self::from_line(format!("{code} {text}"))
    }

    /// The error whose whole line is `line`, such as one received from another node; line breaks become spaces.
    pub fn from_line(line: impl Into<String>) -> Self {
        let mut line: String = line.into();
        if line.contains(['\r', '\n']) {
            line = line.replace(['\r', '\n'], " ");
        }
        Self { line: Cow::Owned(line) }
    }

    /// The first word: what client libraries decide by.
    pub fn code(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// The whole line as it follows `-` on the wire.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// An error of the table. Tests prove that each is one line with a code.
    const fn fixed(line: &'static str) -> Self {
        Self { line: Cow::Borrowed(line) }
    }

    fn owned(line: String) -> Self {
        Self::from_line(line)
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for ErrorReply {}

/// Declares the errors whose text is fixed; the text is the documentation.
macro_rules! table {
    ($($name:ident = $line:literal;)*) => {
        impl ErrorReply {
            $(
                #[doc = concat!("`", $line, "`")]
                pub const $name: Self = Self::fixed($line);
            )*
        }

        #[cfg(test)]
        const ALL: &[ErrorReply] = &[$(ErrorReply::$name),*];
    };
}

table! {
    // Any command.
    WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
    SYNTAX = "ERR syntax error";
    NOT_INTEGER = "ERR value is not an integer or out of range";
    NOT_POSITIVE = "ERR value is out of range, must be positive";
    NOT_FLOAT = "ERR value is not a valid float";
    OVERFLOW = "ERR increment or decrement would overflow";
    DECREMENT_OVERFLOW = "ERR decrement would overflow";
    NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
    STRING_TOO_BIG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    OFFSET_OUT_OF_RANGE = "ERR offset is out of range";
    INVALID_CURSOR = "ERR invalid cursor";
    DB_INDEX_OUT_OF_RANGE = "ERR DB index is out of range";
    TIMEOUT_NEGATIVE = "ERR timeout is negative";
    TIMEOUT_NOT_INTEGER = "ERR timeout is not an integer or out of range";

    // Keys.
    EXPIRE_NX_WITH_OTHERS = "ERR NX and XX, GT or LT options at the same time are not compatible";
    EXPIRE_GT_WITH_LT = "ERR GT and LT options at the same time are not compatible";

    // Sorted sets and geo.
    SCORE_NAN = "ERR resulting score is not a number (NaN)";
    ZADD_NX_WITH_XX = "ERR XX and NX options at the same time are not compatible";
    ZADD_GT_LT_NX = "ERR GT, LT, and/or NX options at the same time are not compatible";
    ZADD_INCR_ONE_PAIR = "ERR INCR option supports a single increment-element pair";

    // Streams.
    STREAM_ID_INVALID = "ERR Invalid stream ID specified as stream command argument";
    XADD_ID_ZERO = "ERR The ID specified in XADD must be greater than 0-0";
    XADD_ID_NOT_GREATER = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    XADD_ID_EXHAUSTED = "ERR The stream has exhausted the last possible ID, unable to add more items";
    XADD_TOO_LARGE = "ERR Elements are too large to be stored";
    STREAM_MAXLEN_NEGATIVE = "ERR The MAXLEN argument must be >= 0.";
    STREAM_LIMIT_NEGATIVE = "ERR The LIMIT argument must be >= 0.";
    STREAM_LIMIT_NEEDS_STRATEGY = "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy";
    STREAM_LIMIT_NEEDS_APPROXIMATE = "ERR syntax error, LIMIT cannot be used without the special ~ option";
    STREAM_TRIM_TWICE = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible";
    STREAM_RANGE_START = "ERR invalid start ID for the interval";
    STREAM_RANGE_END = "ERR invalid end ID for the interval";

    // Connection, users and transactions.
    NOAUTH = "NOAUTH Authentication required.";
    WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled.";
    TOO_MANY_GUESSES = "TRYAGAIN too many wrong passwords came from your address: yours was not looked at, ask again in some seconds";
    AUTH_WITHOUT_PASSWORD = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
    NOPROTO = "NOPROTO unsupported protocol version";
    HELLO_VERSION = "ERR Protocol version is not an integer or out of range";
    HELLO_NOAUTH = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
    CLIENT_NAME = "ERR Client names cannot contain spaces, newlines or special characters.";
    NO_SUCH_CLIENT = "ERR No such client";
    MAX_CLIENTS = "ERR max number of clients reached";
    PROTECTED_MODE = "DENIED kvorum is in protected mode: no password is set and only connections from the loopback interface are accepted. Set a password with requirepass, or protected-mode no when the network is trusted.";

    // The server and the cluster.
    OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'.";
    LOADING = "LOADING Redis is loading the dataset in memory";
    WRITES_STOPPED = "MISCONF this node cannot write to its disk and has stopped serving writes; see its log";
    INTERNAL = "ERR internal error; see the log of the node";
    TOO_LARGE = "ERR the command is too large";
    REPLY_TOO_LARGE = "ERR the reply is too large";
    TOO_MANY_WAITING = "TRYAGAIN too many commands are waiting for this shard on this node";
    SHARD_BUSY = "TRYAGAIN a large command is at work on this shard";
    NO_QUORUM = "CLUSTERDOWN no quorum: too few replicas of the key's shard can be reached";
    OUTCOME_UNKNOWN = "TIMEOUT outcome unknown: the command may or may not have been applied";
    READ_UNANSWERED = "TIMEOUT the read was not answered: each node that was asked fell silent over it";
    SESSION_ENDED = "TRYAGAIN not applied: the shard has ended the session of this node; another start of it, or a copy, has taken over";
    PACKET_REFUSED = "ERR not applied: the leader of the key's shard does not know a command that was sent along; see its log";
    CROSSSLOT = "CROSSSLOT Keys in request don't hash to the same slot";
}

/// How much of a name and of the arguments an error repeats, in bytes, as in Redis.
const ECHO_BYTES_MAX: usize = 128;

/// The errors that name what was wrong.
impl ErrorReply {
    /// `ERR wrong number of arguments for 'get' command`; a subcommand's name is `config|get`.
    pub fn wrong_arity(name: &str) -> Self {
        Self::owned(format!("ERR wrong number of arguments for '{}' command", name.to_lowercase()))
    }

    /// `LOADING` and what the node waits for.
    pub fn loading(reason: &str) -> Self {
        Self::owned(format!("LOADING {reason}"))
    }

    /// `ERR unknown command 'foo', with args beginning with: 'a' 'b' `, from the whole argv.
    ///
    /// The name and the arguments are cut after 128 bytes each; bytes that are no UTF-8 are shown as `U+FFFD`.
    pub fn unknown_command<'a>(argv: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut argv = argv.into_iter();
        let name = echo(argv.next().unwrap_or_default(), ECHO_BYTES_MAX);
        let mut shown = String::new();
        for arg in argv {
            let Some(room) = ECHO_BYTES_MAX.checked_sub(shown.len()).filter(|room| *room > 0)
            else {
                break;
            };
            shown.push('\'');
            shown.push_str(&echo(arg, room));
            shown.push_str("' ");
        }
        Self::owned(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
    }

    /// `ERR unknown subcommand 'zork'. Try CONFIG HELP.`
    pub fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Self {
        let subcommand = echo(subcommand, ECHO_BYTES_MAX);
        let command = command.to_uppercase();
        Self::owned(format!("ERR unknown subcommand '{subcommand}'. Try {command} HELP."))
    }

    /// `ERR invalid expire time in 'set' command`
    pub fn invalid_expire(command: &str) -> Self {
        Self::owned(format!("ERR invalid expire time in '{}' command", command.to_lowercase()))
    }

    /// `ERR Unsupported option foo`: EXPIRE and its kin.
    pub fn unsupported_option(option: &[u8]) -> Self {
        Self::owned(format!("ERR Unsupported option {}", echo(option, ECHO_BYTES_MAX)))
    }

    /// `ERR Syntax error in HELLO option 'auth'`
    pub fn hello_option(option: &[u8]) -> Self {
        Self::owned(format!("ERR Syntax error in HELLO option '{}'", echo(option, ECHO_BYTES_MAX)))
    }

    /// `MOVED 3999 127.0.0.1:6381`: the slot is led by the cluster door at `host:port`.
    pub fn moved(slot: u16, host: &str, port: u16) -> Self {
        Self::owned(format!("MOVED {slot} {host}:{port}"))
    }

    /// `ERR Protocol error: …`, after which the connection is closed.
    pub fn protocol_error(what: impl fmt::Display) -> Self {
        Self::owned(format!("ERR Protocol error: {what}"))
    }
}

/// At most `bytes_max` bytes of what a client sent, up to the first NUL, as Redis' `%.*s` repeats it.
fn echo(bytes: &[u8], bytes_max: usize) -> Cow<'_, str> {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::decode::ProtocolError;

    #[test]
    fn every_fixed_error_is_one_line_with_a_code_in_capitals() {
        for error in ALL {
            assert!(!error.line().contains(['\r', '\n']), "{error}");
            assert!(error.code().bytes().all(|b| b.is_ascii_uppercase()), "{error}");
            assert!(error.line().len() > error.code().len() + 1, "{error}");
        }
    }

    #[test]
    fn no_fixed_error_stands_twice() {
        for (i, error) in ALL.iter().enumerate() {
            assert!(!ALL[..i].contains(error), "{error}");
        }
    }

    #[test]
    fn line_breaks_never_reach_the_wire() {
        assert_eq!(ErrorReply::new("ERR", "a\r\nb").line(), "ERR a  b");
        assert_eq!(ErrorReply::from_line("X a\nb").line(), "X a b");
        assert_eq!(
            ErrorReply::unknown_command([&b"foo\nbar"[..], b"x\r\ny"]).line(),
            "ERR unknown command 'foo bar', with args beginning with: 'x  y' "
        );
    }

    #[test]
    fn code_is_the_first_word() {
        assert_eq!(ErrorReply::WRONG_TYPE.code(), "WRONGTYPE");
        assert_eq!(ErrorReply::new("ERR", "x y").code(), "ERR");
        assert_eq!(
            ErrorReply::moved(3999, "127.0.0.1", 6381).to_string(),
            "MOVED 3999 127.0.0.1:6381"
        );
        assert_eq!(ErrorReply::from_line("").code(), "");
    }

    /// Texts recorded from redis-server 7.0.15.
    #[test]
    fn texts_that_name_something_are_those_of_redis() {
        let table = [
            (ErrorReply::wrong_arity("GET"), "ERR wrong number of arguments for 'get' command"),
            (
                ErrorReply::wrong_arity("config|get"),
                "ERR wrong number of arguments for 'config|get' command",
            ),
            (
                ErrorReply::unknown_command([&b"foo"[..], b"a", b"b c", b"d"]),
                "ERR unknown command 'foo', with args beginning with: 'a' 'b c' 'd' ",
            ),
            (
                ErrorReply::unknown_command([&b"foo"[..]]),
                "ERR unknown command 'foo', with args beginning with: ",
            ),
            (
                ErrorReply::unknown_subcommand("config", b"zork"),
                "ERR unknown subcommand 'zork'. Try CONFIG HELP.",
            ),
            (ErrorReply::invalid_expire("set"), "ERR invalid expire time in 'set' command"),
            (ErrorReply::unsupported_option(b"foo"), "ERR Unsupported option foo"),
            (ErrorReply::hello_option(b"auth"), "ERR Syntax error in HELLO option 'auth'"),
            (
                ErrorReply::protocol_error(ProtocolError::InvalidLength),
                "ERR Protocol error: invalid bulk length",
            ),
        ];
        for (error, line) in table {
            assert_eq!(error.line(), line);
        }
    }

    #[test]
    fn what_a_client_sent_is_repeated_only_so_far() {
        let long = [b'x'; 500];
        let error = ErrorReply::unknown_command([&long[..], &long[..], &long[..]]);
        assert_eq!(
            error.line(),
            format!(
                "ERR unknown command '{0}', with args beginning with: '{0}' ",
                "x".repeat(ECHO_BYTES_MAX)
            )
        );
        assert_eq!(
            ErrorReply::unsupported_option(b"\xff\0rest").line(),
            "ERR Unsupported option \u{fffd}"
        );
    }
}
