//! What others may see of a consumer: its state, positions and lag, and its metrics.
//!
//! The consumer writes, the observer adds what the stream itself says, the admin server reads.
//! Outlives the consumer's task, so that a halted one still has a lag.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::broker::Bounds;
use crate::flow::lag::{self, Lag};
use crate::telemetry::{ConsumerMetrics, State};
use crate::types::{Offset, Timestamp};

/// How long a sink may hold a batch, without making any durable, before its consumer is no longer
/// shown as ready.
const SINK_SILENCE_MAX: Duration = Duration::from_secs(10);

/// One consumer, as others see it.
pub struct Status {
    /// Its metrics.
    pub metrics: ConsumerMetrics,
    inner: Mutex<Facts>,
}

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is doing.
    pub state: State,
    /// Why it is not running, in words.
    pub reason: Option<String>,
    /// What its sink last complained of, until it worked again.
    pub sink_trouble: Option<String>,
    /// Since when the sink has held a batch without making any durable.
    pub sink_busy_since: Option<Instant>,
    /// The last durable offset; before there is one, the offset before the first wanted.
    pub position: Option<Offset>,
    /// Whether `position` is known at all.
    pub positioned: bool,
    /// The last durable offset of this run, or that it resumed from.
    pub durable: Option<Offset>,
    /// The last offset received.
    pub received: Option<Offset>,
    /// The last chunk received: first offset and records.
    pub last_chunk: Option<(Offset, u32)>,
    /// The offset that the broker holds.
    pub stored: Option<Offset>,
    /// When that was last so, or the consumer began.
    pub stored_at: Instant,
    /// Whether something is durable that is not stored.
    pub unstored: bool,
    /// When the last chunk came, or the subscription began; `None` without a subscription.
    pub quiet_since: Option<Instant>,
    /// Whether the broker may send.
    pub credit: bool,
    /// When the oldest chunk received and not durable was written.
    pub oldest: Option<Timestamp>,
    /// Bytes received and not durable.
    pub buffered_bytes: u64,
    /// Where the stream begins and ends.
    pub bounds: Option<Bounds>,
    /// How far behind it is.
    pub lag: Option<Lag>,
    /// How often it was started again.
    pub restarts: u64,
}

impl Status {
    /// A consumer that begins.
    pub fn new(metrics: ConsumerMetrics) -> Status {
        let facts = Facts {
            state: State::Starting,
            reason: None,
            sink_trouble: None,
            sink_busy_since: None,
            position: None,
            positioned: false,
            durable: None,
            received: None,
            last_chunk: None,
            stored: None,
            stored_at: Instant::now(),
            unstored: false,
            quiet_since: None,
            credit: false,
            oldest: None,
            buffered_bytes: 0,
            bounds: None,
            lag: None,
            restarts: 0,
        };
        Status { metrics, inner: Mutex::new(facts) }
    }

    /// What is known now.
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Changes what is known.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    /// A new state, with the reason where it is not a good one.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        self.metrics.set_state(state);
        self.update(|facts| {
            facts.state = state;
            facts.reason = reason;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // A panic while it was held left whole values behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    /// Whether it does its work.
    pub fn is_ready(&self) -> bool {
        self.state == State::Running && self.sink_trouble.is_none() && self.sink_silence().is_none()
    }

    /// Why it does not.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.is_ready() {
            return None;
        }
        let silent = || {
            let seconds = self.sink_silence()?.as_secs();
            Some(format!("the sink has made nothing durable for {seconds} s, and holds a batch"))
        };
        let reason = self.reason.clone().or_else(|| self.sink_trouble.clone()).or_else(silent);
        Some(reason.unwrap_or_else(|| format!("it is {}", self.state)))
    }

    /// For how long the sink has been silent, where that is too long.
    fn sink_silence(&self) -> Option<Duration> {
        self.sink_busy_since.map(|since| since.elapsed()).filter(|s| *s >= SINK_SILENCE_MAX)
    }

    /// Offsets that retention may still truncate before something is lost.
    pub fn headroom(&self) -> Option<i64> {
        let first = self.bounds?.first?;
        self.positioned.then(|| lag::headroom(self.position, first))
    }

    pub(super) fn view(&self) -> lag::View {
        lag::View {
            position: self.position,
            last_chunk: self.last_chunk,
            received: self.received,
            credit: self.credit,
            quiet_since: self.quiet_since,
            oldest: self.oldest,
        }
    }
}
