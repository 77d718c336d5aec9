//! The form in which messages of one queue are encoded here.

use crate::wire::amqp091::{self as amqp, Delivered, Incoming, Style, begin_message};
use crate::wire::error::WireError;

/// How messages from this queue, and from a broker of one version, are converted.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    queue: String,
    style: Style,
    /// Number of the form ([`ChunkId::epoch_of_record`](crate::types::ChunkId::epoch_of_record)).
    pub(super) form: u16,
}

impl Encoding {
    pub(super) fn new(queue: &str, version: &str) -> Encoding {
        Encoding { queue: queue.to_owned(), style: Style::of(version), form: amqp::form(version) }
    }

    /// Writes all of a message that comes before the bytes of its body.
    pub(super) fn begin(
        &self,
        out: &mut Vec<u8>,
        properties: &[u8],
        body_bytes: u64,
        delivered: &Delivered,
    ) -> Result<Incoming, WireError> {
        begin_message(out, properties, body_bytes, delivered, &self.queue, self.style)
    }
}
