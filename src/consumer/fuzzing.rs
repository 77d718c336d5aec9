//! Fuzz targets for what a consumer keeps in `state_dir`. Each panics where a promise is broken.
//!
//! Not part of the crate's interface.

use super::{noted, remembered};

/// Takes the bytes for a state file.
pub fn remembered(data: &[u8]) {
    remembered::fuzz(data);
}

/// Takes the bytes for a dead-letter index.
pub fn noted(data: &[u8]) {
    noted::fuzz(data);
}
