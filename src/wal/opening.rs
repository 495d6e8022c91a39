//! What the log says of each time it was opened, and what that says of the time before.
//!
//! A log that is opened when the machine has been started anew since, without a clean stop and without having synced
//! every append, may have lost its end: only the page cache held it. A process that died alone lost nothing.

use std::path::Path;

use crate::ids::Session;
use crate::stdx::codec;

use super::options::SyncPolicy;

/// Where Linux says which start of the machine this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Bytes of [`Opening::encode`].
const OPENING_BYTES: usize = 25;

/// One start of the machine: a new random number each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(u128);

impl BootId {
    /// The start of this number; `None` for zero, which is none.
    pub fn new(number: u128) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The machine's start as the system tells it; `None` when it does not, and then every start counts as another one.
    pub fn read() -> Option<Self> {
        Self::read_from(Path::new(BOOT_ID_FILE))
    }

    fn read_from(path: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Reads a UUID as the kernel writes it, with or without its dashes. Zero is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim_end().chars().filter(|it| *it != '-').collect();
        let is_hex = digits.len() == 32 && digits.bytes().all(|it| it.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(&digits, 16).ok()).flatten()?;
        Self::new(number)
    }
}

impl std::fmt::Display for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One opening of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) session: Session,
    pub(super) boot: Option<BootId>,
    pub(super) policy: SyncPolicy,
}

impl Opening {
    /// Whether a log that this opening began, and that was not closed in order, may miss its end in a machine whose
    /// start is `now`.
    pub(super) fn may_have_lost(&self, now: Option<BootId>) -> bool {
        let is_same_boot = self.boot.is_some() && self.boot == now;
        match self.policy {
            SyncPolicy::Always => false,
            SyncPolicy::EverySecond | SyncPolicy::Never => !is_same_boot,
        }
    }

    /// The payload of its record; the number of the start is the record's index.
    pub(super) fn encode(&self) -> [u8; OPENING_BYTES] {
        let mut payload = [0; OPENING_BYTES];
        payload[..8].copy_from_slice(&self.session.random.to_le_bytes());
        payload[8..24].copy_from_slice(&self.boot.map_or(0, |it| it.0).to_le_bytes());
        payload[24] = match self.policy {
            SyncPolicy::Always => 1,
            SyncPolicy::EverySecond => 2,
            SyncPolicy::Never => 3,
        };
        payload
    }

    /// The opening of start `number` whose record has `payload`.
    pub(super) fn decode(number: u64, payload: &[u8]) -> Option<Self> {
        let mut rest = payload;
        let random = codec::take_u64(&mut rest).ok()?;
        let boot = codec::take_u128(&mut rest).ok()?;
        let policy = match rest {
            [1] => SyncPolicy::Always,
            [2] => SyncPolicy::EverySecond,
            [3] => SyncPolicy::Never,
            _ => return None,
        };
        Some(Self {
            session: Session { number, random },
            boot: (boot != 0).then_some(BootId(boot)),
            policy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_read_as_it_was_written() {
        for policy in [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::Never] {
            for boot in [None, Some(BootId(7))] {
                let session = Session { number: 3, random: 0xfeed };
                let opening = Opening { session, boot, policy };
                let mut payload = opening.encode().to_vec();
                assert_eq!(Opening::decode(3, &payload), Some(opening));
                payload[24] = 9;
                assert_eq!(Opening::decode(3, &payload), None);
                assert_eq!(Opening::decode(3, &payload[..24]), None);
            }
        }
    }

    #[test]
    fn only_a_known_and_equal_boot_id_is_the_same_start() {
        let session = Session::default();
        let lost = |boot, now, policy| Opening { session, boot, policy }.may_have_lost(now);
        let (one, two) = (Some(BootId(1)), Some(BootId(2)));
        for policy in [SyncPolicy::EverySecond, SyncPolicy::Never] {
            assert!(!lost(one, one, policy));
            assert!(lost(one, two, policy) && lost(one, None, policy));
            assert!(lost(None, one, policy) && lost(None, None, policy));
        }
        assert!(!lost(one, two, SyncPolicy::Always));
    }

    #[test]
    fn the_boot_id_is_a_uuid() {
        let read = BootId::parse("8c3b1f2e-0d52-4a57-9a3c-6e1f0c9d7b42\n").unwrap();
        assert_eq!(read.to_string(), "8c3b1f2e0d524a579a3c6e1f0c9d7b42");
        for text in ["", "x", "00000000-0000-0000-0000-000000000000", "8c3b1f2e"] {
            assert_eq!(BootId::parse(text), None);
        }
        assert_eq!(BootId::read_from(Path::new("/nowhere/boot_id")), None);
    }
}
