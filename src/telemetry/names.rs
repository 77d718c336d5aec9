//! All metrics in one table: name, kind, unit, labels and help.
//!
//! Names are an interface: a rename is a breaking change and belongs in CHANGELOG.md. Prefix
//! `rillway_`, base units, `_total` on counters. `stream` is the stream that is read (each
//! partition of a super stream is one); `reference` is the name of a watched one; `metric` is the name from
//! the configuration; `token` is the file or the endpoint in the configuration; every other label comes from a
//! closed set in [`labels`](super::labels).

use metrics::Unit;

/// Kind of a metric.
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
    /// Name on the page.
    pub name: &'static str,
    /// Kind of the metric.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: Unit,
    /// Names of its labels, in this order.
    pub labels: &'static [&'static str],
    /// Help text: one sentence.
    pub help: &'static str,
}

const CONSUMER: &[&str] = &["consumer", "stream"];
const SINK: &[&str] = &["consumer", "stream", "sink"];
const SINK_REASON: &[&str] = &["consumer", "stream", "sink", "reason"];
const REASON: &[&str] = &["consumer", "stream", "reason"];
const METRIC_REASON: &[&str] = &["consumer", "stream", "metric", "reason"];
const RESULT: &[&str] = &["consumer", "stream", "result"];
const WATCH: &[&str] = &["reference", "stream"];
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

        /// All metrics, in the order of the table.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    RECEIVED_MESSAGES = "rillway_received_messages_total", Counter, Count, CONSUMER,
        "Messages received at or above the wanted offset.";
    RECEIVED_BYTES = "rillway_received_bytes_total", Counter, Bytes, CONSUMER,
        "Bytes of Deliver frames received from the broker.";
    RECEIVED_CHUNKS = "rillway_received_chunks_total", Counter, Count, CONSUMER,
        "Chunks received.";
    FILTERED_MESSAGES = "rillway_filtered_messages_total", Counter, Count, CONSUMER,
        "Messages received that the consumer's own filter left out. What the broker's filter left out \
         is not received, and not counted.";
    DROPPED_MESSAGES = "rillway_where_dropped_messages_total", Counter, Count, CONSUMER,
        "Messages that the consumer's own programs left out: `where` was false or null, or `map` had no result.";
    WRITTEN_MESSAGES = "rillway_written_messages_total", Counter, Count, SINK,
        "Messages that are durable in the sink.";
    WRITTEN_BYTES = "rillway_written_bytes_total", Counter, Bytes, SINK,
        "Bytes of encoded messages that are durable in the sink.";
    SINK_WRITE_DURATION = "rillway_sink_write_duration_seconds", Histogram, Seconds, SINK,
        "Time that the sink took to make one batch durable.";
    SINK_ERRORS = "rillway_sink_errors_total", Counter, Count, SINK_REASON,
        "Writes that failed in the sink; each attempt of the same batch counts.";
    LOST_MESSAGES = "rillway_lost_messages_total", Counter, Count, REASON,
        "Messages that will not reach the sink: truncated before they were read, damaged, or \
         skipped by policy.";
    DEAD_LETTERS = "rillway_dead_letter_messages_total", Counter, Count, REASON,
        "Messages that the sink cannot write and that are durable as dead letters.";
    STREAM_FIRST_OFFSET = "rillway_stream_first_offset", Gauge, Count, CONSUMER,
        "The first offset that the stream still holds.";
    STREAM_LAST_OFFSET = "rillway_stream_last_offset", Gauge, Count, CONSUMER,
        "The last offset that the stream is known to hold.";
    RECEIVED_OFFSET = "rillway_received_offset", Gauge, Count, CONSUMER,
        "The last offset received from the broker.";
    DURABLE_OFFSET = "rillway_durable_offset", Gauge, Count, CONSUMER,
        "The last durable offset: all offsets up to it are durable in the sink.";
    STORED_OFFSET = "rillway_stored_offset", Gauge, Count, CONSUMER,
        "The offset stored on the broker and read back.";
    LAG_MESSAGES = "rillway_lag_messages", Gauge, Count, CONSUMER,
        "Offsets between the last durable one and the end of the stream; an upper bound of the \
         waiting messages.";
    LAG_SECONDS = "rillway_lag_seconds", Gauge, Seconds, CONSUMER,
        "Age of the oldest message that is not durable yet, by its chunk's timestamp; 0 when caught \
         up. While the broker cannot be reached, it counts from the last observation.";
    HEADROOM_MESSAGES = "rillway_retention_headroom_messages", Gauge, Count, CONSUMER,
        "Offsets that retention may still drop before it reaches messages that are not durable.";
    OFFSET_STORES = "rillway_offset_stores_total", Counter, Count, RESULT,
        "Offsets sent to the broker to be stored, by result.";
    OFFSET_STORE_AGE = "rillway_offset_store_age_seconds", Gauge, Seconds, CONSUMER,
        "Time since the stored offset was last up to date with the durable one.";
    LAST_DURABLE = "rillway_last_durable_timestamp_seconds", Gauge, Seconds, CONSUMER,
        "Time at which something last became durable in the sink, since the start of the daemon.";
    LAST_CONTACT = "rillway_last_contact_timestamp_seconds", Gauge, Seconds, CONSUMER,
        "Time at which the broker last answered or sent a chunk.";
    CONSUMER_READY = "rillway_consumer_ready", Gauge, Count, CONSUMER,
        "1 while the consumer works normally, else 0: /readyz gives the reason.";
    CONSUMER_PAUSED = "rillway_consumer_paused", Gauge, Count, CONSUMER,
        "1 while an operator has paused the consumer, else 0.";
    CONSUMER_STATE = "rillway_consumer_state", Gauge, Count, STATE,
        "1 for the state that the consumer is in, 0 for the others.";
    RESTARTS = "rillway_restarts_total", Counter, Count, REASON,
        "Restarts and reconnections of the consumer, by reason.";
    BUFFERED_BYTES = "rillway_buffered_bytes", Gauge, Bytes, CONSUMER,
        "Bytes received and not durable yet.";
    BUFFER_LIMIT_BYTES = "rillway_buffer_limit_bytes", Gauge, Bytes, CONSUMER,
        "The limit of rillway_buffered_bytes.";
    BACKPRESSURE_SECONDS = "rillway_backpressure_seconds_total", Counter, Seconds, CONSUMER,
        "Time for which the broker got no credit, because the sink held all memory.";
    WATCH_STORED_OFFSET = "rillway_watch_stored_offset", Gauge, Count, WATCH,
        "The last offset that the owner of a watched reference has stored on the broker.";
    WATCH_OFFSET_KNOWN = "rillway_watch_offset_known", Gauge, Count, WATCH,
        "1 while the broker holds an offset of the watched reference, else 0; also 0 if the stream is missing or refused.";
    WATCH_LAG_MESSAGES = "rillway_watch_lag_messages", Gauge, Count, WATCH,
        "Offsets between the one that the owner of a watched reference has stored and the end of the \
         stream; an upper bound of the waiting messages.";
    WATCH_LAG_SECONDS = "rillway_watch_lag_seconds", Gauge, Seconds, WATCH,
        "Age of the first message after the offset stored for a watched reference; 0 when caught up.";
    WATCH_HEADROOM_MESSAGES = "rillway_watch_retention_headroom_messages", Gauge, Count, WATCH,
        "Offsets that retention may still drop before it reaches messages after the offset stored for a \
         watched reference.";
    WATCH_STREAM_FIRST_OFFSET = "rillway_watch_stream_first_offset", Gauge, Count, WATCH,
        "The first offset that the stream of a watched reference still holds.";
    WATCH_STREAM_LAST_OFFSET = "rillway_watch_stream_last_offset", Gauge, Count, WATCH,
        "The last offset that the stream of a watched reference is known to hold.";
    WATCH_LAST_CONTACT = "rillway_watch_last_contact_timestamp_seconds", Gauge, Seconds, WATCH,
        "Time at which the broker last answered about a watched reference.";
    METRICS_DROPPED_SAMPLES = "rillway_metrics_dropped_samples_total", Counter, Count,
        METRIC_REASON,
        "Samples of metrics made from messages that were left out, by metric and reason.";
    TLS_RELOADS = "rillway_tls_reloads_total", Counter, Count, &["result"],
        "Certificate files that had changed when a connection was made, by result; with `failed`, \
         their former content stays in use.";
    TLS_UNVERIFIED = "rillway_tls_unverified", Gauge, Count, &[],
        "1 if a connection accepts any certificate (insecure_skip_verify).";
    TOKEN_EXPIRY = "rillway_token_expiry_timestamp_seconds", Gauge, Seconds, &["token"],
        "Time at which the access token in use expires, if it tells.";
    TOKEN_RENEWALS = "rillway_token_renewals_total", Counter, Count, &["token", "result"],
        "New access tokens, and failed attempts to have one, by result.";
    CONFIG_RELOADS = "rillway_config_reloads_total", Counter, Count, &["result"],
        "Attempts to reload the configuration, by result; with `failed`, nothing has changed.";
    CONFIG_RELOAD_SUCCESS = "rillway_config_reload_success", Gauge, Count, &[],
        "1 if the last attempt to load the configuration succeeded, else 0: the log and \
         /api/v1/config say why.";
    CONFIG_LAST_RELOAD = "rillway_config_last_reload_timestamp_seconds", Gauge, Seconds, &[],
        "Time at which a configuration was last loaded with success, at the start or later.";
    ADMIN_REFUSED = "rillway_admin_refused_requests_total", Counter, Count, &["reason"],
        "Requests that the admin server refused because of who sent them, by reason.";
    TRACE_SPANS = "rillway_trace_spans_total", Counter, Count, &["result"],
        "Spans of traces that were to be sent to the OpenTelemetry collector, by result; only with [traces].";
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
        assert_eq!(seen.len(), 49);
    }
}
