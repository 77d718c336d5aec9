//! A chunk that is read and not kept: its header, and whether its data matches the header.
//!
//! The CRC does not cover the header, so a header alone proves nothing: a flipped bit in its number of
//! records would move the end of a stream by two thousand million offsets. Therefore the data of a
//! skipped chunk is parsed as it arrives, in a few bytes of memory, whatever the chunk's size.

use super::header::{ChunkHeader, HEADER_BYTES};
use super::{BATCH_HEAD_BYTES, BatchHead};
use crate::types::{ChunkId, Offset};
use crate::wire::error::WireError;

/// Header of a chunk that was read and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbedChunk {
    /// Its header, unchanged.
    pub header: ChunkHeader,
    /// True if its CRC is right, and its entries match the header.
    pub sound: bool,
}

impl ProbedChunk {
    /// Number of its records; 0 if the chunk is damaged, because the header may be wrong.
    pub fn records(&self) -> u32 {
        if self.sound { self.header.records } else { 0 }
    }

    /// The offset after its last record, or a lower bound of it if the chunk is damaged.
    pub fn next_offset(&self) -> Offset {
        Offset(self.header.first_offset.0.saturating_add(self.records().into()))
    }

    /// The offset of its first record.
    pub fn first_offset(&self) -> Offset {
        self.header.first_offset
    }

    /// The chunk's identity.
    pub fn id(&self) -> ChunkId {
        self.header.id()
    }
}

/// Parses a chunk that arrives in pieces of any size.
#[derive(Clone, Debug)]
pub struct Watcher {
    head: Vec<u8>,
    header: Option<Result<ChunkHeader, WireError>>,
    crc: crc32fast::Hasher,
    /// Bytes of the data section that have not arrived yet.
    data_left: u64,
    /// Header of the current entry.
    entry: Vec<u8>,
    /// Bytes of the current entry that have not arrived yet.
    entry_left: u64,
    entries: u64,
    records: u64,
}

impl Default for Watcher {
    fn default() -> Self {
        Watcher {
            head: Vec::with_capacity(HEADER_BYTES),
            header: None,
            crc: crc32fast::Hasher::new(),
            data_left: 0,
            entry: Vec::with_capacity(BATCH_HEAD_BYTES),
            entry_left: 0,
            entries: 0,
            records: 0,
        }
    }
}

impl Watcher {
    /// Takes the chunk's next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let rest = match self.header {
            Some(_) => bytes,
            None => self.feed_header(bytes),
        };
        let data = rest.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        let Some(data) = rest.get(..data) else { return };
        self.crc.update(data);
        self.data_left -= data.len() as u64;
        self.walk(data);
    }

    /// Returns the bytes after the header.
    fn feed_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = HEADER_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        self.head.extend_from_slice(head);
        if self.head.len() == HEADER_BYTES {
            let header = ChunkHeader::parse(&self.head);
            self.data_left = header.as_ref().map_or(0, |h| h.data_bytes.into());
            self.header = Some(header);
        }
        rest
    }

    fn walk(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.entry_left > 0 {
                let take = data.len().min(usize::try_from(self.entry_left).unwrap_or(usize::MAX));
                data = data.get(take..).unwrap_or_default();
                self.entry_left -= take as u64;
                continue;
            }
            if let Some((byte, rest)) = data.split_first() {
                self.entry.push(*byte);
                data = rest;
            }
            let is_batch = self.entry.first().is_some_and(|first| first >> 7 == 1);
            let head_bytes = if is_batch { BATCH_HEAD_BYTES } else { 4 };
            if self.entry.len() == head_bytes {
                self.begin_entry();
            }
        }
    }

    fn begin_entry(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        match (BatchHead::parse(&entry), entry.first_chunk::<4>()) {
            (Some(batch), _) => {
                self.records += u64::from(batch.records);
                self.entry_left = batch.size.into();
            }
            (None, Some(length)) => {
                self.records += 1;
                self.entry_left = u32::from_be_bytes(*length).into();
            }
            (None, None) => {}
        }
        self.entries += 1;
    }

    /// The whole chunk has arrived.
    pub fn finish(self) -> Result<ProbedChunk, WireError> {
        let header = match self.header {
            Some(header) => header?,
            // Too short for a header: the parser returns its own error.
            None => ChunkHeader::parse(&self.head)?,
        };
        let sound = self.data_left == 0
            && self.entry_left == 0
            && self.entry.is_empty()
            && self.entries == u64::from(header.entries)
            && self.records == u64::from(header.records)
            && self.crc.finalize() == header.crc;
        Ok(ProbedChunk { header, sound })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;
    use crate::wire::compression::Codec;

    fn seen(bytes: &[u8], piece: usize) -> ProbedChunk {
        let mut watcher = Watcher::default();
        bytes.chunks(piece).for_each(|bytes| watcher.feed(bytes));
        watcher.finish().unwrap()
    }

    fn whole() -> Vec<u8> {
        let message = || vec![7; 30];
        chunk(&[
            Entry::Simple(message()),
            Entry::Batch(Codec::Gzip, vec![message(), message()]),
            Entry::Simple(Vec::new()),
        ])
        .to_vec()
    }

    #[test]
    fn a_whole_chunk_is_sound_in_pieces_of_any_size() {
        for piece in 1..whole().len() + 1 {
            let seen = seen(&whole(), piece);
            assert!(seen.sound, "in pieces of {piece}");
            assert_eq!((seen.records(), seen.next_offset()), (4, Offset(FIRST + 4)));
        }
        assert!(seen(&[&whole()[..], &[0; 33]].concat(), 10).sound, "the trailer is none of it");
    }

    #[test]
    fn header_numbers_count_only_if_the_data_confirms_them() {
        // Entries, records, CRC, bytes of data: every bit of each.
        for at in (2..8).chain(32..40) {
            for bit in 0..8 {
                let mut bytes = whole();
                bytes[at] ^= 1 << bit;
                let seen = seen(&bytes, 64);
                assert!(!seen.sound, "byte {at}, bit {bit}");
                assert_eq!(seen.next_offset(), Offset(FIRST), "a lower bound");
            }
        }
    }

    #[test]
    fn too_few_bytes_are_no_chunk() {
        assert!(Watcher::default().finish().is_err());
        assert!(!seen(&whole()[..whole().len() - 1], 20).sound);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let data: Vec<u8> = whole().iter().take(48).copied().chain(bytes).collect();
            seen(&data, 7);
        }
    }
}
