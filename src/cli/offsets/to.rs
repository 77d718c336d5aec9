//! Targets of a move in arguments: `first`, `offset:N`, `time:T`.

use crate::config::Start;
use crate::types::{Offset, Timestamp};

/// The forms, for the help.
pub(in crate::cli) const FORMS: &str = "first|last|next|offset:N|time:T";

const EXPECTED: &str = "expected first, last, next, offset:N (as offset:1000) or time:T (RFC 3339 with a zone, as \
                        time:2026-01-01T00:00:00Z)";

/// Reads a target.
///
/// # Errors
/// If it is none; the text says what is expected.
pub(in crate::cli) fn target(text: &str) -> Result<Start, String> {
    match text {
        "first" => return Ok(Start::First),
        "last" => return Ok(Start::Last),
        "next" => return Ok(Start::Next),
        _ => {}
    }
    match text.split_once(':') {
        Some(("offset", offset)) => match offset.parse() {
            Ok(offset) => Ok(Start::Offset(Offset(offset))),
            Err(_) => Err(format!("{offset:?} is not an offset: {EXPECTED}")),
        },
        Some(("time", time)) => match time.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Start::Timestamp(Timestamp(at.as_millisecond()))),
            Err(error) => Err(format!("{time:?} is not a point in time ({error}): {EXPECTED}")),
        },
        _ => Err(EXPECTED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_others_are_told_apart() {
        assert_eq!(target("first"), Ok(Start::First));
        assert_eq!(target("offset:0"), Ok(Start::Offset(Offset(0))));
        let time = target("time:2026-01-01T01:00:00.250+01:00");
        assert_eq!(time, Ok(Start::Timestamp(Timestamp(1_767_225_600_250))));
        for text in ["", "5", "offset:-1", "offset:", "time:2026-01-01", "time:now", "since:1"] {
            let error = target(text).unwrap_err();
            assert!(error.contains("offset:N"), "{text}: {error}");
        }
    }
}
