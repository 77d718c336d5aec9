//! Limits of names on the broker.

/// Longest reference, in bytes: the broker drops the offsets of a longer one without an answer.
pub(super) const REFERENCE_BYTES_MAX: usize = 255;

/// Longest name of a stream, in bytes, by the broker's limit.
pub(super) const STREAM_BYTES_MAX: usize = 255;
