//! Fuzz target for what commands read back: dead letters, and lines to be published.
//!
//! Not part of the crate's interface.

use super::{dead_letters, publish};

/// Takes the bytes for a line of NDJSON, and for a letter in a stream.
pub fn line(data: &[u8]) {
    dead_letters::fuzz_letter(data);
    publish::fuzz_line(data);
}
