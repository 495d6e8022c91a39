//! How much memory a command may add, judged by its words alone.

use super::spec::{Flag, Spec};
use crate::stdx::num::parse_i64;

/// What a key or a member takes beside its bytes, about.
const ENTRY_BYTES: u64 = 96;

/// The longest string that SETRANGE may make.
const STRING_BYTES_MAX: u64 = super::string::limits::STRING_BYTES_MAX as u64;

/// Bytes that the command may add to what is stored; 0 where it is run however short memory is. What it copies or makes of
/// what is stored already is not in its words and not counted.
pub fn growth(spec: &Spec, argv: &[&[u8]]) -> u64 {
    if !spec.has(Flag::DenyOom) {
        return 0;
    }
    let words = argv.iter().map(|word| word.len() as u64).sum::<u64>();
    // What lies before the offset is filled up with zeros; too large a one is an error, and nothing is written of nothing.
    let offset = match (spec.name, argv) {
        ("setrange", [_, _, offset, value]) if !value.is_empty() => parse_i64(offset).unwrap_or(0),
        _ => 0,
    };
    let offset = u64::try_from(offset).ok().filter(|offset| *offset < STRING_BYTES_MAX);
    ENTRY_BYTES.saturating_add(words).saturating_add(offset.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;

    fn of(argv: &[&[u8]]) -> u64 {
        growth(lookup(argv[0]).unwrap().spec, argv)
    }

    #[test]
    fn what_a_command_may_add_is_in_its_words() {
        assert_eq!(of(&[b"GET", b"k"]), 0);
        assert_eq!(of(&[b"DEL", b"k"]), 0);
        assert!((1000..1200).contains(&of(&[b"SET", b"k", &[b'x'; 1000]])));
        assert!((1000..1200).contains(&of(&[b"rpush", b"k", &[b'x'; 500], &[b'x'; 500]])));
        let large = of(&[b"SETRANGE", b"k", b"536870911", b"x"]);
        assert!(
            (536_870_911..536_872_000).contains(&large),
            "once: a snapshot has nothing beside it"
        );
        assert_eq!(of(&[b"setrange", b"k", b"536870911", b"x"]), large);
        assert!(of(&[b"SETRANGE", b"k", b"-1", b"x"]) < 200, "an error");
        assert!(of(&[b"SETRANGE", b"k", b"9223372036854775807", b"x"]) < 200, "an error");
        assert!(of(&[b"SETRANGE", b"k", b"536870911", b""]) < 200, "nothing is written");
    }
}
