//! Handles of one consumer's metrics: made once, then only counted.
//!
//! Counters and limits start at 0. An unknown value (an offset, a lag, a headroom) is absent until
//! it is first set, because 0 would be a position or an alarm.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label as Pair};

use super::labels::{
    DeadReason, Label, LostReason, RestartReason, SinkErrorReason, State, StoreResult,
};
use super::names::{self, Metric};
use super::page;
use crate::types::{ConsumerKey, ConsumerName, StreamName};

/// The metric handles of one consumer (of one partition, for a super stream). Handles made twice
/// with the same labels share their values, so counters continue after a restart.
pub struct ConsumerMetrics {
    /// Messages received at or above the wanted offset.
    pub received_messages: Counter,
    /// Bytes of Deliver frames.
    pub received_bytes: Counter,
    /// Chunks.
    pub received_chunks: Counter,
    /// Messages durable in the sink.
    pub written_messages: Counter,
    /// Bytes durable in the sink.
    pub written_bytes: Counter,
    /// Seconds that the sink took to write a batch.
    pub write_duration: Histogram,
    /// The first offset of the stream.
    pub stream_first_offset: LateGauge,
    /// The last offset of the stream.
    pub stream_last_offset: LateGauge,
    /// The last offset received.
    pub received_offset: LateGauge,
    /// The last durable offset.
    pub durable_offset: LateGauge,
    /// The offset stored and read back.
    pub stored_offset: LateGauge,
    /// Offsets from the durable one to the end of the stream.
    pub lag_messages: LateGauge,
    /// Age in seconds of the oldest chunk that is not durable.
    pub lag_seconds: LateGauge,
    /// Offsets from the first one of the stream to the durable one.
    pub headroom_messages: LateGauge,
    /// Seconds since the stored offset was up to date.
    pub store_age_seconds: LateGauge,
    /// Time at which something last became durable.
    pub last_durable: LateGauge,
    /// Time at which the broker last sent anything.
    pub last_contact: LateGauge,
    /// 1 while the consumer works normally.
    pub ready: Gauge,
    /// 1 while an operator has paused it.
    pub paused: Gauge,
    /// Bytes received and not yet durable.
    pub buffered_bytes: Gauge,
    /// Most bytes that may be buffered.
    pub buffer_limit_bytes: Gauge,
    /// Seconds without credit for the broker.
    pub backpressure: SecondsCounter,
    sink_errors: Vec<Counter>,
    lost: Vec<Counter>,
    dead_letters: OnceLock<Vec<Counter>>,
    filtered: OnceLock<Counter>,
    dropped: OnceLock<Counter>,
    own: [Pair; 2],
    offset_stores: Vec<Counter>,
    restarts: Vec<Counter>,
    states: Vec<Gauge>,
}

impl ConsumerMetrics {
    /// Registers every metric of this consumer with the installed recorder; its state is
    /// [`State::Starting`]. `sink` is the kind of its sink, as in the configuration.
    pub fn new(
        consumer: &ConsumerName,
        stream: &StreamName,
        sink: &'static str,
    ) -> ConsumerMetrics {
        let own = [
            Pair::new("consumer", consumer.as_str().to_owned()),
            Pair::new("stream", stream.as_str().to_owned()),
        ];
        page::admit(&ConsumerKey { consumer: consumer.clone(), stream: stream.clone() });
        let of_sink = [own.as_slice(), &[Pair::from_static_parts("sink", sink)]].concat();
        let late = |metric| LateGauge::new(metric, &own);
        let metrics = ConsumerMetrics {
            received_messages: counter(&names::RECEIVED_MESSAGES, &own),
            received_bytes: counter(&names::RECEIVED_BYTES, &own),
            received_chunks: counter(&names::RECEIVED_CHUNKS, &own),
            written_messages: counter(&names::WRITTEN_MESSAGES, &of_sink),
            written_bytes: counter(&names::WRITTEN_BYTES, &of_sink),
            write_duration: metrics::histogram!(names::SINK_WRITE_DURATION.name, of_sink.iter()),
            stream_first_offset: late(&names::STREAM_FIRST_OFFSET),
            stream_last_offset: late(&names::STREAM_LAST_OFFSET),
            received_offset: late(&names::RECEIVED_OFFSET),
            durable_offset: late(&names::DURABLE_OFFSET),
            stored_offset: late(&names::STORED_OFFSET),
            lag_messages: late(&names::LAG_MESSAGES),
            lag_seconds: late(&names::LAG_SECONDS),
            headroom_messages: late(&names::HEADROOM_MESSAGES),
            store_age_seconds: late(&names::OFFSET_STORE_AGE),
            last_durable: late(&names::LAST_DURABLE),
            last_contact: late(&names::LAST_CONTACT),
            ready: gauge(&names::CONSUMER_READY, &own),
            paused: gauge(&names::CONSUMER_PAUSED, &own),
            buffered_bytes: gauge(&names::BUFFERED_BYTES, &own),
            buffer_limit_bytes: gauge(&names::BUFFER_LIMIT_BYTES, &own),
            backpressure: SecondsCounter::new(counter(&names::BACKPRESSURE_SECONDS, &own)),
            sink_errors: family::<SinkErrorReason, _>(&of_sink, "reason", |pairs| {
                counter(&names::SINK_ERRORS, pairs)
            }),
            lost: family::<LostReason, _>(&own, "reason", |pairs| {
                counter(&names::LOST_MESSAGES, pairs)
            }),
            dead_letters: OnceLock::new(),
            filtered: OnceLock::new(),
            dropped: OnceLock::new(),
            offset_stores: family::<StoreResult, _>(&own, "result", |pairs| {
                counter(&names::OFFSET_STORES, pairs)
            }),
            restarts: family::<RestartReason, _>(&own, "reason", |pairs| {
                counter(&names::RESTARTS, pairs)
            }),
            states: family::<State, _>(&own, "state", |pairs| gauge(&names::CONSUMER_STATE, pairs)),
            own,
        };
        metrics.set_state(State::Starting);
        metrics
    }

