//! Numbers: integers of 64 bits, floating-point ones, and the text of all others.
//!
//! A number of a message is kept as it is written, digit by digit, until a program calculates with it.
//! Integers are exact as far as 64 bits reach; everything else is calculated in floating point, as in jq.
//! Comparisons are exact up to 128 bits.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use super::budget::take;

/// Whole numbers up to here are the same in floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[derive(Clone, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
    /// As JSON writes it: a decimal, or more digits than an `Int` has.
    Text(Rc<str>),
}

/// The value that a number stands for.
enum Real {
    Int(i128),
    Float(f64),
}

impl Number {
    /// A number as JSON writes it.
    pub(super) fn of_text(text: &str) -> Number {
        match text.parse() {
            // "-0" is no integer of ours.
            Ok(int) if text != "-0" => Number::Int(int),
            _ => Number::Text(text.into()),
        }
    }

    /// The result of a calculation.
    pub(super) fn of_float(float: f64) -> Number {
        if float.fract() == 0.0 && float.abs() <= EXACT {
            // Whole, and small enough.
            #[allow(clippy::cast_possible_truncation)]
            return Number::Int(float as i64);
        }
        Number::Float(float)
    }

    pub(super) fn is_int(&self) -> bool {
        match self {
            Number::Int(_) => true,
            Number::Float(_) => false,
            Number::Text(text) => is_digits(text),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn as_f64(&self) -> f64 {
        match self {
            Number::Int(int) => *int as f64,
            Number::Float(float) => *float,
            // Every JSON number is one of Rust's. It may have a million digits.
            Number::Text(text) => {
                take(text.len() as u64 / 8);
                text.parse().unwrap_or(f64::NAN)
            }
        }
    }

    /// As an index: rounded down.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn floor(&self) -> i64 {
        match self {
            Number::Int(int) => *int,
            // Saturates.
            other => other.as_f64().floor() as i64,
        }
    }

    pub(super) fn negated(self) -> Number {
        match self {
            Number::Int(int) => match int.checked_neg() {
                Some(negated) => Number::Int(negated),
                None => Number::Text("9223372036854775808".into()),
            },
            Number::Float(float) => Number::Float(-float),
            Number::Text(text) => match text.strip_prefix('-') {
                Some(positive) => Number::of_text(positive),
                None => Number::of_text(&format!("-{text}")),
            },
        }
    }

    /// Calculates exactly where both are integers and the result is one too; else in floating point.
    pub(super) fn calculate(
        &self,
        other: &Number,
        exact: fn(i64, i64) -> Option<i64>,
        float: fn(f64, f64) -> f64,
    ) -> Number {
        if let (Number::Int(left), Number::Int(right)) = (self, other)
            && let Some(result) = exact(*left, *right)
        {
            return Number::Int(result);
        }
        Number::of_float(float(self.as_f64(), other.as_f64()))
    }

    fn real(&self) -> Real {
        match self {
            Number::Int(int) => Real::Int((*int).into()),
            Number::Float(float) => Real::Float(*float),
            Number::Text(text) => match text.parse() {
                Ok(int) => Real::Int(int),
                Err(_) => Real::Float(self.as_f64()),
            },
        }
    }

    /// Order of the values; "not a number" is below all, as in jq.
    pub(super) fn order(&self, other: &Number) -> Ordering {
        match (self, other) {
            (Number::Int(left), Number::Int(right)) => left.cmp(right),
            _ => match (self.real(), other.real()) {
                (Real::Int(left), Real::Int(right)) => left.cmp(&right),
                (Real::Int(left), Real::Float(right)) => order(left, right),
                (Real::Float(left), Real::Int(right)) => order(right, left).reverse(),
                (Real::Float(left), Real::Float(right)) if left.is_nan() || right.is_nan() => {
                    right.is_nan().cmp(&left.is_nan())
                }
                (Real::Float(left), Real::Float(right)) => {
                    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
                }
            },
        }
    }
}

fn is_digits(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
}

#[allow(clippy::cast_possible_truncation)]
fn order(int: i128, float: f64) -> Ordering {
    if float.is_nan() {
        return Ordering::Greater;
    }
    // Saturates, and then the integers differ.
    let whole = float.trunc() as i128;
    int.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal))
}

/// As JSON writes it; what it cannot write by its name.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(int) => f.write_str(itoa::Buffer::new().format(*int)),
            Number::Float(float) => match serde_json::Number::from_f64(*float) {
                Some(number) => write!(f, "{number}"),
                None if float.is_nan() => f.write_str("nan"),
                None if *float < 0.0 => f.write_str("-infinite"),
                None => f.write_str("infinite"),
            },
            Number::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for text in
            ["0", "-0", "1.0", "1e2", "9223372036854775808", "0.10000000000000000001", "-1E+9"]
        {
            assert_eq!(Number::of_text(text).to_string(), text);
        }
    }

    #[test]
    fn comparisons_do_not_round() {
        for (less, more) in [
            ("9007199254740992", "9007199254740993"),
            ("9223372036854775807", "9223372036854775808"),
            ("18446744073709551615", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775808"),
            ("1", "1.5"),
            ("-1.5", "-1"),
            ("9007199254740993", "9007199254740994.5"),
            ("1e400", "1e401"),
        ] {
            let (a, b) = (Number::of_text(less), Number::of_text(more));
            let expected = if less == "1e400" { Ordering::Equal } else { Ordering::Less };
            assert_eq!(a.order(&b), expected, "{less} {more}");
            assert_eq!(b.order(&a), expected.reverse(), "{more} {less}");
        }
        for (a, b) in [("1", "1.0"), ("100", "1e2"), ("-0", "0")] {
            assert_eq!(Number::of_text(a).order(&Number::of_text(b)), Ordering::Equal, "{a} {b}");
        }
        let nan = Number::Float(f64::NAN);
        assert_eq!(nan.order(&Number::of_text("-1e999")), Ordering::Less);
        assert_eq!(Number::of_text("5").order(&nan), Ordering::Greater);
    }

    #[test]
    fn what_is_calculated_is_exact_while_it_fits() {
        let add = |a: &str, b: &str| {
            let (a, b) = (Number::of_text(a), Number::of_text(b));
            a.calculate(&b, i64::checked_add, |a, b| a + b).to_string()
        };
        assert_eq!(add("9007199254740992", "1"), "9007199254740993");
        assert_eq!(add("0.5", "0.5"), "1");
        assert_eq!(add("9223372036854775807", "1"), "9.223372036854776e+18");
        assert_eq!(Number::Int(i64::MIN).negated().to_string(), "9223372036854775808");
    }
}
