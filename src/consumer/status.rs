//! The visible status of a consumer: its state, positions and lag, and its metrics.
//!
//! The consumer writes it, the observer adds facts about the stream, the admin server reads it. It
//! outlives the consumer's task, so that a halted one still has a lag.
//!
//! All shown values are computed from one snapshot when they are asked for, so they are consistent,
//! and ages grow even while nothing happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::skips::Skips;
use crate::flow::history::{Counts, History, HistoryPoint, Rate};
use crate::flow::lag::{self, Lag, SeenChunk, Watch};
use crate::flow::resume::Lost;
use crate::flow::trouble::{Past, Trouble};
use crate::source::Bounds;
use crate::sync::lock;
use crate::telemetry::{ConsumerMetrics, RestartReason, State};
use crate::types::{Offset, Timestamp};

/// Time that a sink may hold a batch without making any durable before its consumer counts as not
/// ready.
const SINK_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Greatest age of the last chunk while a backlog is being read.
const FLOWING_MAX: Duration = Duration::from_millis(500);

/// One consumer's status.
pub struct Status {
    /// Its metrics.
    pub metrics: ConsumerMetrics,
    /// The message at which it has halted, and an order to leave that out.
    pub skips: Skips,
    inner: Mutex<Facts>,
    /// Runs in a row that failed.
    starts: Mutex<Trouble>,
    received: Received,
    history: Mutex<History>,
}

/// Messages and bytes received.
#[derive(Default)]
struct Received {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// An error that was shown as a reason.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// Its text.
    pub text: Arc<str>,
    /// Time at which the consumer failed with it.
    pub at: Timestamp,
}

/// All facts at one point in time.
#[derive(Clone, Debug)]
pub struct Facts {
    /// State of the task; see [`Facts::shown_state`].
    pub state: State,
    /// Reason why it is not running; `None` if it is.
    pub reason: Option<String>,
    /// Last error of its sink; `None` once it works again.
    pub sink_trouble: Option<String>,
    /// Time since which the sink has held a batch without making any durable; `None` if it does
    /// not.
    pub sink_busy_since: Option<Instant>,
    /// The last durable offset; before there is one, the offset before the first wanted.
    pub position: Option<Offset>,
    /// True if `position` is known at all.
    pub positioned: bool,
    /// True if `position` belongs to an old incarnation of the stream, and does not count in this
    /// one.
    pub foreign: bool,
    /// The last durable offset of this run, or the one that it resumed from.
    pub durable: Option<Offset>,
    /// Time at which something last became durable in this run.
    pub durable_at: Option<Timestamp>,
    /// The last offset received.
    pub received: Option<Offset>,
    /// The last chunk received.
    pub last_chunk: Option<SeenChunk>,
    /// The offset stored on the broker.
    pub stored: Option<Offset>,
    /// Time since which the stored offset has been behind the durable one; `None` if it is not.
    pub unstored_since: Option<Instant>,
    /// Time of the last chunk, or of the subscription; `None` without a subscription.
    pub quiet_since: Option<Instant>,
    /// True if this subscription has delivered a chunk.
    pub delivered: bool,
    /// True if the last chunk contained new messages.
    pub news: bool,
    /// True if the broker has credit.
    pub credit: bool,
    /// Time at which the oldest chunk that was received and is not durable was written.
    pub oldest: Option<Timestamp>,
    /// Bytes received and not yet durable.
    pub buffered_bytes: u64,
    /// First offset and end of the stream.
    pub bounds: Option<Bounds>,
    /// Observations of the stream's end.
    pub watch: Watch,
    /// Number of restarts and reconnections.
    pub restarts: u64,
    /// Number of messages that were left out as a policy says, dead letters included.
    pub skipped: u64,
    /// The last error, whether or not it is over.
    pub last_error: Option<LastFailure>,
    /// Time at which it became ready, or not ready.
    turned: Timestamp,
    /// Time at which it came into its state.
    entered: Timestamp,
}

