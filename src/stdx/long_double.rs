//! The 80-bit floating point number of x86, in which Redis adds for INCRBYFLOAT and HINCRBYFLOAT.
//!
//! Redis' results are those of a sign, 64 bits of mantissa and 17 printed decimals: 0.1 + 0.2 is `0.3`, and
//! 1234.1 + 0.1 is `1234.19999999999999996`. Neither `f64` (which says 0.30000000000000004) nor exact decimals (1234.2)
//! agree, so reading, adding and printing are done here with integers: the same bytes as Redis on x86, on any machine.
//!
//! Left out: hexadecimal numbers, which Redis reads because C does. Numbers below 2^-16382 keep all their bits here;
//! no sum shows it.

use std::fmt::Write as _;

use crate::stdx::num::{is_infinity, split_sign};

/// A number as a C `long double` on x86 holds it; no NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Zero,
    /// `mantissa` × 2^`exponent`; the mantissa's top bit is set.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
}

/// The exponent of the largest number, which is below 2^16384.
const EXPONENT_MAX: i32 = 16_384 - 64;

/// The exponent of the smallest number that is not rounded to 0: half of the smallest that x86 holds, 2^-16445.
const EXPONENT_MIN: i32 = -16_446 - 63;

/// No number of more decimal digits before the point than this is below 2^16384.
const INTEGER_DIGITS_MAX: i64 = 4933;

/// Every number whose first digit stands further behind the point than this is below 2^-16446.
const LEADING_ZEROS_MAX: i64 = 4951;

/// Bytes of a text that is read: Redis' limit, above the longest text that is printed.
pub const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Decimals that are printed.
const DECIMALS: u32 = 17;

impl LongDouble {
    /// The number nearest to `text`: decimal with or without a point and an exponent, or `inf` or `infinity` in any
    /// case; with or without a sign.
    ///
    /// `None` for anything else, spaces and NaN among it; for what is too large or too near to 0 to hold; and from
    /// [`TEXT_BYTES_MAX`] on.
    ///
    /// Source: Redis `string2ld`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = split_sign(text);
        let magnitude = if is_infinity(unsigned) {
            Magnitude::Infinite
        } else {
            Decimal::parse(unsigned)?.nearest()?
        };
        Some(Self { negative, magnitude })
    }

    /// `self` + `other`, rounded to the nearest number; `None` when that is infinite or no number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        match (self.magnitude, other.magnitude) {
            (Magnitude::Infinite, _) | (_, Magnitude::Infinite) => None,
            (Magnitude::Zero, _) => Some(other),
            (_, Magnitude::Zero) => Some(self),
            (
                Magnitude::Finite { mantissa: m1, exponent: e1 },
                Magnitude::Finite { mantissa: m2, exponent: e2 },
            ) => {
                if (e1, m1) >= (e2, m2) {
                    add_smaller(self.negative, (m1, e1), self.negative == other.negative, (m2, e2))
                } else {
                    add_smaller(other.negative, (m2, e2), self.negative == other.negative, (m1, e1))
                }
            }
        }
    }

    /// The number with as many of 17 decimals as are not trailing zeros, never with an exponent; `0` for -0.
    ///
    /// Source: Redis `ld2string` in its human-friendly mode (`%.17Lf`).
    pub fn to_text(self) -> Vec<u8> {
        let text = match self.magnitude {
            Magnitude::Zero => "0".to_owned(),
            Magnitude::Infinite => "inf".to_owned(),
            Magnitude::Finite { mantissa, exponent } => match u32::try_from(-exponent) {
                Ok(shift) if shift > 0 => fraction_text(mantissa, shift),
                Ok(_) | Err(_) => integer_text(mantissa, exponent.unsigned_abs()),
            },
        };
        if self.negative && text != "0" {
            format!("-{text}").into_bytes()
        } else {
            text.into_bytes()
        }
    }
}

/// Adds a number of at most the magnitude of the first, or takes it away.
fn add_smaller(
    negative: bool,
    (mantissa, exponent): (u64, i32),
    is_same_sign: bool,
    (small_mantissa, small_exponent): (u64, i32),
) -> Option<LongDouble> {
    // 63 bits below the larger mantissa: what falls off below them decides only between "exactly half" and "more".
    let large = u128::from(mantissa) << 63;
    let small = u128::from(small_mantissa) << 63;
    let distance = exponent.abs_diff(small_exponent);
    let aligned = small.checked_shr(distance).unwrap_or(0);
    let is_inexact = aligned.checked_shl(distance).unwrap_or(0) != small;
    let sum = if is_same_sign { large + aligned } else { large - aligned - u128::from(is_inexact) };
    let magnitude = if sum == 0 { Magnitude::Zero } else { round(sum, exponent - 63, is_inexact)? };
    Some(LongDouble { negative, magnitude })
}

