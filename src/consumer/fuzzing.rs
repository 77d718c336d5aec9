//! Fuzz targets for the files in `state_dir`. Each panics if a promise is broken.
//!
//! Not part of the crate's interface.

use super::{dead_letter_index, state_file};

/// Reads the bytes as a state file.
pub fn state_file(data: &[u8]) {
    state_file::fuzz(data);
}

/// Reads the bytes as a dead-letter index.
pub fn dead_letter_index(data: &[u8]) {
    dead_letter_index::fuzz(data);
}
