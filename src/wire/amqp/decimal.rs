//! IEEE 754-2008 decimal floating point, to exact text.
//!
//! AMQP 1.0 (part 1, 1.6.13 to 1.6.15) prescribes the Binary Integer Decimal encoding: the
//! coefficient is a plain binary integer. After the sign bit comes either the biased exponent and
//! the coefficient, or, where the next two bits are both set, two bits further on the exponent and
//! a coefficient with the bits 100 put in front; 11110 is infinity and 11111 is not a number. A
//! coefficient with more digits than the format has counts as zero.

use std::fmt;

/// A decimal in its encoded form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal<'a> {
    /// 7 digits.
    D32(&'a [u8; 4]),
    /// 16 digits.
    D64(&'a [u8; 8]),
    /// 34 digits.
    D128(&'a [u8; 16]),
}

/// A decimal taken apart: `coefficient` × 10^`exponent`, or infinity, or not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalParts {
    /// A number. Trailing zeros of the coefficient are kept: they give the precision.
    Finite {
        /// True if the sign bit is set (zero has one too).
        negative: bool,
        /// The digits.
        coefficient: u128,
        /// The power of ten.
        exponent: i32,
    },
    /// Infinity.
    Infinity {
        /// True if the sign bit is set.
        negative: bool,
    },
    /// Not a number.
    Nan,
}

impl Decimal<'_> {
    /// Splits it into sign, coefficient and exponent.
    pub fn parts(&self) -> DecimalParts {
        let (bits, width, exponent_bits, digits, bias) = match *self {
            Decimal::D32(b) => (u128::from(u32::from_be_bytes(*b)), 32, 8, 7, 101),
            Decimal::D64(b) => (u128::from(u64::from_be_bytes(*b)), 64, 10, 16, 398),
            Decimal::D128(b) => (u128::from_be_bytes(*b), 128, 14, 34, 6176),
        };
        let field = |shift: u32, size: u32| (bits >> shift) & ((1 << size) - 1);
        let negative = field(width - 1, 1) == 1;
        let coefficient_bits = width - 1 - exponent_bits;
        let (exponent, coefficient) = if field(width - 3, 2) != 0b11 {
            (field(coefficient_bits, exponent_bits), field(0, coefficient_bits))
        } else if field(width - 5, 4) != 0b1111 {
            let low = coefficient_bits - 2;
            (field(low, exponent_bits), (0b100 << low) | field(0, low))
        } else if field(width - 6, 1) == 0 {
            return DecimalParts::Infinity { negative };
        } else {
            return DecimalParts::Nan;
        };
        let coefficient = if coefficient < 10u128.pow(digits) { coefficient } else { 0 };
        // At most 14 bits, so the conversion cannot fail.
        let exponent = i32::try_from(exponent).unwrap_or(0) - bias;
        DecimalParts::Finite { negative, coefficient, exponent }
    }
}

/// Prints every digit that was sent: plain where the exponent is small, else scientific
/// (`1.5E+10`); also `Infinity`, `-Infinity` and `NaN`.
impl fmt::Display for Decimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, coefficient, exponent) = match self.parts() {
            DecimalParts::Finite { negative, coefficient, exponent } => {
                (negative, coefficient, exponent)
            }
            DecimalParts::Infinity { negative: false } => return f.write_str("Infinity"),
            DecimalParts::Infinity { negative: true } => return f.write_str("-Infinity"),
            DecimalParts::Nan => return f.write_str("NaN"),
        };
        if negative {
            f.write_str("-")?;
        }
        let digits = coefficient.to_string();
        let point = i32::try_from(digits.len()).unwrap_or(0) + exponent; // digits before the point
        if exponent == 0 {
            f.write_str(&digits)
        } else if exponent < 0 && point > 0 {
            let (whole, fraction) = digits.split_at(point.unsigned_abs() as usize);
            write!(f, "{whole}.{fraction}")
        } else if exponent < 0 && point > -6 {
            write!(f, "0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
        } else {
            let (lead, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            write!(f, "{lead}{dot}{rest}E{:+}", point - 1)
        }
    }
}
