//! Spans of operations: what a consumer does that takes time and can fail, for traces.
//!
//! This is the one table of their names and fields, which are an interface like the names of metrics. A span
//! is made for each batch at the most, never for a message. While nothing exports them they are disabled: making
//! one costs a load and a comparison, and its fields are not evaluated.
//!
//! Invariants:
//! - an operation is never entered, so no log line is in it, and no task that it starts belongs to it. The log
//!   has the consumer's span ([`consumer_span`](super::logging::consumer_span)) around everything;
//! - an operation of a consumer is the root of a trace, or the child of another operation. The consumer's own
//!   span would end with the daemon ([ADR 34](../../docs/adr/0034-traces.md)).

use std::fmt::Display;

use tracing::field::{self, Empty};
use tracing::{Id, Span};

use crate::types::{ConsumerName, Offset, Reference, StreamName};

/// Target of operations' spans, which no operator's filter names.
pub const TARGET: &str = "rillway::operation";

/// Most characters of an error in a span.
const ERROR_CHARS_MAX: usize = 500;

macro_rules! span {
    ($parent:expr, $name:literal, $($fields:tt)+) => {
        Operation(tracing::info_span!(
            target: TARGET,
            parent: $parent,
            $name,
            otel.status_code = Empty,
            otel.status_description = Empty,
            $($fields)+
        ))
    };
}

/// The same for an operation of a consumer, with the fields that say of which.
macro_rules! consumer_span {
    ($operations:expr, $parent:expr, $name:literal $(, $($fields:tt)*)?) => {{
        let Operations { consumer, stream, reference } = $operations;
        span!($parent, $name, %consumer, %stream, %reference $(, $($fields)*)?)
    }};
}

/// A number as OpenTelemetry has it: its integers are signed, and what does not fit would become a text.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The root of a trace.
const ROOT: Option<Id> = None;

/// An operation under way. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "the operation ends when this is dropped"]
pub struct Operation(Span);

impl Operation {
    /// Marks it as failed.
    pub fn failed(&self, error: impl Display) {
        if self.0.is_disabled() {
            return;
        }
        let error: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
        self.0.record("otel.status_code", "ERROR");
        self.0.record("otel.status_description", error.as_str());
    }

    /// Marks it as failed if it has, and ends it.
    pub fn end<T, E: Display>(self, done: &Result<T, E>) {
        if let Err(error) = done {
            self.failed(error);
        }
    }

    /// Sets the field `result`.
    pub fn result(&self, result: impl Display) {
        self.0.record("result", field::display(result));
    }

    /// Sets the field `node`: the address of the node that is connected to.
    pub fn node(&self, node: impl FnOnce() -> Option<String>) {
        if self.0.is_disabled() {
            return;
        }
        if let Some(node) = node() {
            self.0.record("node", node.as_str());
        }
    }

    /// Sets the field `sink`: the kind of the sink that was opened.
    pub fn sink(&self, kind: &str) {
        self.0.record("sink", kind);
    }

    /// Sets the field `retries`: how often the sink was called again.
    pub fn retries(&self, retries: u64) {
        self.0.record("retries", number(retries));
    }

    /// Sets the field `held_offset`: the offset that the broker holds.
    pub fn held(&self, offset: Option<Offset>) {
        if let Some(offset) = offset {
            self.0.record("held_offset", number(offset.0));
        }
    }
}

/// What is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Batches of the consumer that are written together.
    pub batches: usize,
    /// Records in them.
    pub records: u64,
    /// Bytes of those records.
    pub bytes: u64,
}

/// The operations of one consumer on one stream.
#[derive(Clone, Debug)]
pub struct Operations {
    consumer: ConsumerName,
    stream: StreamName,
    reference: Reference,
}

impl Operations {
    /// Those of this consumer, stream and reference.
    pub fn of(consumer: &ConsumerName, stream: &StreamName, reference: &Reference) -> Operations {
        let (consumer, stream) = (consumer.clone(), stream.clone());
        Operations { consumer, stream, reference: reference.clone() }
    }

    /// Connecting to the broker, and finding where to go on. `purpose`: `read`, `wait` or `store`.
    pub fn connect(&self, purpose: &'static str) -> Operation {
        consumer_span!(self, ROOT, "connect", otel.kind = "client", purpose, node = Empty,)
    }

    /// Subscribing to the stream on a connection.
    pub fn subscribe(&self, within: &Operation, start: impl Display) -> Operation {
        consumer_span!(
            self,
            within.0.id(),
            "subscribe",
            otel.kind = "client",
            %start,
        )
    }

    /// Taking the lock of the reference, opening the sink, and asking it for its position.
    pub fn open_sink(&self) -> Operation {
        consumer_span!(self, ROOT, "open_sink", sink = Empty, result = Empty)
    }

    /// Writing batches to the sink, retries included.
    pub fn write(
        &self,
        sink: &'static str,
        load: Load,
        (first, last): (Offset, Offset),
    ) -> Operation {
        consumer_span!(
            self,
            ROOT,
            "write",
            sink,
            batches = number(load.batches as u64),
            records = number(load.records),
            bytes = number(load.bytes),
            first_offset = number(first.0),
            last_offset = number(last.0),
            result = Empty,
            retries = Empty,
        )
    }

    /// Making held batches durable, retries included.
    pub fn flush(&self, sink: &'static str, load: Load) -> Operation {
        consumer_span!(
            self,
            ROOT,
            "flush",
            sink,
            batches = number(load.batches as u64),
            records = number(load.records),
            bytes = number(load.bytes),
            result = Empty,
            retries = Empty,
        )
    }

    /// Storing an offset on the broker, and reading it back.
    pub fn store_offset(&self, offset: Offset) -> Operation {
        consumer_span!(
            self,
            ROOT,
            "store_offset",
            otel.kind = "client",
            offset = number(offset.0),
            held_offset = Empty,
        )
    }

    /// From the order to drain to the end of the consumer.
    pub fn drain(&self) -> Operation {
        consumer_span!(self, ROOT, "drain", result = Empty)
    }

    /// Moving the position by order of an operator.
    pub fn seek(&self, to: impl Display) -> Operation {
        consumer_span!(self, ROOT, "seek", %to)
    }

    /// Replaying a range of messages.
    pub fn replay(&self, first: Offset, last: Offset) -> Operation {
        consumer_span!(
            self,
            ROOT,
            "replay",
            first_offset = number(first.0),
            last_offset = number(last.0),
        )
    }
}

/// Reading the configuration again, and applying it. `by`: who asked for it.
pub fn reload(by: &str) -> Operation {
    span!(ROOT, "reload", by, result = Empty)
}

#[cfg(test)]
mod tests;