impl Status {
    /// Status of a new consumer.
    pub fn new(metrics: ConsumerMetrics) -> Status {
        let facts = Facts {
            state: State::Starting,
            reason: None,
            sink_trouble: None,
            sink_busy_since: None,
            position: None,
            positioned: false,
            foreign: false,
            durable: None,
            durable_at: None,
            received: None,
            last_chunk: None,
            stored: None,
            unstored_since: None,
            quiet_since: None,
            delivered: false,
            news: false,
            credit: false,
            oldest: None,
            buffered_bytes: 0,
            bounds: None,
            watch: Watch::default(),
            restarts: 0,
            skipped: 0,
            last_error: None,
            turned: Timestamp::now(),
            entered: Timestamp::now(),
        };
        let skips = Skips::default();
        Status {
            metrics,
            skips,
            inner: Mutex::new(facts),
            starts: Mutex::default(),
            received: Received::default(),
            history: Mutex::default(),
        }
    }

    /// Goes on with what another status has seen: of the same consumer, with another plan.
    pub fn follow(&self, before: &Status) {
        let former = before.facts();
        self.update(|facts| {
            // The time counts from the start of the daemon.
            facts.restarts = former.restarts;
            facts.last_error = former.last_error;
        });
        let counts = before.counts();
        self.received.messages.store(counts.messages, Ordering::Relaxed);
        self.received.bytes.store(counts.bytes, Ordering::Relaxed);
        *lock(&self.history) = std::mem::take(&mut *lock(&before.history));
    }

    /// Counts messages at or above the wanted offset.
    pub(super) fn count_messages(&self, messages: u64) {
        self.metrics.received_messages.increment(messages);
        self.received.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// Counts a chunk of so many bytes.
    pub(super) fn count_chunk(&self, bytes: u64) {
        self.metrics.received_chunks.increment(1);
        self.metrics.received_bytes.increment(bytes);
        self.received.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        let Received { messages, bytes } = &self.received;
        Counts { messages: messages.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    /// Notes what was received, for the rate and the last hour. Called every
    /// [`COUNT_EVERY`](crate::flow::history::COUNT_EVERY) for all consumers in one go, and with a point for all of them
    /// if one is due.
    pub fn note_history(&self, now: Instant, wall: Timestamp, point_is_due: bool) {
        let counts = self.counts();
        lock(&self.history).count(counts, now);
        if point_is_due {
            let lag = self.facts().lag(wall);
            lock(&self.history).add(counts, lag, now, wall);
        }
    }

    /// What was received per second, over the last seconds; `None` while too little is known.
    pub fn rate(&self, now: Instant) -> Option<Rate> {
        lock(&self.history).rate(self.counts(), now)
    }

    /// The last hour, the oldest point first.
    pub fn history(&self) -> Vec<HistoryPoint> {
        lock(&self.history).points().collect()
    }

    /// A copy of the current facts.
    pub fn facts(&self) -> Facts {
        lock(&self.inner).clone()
    }

    /// Changes the facts.
    pub fn update<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let mut facts = lock(&self.inner);
        let (was_ready, was) = (facts.is_ready(), facts.shown_state());
        let changed = change(&mut facts);
        if facts.is_ready() != was_ready {
            facts.turned = Timestamp::now();
        }
        let state = facts.shown_state();
        if state != was {
            facts.entered = Timestamp::now();
        }
        if matches!(state, State::Degraded | State::Backoff | State::Halted) {
            facts.note_error(state != was);
        }
        let view = facts.view();
        facts.watch.note(&view);
        changed
    }

    /// Sets the state, with the reason if it is a bad one.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        self.update(|facts| {
            facts.state = state;
            facts.reason = reason;
        });
    }

    /// Shows that the position was moved, while no task ran: the next message is the one at `to`. `None` if
    /// another instance may go on from there.
    pub fn moved(&self, to: Option<Offset>) {
        self.update(|facts| {
            let before = facts.view();
            facts.stand_by_at(to);
            facts.watch.moved(&before);
        });
    }

    /// Counts a failed run; returns whether it is worth a log line.
    pub fn run_failed(&self, reason: &str, now: Instant) -> bool {
        lock(&self.starts).failed(reason, now)
    }

    /// Notes that a run has started its work; returns the failures before, if there were any.
    pub fn started(&self, now: Instant) -> Option<Past> {
        lock(&self.starts).over(now)
    }

    /// Counts a restart or reconnection.
    pub fn count_restart(&self, why: RestartReason) {
        self.metrics.restarts(why).increment(1);
        self.update(|facts| facts.restarts += 1);
    }

    /// Updates every gauge that depends on the time, all from one snapshot.
    pub fn refresh_gauges(&self) {
        let facts = self.facts();
        let now = Timestamp::now();
        let metrics = &self.metrics;
        metrics.set_state(facts.shown_state());
        metrics.ready.set(f64::from(u8::from(facts.is_ready())));
        let offsets = [
            (&metrics.stream_first_offset, facts.bounds.and_then(|bounds| bounds.first)),
            (&metrics.stream_last_offset, facts.stream_end()),
            (&metrics.received_offset, facts.received),
            (&metrics.durable_offset, facts.durable),
            (&metrics.stored_offset, facts.stored),
        ];
        for (gauge, offset) in offsets {
            gauge.show_count(offset.map(|offset| offset.0));
        }
        let lag = facts.lag(now);
        metrics.lag_messages.show_count(lag.as_ref().map(|lag| lag.messages));
        metrics.lag_seconds.show(lag.as_ref().map(|lag| lag.seconds));
        metrics.headroom_messages.show(facts.headroom().map(|headroom| headroom as f64));
        let moments = [
            (&metrics.last_durable, facts.durable_at),
            (&metrics.last_contact, facts.watch.last_heard()),
        ];
        for (gauge, moment) in moments {
            gauge.show(moment.map(|moment| Timestamp(0).seconds_until(moment)));
        }
        metrics.buffered_bytes.set(facts.buffered_bytes as f64);
        metrics.store_age_seconds.set(facts.store_age().as_secs_f64());
    }
}

