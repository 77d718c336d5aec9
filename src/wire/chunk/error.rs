//! Errors of a chunk, by the classes that a policy distinguishes.

use thiserror::Error;

use crate::types::Offset;
use crate::wire::compression::{Codec, InflateError};
use crate::wire::error::WireError;

/// Reason why a chunk, or a sub-entry batch in it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The header is invalid: nothing is known about the chunk's records.
    #[error("the chunk's header is invalid: {0}")]
    BadHeader(WireError),
    /// The CRC of the data section does not match the header.
    #[error(
        "the chunk at offset {first_offset} is damaged: CRC {expected:08x} stated, {found:08x} found"
    )]
    CrcMismatch {
        /// The chunk's first offset, as its header says.
        first_offset: Offset,
        /// The CRC in the header.
        expected: u32,
        /// The CRC of the data.
        found: u32,
    },
    /// The header states no messages; the broker does not deliver such chunks.
    #[error(
        "the chunk at offset {first_offset} was delivered although its header states no messages"
    )]
    NotMessages {
        /// The chunk's first offset, as its header says.
        first_offset: Offset,
    },
    /// An entry does not fit in the data section.
    #[error(
        "the chunk at offset {first_offset} has an entry, at byte {position} and after {records} \
         records, that runs past its end"
    )]
    BadEntry {
        /// The chunk's first offset.
        first_offset: Offset,
        /// Byte at which the entry begins, counted from the chunk's first byte.
        position: usize,
        /// Number of records before it.
        records: u32,
    },
    /// The entries do not add up to the totals in the header.
    #[error("the chunk at offset {first_offset}: {what}: {stated} stated, {found} found")]
    WrongTotal {
        /// The chunk's first offset.
        first_offset: Offset,
        /// Name of the total.
        what: &'static str,
        /// Value in the header.
        stated: u64,
        /// Value found.
        found: u64,
    },
    /// A sub-entry batch does not hold the number of messages that it states.
    #[error("the sub-entry batch at offset {first} does not hold exactly {count} messages")]
    BadBatch {
        /// Offset of its first record.
        first: Offset,
        /// Number of records that it states.
        count: u32,
    },
    /// A sub-entry batch has an unknown codec.
    #[error("the sub-entry batch at offset {first} has the unknown codec {codec}")]
    UnknownCodec {
        /// Offset of its first record.
        first: Offset,
        /// The codec's number.
        codec: u8,
    },
    /// A sub-entry batch cannot be inflated.
    #[error("the sub-entry batch at offset {first} cannot be inflated ({codec}): {detail}")]
    Inflate {
        /// Offset of its first record.
        first: Offset,
        /// The codec.
        codec: Codec,
        /// Error of the decoder.
        detail: InflateError,
    },
    /// The inflated size is over the limit.
    #[error(
        "the sub-entry batches at offset {first_offset} take {wanted} bytes inflated; the limit \
         allows {limit}"
    )]
    OverLimit {
        /// The first offset of the chunk or batch.
        first_offset: Offset,
        /// Stated inflated size in bytes.
        wanted: u64,
        /// The most that is allowed.
        limit: u64,
    },
}

impl From<WireError> for ChunkError {
    fn from(error: WireError) -> Self {
        ChunkError::BadHeader(error)
    }
}
