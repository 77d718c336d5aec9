//! Converts decimal digits to PostgreSQL's binary `numeric`: groups of four digits, the weight of the
//! first group, a sign, and the number of digits behind the point.

use bytes::{BufMut, BytesMut};

/// Digits in a group, which is one 16-bit number below 10,000.
const GROUP: usize = 4;
/// Limits of the type: digits before the point, and behind it.
const INTEGER_DIGITS_MAX: usize = 131_072;
const FRACTION_DIGITS_MAX: usize = 16_383;
/// Most groups that the server takes in this form, whatever the type could hold.
const GROUPS_MAX: usize = 3_000;

const NEGATIVE: u16 = 0x4000;

/// Appends the number, without a length prefix. `None`, with nothing appended, if the text is not
/// `[-]DIGITS[.DIGITS][e[±]DIGITS]`, or has more digits than the type takes.
pub(super) fn put(out: &mut BytesMut, text: &str) -> Option<()> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Position of the point, counted from the first digit; and the number of digits after it.
    let point = i64::try_from(integer.len()).ok()? + i64::from(exponent);
    let scale = (i64::try_from(fraction.len()).ok()? - i64::from(exponent)).max(0);
    let scale = usize::try_from(scale).ok().filter(|scale| *scale <= FRACTION_DIGITS_MAX)?;

    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let significant = digits.get(zeros..)?;
    if significant.is_empty() {
        header(out, 0, 0, false, scale)?;
        return Some(());
    }
    let point = point - i64::try_from(zeros).ok()?;
    if point > i64::try_from(INTEGER_DIGITS_MAX).ok()? {
        return None;
    }
    // Groups are counted from the point, so the first one may need leading zeros.
    let weight = (point - 1).div_euclid(GROUP as i64);
    let lead = usize::try_from((weight + 1) * GROUP as i64 - point).ok()?;
    let padded = std::iter::repeat_n(&b'0', lead).chain(significant);
    let mut groups: Vec<u16> = Vec::with_capacity((lead + significant.len()).div_ceil(GROUP));
    for (nth, digit) in padded.enumerate() {
        let digit = u16::from(digit - b'0') * [1000, 100, 10, 1].get(nth % GROUP)?;
        match groups.last_mut() {
            Some(last) if nth % GROUP != 0 => *last += digit,
            _ => groups.push(digit),
        }
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.len() > GROUPS_MAX {
        return None;
    }
    header(out, groups.len(), i16::try_from(weight).ok()?, negative, scale)?;
    groups.iter().for_each(|group| out.put_u16(*group));
    Some(())
}

fn header(
    out: &mut BytesMut,
    groups: usize,
    weight: i16,
    negative: bool,
    scale: usize,
) -> Option<()> {
    let (groups, scale) = (u16::try_from(groups).ok()?, u16::try_from(scale).ok()?);
    out.put_u16(groups);
    out.put_i16(weight);
    out.put_u16(if negative { NEGATIVE } else { 0 });
    out.put_u16(scale);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values as a server sent them: count, weight, sign, scale, groups.
    #[test]
    fn as_the_server_has_it() {
        for (text, expected) in [
            ("0", &[0u16, 0, 0, 0][..]),
            ("-0.00", &[0, 0, 0, 2]),
            ("1", &[1, 0, 0, 0, 1]),
            ("10000", &[1, 1, 0, 0, 1]),
            ("12345.678", &[3, 1, 0, 3, 1, 2345, 6780]),
            ("-0.00012", &[2, 0xFFFF, NEGATIVE, 5, 1, 2000]),
            ("0.0000001", &[1, 0xFFFE, 0, 7, 10]),
            ("1e3", &[1, 0, 0, 0, 1000]),
            ("1.5e-3", &[1, 0xFFFF, 0, 4, 15]),
            ("18446744073709551615", &[5, 4, 0, 0, 1844, 6744, 737, 955, 1615]),
        ] {
            let mut out = BytesMut::new();
            assert!(put(&mut out, text).is_some(), "{text}");
            let found: Vec<u16> =
                out.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_long_a_one() {
        let (many, deep) = ("9".repeat(12_001), format!("0.{}", "1".repeat(16_384)));
        for text in ["", "-", ".", "1x", "NaN", "1e", "1e999999999999", &many, &deep, "1e131073"] {
            let mut out = BytesMut::new();
            assert!(put(&mut out, text).is_none(), "{text:.20}");
            assert!(out.is_empty(), "{text:.20}");
        }
    }
}
