//! What a short consumer (a probe) receives: the offsets of its messages, and the identity of the first one. The
//! bodies are discarded as they arrive.

use tokio::sync::watch;

use super::encoding::Encoding;
use crate::flow::resume::ChunkExtent;
use crate::source::{ErrorKind, SourceError};
use crate::types::{ChunkId, Offset, Timestamp};
use crate::wire::amqp091::{self as amqp, Delivered};
use crate::wire::error::WireError;

/// Messages that a probe has received so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) first: Offset,
    pub(super) last: Offset,
    /// Identity of the first message; `None` until the whole message has arrived.
    pub(super) id: Option<ChunkId>,
}

impl Seen {
    /// The first message, as a chunk with this single message.
    pub(super) fn record(&self) -> Option<ChunkExtent> {
        self.id.map(|id| ChunkExtent { id, records: 1 })
    }
}

/// Receiving end of a short consumer.
pub(super) struct Probe {
    seen: watch::Sender<Option<Seen>>,
    encoding: Encoding,
    announced: Option<Delivered>,
    /// The first message, while it is incomplete.
    open: Option<Open>,
}

struct Open {
    checksum: crc32fast::Hasher,
    offset: Offset,
    left: u64,
}

impl Probe {
    pub(super) fn new(seen: watch::Sender<Option<Seen>>, encoding: Encoding) -> Probe {
        Probe { seen, encoding, announced: None, open: None }
    }

    pub(super) fn announce(&mut self, delivered: Delivered) {
        self.announced = Some(delivered);
    }

    pub(super) fn header(&mut self, properties: &[u8], body: u64) -> Result<(), SourceError> {
        let violation =
            |e: WireError| SourceError::new(ErrorKind::Violation, format!("a message: {e}"));
        let Some(delivered) = self.announced.take() else { return Ok(()) };
        let offset = amqp::offset_of(properties).map_err(violation)?;
        let is_first = self.seen.borrow().is_none();
        if is_first {
            // The entry of a chunk: its size, and the message as it is converted.
            let mut entry = vec![0; 4];
            self.encoding.begin(&mut entry, properties, body, &delivered).map_err(violation)?;
            let size = body.saturating_add(entry.len() as u64 - 4);
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            entry.splice(..4, size.to_be_bytes());
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&entry);
            self.open = Some(Open { checksum, offset, left: body });
        }
        self.seen.send_modify(|seen| {
            *seen = Some(match *seen {
                Some(seen) => Seen { last: offset, ..seen },
                None => Seen { first: offset, last: offset, id: None },
            });
        });
        if is_first {
            self.body(&[]);
        }
        Ok(())
    }

    pub(super) fn body(&mut self, part: &[u8]) {
        let Some(open) = &mut self.open else { return };
        open.checksum.update(part);
        open.left = open.left.saturating_sub(part.len() as u64);
        let Some(open) = self.open.take_if(|open| open.left == 0) else { return };
        let (first_offset, crc) = (open.offset, open.checksum.finalize());
        let epoch = ChunkId::epoch_of_record(self.encoding.form);
        let id = ChunkId { first_offset, epoch, timestamp: Timestamp(0), crc };
        self.seen.send_modify(|seen| {
            if let Some(seen) = seen {
                seen.id = Some(id);
            }
        });
    }
}
