//! Targets of a move in arguments: `first`, `offset:N`, `time:T`.

use crate::cli::point;
use crate::config::Start;

/// The forms, for the help.
pub(in crate::cli) const FORMS: &str = "first|last|next|offset:N|time:T";

const EXPECTED: &str = "expected first, last, next, offset:N (as offset:1000) or time:T (RFC 3339 with a zone, as \
                        time:2026-01-01T00:00:00Z)";

/// Reads a target.
///
/// # Errors
/// If it is none; the text says what is expected.
pub(in crate::cli) fn target(text: &str) -> Result<Start, String> {
    match point::start(text) {
        // A position is moved to a place, which must not depend on when that is done.
        Ok(Start::Ago(_)) => Err(EXPECTED.to_owned()),
        Ok(start) => Ok(start),
        Err(what) if what.contains("offset:N") => Err(EXPECTED.to_owned()),
        Err(what) => Err(format!("{what}; {EXPECTED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Offset, Timestamp};

    #[test]
    fn every_form_is_read_and_others_are_told_apart() {
        assert_eq!(target("first"), Ok(Start::First));
        assert_eq!(target("offset:0"), Ok(Start::Offset(Offset(0))));
        let time = target("time:2026-01-01T01:00:00.250+01:00");
        assert_eq!(time, Ok(Start::Timestamp(Timestamp(1_767_225_600_250))));
        for text in
            ["", "5", "offset:-1", "offset:", "time:2026-01-01", "time:now", "since:1", "ago:1h"]
        {
            let error = target(text).unwrap_err();
            assert!(error.contains("offset:N"), "{text}: {error}");
        }
    }
}