    /// Writes that failed with this kind of error.
    pub fn sink_errors(&self, reason: SinkErrorReason) -> &Counter {
        &self.sink_errors[reason.index()]
    }

    /// Messages that will not reach the sink for this reason.
    pub fn lost(&self, reason: LostReason) -> &Counter {
        &self.lost[reason.index()]
    }

    /// Shows the count of dead letters from 0 on, for a consumer that may write any.
    pub fn show_dead_letters(&self) {
        self.all_dead_letters();
    }

    /// Messages that are durable as dead letters, for this reason.
    pub fn dead_letters(&self, reason: DeadReason) -> &Counter {
        &self.all_dead_letters()[reason.index()]
    }

    fn all_dead_letters(&self) -> &[Counter] {
        self.dead_letters.get_or_init(|| {
            family::<DeadReason, _>(&self.own, "reason", |pairs| {
                counter(&names::DEAD_LETTERS, pairs)
            })
        })
    }

    /// Shows the counter of [`ConsumerMetrics::filtered`] from now on, at 0.
    pub fn show_filtered(&self) {
        self.filtered();
    }

    /// Messages that the consumer's own filter left out.
    pub fn filtered(&self) -> &Counter {
        self.filtered.get_or_init(|| counter(&names::FILTERED_MESSAGES, &self.own))
    }

    /// Shows the counter of [`ConsumerMetrics::dropped`] from now on, at 0.
    pub fn show_dropped(&self) {
        self.dropped();
    }

    /// Messages that the consumer's own programs left out.
    pub fn dropped(&self) -> &Counter {
        self.dropped.get_or_init(|| counter(&names::DROPPED_MESSAGES, &self.own))
    }

    /// Offsets sent to the broker, by this result.
    pub fn offset_stores(&self, result: StoreResult) -> &Counter {
        &self.offset_stores[result.index()]
    }

    /// Restarts for this reason.
    pub fn restarts(&self, reason: RestartReason) -> &Counter {
        &self.restarts[reason.index()]
    }

    /// Sets `state` to 1 and the others to 0. A scrape in between may see two states at 1, but
    /// never none.
    pub fn set_state(&self, state: State) {
        self.states[state.index()].set(1.0);
        for other in State::ALL {
            if *other != state {
                self.states[other.index()].set(0.0);
            }
        }
    }
}

/// A gauge that is absent from the page of metrics while its value is not known.
pub struct LateGauge {
    metric: &'static Metric,
    pairs: Vec<Pair>,
    gauge: OnceLock<Gauge>,
}

impl LateGauge {
    pub(super) fn new(metric: &'static Metric, pairs: &[Pair]) -> LateGauge {
        LateGauge { metric, pairs: pairs.to_vec(), gauge: OnceLock::new() }
    }

    /// Sets the value. NaN and infinity are ignored.
    pub fn set(&self, value: f64) {
        if value.is_finite() {
            self.gauge.get_or_init(|| gauge(self.metric, &self.pairs)).set(value);
        }
    }

    /// Sets the value to a count; exact up to 2^53.
    #[allow(clippy::cast_precision_loss)]
    pub fn set_count(&self, count: u64) {
        self.set(count as f64);
    }

    /// Sets the value, or has it absent where there is none any more.
    pub fn show(&self, value: Option<f64>) {
        match value {
            Some(value) => self.set(value),
            // The recorder cannot forget a series; the page leaves this one out.
            None => self.gauge.get_or_init(|| gauge(self.metric, &self.pairs)).set(page::ABSENT),
        }
    }

    /// The same for a count; exact up to 2^53.
    #[allow(clippy::cast_precision_loss)]
    pub fn show_count(&self, count: Option<u64>) {
        self.show(count.map(|count| count as f64));
    }
}

/// A counter of whole seconds that is fed with durations; the rest is carried over.
pub struct SecondsCounter {
    counter: Counter,
    left_over_micros: AtomicU64,
}

impl SecondsCounter {
    fn new(counter: Counter) -> SecondsCounter {
        SecondsCounter { counter, left_over_micros: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn add(&self, duration: Duration) {
        const SECOND: u64 = 1_000_000;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
        // Whole seconds are counted directly, so that the sum below stays small.
        let rest = micros % SECOND;
        let before = self.left_over_micros.fetch_add(rest, Ordering::Relaxed);
        // Exactly one caller sees each crossing of a full second.
        let crossed = (before + rest) / SECOND - before / SECOND;
        let seconds = micros / SECOND + crossed;
        if seconds > 0 {
            self.counter.increment(seconds);
        }
    }
}

fn counter(metric: &Metric, pairs: &[Pair]) -> Counter {
    metrics::counter!(metric.name, pairs.iter())
}

fn gauge(metric: &Metric, pairs: &[Pair]) -> Gauge {
    metrics::gauge!(metric.name, pairs.iter())
}

fn family<L: Label, T>(pairs: &[Pair], label: &'static str, make: impl Fn(&[Pair]) -> T) -> Vec<T> {
    L::ALL
        .iter()
        .map(|value| make(&[pairs, &[Pair::from_static_parts(label, value.label())]].concat()))
        .collect()
}

#[cfg(test)]
mod tests;
