//! Points of a stream in arguments: `first`, `offset:N`, `time:T`, `ago:1h`.

use std::fmt;

use super::value;
use crate::config::{HumanDuration, Start};
use crate::types::{Offset, Timestamp};

/// Where reading begins, for the help.
pub(super) const FROM: &str = "first|last|next|offset:N|time:T|ago:1h";

/// A start position in an argument.
///
/// # Errors
/// If it is none; the text says what is expected.
pub(super) fn start(text: &str) -> Result<Start, String> {
    match text {
        "first" => return Ok(Start::First),
        "last" => return Ok(Start::Last),
        "next" => return Ok(Start::Next),
        _ => {}
    }
    let expected = || format!("expected first, last, next, {COMMON}");
    Ok(match point(text, expected)? {
        Point::Offset(offset) => Start::Offset(offset),
        Point::Time(at) => Start::Timestamp(at),
        Point::Ago(ago) => Start::Ago(ago),
    })
}

/// The last message that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The one that is the last when reading begins.
    End,
    /// This one.
    Offset(Offset),
    /// The last one that was written at this time or earlier.
    Time(Timestamp),
    /// The same, counted back from now.
    Ago(HumanDuration),
}

impl Until {
    /// Its time, if it is one.
    pub(super) fn time(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Until::End | Until::Offset(_) => None,
            Until::Time(at) => Some(at),
            Until::Ago(ago) => Some(before(now, ago)),
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Until::End => f.write_str("end"),
            Until::Offset(offset) => write!(f, "offset {offset}"),
            Until::Time(at) => write!(f, "time {at}"),
            Until::Ago(ago) => write!(f, "{ago} ago"),
        }
    }
}

/// An end position in an argument.
///
/// # Errors
/// As [`start`].
pub(super) fn until(text: &str) -> Result<Until, String> {
    if text == "end" {
        return Ok(Until::End);
    }
    let expected = || format!("expected end, {COMMON}");
    Ok(match point(text, expected)? {
        Point::Offset(offset) => Until::Offset(offset),
        Point::Time(at) => Until::Time(at),
        Point::Ago(ago) => Until::Ago(ago),
    })
}

/// A start position in the past, or a bare offset.
///
/// # Errors
/// As [`start`].
pub(super) fn first(text: &str) -> Result<Start, String> {
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(Offset(offset)));
    }
    match start(text)? {
        Start::Next => {
            Err(format!("what comes next is in no sink yet: expected first, last, {COMMON}"))
        }
        start => Ok(start),
    }
}

/// An end position, or a bare offset.
///
/// # Errors
/// As [`until`].
pub(super) fn last(text: &str) -> Result<Until, String> {
    match text.parse() {
        Ok(offset) => Ok(Until::Offset(Offset(offset))),
        Err(_) => until(text),
    }
}

/// The time so long ago.
pub(super) fn before(now: Timestamp, ago: HumanDuration) -> Timestamp {
    let ago_ms = i64::try_from(ago.0.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(ago_ms))
}

const COMMON: &str = "offset:N (as offset:1000), time:T (RFC 3339 with a zone, as \
                      time:2026-01-01T00:00:00Z) or ago:D (as ago:1h30m)";

enum Point {
    Offset(Offset),
    Time(Timestamp),
    Ago(HumanDuration),
}

fn point(text: &str, expected: impl Fn() -> String) -> Result<Point, String> {
    let Some((kind, value)) = text.split_once(':') else { return Err(expected()) };
    match kind {
        "offset" => match value.parse() {
            Ok(offset) => Ok(Point::Offset(Offset(offset))),
            Err(_) => {
                Err(format!("{value:?} is not an offset: expected a whole number, 0 or more"))
            }
        },
        "time" => match value.parse::<Timestamp>() {
            Ok(at) => Ok(Point::Time(at)),
            Err(error) => Err(format!(
                "{value:?} is not a point in time ({error}): expected RFC 3339 with a zone, as in \
                 2026-01-01T00:00:00Z or 2026-01-01T01:00:00+01:00"
            )),
        },
        "ago" => value::read(value).map(Point::Ago),
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let at = Timestamp(1_767_225_600_250);
        for (text, is) in [
            ("first", Start::First),
            ("last", Start::Last),
            ("next", Start::Next),
            ("offset:0", Start::Offset(Offset(0))),
            ("offset:18446744073709551615", Start::Offset(Offset(u64::MAX))),
            ("time:2026-01-01T01:00:00.250+01:00", Start::Timestamp(at)),
            ("ago:1h30m", Start::Ago(HumanDuration::secs(5400))),
        ] {
            assert_eq!(start(text), Ok(is), "{text}");
        }
        for (text, is) in [
            ("end", Until::End),
            ("offset:7", Until::Offset(Offset(7))),
            ("time:2026-01-01T00:00:00.250Z", Until::Time(at)),
            ("ago:0s", Until::Ago(HumanDuration::secs(0))),
        ] {
            assert_eq!(until(text), Ok(is), "{text}");
        }
    }

    #[test]
    fn a_bare_offset_is_read_where_it_is_taken() {
        assert_eq!(first("7"), Ok(Start::Offset(Offset(7))));
        assert_eq!(first("first"), Ok(Start::First));
        assert_eq!(last("7"), Ok(Until::Offset(Offset(7))));
        assert_eq!(last("end"), Ok(Until::End));
        assert!(first("next").unwrap_err().contains("in no sink yet"));
        assert!(first("-7").unwrap_err().contains("offset:1000"));
        assert!(last("7.5").unwrap_err().contains("expected end"));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_expected() {
        for (text, says) in [
            ("frist", "expected first, last, next, offset:N"),
            ("", "expected first"),
            ("end", "expected first"),
            ("5", "offset:1000"),
            ("offset:-1", "\"-1\" is not an offset"),
            ("offset:", "is not an offset"),
            ("time:2026-01-01", "with a zone"),
            ("time:yesterday", "\"yesterday\""),
            ("ago:1x", "\"1x\" is not a duration"),
            ("since:1", "ago:1h30m"),
        ] {
            let error = start(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(until("next").unwrap_err().contains("expected end, offset:N"));
    }
}