impl Facts {
    /// State of the consumer, including trouble of its sink.
    pub fn shown_state(&self) -> State {
        let works = self.sink_trouble.is_none() && self.sink_silence().is_none();
        match self.state {
            State::Running if !works => State::Degraded,
            state => state,
        }
    }

    /// True while it works normally, or stands by for another instance that does.
    pub fn is_ready(&self) -> bool {
        matches!(self.shown_state(), State::Running | State::Passive)
    }

    /// Seconds since it became ready, or not ready.
    pub fn seconds_so(&self, now: Timestamp) -> f64 {
        let silent = self.sink_silence().filter(|_| self.sink_trouble.is_none());
        let silent = silent.filter(|_| self.state == State::Running);
        silent.map_or_else(|| self.turned.seconds_until(now), |silence| silence.as_secs_f64())
    }

    /// Seconds since it came into its state.
    pub fn seconds_in_state(&self, now: Timestamp) -> f64 {
        let silent = self.sink_silence().filter(|_| self.sink_trouble.is_none());
        let silent = silent.filter(|_| self.state == State::Running);
        let since = silent.map(|silence| silence.saturating_sub(SINK_SILENCE_MAX).as_secs_f64());
        since.unwrap_or_else(|| self.entered.seconds_until(now))
    }

    /// Remembers the reason of a bad state: if the state is a new one, or the reason is.
    fn note_error(&mut self, is_anew: bool) {
        let Some(text) = self.reason.as_deref().or(self.sink_trouble.as_deref()) else { return };
        if is_anew || self.last_error.as_ref().is_none_or(|last| *last.text != *text) {
            self.last_error = Some(LastFailure { text: text.into(), at: Timestamp::now() });
        }
    }

