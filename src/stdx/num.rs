//! Numbers as Redis reads and writes them: one parser for all, and the printer of doubles; integers are printed by `itoa`.
//!
//! Parsing is strict: no spaces, no `+1` for integers, nothing after the number. Texts must be the same bytes on every
//! replica, so nothing here depends on the platform's C library. Sums of INCRBYFLOAT are
//! [`long_double`](super::long_double)'s.

use std::fmt::{self, Write as _};

/// `-9223372036854775808`.
const INTEGER_BYTES_MAX: usize = 20;

/// The text of an `f64` as Redis 7.2 writes scores and doubles, on the stack.
///
/// The shortest digits that read back as the same number; integers up to 2^62 in full; otherwise an exponent without
/// padding when the plain form would be long: `1e+20`, `1e-7`, `1.5e+300`. `inf`, `-inf`, `nan` and `-0` stand for
/// themselves. Redis 7.0 and older print 17 digits (`0.10000000000000001`).
///
/// Source: Redis 7.2 `d2string` and the layout rules of its fpconv library. Its Grisu2 digits are, for about one
/// number in a thousand, not the shortest; ours always are.
#[derive(Clone, Copy, Debug)]
pub struct DoubleText {
    text: StackText<DOUBLE_BYTES_MAX>,
}

/// Room for a sign, 17 digits and 7 zeros, or for `0.000` and 17 digits.
const DOUBLE_BYTES_MAX: usize = 32;

/// Half of the range of `i64`, within which Redis prints doubles without a fraction as integers.
const INTEGER_FORM_MAX: f64 = 4_611_686_018_427_387_904.0;

impl DoubleText {
    /// The text of `number`.
    pub fn new(number: f64) -> Self {
        let mut text = StackText::EMPTY;
        if number.is_nan() {
            text.push(b"nan");
        } else if number.is_infinite() {
            text.push(if number > 0.0 { b"inf" } else { b"-inf" });
        } else if number == 0.0 {
            text.push(if number.is_sign_negative() { b"-0" } else { b"0" });
        } else if number.abs() <= INTEGER_FORM_MAX && number.fract() == 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "integral and within i64")]
            let integer = number as i64;
            text.push(itoa::Buffer::new().format(integer).as_bytes());
        } else {
            push_shortest(&mut text, number);
        }
        Self { text }
    }

    /// The text's bytes, all ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Appends the shortest digits of `number`, laid out as fpconv does.
fn push_shortest(text: &mut StackText<DOUBLE_BYTES_MAX>, number: f64) {
    let shortest = ShortestDigits::of(number);
    let digits = shortest.digits.as_bytes();
    // fpconv's terms: number = digits × 10^scale, and `exponent` is that of the first digit.
    let scale = shortest.exponent + 1 - shortest.length();
    if number < 0.0 {
        text.push(b"-");
    }
    if scale >= 0 && shortest.exponent < shortest.length() + 7 {
        text.push(digits);
        text.push_zeros(scale);
    } else if scale < 0 && (scale > -7 || shortest.exponent.abs() < 4) {
        push_fraction(text, digits, shortest.exponent);
    } else {
        text.push(&digits[..1]);
        if digits.len() > 1 {
            text.push(b".");
            text.push(&digits[1..]);
        }
        text.push(if shortest.exponent < 0 { b"e-" } else { b"e+" });
        text.push(itoa::Buffer::new().format(shortest.exponent.abs()).as_bytes());
    }
}

/// Appends `digits` with a point, the first digit standing at 10^`exponent`.
fn push_fraction(text: &mut StackText<DOUBLE_BYTES_MAX>, digits: &[u8], exponent: i64) {
    if let Ok(exponent) = usize::try_from(exponent) {
        text.push(&digits[..=exponent]);
        text.push(b".");
        text.push(&digits[exponent + 1..]);
    } else {
        text.push(b"0.");
        text.push_zeros(-exponent - 1);
        text.push(digits);
    }
}

/// The shortest decimal digits that read back as one finite number.
struct ShortestDigits {
    /// 1 to 17 digits, the first not 0.
    digits: StackText<DOUBLE_BYTES_MAX>,
    /// The power of ten of the first digit.
    exponent: i64,
}

impl ShortestDigits {
    fn of(number: f64) -> Self {
        let mut scientific = StackText::<DOUBLE_BYTES_MAX>::EMPTY;
        write!(scientific, "{:e}", number.abs()).expect("at most 17 digits and an exponent");
        let mut digits = StackText::EMPTY;
        let mut exponent = 0;
        let bytes = scientific.as_bytes();
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'.' => {}
                b'e' => {
                    exponent = parse_i64(&bytes[i + 1..]).expect("`{:e}` writes an integer");
                    break;
                }
                digit => digits.push(&[*digit]),
            }
        }
        Self { digits, exponent }
    }

    fn length(&self) -> i64 {
        i64::try_from(self.digits.length).expect("at most 17 digits")
    }
}

