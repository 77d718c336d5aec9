//! Batches for the questions: each message contains its own offset.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::flow::batch::{Batch, Part};
use crate::types::{ChunkId, Offset, StreamName, Timestamp};
use crate::wire::block::Block;

/// The stream that all questions are about.
pub const STREAM: &str = "events";

/// A well-formed message: one data section that holds `body`.
pub fn message(body: &[u8]) -> Vec<u8> {
    let mut message = vec![0x00, 0x53, 0x75];
    match u8::try_from(body.len()) {
        Ok(length) => message.extend([0xA0, length]),
        Err(_) => {
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            message.push(0xB0);
            message.extend(length.to_be_bytes());
        }
    }
    message.extend_from_slice(body);
    message
}

/// A message that no decoder can read.
pub const BAD_MESSAGE: &[u8] = &[0x00, 0x53, 0x75, 0xA0, 200, b'x'];

/// A part whose chunk begins at `first` and holds these messages.
pub fn part(first: u64, messages: &[Vec<u8>]) -> Option<Part> {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.put_u32(u32::try_from(message.len()).ok()?);
        bytes.put_slice(message);
    }
    let timestamp = Timestamp(1_700_000_000_000 + i64::try_from(first % 1_000_000).ok()?);
    let bytes: Bytes = bytes.freeze();
    let count = u32::try_from(messages.len()).ok()?;
    let crc = crc32fast::hash(&bytes);
    Some(Part {
        block: Block::new(Offset(first), count, timestamp, bytes)?,
        chunk: ChunkId { first_offset: Offset(first), epoch: 1, timestamp, crc },
        permit: Arc::new(()),
    })
}

/// A batch of messages with these bodies.
///
/// # Panics
/// If there are none, which is a mistake in the test.
pub fn batch_of(first: u64, bodies: &[&str]) -> Batch {
    let messages: Vec<_> = bodies.iter().map(|body| message(body.as_bytes())).collect();
    let part = part(first, &messages);
    match part.and_then(|part| Batch::new(StreamName::new(STREAM), vec![part])) {
        Some(batch) => batch,
        None => unreachable!("a batch of no messages"),
    }
}

/// A batch of the messages whose bodies are `offset 7`, `offset 8`, … for the offsets in `range`,
/// without those that `bad` holds: these are [`BAD_MESSAGE`].
///
/// # Panics
/// If the range is empty, which is a mistake in the test.
pub fn batch_with_bad(range: Range<u64>, bad: &BTreeSet<u64>) -> Batch {
    let messages: Vec<Vec<u8>> = range
        .clone()
        .map(|offset| match bad.contains(&offset) {
            true => BAD_MESSAGE.to_vec(),
            false => message(format!("offset {offset}").as_bytes()),
        })
        .collect();
    let parts = part(range.start, &messages).into_iter().collect();
    let batch = Batch::new(StreamName::from(STREAM), parts);
    assert!(batch.is_some(), "a batch of no records was asked for: {range:?}");
    batch.unwrap_or_else(|| unreachable!())
}

/// A batch of good messages.
pub fn batch(range: Range<u64>) -> Batch {
    batch_with_bad(range, &BTreeSet::new())
}