    /// Reason why it is not ready; `None` if it is.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.is_ready() {
            return None;
        }
        let silent = || {
            let seconds = self.sink_silence()?.as_secs();
            Some(format!("the sink holds a batch, but has made nothing durable for {seconds} s"))
        };
        let sink = self.sink_trouble.clone().or_else(silent);
        let reason = match (self.reason.clone(), sink) {
            (Some(reason), Some(sink)) if self.state == State::Draining => {
                Some(format!("{reason}; the sink: {sink}"))
            }
            (reason, sink) => reason.or(sink),
        };
        Some(reason.unwrap_or_else(|| format!("it is {}", self.state)))
    }

    /// Time for which the sink has been silent, if it is too long.
    fn sink_silence(&self) -> Option<Duration> {
        self.sink_busy_since.map(|since| since.elapsed()).filter(|s| *s >= SINK_SILENCE_MAX)
    }

    /// Lag of the consumer; `None` if unknown.
    pub fn lag(&self, now: Timestamp) -> Option<Lag> {
        self.positioned.then(|| self.watch.lag(&self.view(), now))?
    }

    /// The last offset that the stream is known to hold.
    pub fn stream_end(&self) -> Option<Offset> {
        self.watch.last_look().and_then(|_| self.watch.end(&self.view()))
    }

    /// Offsets that retention may drop before messages are lost. `None` for a consumer that began
    /// at the first offset and has nothing durable yet: there is no distance that shrinks.
    pub fn headroom(&self) -> Option<i64> {
        let first = self.bounds?.first?;
        let headroom = lag::headroom(self.view().position, first);
        let began_there = self.durable.is_none() && headroom == 0;
        (self.positioned && !self.foreign && !began_there).then_some(headroom)
    }

    /// Time for which the stored offset has been behind the durable one.
    pub fn store_age(&self) -> Duration {
        self.unstored_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// No task runs, or none is connected: nothing arrives, and nothing is held.
    pub fn unplug(&mut self) {
        self.quiet_since = None;
        self.credit = false;
        self.buffered_bytes = 0;
        self.sink_busy_since = None;
        self.oldest = None;
    }

    /// Another instance is, or may be, active: its position is not known here.
    pub(super) fn stand_by(&mut self) {
        self.unplug();
        (self.position, self.positioned, self.foreign) = (None, false, false);
        (self.durable, self.stored, self.received) = (None, None, None);
        (self.last_chunk, self.news, self.delivered) = (None, false, false);
        (self.sink_trouble, self.unstored_since) = (None, None);
    }

    /// It goes on at this offset, and nothing is durable in this run.
    fn stand_by_at(&mut self, to: Option<Offset>) {
        let (stored, last_chunk) = (self.stored, self.last_chunk);
        self.stand_by();
        let Some(to) = to else { return };
        self.last_chunk = last_chunk;
        (self.position, self.positioned) = (to.prev(), true);
        // Nothing is stored for offset 0: the broker keeps what it has.
        self.stored = to.prev().or(stored);
    }

    /// Facts about the stream belong to an old incarnation.
    pub(super) fn forget_incarnation(&mut self) {
        self.durable = None;
        self.stored = None;
        self.received = None;
        self.last_chunk = None;
        self.oldest = None;
        self.foreign = true;
        self.positioned = true;
        self.watch = Watch::default();
    }

    /// Records a lost position.
    pub(super) fn note_lost(&mut self, lost: &Lost) {
        match *lost {
            Lost::Evicted { .. } if self.positioned => {}
            Lost::Evicted { wanted, .. } => {
                self.position = wanted.prev();
                self.positioned = true;
            }
            Lost::Forgotten { remembered } if self.ends_beyond(remembered) => {
                self.position = Some(remembered);
                self.positioned = true;
            }
            Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => {
                self.forget_incarnation();
            }
        }
    }

    fn ends_beyond(&self, offset: Offset) -> bool {
        let end = self.bounds.and_then(|bounds| bounds.tail.at_least());
        end.is_some_and(|end| end >= offset)
    }

    /// The view of this consumer for computing its lag.
    pub(super) fn view(&self) -> lag::View {
        // In another incarnation everything is still to be read.
        let nothing = || self.bounds.and_then(|bounds| bounds.first?.prev());
        lag::View {
            position: if self.foreign { nothing() } else { self.position },
            received: self.received,
            last_chunk: self.last_chunk,
            oldest: self.oldest,
            holding: self.buffered_bytes > 0,
            flowing: self.quiet_since.is_some_and(|s| s.elapsed() < FLOWING_MAX) && self.news,
            quiet_since: self.quiet_since.filter(|_| self.credit && self.delivered),
        }
    }
}

#[cfg(test)]
mod tests;
