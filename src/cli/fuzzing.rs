//! Fuzz targets for what commands read back: dead letters, and lines to be published.
//!
//! Not part of the crate's interface.

use super::{dead_letters, offsets, point, publish, tail};

/// Reads the bytes as a dead letter, in a line and in a stream, and as a line to publish.
pub fn line(data: &[u8]) {
    dead_letters::letters::fuzz_letter(data);
    publish::fuzz_line(data);
}

/// Reads the bytes as each kind of argument that has a form, and as a file of positions.
pub fn arguments(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(start) = point::start(text) {
        assert_eq!(point::first(text).is_ok(), start != crate::config::Start::Next);
    }
    if let Ok(until) = point::until(text) {
        assert_eq!(point::last(text), Ok(until));
        let has_time = matches!(until, point::Until::Time(_) | point::Until::Ago(_));
        assert_eq!(until.time(crate::types::Timestamp(0)).is_some(), has_time);
    }
    tail::fuzz_condition(text);
    offsets::fuzz_exported(text);
}
