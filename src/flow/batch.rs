//! A batch: consecutive records of a stream, on the unchanged bytes that the broker sent.
//!
//! Invariants: offsets strictly increase; a batch covers at least one offset, though all its records
//! may have been left out; the bytes stay where the socket read put them; their memory is returned
//! to the budget when the batch is dropped.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::{Checkpoint, ChunkId, Offset, StreamName, Timestamp};
use crate::wire::block::{Block, Record};

/// Memory and credit of a chunk. Dropping the last clone returns both.
pub type Permit = Arc<dyn Any + Send + Sync>;

/// Consecutive records of one chunk.
#[derive(Clone)]
pub struct Part {
    /// The records.
    pub block: Block,
    /// The chunk that contains them.
    pub chunk: ChunkId,
    /// Their memory and credit.
    pub permit: Permit,
}

impl Part {
    /// Position behind the last record.
    pub fn checkpoint(&self) -> Checkpoint {
        let offset = self.block.last_offset();
        let chunk = match self.chunk.is_of_record() {
            true => ChunkId { first_offset: offset, crc: self.block.last_crc(), ..self.chunk },
            false => self.chunk,
        };
        Checkpoint { offset, chunk: Some(chunk) }
    }
}

/// Consecutive records of a stream.
#[derive(Clone)]
pub struct Batch {
    stream: StreamName,
    parts: Vec<Part>,
    excluded: Vec<Offset>,
    messages: u64,
    bytes: u64,
}

impl Batch {
    /// A batch of these parts; `None` if they hold no record.
    pub fn new(stream: StreamName, parts: Vec<Part>) -> Option<Batch> {
        let parts: Vec<Part> = parts.into_iter().filter(|p| p.block.count() > 0).collect();
        if parts.is_empty() {
            return None;
        }
        let batch = Batch { stream, parts, excluded: Vec::new(), messages: 0, bytes: 0 };
        Some(batch.counted())
    }

    /// With the number and bytes of its records.
    fn counted(mut self) -> Batch {
        (self.messages, self.bytes) = match self.excluded.is_empty() {
            true => self.parts.iter().fold((0, 0), |(n, b), part| {
                (n + u64::from(part.block.count()), b + part.block.bytes().len() as u64)
            }),
            false => self
                .records()
                .fold((0, 0), |(n, b), record| (n + 1, b + record.message.len() as u64 + 4)),
        };
        self
    }

    /// A batch without messages that ends at this position: it moves the position of whatever writes
    /// it. `None` if the position has no chunk.
    pub fn of_position(stream: StreamName, position: Checkpoint) -> Option<Batch> {
        let (chunk, offset) = (position.chunk?, position.offset);
        // An empty message, left out.
        let block = Block::new(offset, 1, chunk.timestamp, Bytes::from_static(&[0; 4]))?;
        let part = Part { block, chunk, permit: Arc::new(()) };
        Batch::new(stream, vec![part]).map(|batch| batch.without(vec![offset]))
    }

    /// The stream that the records come from.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Number of records that [`Batch::records`] yields.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the encoded messages, including their length prefixes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset of the first record, excluded or not.
    pub fn first_offset(&self) -> Offset {
        self.parts.first().map_or(Offset(0), |p| p.block.first_offset())
    }

    /// The offset of the last record, excluded or not. Durable once the batch is.
    pub fn last_offset(&self) -> Offset {
        self.parts.last().map_or(Offset(0), |p| p.block.last_offset())
    }

    /// The position that is durable once the batch is.
    pub fn checkpoint(&self) -> Checkpoint {
        let none = Checkpoint { offset: self.last_offset(), chunk: None };
        self.parts.last().map_or(none, Part::checkpoint)
    }

    /// Time at which the chunk of the oldest record was written.
    pub fn oldest(&self) -> Timestamp {
        self.parts.first().map_or(Timestamp(0), |p| p.chunk.timestamp)
    }

