//! Fuzz targets for what a consumer keeps in `state_dir`. Each panics where a promise is broken.
//!
//! Not part of the crate's interface.

use super::{dead_letter_index, state_file};

/// Takes the bytes for a state file.
pub fn state_file(data: &[u8]) {
    state_file::fuzz(data);
}

/// Takes the bytes for a dead-letter index.
pub fn dead_letter_index(data: &[u8]) {
    dead_letter_index::fuzz(data);
}
