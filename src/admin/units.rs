//! Figures for people: two or three digits, and a unit. The exact value belongs beside it.

use std::fmt::{self, Display};
use std::time::Duration;

/// A count: `950`, `12,300`, `1.23 M`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub f64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: &[(f64, &str)] = &[(1e12, "T"), (1e9, "G"), (1e6, "M")];
        match UNITS.iter().find(|(size, _)| self.0 >= 0.9995 * size) {
            Some((size, unit)) => write!(f, "{} {unit}", Digits(self.0 / size)),
            None if self.0 >= 99.95 => Exact(round(self.0)).fmt(f),
            None => Digits(self.0).fmt(f),
        }
    }
}

/// Bytes: `512 B`, `1.23 MB`, in powers of 1000.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub f64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: &[(f64, &str)] = &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
        match UNITS.iter().find(|(size, _)| self.0 >= 0.9995 * size) {
            Some((size, unit)) => write!(f, "{} {unit}", Digits(self.0 / size)),
            None => write!(f, "{} B", round(self.0)),
        }
    }
}

/// Three digits of a number below 1000, without a fraction that is 0.
struct Digits(f64);

impl Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            value if value < 9.995 => format!("{value:.2}"),
            value if value < 99.95 => format!("{value:.1}"),
            value => format!("{value:.0}"),
        };
        let plain = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => text.as_str(),
        };
        f.write_str(plain)
    }
}

/// A whole number with commas: `1,234,567`.
#[derive(Clone, Copy, Debug)]
pub struct Exact(pub i128);

impl Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation)]
fn round(value: f64) -> i128 {
    value.round() as i128
}

/// A time span in seconds, in its two largest units: `0.4 s`, `12 s`, `3 min 5 s`, `26 min`, `2 d 7 h`.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub f64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0.0 && self.0 < 9.95 {
            return write!(f, "{:.1} s", self.0.max(0.1));
        }
        let span = Duration::try_from_secs_f64(self.0.max(0.0).round()).unwrap_or(Duration::MAX);
        let seconds = span.as_secs();
        match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, s) => write!(f, "{s} s"),
            (0, 0, m @ 10.., _) | (0, 0, m, 0) => write!(f, "{m} min"),
            (0, 0, m, s) => write!(f, "{m} min {s} s"),
            (0, h, 0, _) => write!(f, "{h} h"),
            (0, h, m, _) => write!(f, "{h} h {m} min"),
            (d, 0, ..) => write!(f, "{d} d"),
            (d, h, ..) => write!(f, "{d} d {h} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0.04"),
            (0.5, "0.5"),
            (9.0, "9"),
            (12.34, "12.3"),
            (99.96, "100"),
            (950.4, "950"),
            (9_999.0, "9,999"),
            (123_456.0, "123,456"),
            (999_499.0, "999,499"),
            (999_600.0, "1 M"),
            (1_234_567.0, "1.23 M"),
            (12_345_678.0, "12.3 M"),
            (123_456_789.0, "123 M"),
            (5.0e9, "5 G"),
            (1.0e13, "10 T"),
        ] {
            assert_eq!(Count(value).to_string(), text);
        }
    }

    #[test]
    fn bytes() {
        for (value, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1_000.0, "1 kB"),
            (33_554_432.0, "33.6 MB"),
            (999_900.0, "1 MB"),
            (4.2e12, "4.2 TB"),
        ] {
            assert_eq!(Bytes(value).to_string(), text);
        }
    }

    #[test]
    fn exact_numbers() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (10_000, "10,000"),
        ] {
            assert_eq!(Exact(value).to_string(), text);
        }
    }

    #[test]
    fn spans() {
        for (value, text) in [
            (0.0, "0 s"),
            (0.01, "0.1 s"),
            (0.44, "0.4 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.6, "1 min"),
            (185.0, "3 min 5 s"),
            (3600.0, "1 h"),
            (4000.0, "1 h 6 min"),
            (86_400.0, "1 d"),
            (90_000.0, "1 d 1 h"),
            (1e30, "213503982334601 d 7 h"),
            (599.0, "9 min 59 s"),
            (1_561.0, "26 min"),
            (-5.0, "0 s"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(Seconds(value).to_string(), text, "{value}");
        }
    }
}