/// `bits` × 2^`exponent` and, if `is_inexact`, a little more, rounded to 64 bits, ties to even. `bits` is not 0.
fn round(bits: u128, exponent: i32, is_inexact: bool) -> Option<Magnitude> {
    let zeros = bits.leading_zeros();
    let normal = bits << zeros;
    let (mut mantissa, rest) = (high_half(normal), normal & u128::from(u64::MAX));
    let mut exponent = exponent - i32::try_from(zeros).ok()? + 64;
    let half = 1_u128 << 63;
    if rest > half || (rest == half && (is_inexact || mantissa & 1 == 1)) {
        mantissa = mantissa.wrapping_add(1);
        if mantissa == 0 {
            mantissa = 1 << 63;
            exponent += 1;
        }
    }
    (EXPONENT_MIN..=EXPONENT_MAX)
        .contains(&exponent)
        .then_some(Magnitude::Finite { mantissa, exponent })
}

fn high_half(bits: u128) -> u64 {
    (bits >> 64) as u64
}

/// The text of `mantissa` / 2^`shift`.
fn fraction_text(mantissa: u64, shift: u32) -> String {
    let unit = 10_u128.pow(DECIMALS);
    // Below 2^121, so a shift by 128 or more leaves less than half of the last decimal.
    let scaled = u128::from(mantissa) * unit;
    let mut decimals = scaled.checked_shr(shift).unwrap_or(0);
    let rest = scaled - decimals.checked_shl(shift).unwrap_or(0);
    let half = 1_u128.checked_shl(shift - 1).unwrap_or(u128::MAX);
    if rest > half || (rest == half && decimals & 1 == 1) {
        decimals += 1;
    }
    let text = format!("{}.{:017}", decimals / unit, decimals % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text of `mantissa` × 2^`shift`.
fn integer_text(mantissa: u64, shift: u32) -> String {
    let mut natural = Natural::from_u64(mantissa);
    natural.shift_left(shift);
    natural.into_text()
}

/// `digits` × 10^`exponent` as it was written; no zeros at either end.
struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &[u8]) -> Option<Self> {
        let exponent_at = text.iter().position(|b| matches!(b, b'e' | b'E'));
        let (number, written) = match exponent_at {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, decimals) = match number.iter().position(|b| *b == b'.') {
            Some(at) => (&number[..at], &number[at + 1..]),
            None => (number, &[][..]),
        };
        let all = [whole, decimals].concat();
        if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let end = all.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1);
        let start = all.iter().position(|b| *b != b'0').unwrap_or(0);
        let dropped = i64::try_from(all.len() - end).ok()?;
        let exponent = written - i64::try_from(decimals.len()).ok()? + dropped;
        Some(Self { digits: all[start..end].to_vec(), exponent })
    }

    fn nearest(&self) -> Option<Magnitude> {
        if self.digits.is_empty() {
            return Some(Magnitude::Zero);
        }
        // These bounds keep the arithmetic below small whatever exponent was written.
        let integer_digits = self.exponent + i64::try_from(self.digits.len()).ok()?;
        if !(-LEADING_ZEROS_MAX..=INTEGER_DIGITS_MAX).contains(&integer_digits) {
            return None;
        }
        let mut natural = Natural::from_digits(&self.digits);
        let Ok(power) = u32::try_from(-self.exponent) else {
            natural.multiply_by_power_of_ten(u32::try_from(self.exponent).ok()?);
            let (bits, exponent, is_inexact) = natural.top_bits()?;
            return round(bits, exponent, is_inexact);
        };
        // A divisor of `power` digits has less than 4 × power bits; the quotient keeps at least 128.
        let shift = 4 * power + 128;
        natural.shift_left(shift);
        let has_remainder = natural.divide_by_power_of_ten(power);
        let (bits, exponent, is_inexact) = natural.top_bits()?;
        round(bits, exponent - i32::try_from(shift).ok()?, is_inexact || has_remainder)
    }
}

/// A written exponent; far too large ones become some other far too large one.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1 << 40));
    Some(if negative { -value } else { value })
}

/// A natural number of any size: 32-bit limbs, least significant first, the last one not 0.
struct Natural {
    limbs: Vec<u32>,
}

/// The largest power of ten in a limb, and its exponent.
const LIMB_POWER_OF_TEN: u32 = 1_000_000_000;
const LIMB_DIGITS: u32 = 9;

impl Natural {
    fn from_u64(value: u64) -> Self {
        let mut natural = Self { limbs: vec![low_half(value), low_half(value >> 32)] };
        natural.trim();
        natural
    }

