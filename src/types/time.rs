//! Points in time over all the years that RFC 3339 can write.
//!
//! jiff's own range of moments ends a day before the end of the year 9999, so that each has a local time
//! everywhere. `9999-12-31T23:59:59Z`, which stands for "for ever" in many messages, is behind it.

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time, date};

/// Milliseconds since 1970 of 0000-01-01T00:00:00.000Z, the first time that RFC 3339 can write.
pub const FIRST_MS: i64 = -62_167_219_200_000;

/// Milliseconds since 1970 of 9999-12-31T23:59:59.999Z, the last one.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// Microseconds since 1970 of a time in RFC 3339 with a zone.
///
/// # Errors
/// If it is none.
pub fn parse_micros(text: &str) -> Result<i64, jiff::Error> {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(at.as_microsecond()),
        Err(error) => beyond(text).ok_or(error),
    }
}

fn beyond(text: &str) -> Option<i64> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
    let micros = micros_of(pieces.date().to_datetime(time))?;
    micros.checked_sub(i64::from(offset.seconds()).checked_mul(1_000_000)?)
}

/// Date and time in UTC; `None` outside of the years -9999 to 9999.
pub fn civil(micros: i64) -> Option<DateTime> {
    epoch().checked_add(SignedDuration::from_micros(micros)).ok()
}

/// Microseconds from 1970 to a date and time in UTC.
pub fn micros_of(at: DateTime) -> Option<i64> {
    i64::try_from(at.duration_since(epoch()).as_micros()).ok()
}

fn epoch() -> DateTime {
    date(1970, 1, 1).to_datetime(Time::midnight())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    #[test]
    fn all_years_of_rfc_3339_are_read_and_written() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T00:00:00.25Z", 1_767_225_600_250),
            ("9999-12-30T22:00:00Z", 253_402_207_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(ms), "{text}");
            assert_eq!(Timestamp(ms).to_string(), text);
        }
        let local: Timestamp = "9999-12-31T23:59:59-05:00".parse().unwrap();
        assert_eq!(local, Timestamp(253_402_318_799_000));
        assert_eq!(local.to_string(), "253402318799000 ms after 1970");
        for text in ["9999-12-31T23:59:59", "9999-12-31", "10000-01-01T00:00:00Z", "", "now"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!(civil(i64::MAX), None);
        assert_eq!(civil(i64::MIN), None);
    }
}
