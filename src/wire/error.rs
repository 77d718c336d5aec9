//! Errors of the stream protocol's decoders and encoders.
//!
//! One error type serves every decoder and encoder of the stream protocol, so that a log line can
//! always say in which structure, and at which of its bytes, reading stopped.

use thiserror::Error;

/// Bytes that violate the protocol, or a value that the protocol cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{structure}, byte {position}: {problem}")]
pub struct WireError {
    /// The structure that was being read or written: a command, `frame`, `chunk header`.
    pub structure: &'static str,
    /// Byte within the structure, counted from 0.
    pub position: usize,
    /// The problem at that byte.
    pub problem: WireProblem,
}

impl WireError {
    /// A problem at a position.
    pub fn new(structure: &'static str, position: usize, problem: WireProblem) -> Self {
        Self { structure, position, problem }
    }
}

/// Kind of problem.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireProblem {
    /// The bytes end too early.
    #[error("{wanted} more bytes needed, {left} left")]
    Truncated {
        /// Bytes of the next value.
        wanted: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length below zero that is not the null mark (-1).
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// Null where a value has to stand.
    #[error("null where a value is needed")]
    Null,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// A list that declares more items than its bytes can hold.
    #[error("a list of {count} items cannot fit in {left} bytes")]
    CountTooLarge {
        /// Declared number of items.
        count: u32,
        /// Bytes left.
        left: usize,
    },
    /// A value that the protocol does not define.
    #[error("unknown {what} {value:#06x}")]
    Unknown {
        /// Name of the field.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A frame too short to hold its key and version.
    #[error("a frame of {0} bytes cannot hold a key and a version")]
    FrameTooSmall(u32),
    /// A frame over the limit.
    #[error("a frame of {size} bytes is over the limit of {limit} bytes")]
    FrameTooLarge {
        /// Stated size in bytes.
        size: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A value that is too long for its field.
    #[error("{what} takes {length} bytes; at most {limit} fit")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Bytes of the value.
        length: usize,
        /// Most bytes that fit.
        limit: usize,
    },
    /// A sum or a length that differs from another one.
    #[error("{what}: {expected} expected, {found} found")]
    Mismatch {
        /// Name of the sum or length.
        what: &'static str,
        /// The value that it should have.
        expected: u64,
        /// The value that it has.
        found: u64,
    },
}
