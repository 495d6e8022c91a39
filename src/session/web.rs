//! Keeps the web out: a page that somebody is made to open can have a browser send requests to any port it reaches, and
//! what their bodies say would be taken for commands.
//!
//! No command is called `POST` or `Host:`, and a browser says one of them before any byte that the page chose for the
//! body. So either ends the connection, as in Redis.
//!
//! Source: Redis 7.0 `securityWarningCommand`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::stdx::log_limit::LogLimit;

/// That a browser came is logged at most once in this time, as in Redis.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Whether `word`, the first of a request, is one of HTTP: then nothing more of this client may be taken.
pub fn is_of_the_web(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"POST") || word.eq_ignore_ascii_case(b"Host:")
}

/// Logs that a client sent such a word.
pub fn report_web(peer: SocketAddr) {
    static REPORTS: LogLimit = LogLimit::every(LOG_INTERVAL);
    if let Some(suppressed) = REPORTS.permit() {
        tracing::warn!(
            %peer,
            suppressed,
            "possible SECURITY ATTACK: a client sent POST or Host:, as browsers do and no client of Redis; a web page may be trying to send commands through one. Its connection is closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_http_are_told_in_any_case() {
        for word in ["POST", "post", "Host:", "hOST:"] {
            assert!(is_of_the_web(word.as_bytes()), "{word}");
        }
        for word in ["", "GET", "Host", "Host:x", "POSTS", "PSETEX"] {
            assert!(!is_of_the_web(word.as_bytes()), "{word}");
        }
    }
}
