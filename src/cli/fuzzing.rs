//! Fuzz target for what commands read back: dead letters, and lines to be published.
//!
//! Not part of the crate's interface.

use super::{dead_letters, publish};

/// Reads the bytes as a dead letter, in a line and in a stream, and as a line to publish.
pub fn line(data: &[u8]) {
    dead_letters::letters::fuzz_letter(data);
    publish::fuzz_line(data);
}
