//! The expiry options that SET, GETEX, SETEX and PSETEX share.

use crate::command::args::parse_i64;
use crate::command::deadline::TimeForm;
use crate::command::prelude::*;
use crate::stdx::clock::UnixMillis;

/// An expiry as the client wrote it. Whether it makes sense is known only after all options were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry<'a> {
    form: TimeForm,
    number: &'a [u8],
}

impl<'a> Expiry<'a> {
    /// `number` meant as `form` says.
    pub(super) const fn new(form: TimeForm, number: &'a [u8]) -> Self {
        Self { form, number }
    }

    /// EX, PX, EXAT or PXAT with its number, if that comes next.
    ///
    /// Such an option may be given twice, the last number counts; two different ones are a syntax error, and
    /// so is a missing number.
    pub(super) fn parse_option(
        args: &mut Args<'a>,
        earlier: Option<Self>,
    ) -> Result<Option<Self>, ErrorReply> {
        let Some((_, form)) = FORMS.into_iter().find(|(word, _)| args.token(word)) else {
            return Ok(None);
        };
        if earlier.is_some_and(|earlier| earlier.form != form) {
            return Err(ErrorReply::SYNTAX);
        }
        Ok(Some(Self::new(form, args.option_value()?)))
    }

    /// The deadline; `ERR invalid expire time` unless the number is positive and the deadline fits.
    pub(super) fn deadline(
        self,
        now: UnixMillis,
        command: &'static str,
    ) -> Result<UnixMillis, ErrorReply> {
        let number = parse_i64(self.number)?;
        let deadline = self.form.deadline(number, now).filter(|_| number > 0);
        let deadline = deadline.and_then(|deadline| u64::try_from(deadline).ok());
        deadline.map(UnixMillis).ok_or_else(|| ErrorReply::invalid_expire(command))
    }

    /// Whether the deadline was given as a time since 1970.
    pub(super) fn is_absolute(self) -> bool {
        matches!(self.form, TimeForm::UnixSeconds | TimeForm::UnixMillis)
    }
}

const FORMS: [(&str, TimeForm); 4] = [
    ("EX", TimeForm::Seconds),
    ("PX", TimeForm::Millis),
    ("EXAT", TimeForm::UnixSeconds),
    ("PXAT", TimeForm::UnixMillis),
];

/// The choices of [`Expiry::parse_option`] as COMMAND DOCS shows them; SET and GETEX add one each.
pub(super) const SECONDS: Arg = Arg::integer("seconds").token("EX");
/// See [`SECONDS`].
pub(super) const MILLISECONDS: Arg = Arg::integer("milliseconds").token("PX");
/// See [`SECONDS`].
pub(super) const UNIX_SECONDS: Arg = Arg::unix_time("unix-time-seconds").token("EXAT");
/// See [`SECONDS`].
pub(super) const UNIX_MILLISECONDS: Arg = Arg::unix_time("unix-time-milliseconds").token("PXAT");
