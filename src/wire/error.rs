//! What was wrong with some bytes, and where.
//!
//! One error type serves every decoder and encoder of the stream protocol, so that a log line can
//! always say in which structure, and at which of its bytes, reading stopped.

use thiserror::Error;

/// Bytes that are not what the protocol says, or a value that the protocol cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{structure}, byte {position}: {problem}")]
pub struct WireError {
    /// The structure that was being read or written: a command, `frame`, `chunk header`.
    pub structure: &'static str,
    /// Where in the structure, counted from its first byte.
    pub position: usize,
    /// What was wrong there.
    pub problem: Problem,
}

impl WireError {
    /// A problem at a place.
    pub fn new(structure: &'static str, position: usize, problem: Problem) -> Self {
        Self { structure, position, problem }
    }
}

/// What can be wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The bytes end too early.
    #[error("{wanted} more bytes wanted, {left} left")]
    Truncated {
        /// Bytes that the next value takes.
        wanted: usize,
        /// Bytes that are there.
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
    /// A list that claims more items than its bytes can hold.
    #[error("a list of {count} items cannot fit in {left} bytes")]
    CountTooLarge {
        /// Items claimed.
        count: u32,
        /// Bytes left.
        left: usize,
    },
    /// A value that the protocol does not define.
    #[error("unknown {what} {value:#06x}")]
    Unknown {
        /// What the value should have named.
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
        /// The size that the frame states.
        size: u32,
        /// The most that is taken.
        limit: u32,
    },
    /// A value to be sent that its field cannot hold.
    #[error("{what} takes {length} bytes; at most {limit} fit")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Bytes of the value.
        length: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// A sum or a length that does not agree with another.
    #[error("{what}: {expected} expected, {found} found")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// The value that it should have.
        expected: u64,
        /// The value that it has.
        found: u64,
    },
}
