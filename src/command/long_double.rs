//! The 80-bit floating point numbers in which INCRBYFLOAT and HINCRBYFLOAT count.
//!
//! Redis adds in `long double` and prints 17 decimals without trailing zeros, so that 0.1 + 0.2 is 0.3. The
//! result is stored, so it must be the same on every replica whatever its processor: the arithmetic is done
//! here in integers. As on x86-64: a 64-bit mantissa, rounding to nearest, ties to even.
//!
//! Source: IEEE 754 double-extended format; Redis docs, INCRBYFLOAT. Hexadecimal texts are not read.

use std::fmt::Write as _;

/// The longest text that is read, in bytes, as in Redis.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Exponent of the top bit of the greatest number.
const TOP_EXPONENT_MAX: i64 = 16_383;

/// Exponent of the top bit of the smallest number, one with a single bit left.
const TOP_EXPONENT_MIN: i64 = -16_445;

/// Decimals that are printed, and ten to their power.
const DECIMALS: usize = 17;
const TEN_TO_DECIMALS: u128 = 100_000_000_000_000_000;

/// A number, as INCRBYFLOAT reads and adds them. Never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongDouble {
    /// ± `mantissa` · 2^`exponent`; the top bit of `mantissa` is set unless the number is 0.
    Finite { is_negative: bool, mantissa: u64, exponent: i64 },
    /// Too great, or written `inf`.
    Infinite { is_negative: bool },
}

impl LongDouble {
    const ZERO: Self = Self::Finite { is_negative: false, mantissa: 0, exponent: 0 };

