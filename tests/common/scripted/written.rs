//! Chunks, frames and answers of a broker.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rillway::wire::frame::write_frame;

use super::Heard;

/// A chunk of records, in the wire format.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(super) first: u64,
    records: u32,
    pub(crate) bytes: BytesMut,
}

impl Chunk {
    /// AMQP messages with these bodies as data sections.
    pub(crate) fn plain(first: u64, bodies: &[&str]) -> Chunk {
        let messages: Vec<Vec<u8>> = bodies.iter().map(|body| message(body)).collect();
        Self::raw(first, &messages)
    }

    /// Messages with exactly these bytes, each as a simple entry.
    pub(crate) fn raw(first: u64, messages: &[Vec<u8>]) -> Chunk {
        let mut data = BytesMut::new();
        messages.iter().for_each(|message| data.put_slice(&sized(message)));
        Self::of(first, messages.len() as u16, messages.len() as u32, &data)
    }

    /// One sub-entry batch of `records` messages: `data` is the output of the codec with this
    /// number for `inflated` bytes of messages, each after its size ([`sized`]).
    pub(crate) fn batch(first: u64, codec: u8, records: u16, inflated: u32, data: &[u8]) -> Chunk {
        let mut entry = BytesMut::new();
        entry.put_u8(0x80 | codec << 4);
        entry.put_u16(records);
        entry.put_u32(inflated);
        entry.put_u32(data.len() as u32);
        entry.put_slice(data);
        Self::of(first, 1, records.into(), &entry)
    }

    /// Any data section, with a matching header.
    pub(crate) fn of(first: u64, entries: u16, records: u32, data: &[u8]) -> Chunk {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[0x50, 0]);
        bytes.put_u16(entries);
        bytes.put_u32(records);
        bytes.put_i64(1_767_225_600_000); // 2026-01-01
        bytes.put_u64(1); // Epoch.
        bytes.put_u64(first);
        bytes.put_u32(crc32fast::hash(data));
        bytes.put_u32(data.len() as u32);
        bytes.put_slice(&[0; 8]); // No trailer, no filter.
        bytes.put_slice(data);
        Chunk { first, records, bytes }
    }

    /// The same with its last byte changed, so that the CRC is wrong.
    pub(crate) fn damaged(mut self) -> Chunk {
        *self.bytes.last_mut().unwrap() ^= 0xff;
        self
    }

    /// The offset after its last record.
    pub(super) fn next(&self) -> u64 {
        self.first + u64::from(self.records)
    }
}

/// An AMQP message with this body as its data section.
pub(crate) fn message(body: &str) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x53, 0x75, 0xb0];
    bytes.put_u32(body.len() as u32);
    bytes.put_slice(body.as_bytes());
    bytes
}

/// A message after its size, the form used in entries and batches.
pub(crate) fn sized(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes
}

/// A frame that the broker sends by itself.
pub(crate) fn frame(key: u16, version: u16, content: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write_frame(&mut out, key, version, |out| {
        content(out);
        Ok(())
    })
    .unwrap();
    out.freeze()
}

/// The answer to a request: its correlation id, a code, and the rest.
pub(crate) fn answer(heard: &Heard, code: u16, content: impl FnOnce(&mut BytesMut)) -> Bytes {
    let correlation = (&heard.payload[..4]).get_u32();
    frame(heard.key | 0x8000, 1, |out| {
        out.put_u32(correlation);
        out.put_u16(code);
        content(out);
    })
}
