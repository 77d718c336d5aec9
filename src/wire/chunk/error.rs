//! What can be wrong with a chunk, in the classes that a policy tells apart.

use thiserror::Error;

use crate::types::Offset;
use crate::wire::compression::{Codec, InflateError};
use crate::wire::error::WireError;

/// Why a chunk, or a sub-entry batch in it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The header cannot be right: nothing is known about the chunk's records.
    #[error("the chunk's header cannot be right: {0}")]
    BadHeader(WireError),
    /// The data section is not what the leader wrote.
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
    /// It says that it holds no messages, which the broker does not deliver.
    #[error("the chunk at offset {first_offset} says that it holds no messages, but was delivered")]
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
        /// Where the entry begins, counted from the chunk's first byte.
        position: usize,
        /// Records before it.
        records: u32,
    },
    /// The entries do not add up to what the header says.
    #[error("the chunk at offset {first_offset}: {what}: {stated} stated, {found} found")]
    WrongTotal {
        /// The chunk's first offset.
        first_offset: Offset,
        /// What was counted.
        what: &'static str,
        /// What the header says.
        stated: u64,
        /// What there is.
        found: u64,
    },
    /// A sub-entry batch does not hold the messages that it states.
    #[error("the sub-entry batch at offset {first} does not hold exactly {count} messages")]
    BadBatch {
        /// The offset of its first record.
        first: Offset,
        /// The records that it states.
        count: u32,
    },
    /// A sub-entry batch is compressed in a way that is not known here.
    #[error("the sub-entry batch at offset {first} has the unknown codec {codec}")]
    UnknownCodec {
        /// The offset of its first record.
        first: Offset,
        /// The codec's number.
        codec: u8,
    },
    /// A sub-entry batch cannot be inflated.
    #[error("the sub-entry batch at offset {first} cannot be inflated ({codec}): {detail}")]
    Inflate {
        /// The offset of its first record.
        first: Offset,
        /// How it is compressed.
        codec: Codec,
        /// What the decoder said.
        detail: InflateError,
    },
    /// Inflated, it would take more memory than is allowed.
    #[error(
        "the sub-entry batches at offset {first_offset} take {wanted} bytes inflated; the limit \
         allows {limit}"
    )]
    OverLimit {
        /// The first offset of the chunk or batch.
        first_offset: Offset,
        /// The inflated size that is stated.
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