    /// The number nearest to `text`: `-1.5e3`, `.5`, `inf`. `None` for anything else, for `nan`, for spaces
    /// around it, and for what is too great or too small to be told from infinity or 0.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (is_negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite { is_negative });
        }
        let (digits, exponent) = parse_decimal(text)?;
        if digits.is_zero() {
            return Some(Self::ZERO);
        }
        let (mantissa, exponent) = nearest(digits, exponent)?;
        Some(Self::Finite { is_negative, mantissa, exponent })
    }

    /// The exact value of `number`.
    pub(super) fn from_i64(number: i64) -> Self {
        normal(number < 0, u128::from(number.unsigned_abs()), 0)
    }

    /// The sum, rounded; `None` when it is infinite or not a number.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        let (
            Self::Finite { is_negative, mantissa, exponent },
            Self::Finite {
                is_negative: other_is_negative,
                mantissa: other_mantissa,
                exponent: other_exponent,
            },
        ) = (self, other)
        else {
            return None;
        };
        if mantissa == 0 {
            return Some(other);
        }
        if other_mantissa == 0 {
            return Some(self);
        }
        if (exponent, mantissa) < (other_exponent, other_mantissa) {
            return other.add(self);
        }
        // 62 bits below the mantissa, and one more that stands for everything shifted out further, are
        // enough to round as if the sum were exact.
        let big = u128::from(mantissa) << 62;
        let distance = exponent - other_exponent;
        let small = shift_right_sticky(u128::from(other_mantissa) << 62, distance);
        let sum = if is_negative == other_is_negative { big + small } else { big - small };
        let sum = normal(is_negative, sum, exponent - 62);
        match sum {
            Self::Finite { exponent, .. } if exponent + 63 > TOP_EXPONENT_MAX => None,
            Self::Finite { .. } => Some(sum),
            Self::Infinite { .. } => None,
        }
    }

    /// The text Redis stores: at most 17 decimals, no trailing zeros, no exponent.
    pub(super) fn to_text(self) -> String {
        let Self::Finite { is_negative, mantissa, exponent } = self else {
            let is_negative = matches!(self, Self::Infinite { is_negative: true });
            return if is_negative { "-inf".into() } else { "inf".into() };
        };
        let mut text = if exponent >= 0 {
            Big::from(mantissa).shifted_left(exponent.unsigned_abs()).to_decimal()
        } else {
            let scaled = u128::from(mantissa) * TEN_TO_DECIMALS;
            let scaled = shift_right_to_even(scaled, exponent.unsigned_abs());
            let (whole, decimals) = (scaled / TEN_TO_DECIMALS, scaled % TEN_TO_DECIMALS);
            let text = format!("{whole}.{decimals:0DECIMALS$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if is_negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// ± `bits` · 2^`exponent` with a mantissa of 64 bits. The lowest of `bits` may be sticky.
fn normal(is_negative: bool, bits: u128, exponent: i64) -> LongDouble {
    if bits == 0 {
        return LongDouble::ZERO;
    }
    let length = 128 - i64::from(bits.leading_zeros());
    let mut exponent = exponent + length - 64;
    let mut mantissa = if length <= 64 {
        bits << (64 - length)
    } else {
        shift_right_to_even(bits, (length - 64).unsigned_abs())
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    let mantissa = u64::try_from(mantissa).expect("64 bits are left");
    LongDouble::Finite { is_negative, mantissa, exponent }
}

fn shift_right_sticky(bits: u128, distance: i64) -> u128 {
    match u32::try_from(distance) {
        Ok(distance) if distance < 128 => {
            let kept = bits >> distance;
            kept | u128::from(kept << distance != bits)
        }
        Ok(_) | Err(_) => u128::from(bits != 0),
    }
}

fn shift_right_to_even(bits: u128, distance: u64) -> u128 {
    if distance == 0 || distance > 128 {
        return if distance == 0 { bits } else { 0 };
    }
    let half = 1_u128 << (distance - 1);
    let (kept, lost) =
        if distance == 128 { (0, bits) } else { (bits >> distance, bits & ((half << 1) - 1)) };
    let rounds_up = lost > half || (lost == half && kept & 1 == 1);
    kept + u128::from(rounds_up)
}

/// Digits and decimal exponent of `text`; `None` when it is no decimal number.
fn parse_decimal(text: &[u8]) -> Option<(Big, i64)> {
    let (mut digits, mut exponent) = (Big::default(), 0_i64);
    let (mut digit_count, mut has_point) = (0, false);
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                digits.multiply_add(10, u32::from(byte - b'0'));
                digit_count += 1;
                exponent -= i64::from(has_point);
            }
            b'.' if !has_point => has_point = true,
            _ => break,
        }
        rest = after;
    }
    if digit_count == 0 {
        return None;
    }
    match rest {
        [] => Some((digits, exponent)),
        [b'e' | b'E', power @ ..] => Some((digits, exponent.saturating_add(parse_power(power)?))),
        _ => None,
    }
}

/// The number after `e`; what is out of any reach is cut to what certainly is.
fn parse_power(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let magnitude = digits.iter().try_fold(0_i64, |power, byte| {
        byte.is_ascii_digit().then(|| (power * 10 + i64::from(byte - b'0')).min(1_000_000))
    })?;
    Some(if is_negative { -magnitude } else { magnitude })
}

/// Mantissa and exponent of the number nearest to `digits` · 10^`exponent`, which is not 0.
fn nearest(mut digits: Big, exponent: i64) -> Option<(u64, i64)> {
    // Beyond these the number is out of range however many digits it has; the work stays bounded.
    let reach = i64::try_from(TEXT_BYTES_MAX).expect("a small constant") + 5000;
    if exponent.abs() > reach {
        return None;
    }
    let power = exponent.unsigned_abs();
    let mut is_sticky = false;
    let mut shift = 0;
    if exponent >= 0 {
        (0..power).for_each(|_| digits.multiply_add(5, 0));
    } else {
        // Room for 66 bits of quotient after dividing by 5 so many times: log2(5) < 7/3.
        shift = power * 7 / 3 + 67;
        digits = digits.shifted_left(shift);
        for _ in 0..power {
            is_sticky |= digits.divide(5) != 0;
        }
    }
    let (bits, dropped) = digits.top_bits(is_sticky);
    let shift = i64::try_from(shift).expect("a bounded shift");
    let LongDouble::Finite { mantissa, exponent, .. } =
        normal(false, bits, exponent - shift + dropped)
    else {
        return None;
    };
    (TOP_EXPONENT_MIN..=TOP_EXPONENT_MAX).contains(&(exponent + 63)).then_some((mantissa, exponent))
}

/// A natural number of any size: 32 bits per limb, the lowest first, no zero at the end.
#[derive(Clone, Debug, Default)]
struct Big {
    limbs: Vec<u32>,
}

impl From<u64> for Big {
    fn from(number: u64) -> Self {
        let mut big = Self { limbs: vec![low(number), low(number >> 32)] };
        big.trim();
        big
    }
}

impl Big {
    fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = low(carry);
            carry >>= 32;
        }
        if carry != 0 {
            self.limbs.push(low(carry));
        }
    }

    /// Divides and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0_u64;
        for limb in self.limbs.iter_mut().rev() {
            rest = rest << 32 | u64::from(*limb);
            *limb = low(rest / u64::from(divisor));
            rest %= u64::from(divisor);
        }
        self.trim();
        low(rest)
    }

    fn shifted_left(mut self, distance: u64) -> Self {
        let limbs = usize::try_from(distance / 32).expect("a bounded shift");
        (0..distance % 32).for_each(|_| self.multiply_add(2, 0));
        self.limbs.splice(0..0, std::iter::repeat_n(0, limbs));
        self
    }

    /// The top 96 bits or more, the lowest of them sticky for what is below, and how many bits are below.
    fn top_bits(&self, is_sticky: bool) -> (u128, i64) {
        let below = self.limbs.len().saturating_sub(4);
        let (lost, kept) = self.limbs.split_at(below);
        let bits = kept.iter().rev().fold(0_u128, |bits, limb| bits << 32 | u128::from(*limb));
        let is_sticky = is_sticky || lost.iter().any(|limb| *limb != 0);
        let below = i64::try_from(below).expect("a bounded number of limbs");
        (bits | u128::from(is_sticky), below * 32)
    }

    fn to_decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            groups.push(self.divide(1_000_000_000));
        }
        let mut text = groups.pop().unwrap_or_default().to_string();
        for group in groups.iter().rev() {
            write!(text, "{group:09}").expect("writing to a String cannot fail");
        }
        text
    }
}

