//! Every metric, in one table: name, kind, unit, labels and help.
//!
//! Names are an interface: a rename is a breaking change, to be told in CHANGELOG.md. Prefix
//! `rillway_`, base units, `_total` on counters. `stream` is the stream that is read (each
//! partition of a super stream is one); `metric` is
//! the name that the configuration gives; every other label comes from a closed set in
//! [`labels`](super::labels).

use metrics::Unit;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, as it is scraped.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: Unit,
    /// The labels that it carries, in this order.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

const CONSUMER: &[&str] = &["consumer", "stream"];
const SINK: &[&str] = &["consumer", "stream", "sink"];
const SINK_REASON: &[&str] = &["consumer", "stream", "sink", "reason"];
const REASON: &[&str] = &["consumer", "stream", "reason"];
const METRIC_REASON: &[&str] = &["consumer", "stream", "metric", "reason"];
const RESULT: &[&str] = &["consumer", "stream", "result"];
const STATE: &[&str] = &["consumer", "stream", "state"];

macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:ident, $unit:ident, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: $labels,
                help: $help,
            };
        )*

        /// All of them, in the order of the table.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    RECEIVED_MESSAGES = "rillway_received_messages_total", Counter, Count, CONSUMER,
        "Messages received at or above the wanted offset.";
    RECEIVED_BYTES = "rillway_received_bytes_total", Counter, Bytes, CONSUMER,
        "Bytes of Deliver frames received, as they came over the wire.";
    RECEIVED_CHUNKS = "rillway_received_chunks_total", Counter, Count, CONSUMER,
        "Chunks received.";
    WRITTEN_MESSAGES = "rillway_written_messages_total", Counter, Count, SINK,
        "Messages that are durable in the sink.";
    WRITTEN_BYTES = "rillway_written_bytes_total", Counter, Bytes, SINK,
        "Bytes of encoded messages that are durable in the sink.";
    SINK_WRITE_DURATION = "rillway_sink_write_duration_seconds", Histogram, Seconds, SINK,
        "How long the sink took to make one batch durable.";
    SINK_ERRORS = "rillway_sink_errors_total", Counter, Count, SINK_REASON,
        "Writes that the sink answered with an error; one that is tried again counts each time.";
    LOST_MESSAGES = "rillway_lost_messages_total", Counter, Count, REASON,
        "Messages that will not reach the sink: truncated before they were read, damaged, or \
         passed over by policy.";
    DEAD_LETTERS = "rillway_dead_letter_messages_total", Counter, Count, REASON,
        "Messages that the sink cannot take, and that are durable among the dead letters.";
    STREAM_FIRST_OFFSET = "rillway_stream_first_offset", Gauge, Count, CONSUMER,
        "The first offset that the stream still holds.";
    STREAM_LAST_OFFSET = "rillway_stream_last_offset", Gauge, Count, CONSUMER,
        "The last offset that the stream is known to hold.";
    RECEIVED_OFFSET = "rillway_received_offset", Gauge, Count, CONSUMER,
        "The last offset received from the broker.";
    DURABLE_OFFSET = "rillway_durable_offset", Gauge, Count, CONSUMER,
        "The last offset that, with all below it, is durable in the sink.";
    STORED_OFFSET = "rillway_stored_offset", Gauge, Count, CONSUMER,
        "The offset stored on the broker and read back.";
    LAG_MESSAGES = "rillway_lag_messages", Gauge, Count, CONSUMER,
        "Offsets between the last durable one and the end of the stream; an upper bound of the \
         messages that wait.";
    LAG_SECONDS = "rillway_lag_seconds", Gauge, Seconds, CONSUMER,
        "Age of the oldest message that is not durable yet, by its chunk's timestamp; 0 when caught \
         up. While the broker is away it counts from what was last seen.";
    HEADROOM_MESSAGES = "rillway_retention_headroom_messages", Gauge, Count, CONSUMER,
        "Offsets that retention may still truncate before it reaches what is not durable yet.";
    OFFSET_STORES = "rillway_offset_stores_total", Counter, Count, RESULT,
        "Offsets sent to the broker to be stored, by what became of them.";
    OFFSET_STORE_AGE = "rillway_offset_store_age_seconds", Gauge, Seconds, CONSUMER,
        "Time since the stored offset was last up to date with the durable one.";
    LAST_DURABLE = "rillway_last_durable_timestamp_seconds", Gauge, Seconds, CONSUMER,
        "When something last became durable in the sink, since the start of the daemon.";
    LAST_CONTACT = "rillway_last_contact_timestamp_seconds", Gauge, Seconds, CONSUMER,
        "When the broker last answered, or sent a chunk.";
    CONSUMER_READY = "rillway_consumer_ready", Gauge, Count, CONSUMER,
        "1 while the consumer does its work, 0 while it does not: /readyz says why.";
    CONSUMER_STATE = "rillway_consumer_state", Gauge, Count, STATE,
        "1 for the state that the consumer is in, 0 for the others.";
    RESTARTS = "rillway_restarts_total", Counter, Count, REASON,
        "Times that the consumer was started or connected again, by why it had ended.";
    BUFFERED_BYTES = "rillway_buffered_bytes", Gauge, Bytes, CONSUMER,
        "Bytes received and not durable yet.";
    BUFFER_LIMIT_BYTES = "rillway_buffer_limit_bytes", Gauge, Bytes, CONSUMER,
        "The most that rillway_buffered_bytes may reach.";
    BACKPRESSURE_SECONDS = "rillway_backpressure_seconds_total", Counter, Seconds, CONSUMER,
        "Time for which the broker got no credit, because the sink held all memory.";
    METRICS_DROPPED_SAMPLES = "rillway_metrics_dropped_samples_total", Counter, Count,
        METRIC_REASON,
        "Samples of metrics made from messages that were left out, by metric and reason.";
    BUILD_INFO = "rillway_build_info", Gauge, Count, &["version"],
        "1, with the running version as a label.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("rillway_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let bare = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(bare.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
            assert_eq!(bare.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains("  "), "{name}");
        }
        assert_eq!(seen.len(), 29);
    }
}
