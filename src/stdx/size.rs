//! Amounts of memory as redis.conf writes them: `100`, `1k`, `1kb`, `5GB`.

/// Units, largest first so that formatting takes the first that fits: `k` is 1000, `kb` is 1024.
const UNITS: [(&str, u64); 7] = [
    ("gb", 1 << 30),
    ("g", 1_000_000_000),
    ("mb", 1 << 20),
    ("m", 1_000_000),
    ("kb", 1 << 10),
    ("k", 1000),
    ("b", 1),
];

/// The bytes that `text` says; `None` when it is no amount or above `u64::MAX`.
///
/// Digits, then one of `b k kb m mb g gb` in any case or nothing. No sign, space or fraction.
///
/// Source: redis.conf, "Note on units"; Redis `memtoull`.
pub fn parse(text: &str) -> Option<u64> {
    let unit_start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_start);
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(unit_bytes(unit)?)
}

/// `bytes` with the largest unit that loses nothing: `1gb`, `100mb`, `1500` → `1500`.
///
/// Units of 1024 only, so that an amount always comes back in one form. [`parse`] reads it back.
pub fn format(bytes: u64) -> String {
    let powers = UNITS.iter().filter(|(_, unit)| unit.is_power_of_two() && *unit > 1);
    for (name, unit) in powers {
        if bytes > 0 && bytes.is_multiple_of(*unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

fn unit_bytes(name: &str) -> Option<u64> {
    if name.is_empty() {
        return Some(1);
    }
    UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).map(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_redis_conf() {
        let table = [
            ("0", 0),
            ("1500", 1500),
            ("7b", 7),
            ("1k", 1000),
            ("1kb", 1024),
            ("5m", 5_000_000),
            ("5MB", 5 * 1024 * 1024),
            ("2g", 2_000_000_000),
            ("1Gb", 1 << 30),
            ("1GB", 1 << 30),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let refused = [
            "",
            "k",
            "-1",
            "+1",
            "1 kb",
            " 1",
            "1.5g",
            "1kib",
            "1tb",
            "kb1",
            "1é",
            "18446744073709551616",
            "99999999999g",
        ];
        for text in refused {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_print_in_their_largest_unit_and_read_back() {
        let table = [
            (0, "0"),
            (1, "1"),
            (1000, "1000"),
            (1024, "1kb"),
            (1536, "1536"),
            (3 << 19, "1536kb"),
            (100 << 20, "100mb"),
            (1 << 30, "1gb"),
            (u64::MAX, "18446744073709551615"),
        ];
        for (bytes, text) in table {
            assert_eq!(format(bytes), text);
            assert_eq!(parse(text), Some(bytes));
        }
    }
}