/// The low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "cutting is what it is for")]
const fn low(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(left: &str, right: &str) -> Option<String> {
        let parse = |text: &str| LongDouble::parse(text.as_bytes());
        Some(parse(left)?.add(parse(right)?)?.to_text())
    }

    /// The expected texts are those of a redis-server on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        for (left, right, expected) in SUMS {
            assert_eq!(sum(left, right).as_deref(), Some(*expected), "{left} + {right}");
        }
    }

    const SUMS: &[(&str, &str, &str)] = &[
        ("0", "0", "0"),
        ("0", "-0", "0"),
        ("0.1", "0.2", "0.3"),
        ("10.5", "0.1", "10.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("3.0", "1.1", "4.1"),
        ("-1.5", "1.5", "0"),
        ("1", "1e-18", "1"),
        ("0", "1e-17", "0.00000000000000001"),
        ("0", "5e-18", "0"),
        ("0", "5.5e-18", "0.00000000000000001"),
        ("0", "-4e-18", "0"),
        ("0", "123456789.123456789", "123456789.12345678899873747"),
        ("0", "1.00000000000000001", "1.00000000000000001"),
        ("0.3333333333333333333", "0.6666666666666666666", "1"),
        ("1e-4945", "1", "1"),
        ("1e40", "-1e40", "0"),
        ("0", "17179869184.00001", "17179869184.00001000054180622"),
    ];

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "+",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "nan",
            "0x",
            "1.2.3",
            "1e5000",
            "--1",
            "1e-5000",
            "1e99999999999999999999",
            "1_0",
            "infin",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
        let long = vec![b'1'; TEXT_BYTES_MAX];
        assert_eq!(LongDouble::parse(&long), None);
    }

    #[test]
    fn infinity_is_read_but_never_a_sum() {
        for text in ["inf", "-INF", "+Infinity"] {
            assert!(LongDouble::parse(text.as_bytes()).is_some());
            assert_eq!(sum("1", text), None);
            assert_eq!(sum(text, "1"), None);
        }
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn integers_are_exact() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1] {
            let text = number.to_string();
            assert_eq!(LongDouble::from_i64(number).to_text(), text);
            assert_eq!(LongDouble::parse(text.as_bytes()).unwrap().to_text(), text);
        }
        let great = LongDouble::parse(b"1e40").unwrap().to_text();
        assert_eq!(great, "9999999999999999999783686092270256259072");
    }
}
