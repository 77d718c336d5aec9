//! A block: messages one after the other, each behind its length, with consecutive offsets.
//!
//! Every chunk becomes blocks: its simple entries as they stand in the frame, each sub-entry batch
//! after inflation. A block's bytes are checked when it is made (`count` messages, no more and no
//! less), so walking it again cannot fail. A block whose messages were rewritten keeps the original ones:
//! they are its identity, and what becomes a dead letter.

use std::fmt;

use bytes::Bytes;

use crate::types::{Offset, Timestamp};

/// A run of messages: `count` times a big-endian `u32` length (its top bit 0) and that many bytes.
#[derive(Clone)]
pub struct Block {
    first: Offset,
    count: u32,
    timestamp: Timestamp,
    bytes: Bytes,
    /// The original messages, if `bytes` are rewritten ones.
    origin: Option<Bytes>,
}

/// One message, as its publisher encoded it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset in the stream.
    pub offset: Offset,
    /// Time at which its chunk was written.
    pub timestamp: Timestamp,
    /// The encoded message: AMQP 1.0, unless the publisher wrote something else.
    pub message: &'a [u8],
}

impl Block {
    /// A block of `count` messages; `None` if the bytes do not hold exactly that many.
    pub fn new(first: Offset, count: u32, timestamp: Timestamp, bytes: Bytes) -> Option<Block> {
        let mut rest: &[u8] = &bytes;
        for _ in 0..count {
            rest = split_message(rest)?.1;
        }
        // The last offset of the block has to exist.
        first.0.checked_add(u64::from(count))?;
        rest.is_empty().then_some(Block { first, count, timestamp, bytes, origin: None })
    }

    /// A block of bytes that were walked already: they hold exactly `count` messages, and the
    /// offset after the last one exists.
    pub(super) fn from_checked(
        first: Offset,
        count: u32,
        timestamp: Timestamp,
        bytes: Bytes,
    ) -> Block {
        Block { first, count, timestamp, bytes, origin: None }
    }

    /// The same records with these messages; `None` if it is not as many.
    pub fn rewritten(&self, bytes: Bytes) -> Option<Block> {
        let Block { first, count, timestamp, .. } = *self;
        let origin = self.origin.as_ref().unwrap_or(&self.bytes).clone();
        let block = Block::new(first, count, timestamp, bytes)?;
        Some(Block { origin: Some(origin), ..block })
    }

    /// The records as they came.
    #[must_use]
    pub fn original(&self) -> Block {
        let bytes = self.origin.as_ref().unwrap_or(&self.bytes).clone();
        Block { bytes, origin: None, ..*self }
    }

    /// The offset of the first record.
    pub fn first_offset(&self) -> Offset {
        self.first
    }

    /// The offset of the last record; the first if the block is empty.
    pub fn last_offset(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.count.saturating_sub(1)))
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Time at which the chunk was written.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The messages, each after its length.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Splits off the first `n` records (all, if there are fewer).
    pub fn split_at(mut self, n: u32) -> (Block, Block) {
        let n = n.min(self.count);
        // Most callers take a whole block, whose end is known.
        let end = |bytes: &Bytes| if n == self.count { bytes.len() } else { end_of(bytes, n) };
        let (at, at_origin) = (end(&self.bytes), self.origin.as_ref().map(end));
        let tail = Block {
            first: Offset(self.first.0 + u64::from(n)),
            count: self.count - n,
            timestamp: self.timestamp,
            bytes: self.bytes.split_off(at),
            origin: self.origin.as_mut().zip(at_origin).map(|(origin, at)| origin.split_off(at)),
        };
        self.count = n;
        (self, tail)
    }

    /// The records at or above `offset`.
    pub fn starting_at(self, offset: Offset) -> Block {
        let skip = offset.0.saturating_sub(self.first.0);
        if skip == 0 {
            return self;
        }
        self.split_at(u32::try_from(skip).unwrap_or(u32::MAX)).1
    }

    /// CRC-32 of the last message, as it came, with its length: the identity of a record that has no chunk.
    pub fn last_crc(&self) -> u32 {
        let bytes = self.origin.as_ref().unwrap_or(&self.bytes);
        let start = end_of(bytes, self.count.saturating_sub(1));
        crc32fast::hash(bytes.get(start..).unwrap_or_default())
    }

    /// The records, in order.
    pub fn records(&self) -> Records<'_> {
        Records { offset: self.first, timestamp: self.timestamp, rest: &self.bytes }
    }
}

/// Byte at which the first `n` messages end.
fn end_of(bytes: &[u8], n: u32) -> usize {
    let mut rest = bytes;
    for _ in 0..n {
        match split_message(rest) {
            Some((_, after)) => rest = after,
            None => break,
        }
    }
    bytes.len() - rest.len()
}

/// Leaves the messages out: they may be confidential.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("first", &self.first)
            .field("count", &self.count)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Walks a [`Block`].
#[derive(Clone)]
pub struct Records<'a> {
    offset: Offset,
    timestamp: Timestamp,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let (message, rest) = split_message(self.rest)?;
        self.rest = rest;
        let offset = self.offset;
        self.offset = offset.next();
        Some(Record { offset, timestamp: self.timestamp, message })
    }
}

#[inline]
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    if length >> 31 != 0 {
        return None; // A sub-entry batch: never inside a block.
    }
    rest.split_at_checked(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(messages: &[&str]) -> Bytes {
        let each = messages.iter().map(|message| {
            [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message.as_bytes()].concat()
        });
        each.collect::<Vec<_>>().concat().into()
    }

    #[test]
    fn a_rewritten_block_keeps_its_identity_however_it_is_split() {
        let original = ["one", "two", "three", "four"];
        let block = Block::new(Offset(5), 4, Timestamp(0), bytes(&original)).unwrap();
        let rewritten = block.rewritten(bytes(&["1", "", "a longer one", "4"])).unwrap();
        // Twice: the first originals count.
        let rewritten = rewritten.rewritten(bytes(&["1", "", "a longer one", "IV"])).unwrap();
        assert_eq!(rewritten.last_crc(), block.last_crc());
        for n in 0..=4 {
            let (head, tail) = rewritten.clone().split_at(n);
            let (old_head, old_tail) = block.clone().split_at(n);
            for (new, old) in [(head, old_head), (tail, old_tail)] {
                assert_eq!(new.original().bytes(), old.bytes());
                assert_eq!((new.first_offset(), new.count()), (old.first_offset(), old.count()));
                if new.count() > 0 {
                    assert_eq!(new.last_crc(), old.last_crc());
                }
            }
        }
        let texts: Vec<&[u8]> = rewritten.records().map(|record| record.message).collect();
        assert_eq!(texts, [&b"1"[..], b"", b"a longer one", b"IV"]);
        assert!(block.rewritten(bytes(&["1"])).is_none());
    }
}
