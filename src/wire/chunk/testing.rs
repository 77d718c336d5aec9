//! Builds chunks for tests, in the layout of `osiris_log.erl`, entry by entry.

use std::io::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::compression::Codec;

/// One entry to be written.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A message.
    Simple(Vec<u8>),
    /// A sub-entry batch of messages.
    Batch(Codec, Vec<Vec<u8>>),
}

impl Entry {
    /// The messages in it.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        match self {
            Entry::Simple(message) => vec![message.clone()],
            Entry::Batch(_, messages) => messages.clone(),
        }
    }
}

/// The first offset, timestamp and epoch of every chunk that is built here.
pub(crate) const FIRST: u64 = 1000;
pub(crate) const TIMESTAMP: i64 = 1_700_000_000_123;
pub(crate) const EPOCH: u64 = 7;

/// A user chunk with these entries, first record at [`FIRST`].
pub(crate) fn chunk(entries: &[Entry]) -> Bytes {
    let mut data = BytesMut::new();
    for entry in entries {
        match entry {
            Entry::Simple(message) => put_message(&mut data, message),
            Entry::Batch(codec, messages) => {
                let mut plain = BytesMut::new();
                messages.iter().for_each(|m| put_message(&mut plain, m));
                let packed = compress(*codec, &plain);
                put_batch(&mut data, number(*codec), messages.len() as u16, plain.len(), &packed);
            }
        }
    }
    let records = entries.iter().map(|e| e.messages().len() as u32).sum();
    chunk_of(0, entries.len() as u16, records, &data)
}

/// A chunk with any header values over any data; the CRC is right.
pub(crate) fn chunk_of(kind: u8, entries: u16, records: u32, data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0x50);
    out.put_u8(kind);
    out.put_u16(entries);
    out.put_u32(records);
    out.put_i64(TIMESTAMP);
    out.put_u64(EPOCH);
    out.put_u64(FIRST);
    out.put_u32(crc32fast::hash(data));
    out.put_u32(data.len() as u32);
    out.put_u32(33); // A trailer, which is announced but does not come.
    out.put_u8(16); // A bloom filter, likewise.
    out.put_slice(&[0; 3]);
    out.put_slice(data);
    out.freeze()
}

pub(crate) fn put_message(out: &mut BytesMut, message: &[u8]) {
    out.put_u32(message.len() as u32);
    out.put_slice(message);
}

pub(crate) fn put_batch(out: &mut BytesMut, codec: u8, count: u16, inflated: usize, data: &[u8]) {
    out.put_u8(0x80 | codec << 4);
    out.put_u16(count);
    out.put_u32(inflated as u32);
    out.put_u32(data.len() as u32);
    out.put_slice(data);
}

/// The number of a codec on the wire.
pub(crate) fn number(codec: Codec) -> u8 {
    (0..=4).find(|n| Codec::from_number(*n) == Some(codec)).unwrap()
}

pub(crate) const CODECS: [Codec; 5] =
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Output of each codec's own encoder.
pub(crate) fn compress(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => plain.to_vec(),
        Codec::Gzip => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            w.write_all(plain).unwrap();
            w.finish().unwrap()
        }
        Codec::Snappy => {
            let mut w = snap::write::FrameEncoder::new(Vec::new());
            w.write_all(plain).unwrap();
            w.into_inner().unwrap()
        }
        Codec::Lz4 => {
            let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
            w.write_all(plain).unwrap();
            w.finish().unwrap()
        }
        Codec::Zstd => zstd::bulk::compress(plain, 3).unwrap(),
    }
}
