//! Makes chunks of deliveries: those that have arrived together, with consecutive offsets and one time.
//!
//! The first delivery of a subscription is a chunk of its own: the chunk's identity is that of its
//! record, and is compared with the identity of the durable position.

use std::sync::Arc;

use bytes::Bytes;

use super::acks::{Acks, Permit};
use super::encoding::Encoding;
use crate::broker::{Budget, Held};
use crate::source::{Delivery, ErrorKind, SourceError};
use crate::types::{ChunkId, Offset, Timestamp};
use crate::wire::amqp091::{Delivered, Incoming};
use crate::wire::chunk::HEADER_BYTES;

/// Most bytes of a chunk that holds several messages.
const TOGETHER_BYTES_MAX: usize = 256 << 10;

/// Most messages of a chunk.
const TOGETHER_MAX: u16 = 10_000;

/// Messages larger than this are a chunk of their own, which is not copied.
const ALONE_BYTES_MIN: u64 = 32 << 10;

/// The chunk that is being filled.
pub(super) struct Pack {
    pub(super) budget: Arc<Budget>,
    pub(super) acks: Arc<Acks>,
    encoding: Encoding,
    bytes: Vec<u8>,
    filled: Option<Filled>,
    open: Option<Open>,
    /// Number of the last delivery on the channel.
    last_tag: u64,
    /// Offset after the last message that is complete.
    next: Option<Offset>,
    is_first: bool,
}

/// Complete messages.
struct Filled {
    first: Offset,
    count: u16,
    timestamp: i64,
    bytes: usize,
    first_tag: u64,
    last_tag: u64,
    held: Held,
}

/// The message that is being received.
struct Open {
    incoming: Incoming,
    tag: u64,
    start: usize,
    left: u64,
    held: Held,
}

impl Pack {
    /// An empty chunk.
    pub(super) fn new(budget: Arc<Budget>, acks: Arc<Acks>, encoding: Encoding) -> Pack {
        let (filled, open, next) = (None, None, None);
        let (bytes, last_tag) = (Vec::new(), 0);
        Pack { budget, acks, encoding, bytes, filled, open, last_tag, next, is_first: true }
    }

    /// Offset after the last message that is complete, and number of the delivery after it. `None` before the first one, and
    /// within a message.
    pub(super) fn ahead(&self) -> Option<(Offset, u64)> {
        self.next.filter(|_| self.open.is_none()).map(|next| (next, self.last_tag + 1))
    }

    /// Offset after the last message that is complete.
    pub(super) fn next(&self) -> Option<Offset> {
        self.next
    }

    /// Begins a message whose memory was admitted. Returns the open chunk if the message does not fit
    /// into it.
    pub(super) fn begin(
        &mut self,
        delivered: &Delivered,
        properties: &[u8],
        body_bytes: u64,
        cost: u64,
        held: Held,
    ) -> Result<Option<Delivery>, SourceError> {
        let violation = |what| Err(SourceError::new(ErrorKind::Violation, what));
        if self.open.is_some() {
            return violation("a message began before the one before was complete");
        }
        if self.last_tag.checked_add(1) != Some(delivered.tag) {
            return violation("the numbers of deliveries are not consecutive");
        }
        self.last_tag = delivered.tag;
        let is_large = cost > ALONE_BYTES_MIN;
        let mut done = None;
        if is_large || self.bytes.len() + cost as usize > TOGETHER_BYTES_MAX {
            done = self.flush();
        }
        if self.bytes.is_empty() {
            if is_large {
                self.bytes = Vec::with_capacity(HEADER_BYTES + 4 + cost as usize);
            }
            self.bytes.extend([0; HEADER_BYTES]);
        }
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        let begun = self.encoding.begin(&mut self.bytes, properties, body_bytes, delivered);
        let incoming = begun.map_err(|error| {
            SourceError::new(
                ErrorKind::Violation,
                format!("the properties of a message cannot be read: {error}"),
            )
        })?;
        self.open = Some(Open { incoming, tag: delivered.tag, start, left: body_bytes, held });
        Ok(done)
    }

