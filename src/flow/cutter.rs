//! Cuts the sequence of records into batches by messages, bytes and age.
//!
//! Exact in messages: no batch holds more than `max_messages`. In bytes it cuts before the record
//! that would pass `max_bytes`, splitting a chunk's block if necessary; only a single message
//! larger than `max_bytes` makes a larger batch.

use std::time::{Duration, Instant};

use super::batch::{Batch, Part};
use crate::types::{ChunkId, Offset, StreamName};

/// Limits of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most messages in a batch.
    pub max_messages: u64,
    /// Most bytes of encoded messages, including their length prefixes.
    pub max_bytes: u64,
    /// Longest time that the first record of a batch waits for others.
    pub max_age: Duration,
}

/// The batch that is being filled.
pub struct Cutter {
    stream: StreamName,
    limits: BatchLimits,
    parts: Vec<Part>,
    messages: u64,
    bytes: u64,
    since: Option<Instant>,
}

impl Cutter {
    /// An empty one.
    pub fn new(stream: StreamName, limits: BatchLimits) -> Cutter {
        Cutter { stream, limits, parts: Vec::new(), messages: 0, bytes: 0, since: None }
    }

    /// Adds records; passes every full batch to `full`.
    pub fn push(&mut self, mut part: Part, now: Instant, mut full: impl FnMut(Batch)) {
        while part.block.count() > 0 {
            let room = self.limits.max_messages.saturating_sub(self.messages);
            let room_bytes = self.limits.max_bytes.saturating_sub(self.bytes);
            let fits = self.fitting(&part, room, room_bytes);
            let (now_part, rest) = part.block.split_at(fits);
            if now_part.count() > 0 {
                self.messages += u64::from(now_part.count());
                self.bytes += now_part.bytes().len() as u64;
                self.since.get_or_insert(now);
                self.parts.push(Part {
                    block: now_part,
                    chunk: part.chunk,
                    permit: part.permit.clone(),
                });
            }
            let cut = rest.count() > 0
                || self.messages >= self.limits.max_messages
                || self.bytes >= self.limits.max_bytes;
            if cut && let Some(batch) = self.cut() {
                full(batch);
            }
            part.block = rest;
        }
    }

    /// Number of the part's records that still fit; at least one into an empty batch.
    fn fitting(&self, part: &Part, room: u64, room_bytes: u64) -> u32 {
        let count = part.block.count();
        let by_count = u32::try_from(room).unwrap_or(u32::MAX).min(count);
        if part.block.bytes().len() as u64 <= room_bytes {
            return by_count;
        }
        let mut bytes = 0;
        let mut fits = 0;
        for record in part.block.records().take(by_count as usize) {
            bytes += record.message.len() as u64 + 4;
            if bytes > room_bytes {
                break;
            }
            fits += 1;
        }
        if fits == 0 && self.parts.is_empty() { 1 } else { fits }
    }

    /// Cuts the current batch; `None` if it is empty.
    pub fn cut(&mut self) -> Option<Batch> {
        self.messages = 0;
        self.bytes = 0;
        self.since = None;
        Batch::new(self.stream.clone(), std::mem::take(&mut self.parts))
    }

    /// Time since which the current batch waits for more; `None` if it is empty.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// True if no record waits.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The chunk of the oldest record that waits.
    pub fn oldest(&self) -> Option<ChunkId> {
        self.parts.first().map(|p| p.chunk)
    }

    /// The last offset that waits.
    pub fn last_offset(&self) -> Option<Offset> {
        self.parts.last().map(|p| p.block.last_offset())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::types::Timestamp;
    use crate::wire::block::Block;

    fn part(first: u64, sizes: &[usize]) -> Part {
        let mut bytes = BytesMut::new();
        for (i, size) in sizes.iter().enumerate() {
            bytes.put_u32(*size as u32);
            bytes.put_bytes(i as u8, *size);
        }
        let block = Block::new(Offset(first), sizes.len() as u32, Timestamp(0), bytes.freeze());
        let chunk =
            ChunkId { first_offset: Offset(first), epoch: 1, timestamp: Timestamp(0), crc: 0 };
        Part { block: block.unwrap(), chunk, permit: Arc::new(()) }
    }

    fn limits(max_messages: u64, max_bytes: u64) -> BatchLimits {
        BatchLimits { max_messages, max_bytes, max_age: Duration::from_secs(1) }
    }

    fn cut(limits: BatchLimits, chunks: &[(u64, Vec<usize>)]) -> Vec<Batch> {
        let mut cutter = Cutter::new("s".into(), limits);
        let mut batches = Vec::new();
        for (first, sizes) in chunks {
            cutter.push(part(*first, sizes), Instant::now(), |b| batches.push(b));
        }
        batches.extend(cutter.cut());
        assert!(cutter.is_empty() && cutter.since().is_none());
        batches
    }

    #[test]
    fn a_chunk_is_split_where_the_count_says() {
        let batches = cut(limits(3, 1 << 20), &[(10, vec![1; 8]), (20, vec![1; 1])]);
        let ends: Vec<_> =
            batches.iter().map(|b| (b.first_offset().0, b.last_offset().0)).collect();
        assert_eq!(ends, [(10, 12), (13, 15), (16, 20)]);
        assert_eq!(batches.iter().map(Batch::messages).collect::<Vec<_>>(), [3, 3, 3]);
    }

    #[test]
    fn a_message_larger_than_the_limit_travels_alone() {
        let batches = cut(limits(100, 50), &[(0, vec![10, 10, 500, 10])]);
        let sizes: Vec<_> = batches.iter().map(|b| (b.messages(), b.bytes())).collect();
        assert_eq!(sizes, [(2, 28), (1, 504), (1, 14)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_limit_is_passed(
            sizes in proptest::collection::vec(proptest::collection::vec(0usize..40, 1..30), 1..10),
            max_messages in 1u64..20, max_bytes in 1u64..200,
        ) {
            let mut first = 0;
            let chunks: Vec<_> = sizes.into_iter().map(|s| { let c = (first, s); first += c.1.len() as u64 + 1; c }).collect();
            let batches = cut(limits(max_messages, max_bytes), &chunks);
            let expected: Vec<_> = chunks.iter().flat_map(|(f, s)| s.iter().enumerate().map(move |(i, n)| (f + i as u64, *n))).collect();
            let got: Vec<_> = batches.iter().flat_map(|b| b.records().map(|r| (r.offset.0, r.message.len())).collect::<Vec<_>>()).collect();
            prop_assert_eq!(got, expected);
            for batch in &batches {
                prop_assert!(batch.messages() <= max_messages);
                prop_assert!(batch.bytes() <= max_bytes || batch.messages() == 1);
            }
        }
    }
}
