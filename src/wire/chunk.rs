//! A chunk: the unit in which the broker stores and delivers messages.
//!
//! Layout (`osiris_log.erl`, "Chunk format"): a header of 48 bytes, then the data section: entries,
//! each either a message (first bit 0, 31 bits of length) or a sub-entry batch (first bit 1, 3 bits
//! of codec, `u16` records, `u32` inflated size, `u32` size). A consumer gets the header as it is on
//! disk but without the bloom filter that the header announces, and for user chunks also without the
//! trailer (`osiris_log:select_amount_to_send`).
//!
//! Invariants: a decoded chunk's CRC is right, its entries fill its data section exactly, and their
//! record counts add up to `num_records`, so numbering the records cannot go wrong. Entries are
//! walked once; nothing is allocated per message. Batches are inflated only when the blocks are
//! asked for, under a limit. A batch that cannot be read leaves the others readable and numbered.

mod error;
mod header;
mod probed;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

pub use error::ChunkError;
pub use header::{ChunkHeader, ChunkKind, HEADER_BYTES};
pub use probed::{ProbedChunk, Watcher};

use super::block::Block;
use super::compression::{Codec, InflateError, InflateLimits, inflate};
use crate::types::{ChunkId, Offset};

/// A chunk whose lengths, CRC and record counts are correct.
#[derive(Clone)]
pub struct Chunk {
    header: ChunkHeader,
    data: Bytes,
    runs: Vec<Run>,
    inflated_bytes: u64,
}

/// Result of the walk over the entries: ranges of the data section, in order.
#[derive(Clone, Copy, Debug)]
enum Run {
    /// Messages that follow each other.
    Messages { first: Offset, count: u32, start: usize, end: usize },
    /// A sub-entry batch; `start..end` is its data without its header.
    Batch { first: Offset, count: u16, codec: u8, inflated: u32, start: usize, end: usize },
}

/// A readable or unreadable part of a chunk.
#[derive(Clone)]
pub enum Piece {
    /// Records.
    Block(Block),
    /// A sub-entry batch that cannot be read. Its records still have their offsets.
    Unreadable {
        /// Offset of its first record.
        first: Offset,
        /// Number of records in it.
        count: u32,
        /// The batch's data as it was published.
        data: Bytes,
        /// Reason.
        error: ChunkError,
    },
}

impl Chunk {
    /// Checks and walks the chunk of a Deliver frame. Nothing is copied.
    pub fn decode(bytes: Bytes) -> Result<Chunk, ChunkError> {
        let header = ChunkHeader::parse(&bytes)?;
        let data = header.data_section(&bytes)?;
        let found = crc32fast::hash(&data);
        if found != header.crc {
            let first_offset = header.first_offset;
            return Err(ChunkError::CrcMismatch { first_offset, expected: header.crc, found });
        }
        let mut chunk = Chunk { header, data, runs: Vec::new(), inflated_bytes: 0 };
        if header.kind == ChunkKind::User {
            chunk.walk()?;
        }
        Ok(chunk)
    }

    /// The header.
    pub fn header(&self) -> &ChunkHeader {
        &self.header
    }

    /// Identity of the chunk.
    pub fn id(&self) -> ChunkId {
        self.header.id()
    }

    /// Sum of the inflated sizes stated by the compressed sub-entry batches, in bytes: the memory
    /// that [`Chunk::into_blocks`] needs beyond the frame. 0 if there are none.
    pub fn inflated_bytes(&self) -> u64 {
        self.inflated_bytes
    }

