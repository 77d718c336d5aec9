//! The header of a chunk.

use bytes::Bytes;

use super::error::ChunkError;
use crate::types::{ChunkId, Offset, Timestamp};
use crate::wire::cursor::Cursor;
use crate::wire::error::{WireError, WireProblem};

/// Bytes of a chunk's header.
pub const HEADER_BYTES: usize = 48;
/// Magic 5 in the upper half, format version 0 in the lower.
const MAGIC_AND_VERSION: u8 = 0x50;
const CHUNK_HEADER: &str = "chunk header";

/// Content of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Messages: the only kind that the broker delivers.
    User,
    /// Changes of stored offsets and publishing ids.
    TrackingDelta,
    /// All stored offsets and publishing ids, at the start of a segment.
    TrackingSnapshot,
    /// An unknown kind.
    Other(u8),
}

impl From<u8> for ChunkKind {
    fn from(kind: u8) -> Self {
        match kind {
            0 => ChunkKind::User,
            1 => ChunkKind::TrackingDelta,
            2 => ChunkKind::TrackingSnapshot,
            other => ChunkKind::Other(other),
        }
    }
}

/// A chunk's header. It is not covered by the CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Kind of content.
    pub kind: ChunkKind,
    /// Number of entries: messages and sub-entry batches.
    pub entries: u16,
    /// Number of messages, including those in sub-entry batches.
    pub records: u32,
    /// Time at which the leader wrote it.
    pub timestamp: Timestamp,
    /// The leader's epoch.
    pub epoch: u64,
    /// The offset of the first record, also called the chunk's id.
    pub first_offset: Offset,
    /// CRC-32 of the data section.
    pub crc: u32,
    /// Bytes of the data section.
    pub data_bytes: u32,
    /// Bytes of the trailer on disk; not delivered with a user chunk.
    pub trailer_bytes: u32,
    /// Bytes of the bloom filter on disk; never delivered.
    pub bloom_bytes: u8,
}

impl ChunkHeader {
    /// Reads a header from the chunk's first [`HEADER_BYTES`] bytes. Later bytes are not looked at,
    /// so that a chunk that is damaged, or not buffered, can still be numbered.
    pub fn parse(bytes: &[u8]) -> Result<ChunkHeader, WireError> {
        let mut c = Cursor::new(CHUNK_HEADER, bytes);
        let magic = c.clone();
        match c.u8()? {
            MAGIC_AND_VERSION => {}
            other => {
                let what = "magic and version";
                return Err(magic.error(WireProblem::Unknown { what, value: other.into() }));
            }
        }
        let kind = ChunkKind::from(c.u8()?);
        let entries = c.u16()?;
        let records = c.u32()?;
        let timestamp = Timestamp(c.i64()?);
        let epoch = c.u64()?;
        let first = c.clone();
        let first_offset = Offset(c.u64()?);
        if first_offset.0.checked_add(records.into()).is_none() {
            let what = "offset after the last record";
            return Err(first.error(WireProblem::Unknown { what, value: first_offset.0 }));
        }
        let header = ChunkHeader {
            kind,
            entries,
            records,
            timestamp,
            epoch,
            first_offset,
            crc: c.u32()?,
            data_bytes: c.u32()?,
            trailer_bytes: c.u32()?,
            bloom_bytes: c.u8()?,
        };
        c.take(3)?; // Reserved.
        Ok(header)
    }

    /// Identity of the chunk.
    pub fn id(&self) -> ChunkId {
        ChunkId {
            first_offset: self.first_offset,
            epoch: self.epoch,
            timestamp: self.timestamp,
            crc: self.crc,
        }
    }

    /// Offset after the last record. The next chunk may begin later: the broker's tracking chunks
    /// take offsets too.
    pub fn next_offset(&self) -> Offset {
        Offset(self.first_offset.0.saturating_add(self.records.into()))
    }

    /// The data section of a delivered chunk: exactly the stated number of bytes, followed by
    /// nothing but the trailer, if any.
    pub(super) fn data_section(&self, chunk: &Bytes) -> Result<Bytes, WireError> {
        let stated = self.data_bytes as usize;
        let there = chunk.len().saturating_sub(HEADER_BYTES);
        let after = there.checked_sub(stated);
        if after != Some(0) && after != Some(self.trailer_bytes as usize) {
            let problem = WireProblem::Mismatch {
                what: "bytes of data",
                expected: stated as u64,
                found: there as u64,
            };
            return Err(WireError::new(CHUNK_HEADER, 36, problem));
        }
        Ok(chunk.slice(HEADER_BYTES..HEADER_BYTES + stated))
    }

    /// Compares the totals of the walk over the entries with the header.
    pub(super) fn check_totals(&self, bytes: usize, records: u32) -> Result<(), ChunkError> {
        let wrong = |what, stated: u32, found: u64| ChunkError::WrongTotal {
            first_offset: self.first_offset,
            what,
            stated: stated.into(),
            found,
        };
        if bytes as u64 != u64::from(self.data_bytes) {
            return Err(wrong("bytes in entries", self.data_bytes, bytes as u64));
        }
        if records != self.records {
            return Err(wrong("records", self.records, records.into()));
        }
        Ok(())
    }
}