    /// The parts, including their excluded records.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The records in order, without the excluded ones.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut excluded = self.excluded.iter().peekable();
        self.parts.iter().flat_map(|p| p.block.records()).filter(move |record| {
            // Both run in order of offset, so one pass is enough.
            while excluded.next_if(|e| **e < record.offset).is_some() {}
            excluded.next_if(|e| **e == record.offset).is_none()
        })
    }

    /// The records at or above `from`, as [`Batch::records`] yields them. Skips whole chunks at
    /// once, so that a batch can be walked in pieces.
    pub fn records_from(&self, from: Offset) -> impl Iterator<Item = Record<'_>> {
        let mut excluded = self.excluded.iter().peekable();
        self.parts
            .iter()
            .filter(move |p| p.block.last_offset() >= from)
            .flat_map(|p| p.block.records())
            .skip_while(move |record| record.offset < from)
            .filter(move |record| {
                while excluded.next_if(|e| **e < record.offset).is_some() {}
                excluded.next_if(|e| **e == record.offset).is_none()
            })
    }

    /// The same batch without these records (bad ones that the policy leaves out). It covers the
    /// same offsets.
    #[must_use]
    pub fn without(mut self, mut offsets: Vec<Offset>) -> Batch {
        self.excluded.append(&mut offsets);
        self.excluded.sort_unstable();
        self.excluded.dedup();
        self.counted()
    }

    /// The same batch with other messages in place of these, which are given in order. The originals are
    /// kept: see [`Block::original`]. `None` if a message is too long for a block.
    #[must_use]
    pub fn rewritten<'m>(
        mut self,
        messages: impl Iterator<Item = (Offset, &'m [u8])>,
    ) -> Option<Batch> {
        let mut new = messages.peekable();
        for part in &mut self.parts {
            let last = part.block.last_offset();
            if new.peek().is_none_or(|(offset, _)| *offset > last) {
                continue;
            }
            let mut bytes = Vec::with_capacity(part.block.bytes().len());
            for record in part.block.records() {
                let made = new.next_if(|(offset, _)| *offset == record.offset);
                let message = made.map_or(record.message, |(_, message)| message);
                bytes.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
                bytes.extend_from_slice(message);
            }
            part.block = part.block.rewritten(bytes.into())?;
        }
        debug_assert!(new.next().is_none(), "a message that is not in the batch");
        Some(self.counted())
    }

    /// Appends the batch that follows this one in the same stream.
    pub fn append(&mut self, mut next: Batch) {
        debug_assert!(self.stream == next.stream && self.last_offset() < next.first_offset());
        self.parts.append(&mut next.parts);
        self.excluded.append(&mut next.excluded);
        self.messages += next.messages;
        self.bytes += next.bytes;
    }

    /// The records below `offset`, as a batch of their own; `None` if there are none.
    #[must_use]
    pub fn before(&self, offset: Offset) -> Option<Batch> {
        let parts = self
            .parts
            .iter()
            .filter(|p| p.block.first_offset() < offset)
            .map(|p| {
                let keep = offset.0 - p.block.first_offset().0;
                let keep = u32::try_from(keep).unwrap_or(u32::MAX).min(p.block.count());
                Part { block: p.block.clone().split_at(keep).0, ..p.clone() }
            })
            .collect();
        let excluded = self.excluded.clone();
        Batch::new(self.stream.clone(), parts).map(|batch| batch.without(excluded))
    }
}

impl Batch {
    /// The records above `offset`, as a batch of their own; `None` if there are none.
    #[must_use]
    pub fn after(&self, offset: Offset) -> Option<Batch> {
        let from = Offset(offset.0.checked_add(1)?);
        let parts = self
            .parts
            .iter()
            .filter(|p| p.block.last_offset() > offset)
            .map(|p| Part { block: p.block.clone().starting_at(from), ..p.clone() })
            .collect();
        let excluded = self.excluded.clone();
        Batch::new(self.stream.clone(), parts).map(|batch| batch.without(excluded))
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, last) = (self.first_offset(), self.last_offset());
        write!(f, "offsets {first} to {last} of stream {:?}", self.stream.as_str())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("stream", &self.stream)
            .field("first", &self.first_offset())
            .field("last", &self.last_offset())
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}
