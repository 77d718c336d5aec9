//! Options of a stream sink, and the message that it publishes under them.

use std::borrow::Cow;

use crate::types::StreamName;
use crate::wire::amqp::{AmqpError, Annotation, annotate};
use crate::wire::block::Record;

/// Annotations that tell where a message comes from.
pub(super) const SOURCE_STREAM: &str = "x-rillway-source-stream";
pub(super) const SOURCE_OFFSET: &str = "x-rillway-source-offset";

/// Options of a stream sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// The stream that the records come from.
    pub source: StreamName,
    /// Name of the publisher; at most 244 bytes, so that the number of an incarnation fits behind it.
    pub publisher: String,
    /// Adds the source's name and the offset to the message annotations.
    pub annotate: bool,
}

impl StreamOptions {
    /// The message as it is published.
    pub(super) fn outgoing<'r>(&self, record: &Record<'r>) -> Result<Cow<'r, [u8]>, AmqpError> {
        if !self.annotate {
            return Ok(Cow::Borrowed(record.message));
        }
        let annotations = [
            (SOURCE_STREAM, Annotation::Text(self.source.as_str())),
            (SOURCE_OFFSET, Annotation::Number(record.offset.0)),
        ];
        annotate(record.message, &annotations).map(Cow::Owned)
    }
}