    fn from_digits(digits: &[u8]) -> Self {
        let mut natural = Self { limbs: Vec::new() };
        for chunk in digits.chunks(LIMB_DIGITS as usize) {
            let value = chunk.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
            let scale = chunk.iter().fold(1, |scale, _| scale * 10);
            natural.multiply_add(scale, value);
        }
        natural
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = low_half(product);
            carry = product >> 32;
        }
        self.limbs.push(low_half(carry));
        self.trim();
    }

    fn multiply_by_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / LIMB_DIGITS {
            self.multiply_add(LIMB_POWER_OF_TEN, 0);
        }
        self.multiply_add(10_u32.pow(power % LIMB_DIGITS), 0);
    }

    /// Divides and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0_u64;
        for limb in self.limbs.iter_mut().rev() {
            let dividend = rest << 32 | u64::from(*limb);
            *limb = low_half(dividend / u64::from(divisor));
            rest = dividend % u64::from(divisor);
        }
        self.trim();
        low_half(rest)
    }

    /// Divides and says whether anything is left over.
    fn divide_by_power_of_ten(&mut self, power: u32) -> bool {
        let mut has_remainder = false;
        for _ in 0..power / LIMB_DIGITS {
            has_remainder |= self.divide(LIMB_POWER_OF_TEN) != 0;
        }
        has_remainder | (self.divide(10_u32.pow(power % LIMB_DIGITS)) != 0)
    }

    fn shift_left(&mut self, bits: u32) {
        self.multiply_add(1 << (bits % 32), 0);
        let zeros = vec![0; (bits / 32) as usize];
        self.limbs.splice(0..0, zeros);
    }

    /// The highest limbs as bits × 2^exponent, and whether lower ones are not 0. `None` for 0.
    fn top_bits(&self) -> Option<(u128, i32, bool)> {
        let below = self.limbs.len().saturating_sub(4);
        let (low, high) = self.limbs.split_at(below);
        let bits = high.iter().rev().fold(0_u128, |bits, limb| bits << 32 | u128::from(*limb));
        let exponent = i32::try_from(below * 32).ok()?;
        (bits != 0).then_some((bits, exponent, low.iter().any(|limb| *limb != 0)))
    }

    fn into_text(mut self) -> String {
        let mut groups = Vec::new();
        while !self.limbs.is_empty() {
            groups.push(self.divide(LIMB_POWER_OF_TEN));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            write!(text, "{group:09}").expect("a String takes what is written");
        }
        text
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low_half(bits: u64) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let a = LongDouble::parse(a.as_bytes()).expect(a);
        let b = LongDouble::parse(b.as_bytes()).expect(b);
        a.checked_add(b).map(|sum| String::from_utf8(sum.to_text()).unwrap())
    }

    /// Recorded from redis-server 7.0.15 on x86-64 with INCRBYFLOAT.
    #[test]
    fn sums_are_those_of_redis() {
        let table = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3.0e3", "5.0e3", "8000"),
            ("0.1", "0.2", "0.3"),
            ("99.99", "0.01", "100"),
            ("1234.1", "0.1", "1234.19999999999999996"),
            ("1000.1", "0.1", "1000.19999999999999996"),
            ("123456.78", "1.1", "123457.88000000000000256"),
            ("1e20", "1", "100000000000000000000"),
            ("3.6e-4951", "3988.26", "3988.26000000000000001"),
            ("1e18", "0.1", "1000000000000000000.125"),
            ("1e-18", "1e-18", "0"),
            ("1.5e-5", "0", "0.000015"),
            ("-1", "1", "0"),
            ("-0.0", "-0.0", "0"),
            ("-0.5", "0.25", "-0.25"),
            ("+5", "1", "6"),
            ("5.", "1", "6"),
            (".5", "1", "1.5"),
        ];
        for (a, b, expected) in table {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
            assert_eq!(sum(b, a).as_deref(), Some(expected), "{b} + {a}");
        }
    }

    #[test]
    fn large_sums_print_every_digit() {
        let expected = "30000000000000000000996002197229443327247584782373478571024394364979470598596254\
                        17585708621151661861373061289132100458813853293478622035213968516576754868287875\
                        20555639342132246931188839154167702653769365230041083726599109454374965414587246\
                        1189840026482380727988943772161134673231823389018093229441024";
        assert_eq!(sum("3e300", "1").as_deref(), Some(expected));
        assert_eq!(sum("1e4932", "0").map(|text| text.len()), Some(4933));
    }

    #[test]
    fn infinite_sums_are_no_sums() {
        for (a, b) in [("inf", "1"), ("1", "-inf"), ("inf", "-inf"), ("1.18e4932", "1e4931")] {
            assert_eq!(sum(a, b), None, "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let refused = [
            "",
            "+",
            "-",
            ".",
            "e1",
            "1e",
            "1e+",
            " 1",
            "1 ",
            "1_0",
            "nan",
            "--1",
            "1.2.3",
            "1e5000",
            "-1e5000",
            "1e-5000",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "infinit",
            "1.19e4932",
            "1\0",
        ];
        for text in refused {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(LongDouble::parse(&[b'0'; TEXT_BYTES_MAX]), None);
        assert!(LongDouble::parse(&[b'0'; TEXT_BYTES_MAX - 1]).is_some());
        assert!(LongDouble::parse(b"-Infinity").is_some());
    }

    #[test]
    fn what_is_printed_reads_back_as_what_it_says() {
        for text in ["0.3", "-1234.19999999999999996", "9223372036854775807", "0.00000000000000001"]
        {
            let number = LongDouble::parse(text.as_bytes()).unwrap();
            assert_eq!(number.to_text(), text.as_bytes());
        }
    }
}