    /// Takes a part of the body. Returns the chunks that it completes.
    pub(super) fn body(&mut self, part: &[u8]) -> Result<[Option<Delivery>; 2], SourceError> {
        let Some(open) = &mut self.open else {
            return Err(SourceError::new(
                ErrorKind::Violation,
                "a part of a message came without its beginning",
            ));
        };
        open.left = open.left.checked_sub(part.len() as u64).ok_or_else(|| {
            SourceError::new(ErrorKind::Violation, "a message is longer than its header says")
        })?;
        self.bytes.extend_from_slice(part);
        Ok(if open.left == 0 { self.complete() } else { [None, None] })
    }

    /// Completes the message, if all of it has arrived.
    pub(super) fn complete(&mut self) -> [Option<Delivery>; 2] {
        let Some(open) = self.open.take_if(|open| open.left == 0) else { return [None, None] };
        let length = u32::try_from(self.bytes.len() - open.start - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = self.bytes.get_mut(open.start..open.start + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        self.next = Some(open.incoming.offset.next());
        let now = || Timestamp::now().0;
        let joins = self.filled.as_mut().filter(|filled| {
            open.incoming.offset.0 == filled.first.0 + u64::from(filled.count)
                && open.incoming.timestamp.is_none_or(|at| at == filled.timestamp)
                && filled.count < TOGETHER_MAX
        });
        let mut before = None;
        match joins {
            Some(filled) => {
                filled.count += 1;
                filled.last_tag = open.tag;
                filled.bytes = self.bytes.len();
                filled.held.merge(open.held);
            }
            None => {
                if self.filled.is_some() {
                    let tail = self.bytes.split_off(open.start);
                    before = self.flush();
                    self.bytes = [&[0; HEADER_BYTES], &tail[..]].concat();
                }
                self.filled = Some(Filled {
                    first: open.incoming.offset,
                    count: 1,
                    timestamp: open.incoming.timestamp.unwrap_or_else(now),
                    bytes: self.bytes.len(),
                    first_tag: open.tag,
                    last_tag: open.tag,
                    held: open.held,
                });
            }
        }
        let is_alone = std::mem::replace(&mut self.is_first, false);
        let after = (is_alone || self.bytes.len() as u64 > ALONE_BYTES_MIN * 4)
            .then(|| self.flush())
            .flatten();
        [before, after]
    }

    /// The complete messages, as a chunk. A message that is being received continues.
    pub(super) fn flush(&mut self) -> Option<Delivery> {
        let Filled { first, count, timestamp, bytes, first_tag, last_tag, held } =
            self.filled.take()?;
        let tail = self.bytes.split_off(bytes);
        let mut chunk = std::mem::replace(&mut self.bytes, tail);
        if let Some(open) = &mut self.open {
            // That message begins a chunk of its own now.
            self.bytes.splice(0..0, [0; HEADER_BYTES]);
            open.start = HEADER_BYTES;
        }
        let epoch = ChunkId::epoch_of_record(self.encoding.form);
        put_header(&mut chunk, first, count, timestamp, epoch);
        // A large message is not copied: its memory was admitted only once.
        let chunk = match chunk.capacity() > chunk.len() + chunk.len() / 8 + 64 {
            true => Bytes::copy_from_slice(&chunk),
            false => Bytes::from(chunk),
        };
        let acks = Arc::clone(&self.acks);
        let permit = Permit { held: Some(held), acks, first: first_tag, last: last_tag };
        Some(Delivery { chunk, committed: None, permit: Arc::new(permit) })
    }
}

fn put_header(chunk: &mut [u8], first: Offset, count: u16, timestamp: i64, epoch: u64) {
    let Some((head, data)) = chunk.split_at_mut_checked(HEADER_BYTES) else { return };
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let fields = [
        &[0x50, 0][..],
        &count.to_be_bytes(),
        &u32::from(count).to_be_bytes(),
        &timestamp.to_be_bytes(),
        &epoch.to_be_bytes(),
        &first.0.to_be_bytes(),
        &crc32fast::hash(data).to_be_bytes(),
        &size.to_be_bytes(),
    ];
    let fields = fields.concat();
    if let Some(start) = head.get_mut(..fields.len()) {
        start.copy_from_slice(&fields);
    }
}
