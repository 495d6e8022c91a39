//! The trimming options that XADD and XTRIM share.

use super::id::parse_id;
use crate::command::args::Args;
use crate::keyspace::{Keep, Trimming};
use crate::resp::ErrorReply;

/// How many entries `~` removes at most when LIMIT does not say: a hundred blocks.
const LIMIT_DEFAULT: u64 = 10_000;

/// What the options ask for, as far as they were read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TrimOptions {
    keep: Option<Keep>,
    is_approximate: bool,
    limit: Option<u64>,
}

impl TrimOptions {
    /// Takes MAXLEN, MINID or LIMIT with its value, if one of them is next. Returns whether it was.
    pub(super) fn take(&mut self, args: &mut Args<'_>) -> Result<bool, ErrorReply> {
        // The last argument is never an option: it would have no value.
        if args.remaining() < 2 {
            return Ok(false);
        }
        if args.token("MAXLEN") {
            self.begin(args)?;
            let count = args.next_i64()?;
            let count = u64::try_from(count).map_err(|_| ErrorReply::STREAM_MAXLEN_NEGATIVE)?;
            self.keep = Some(Keep::Newest(count));
        } else if args.token("MINID") {
            self.begin(args)?;
            self.keep = Some(Keep::From(parse_id(args.next_bytes()?, 0)?));
        } else if args.token("LIMIT") {
            let limit = args.next_i64()?;
            let limit = u64::try_from(limit).map_err(|_| ErrorReply::STREAM_LIMIT_NEGATIVE)?;
            self.limit = Some(limit);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes `~` or `=` unless it is the value itself.
    fn begin(&mut self, args: &mut Args<'_>) -> Result<(), ErrorReply> {
        if self.keep.is_some() {
            return Err(ErrorReply::STREAM_TRIM_TWICE);
        }
        self.is_approximate = args.remaining() >= 2 && args.token("~");
        if !self.is_approximate && args.remaining() >= 2 {
            args.token("=");
        }
        Ok(())
    }

    /// What to trim to and how, once all options are read; `None` when nothing is to be trimmed.
    pub(super) fn finish(self) -> Result<Option<(Keep, Trimming)>, ErrorReply> {
        if self.keep.is_none() && self.limit.is_some_and(|limit| limit > 0) {
            return Err(ErrorReply::STREAM_LIMIT_NEEDS_STRATEGY);
        }
        if self.limit.is_some() && !self.is_approximate {
            return Err(ErrorReply::STREAM_LIMIT_NEEDS_APPROXIMATE);
        }
        let trimming = if self.is_approximate {
            Trimming::Approximate { limit: self.limit.unwrap_or(LIMIT_DEFAULT) }
        } else {
            Trimming::Exact
        };
        Ok(self.keep.map(|keep| (keep, trimming)))
    }
}