    /// The records, in order. Consecutive messages are one block that shares the frame's memory;
    /// each batch is inflated into a block of its own. Only a user chunk has records.
    pub fn into_blocks(self, limits: &InflateLimits) -> Result<Vec<Block>, ChunkError> {
        let limit = limits.max_bytes as u64;
        if self.inflated_bytes > limit {
            let first_offset = self.header.first_offset;
            return Err(ChunkError::OverLimit { first_offset, wanted: self.inflated_bytes, limit });
        }
        let mut blocks = Vec::with_capacity(self.runs.len());
        for piece in self.pieces(limits) {
            match piece {
                Piece::Block(block) => blocks.push(block),
                Piece::Unreadable { error, .. } => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Like [`Chunk::into_blocks`], for a caller that continues after a batch that cannot be read:
    /// the pieces cover every offset of the chunk. The limit holds for all pieces together; a batch
    /// larger than what is left of it is unreadable too. Inflation happens as the iterator
    /// advances.
    pub fn pieces(&self, limits: &InflateLimits) -> impl Iterator<Item = Piece> {
        let mut left = limits.max_bytes;
        (0..self.runs.len()).filter_map(move |index| self.piece(index, &mut left))
    }

    /// Upper bound on the number of pieces, for a caller that takes them one at a time.
    pub fn piece_count(&self) -> usize {
        self.runs.len()
    }

    /// Bytes that a piece states for its inflated size, needed beyond the frame; 0 if it is not
    /// compressed.
    pub fn piece_inflated_bytes(&self, index: usize) -> u64 {
        match self.runs.get(index) {
            Some(Run::Batch { codec, inflated, .. }) if *codec != 0 => u64::from(*inflated),
            _ => 0,
        }
    }

    /// One piece. Its inflated size must fit in `left` and is subtracted from it. `None` for an
    /// empty piece.
    pub fn piece(&self, index: usize, left: &mut usize) -> Option<Piece> {
        match *self.runs.get(index)? {
            Run::Messages { first, count, start, end } => {
                let bytes = self.data.slice(start..end);
                let timestamp = self.header.timestamp;
                Some(Piece::Block(Block::from_checked(first, count, timestamp, bytes)))
            }
            Run::Batch { first, count, codec, inflated, start, end } => {
                let data = self.data.slice(start..end);
                let count = u32::from(count);
                match self.batch(first, count, codec, inflated, &data, left) {
                    Ok(block) => (block.count() > 0).then_some(Piece::Block(block)),
                    Err(error) => Some(Piece::Unreadable { first, count, data, error }),
                }
            }
        }
    }

    fn batch(
        &self,
        first: Offset,
        count: u32,
        codec: u8,
        inflated: u32,
        data: &Bytes,
        left: &mut usize,
    ) -> Result<Block, ChunkError> {
        let codec = Codec::from_number(codec).ok_or(ChunkError::UnknownCodec { first, codec })?;
        let stated = inflated as usize;
        let bytes = inflate(codec, data, stated, *left).map_err(|error| match error {
            InflateError::OverLimit { wanted, limit } => {
                ChunkError::OverLimit { first_offset: first, wanted, limit }
            }
            detail => ChunkError::Inflate { first, codec, detail },
        })?;
        if codec != Codec::None {
            *left -= stated.min(*left);
        }
        Block::new(first, count, self.header.timestamp, bytes)
            .ok_or(ChunkError::BadBatch { first, count })
    }

    /// The single pass over the entries.
    fn walk(&mut self) -> Result<(), ChunkError> {
        let data: &[u8] = &self.data;
        let first_offset = self.header.first_offset;
        // `ChunkHeader::parse` made sure that first + records exists; `records` below may be larger
        // than what the header says until it is compared, but 65,535 entries of 65,535 records at
        // the most fit in a u32.
        let mut records: u32 = 0;
        let mut at = 0;
        // Start of the messages since the last batch.
        let mut run_start = 0;
        let mut run_records: u32 = 0;
        for _ in 0..self.header.entries {
            let bad =
                || ChunkError::BadEntry { position: HEADER_BYTES + at, first_offset, records };
            let rest = data.get(at..).unwrap_or_default();
            let head = u32::from_be_bytes(*rest.first_chunk::<4>().ok_or_else(bad)?);
            if head >> 31 == 0 {
                let length = 4 + head as usize;
                if rest.len() < length {
                    return Err(bad());
                }
                at += length;
                records += 1;
                run_records += 1;
                continue;
            }
            let head = BatchHead::parse(rest).ok_or_else(bad)?;
            if rest.len() - BATCH_HEAD_BYTES < head.size as usize {
                return Err(bad());
            }
            let first = |back: u32| numbered(first_offset, records - back);
            if run_records > 0 {
                self.runs.push(Run::Messages {
                    first: first(run_records),
                    count: run_records,
                    start: run_start,
                    end: at,
                });
            }
            let start = at + BATCH_HEAD_BYTES;
            let end = start + head.size as usize;
            self.runs.push(Run::Batch {
                first: first(0),
                count: head.records,
                codec: head.codec,
                inflated: head.inflated,
                start,
                end,
            });
            if head.codec != 0 {
                self.inflated_bytes += u64::from(head.inflated);
            }
            at = end;
            records += u32::from(head.records);
            run_start = end;
            run_records = 0;
        }
        if run_records > 0 {
            self.runs.push(Run::Messages {
                first: numbered(first_offset, records - run_records),
                count: run_records,
                start: run_start,
                end: at,
            });
        }
        self.header.check_totals(at, records)
    }
}

/// Saturates at the highest offset in a chunk whose counts are wrong; such a chunk is refused.
fn numbered(first: Offset, records: u32) -> Offset {
    Offset(first.0.saturating_add(u64::from(records)))
}

/// Leaves the messages out: they may be confidential.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Bytes of a sub-entry batch's header.
const BATCH_HEAD_BYTES: usize = 11;

struct BatchHead {
    codec: u8,
    records: u16,
    inflated: u32,
    size: u32,
}

impl BatchHead {
    fn parse(bytes: &[u8]) -> Option<BatchHead> {
        let [kind, r0, r1, i0, i1, i2, i3, s0, s1, s2, s3] =
            *bytes.first_chunk::<BATCH_HEAD_BYTES>()?;
        Some(BatchHead {
            codec: (kind >> 4) & 0b111,
            records: u16::from_be_bytes([r0, r1]),
            inflated: u32::from_be_bytes([i0, i1, i2, i3]),
            size: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}