/// A text of at most `N` bytes that needs no heap.
#[derive(Clone, Copy, Debug)]
struct StackText<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> StackText<N> {
    const EMPTY: Self = Self { bytes: [0; N], length: 0 };

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }

    fn push_zeros(&mut self, count: i64) {
        for _ in 0..count {
            self.push(b"0");
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<const N: usize> fmt::Write for StackText<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

/// The integer that `text` is, in the only form in which kvorum writes it.
///
/// `None` for the empty text, `+1`, `01`, `-0`, spaces, and what does not fit in 64 bits.
///
/// Source: Redis `string2ll`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < INTEGER_BYTES_MAX => {}
        _ => return None,
    }
    let mut magnitude = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 10^19, which u64 holds.
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The number nearest to `text`: decimal with or without a point and an exponent, or `inf` or `infinity` in any case;
/// with or without a sign.
///
/// `None` for NaN, spaces, and what is too large or too near to 0 to hold. Hexadecimal numbers are left out, which
/// Redis reads because C does.
///
/// Source: Redis `getDoubleFromObject`.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (_, unsigned) = split_sign(text);
    if !is_infinity(unsigned) && !matches!(unsigned, [b'0'..=b'9' | b'.', ..]) {
        return None;
    }
    let number: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    let is_overflow = number.is_infinite() && !is_infinity(unsigned);
    let is_underflow = number == 0.0 && has_digit_but_zero(unsigned);
    (!is_overflow && !is_underflow).then_some(number)
}

/// Whether a digit of the mantissa is not 0.
fn has_digit_but_zero(unsigned: &[u8]) -> bool {
    let mut mantissa = unsigned.iter().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'));
    mantissa.any(|byte| matches!(byte, b'1'..=b'9'))
}

/// Whether `text` starts with `-`, and what follows the sign.
pub(in crate::stdx) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', unsigned @ ..] => (true, unsigned),
        [b'+', unsigned @ ..] | unsigned => (false, unsigned),
    }
}

/// Whether a text without its sign is infinity as C writes it.
pub(in crate::stdx) fn is_infinity(unsigned: &[u8]) -> bool {
    unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::prng::SplitMix64;

    fn double(number: f64) -> String {
        String::from_utf8(DoubleText::new(number).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn integers_are_read_as_the_standard_library_prints_them() {
        let mut number = 1_i64;
        let mut numbers = vec![0, i64::MIN, i64::MAX, 9, 10, 11, 99, 100, 101, 109, 110];
        while number < i64::MAX / 10 {
            numbers.extend([number, number - 1, number + 1, -number, number * 7]);
            number *= 10;
        }
        for number in numbers {
            assert_eq!(parse_i64(number.to_string().as_bytes()), Some(number));
        }
    }

    #[test]
    fn only_canonical_integers_are_read() {
        let refused: &[&[u8]] = &[
            b"",
            b"-",
            b"+1",
            b"01",
            b"-0",
            b"00",
            b" 1",
            b"1 ",
            b"1.0",
            b"1e3",
            b"0x1",
            b"a",
            b"1a",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"99999999999999999999",
            b"1\0",
            b"--1",
            b"18446744073709551617",
        ];
        for text in refused {
            assert_eq!(parse_i64(text), None, "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn doubles_print_as_redis_7_2_prints_them() {
        let table: &[(f64, &str)] = &[
            (3.0, "3"),
            (-3.0, "-3"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (-0.1, "-0.1"),
            (1.5, "1.5"),
            (3.15, "3.15"),
            (1e17, "100000000000000000"),
            (1e18, "1000000000000000000"),
            (1e20, "1e+20"),
            (1e21, "1e+21"),
            (12_345_678_901_234_567_890.0, "12345678901234567000"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1.5e300, "1.5e+300"),
            (-1.5e300, "-1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (-5e-324, "-5e-324"),
            (0.123_456_789_012_345_68, "0.12345678901234568"),
            (0.000_123_456_789, "1.23456789e-4"),
            (0.001_234_567_89, "0.00123456789"),
            (1234.5678, "1234.5678"),
            (1_234_567.891, "1234567.891"),
            (123_456_789.123_456_78, "1.2345678912345678e+8"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (number, text) in table {
            assert_eq!(double(*number), *text);
        }
    }

    #[test]
    fn doubles_are_read_as_redis_reads_them() {
        let table: &[(&str, f64)] = &[
            ("0", 0.0),
            ("3", 3.0),
            ("+5", 5.0),
            ("-5", -5.0),
            ("007", 7.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("-.5e1", -5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("1e-3", 0.001),
            ("0e999", 0.0),
            ("5e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("inf", f64::INFINITY),
            ("+Inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
        ];
        for (text, number) in table {
            let read = parse_f64(text.as_bytes()).expect(text);
            assert_eq!(read.to_bits(), number.to_bits(), "{text}");
        }
    }

    #[test]
    fn what_is_no_double_is_refused() {
        let refused: &[&[u8]] = &[
            b"",
            b"+",
            b"-",
            b".",
            b"e5",
            b"1e",
            b"1e+",
            b" 1",
            b"1 ",
            b"1_0",
            b"nan",
            b"-nan",
            b"NaN",
            b"1e400",
            b"-1e400",
            b"1e-400",
            b"++1",
            b"+-1",
            b"1.2.3",
            b"infinit",
            b"infinityx",
            b"0x10",
            b"1,5",
            b"\xff",
            b"1\0",
        ];
        for text in refused {
            assert_eq!(parse_f64(text), None, "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn printed_doubles_read_back_as_the_same_number() {
        let seed = 3;
        let mut prng = SplitMix64::new(seed);
        for _ in 0..20_000 {
            let number = f64::from_bits(prng.next_u64());
            if number.is_nan() {
                continue;
            }
            let text = DoubleText::new(number);
            let read = parse_f64(text.as_bytes()).unwrap();
            assert_eq!(read.to_bits(), number.to_bits(), "seed {seed}: {number:e}");
        }
    }
}
