//! Shows, logs and counts the brain's notes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consumer::brain::{Moment, Note, StoreEnd, View};
use crate::consumer::intake::Inflated;
use crate::consumer::resumption::Resumption;
use crate::consumer::sinking::{Counted, Sieve};
use crate::consumer::skips::Skips;
use crate::consumer::spec::{OnBad, Spec};
use crate::consumer::status::{Facts, Status};
use crate::flow::resume::Lost;
use crate::flow::trouble::Trouble;
use crate::sink::{BadReason, BadRecord};
use crate::source::{Budget, SourceError};
use crate::telemetry::{DeadReason, LostReason, SinkErrorReason, State, StoreResult};
use crate::types::{Checkpoint, Offset};

pub(super) struct Reporter {
    spec: Arc<Spec>,
    status: Arc<Status>,
    budget: Arc<Budget>,
    inflated: Arc<Inflated>,
    /// Failures of the sink in a row.
    sink_trouble: Trouble,
    /// Failures to connect in a row.
    link_trouble: Trouble,
    /// Time of the last [`Reporter::publish`].
    published: Instant,
}

impl Reporter {
    pub(super) fn new(
        spec: Arc<Spec>,
        status: Arc<Status>,
        budget: Arc<Budget>,
        inflated: Arc<Inflated>,
    ) -> Reporter {
        status.metrics.buffer_limit_bytes.set(spec.memory_bytes as f64);
        let (sink_trouble, link_trouble) = (Trouble::default(), Trouble::default());
        let published = Instant::now();
        Reporter { spec, status, budget, inflated, sink_trouble, link_trouble, published }
    }

    /// Updates the state that others see.
    pub(super) fn publish(&mut self, view: &View) {
        let now = Instant::now();
        let credit = self.budget.has_credit();
        if !credit && view.is_reading {
            self.status.metrics.backpressure.add(now - self.published);
        }
        self.published = now;
        let buffered = self.budget.buffered() + self.inflated.bytes();
        self.status.update(|facts| {
            facts.sink_busy_since = view.is_sink_busy.then(|| facts.sink_busy_since.unwrap_or(now));
            facts.oldest = view.oldest;
            facts.buffered_bytes = buffered;
            facts.credit = credit;
            facts.unstored_since = view.is_unstored.then(|| facts.unstored_since.unwrap_or(now));
            if !view.is_reading {
                facts.quiet_since = None;
            }
            if let Some(Checkpoint { offset, .. }) = view.durable
                && !facts.foreign
            {
                self.status.skips.passed(offset);
                facts.durable = Some(offset);
                facts.position = Some(offset);
                facts.positioned = true;
            }
        });
    }

    /// The consumer's own filter and programs, with the metrics that count what they leave out.
    pub(super) fn sieve(&self) -> Option<Sieve> {
        let (filter, transform) = (self.spec.filter.clone(), self.spec.transform.clone());
        if filter.is_none() && transform.is_none() {
            return None;
        }
        let metrics = &self.status.metrics;
        let mut counted = Counted::noop();
        if filter.is_some() {
            counted.by_filter = metrics.filtered().clone();
        }
        if transform.is_some() {
            counted.by_program = metrics.dropped().clone();
        }
        Some(Sieve::new(filter, transform, counted))
    }

    /// The order to leave out one message.
    pub(super) fn skips(&self) -> Skips {
        self.status.skips.clone()
    }

    /// The sink is open; before, it may have failed to open.
    pub(super) fn opened(&self) {
        if let Some(past) = self.status.started(Instant::now()) {
            let lasted_ms = past.lasted.as_millis();
            tracing::info!(attempts = past.attempts, lasted_ms, "started again after failures");
        }
    }

    pub(super) fn note(&mut self, note: Note, now: Moment) {
        let (name, stream) = (&self.spec.name, &self.spec.stream);
        let metrics = &self.status.metrics;
        let is_filtered = self.spec.source.is_filtered();
        match note {
            Note::State(state, reason) => self.status.set_state(state, reason),
            Note::Connecting => {
                self.status.set_state(State::Connecting, self.status.facts().reason);
            }
            Note::Subscribed { resumption, base, resumed } => {
                self.subscribed(&resumption, base, resumed, now);
            }
            Note::NotConnected { error, wait } => self.not_connected(&error, wait, now),
            Note::Restart(why) => self.status.count_restart(why),
            Note::Lost(lost) => self.status.update(|facts| facts.note_lost(&lost)),
            Note::GoingOn { lost, policy } => {
                tracing::error!(%lost, %policy, "the position is lost; continuing as on_offset_lost says");
                metrics.lost(lost_reason(&lost)).increment(lost.messages());
            }
            Note::PassedOver { records, is_new_history } => {
                tracing::error!(consumer = %name, %stream, up_to_records = records, "messages of the stream are skipped, as on_offset_lost = \"next\" says");
                let reason =
                    if is_new_history { LostReason::Recreated } else { LostReason::Retention };
                metrics.lost(reason).increment(records);
            }
            Note::ReCreatedUnread(lost) => {
                tracing::warn!(consumer = %name, %stream, %lost, "the stream was re-created before its first message was read; it is read from its first message");
            }
            Note::FirstMessage => {
                tracing::info!(consumer = %name, %stream, "the first message has arrived");
            }
            Note::Received { bytes } => self.status.count_chunk(bytes),
            Note::Accepted { records } => self.status.count_messages(records.into()),
            Note::Taken { seen, last } => self.status.update(|facts| {
                facts.news = Some(last) > facts.received.max(facts.position);
                facts.received = facts.received.max(Some(last));
                facts.last_chunk = Some(seen);
                facts.quiet_since = Some(now.at);
                // With a filter, silence does not mean that there is nothing more.
                facts.delivered = !is_filtered;
                facts.watch.heard(now.wall);
            }),
            Note::TooEarly(last) => self.status.update(|facts| {
                facts.position = Some(last);
                facts.received = Some(last);
                facts.quiet_since = Some(now.at);
            }),
            Note::GapOfChunks { from, to } => {
                tracing::debug!(consumer = %name, from = from.0, to = to.0, "a gap of the broker's own chunks");
            }
            Note::LeftByFilter { from, to } => {
                tracing::trace!(consumer = %name, from = from.0, to = to.0, "left out by the broker's filter");
            }
            Note::Passed { from, upto } => {
                tracing::debug!(consumer = %name, from = from.0, to = upto.0, "the broker's filter selects nothing up to there; the position moves on");
                self.status.update(|facts| facts.received = facts.received.max(Some(upto)));
            }
            Note::NotPassed(error) => {
                tracing::debug!(consumer = %name, %error, "could not find out how far the broker's filter selects nothing; trying again");
            }
            Note::Truncated { what, records } => {
                tracing::error!(consumer = %name, "{what}; continuing as on_offset_lost says");
                metrics.lost(LostReason::Retention).increment(records);
            }
            Note::DamagedAtPosition(error) => {
                tracing::warn!(consumer = %name, %error, "the chunk that holds the position is damaged now; the next one will show whether anything of it was not read before");
            }
            Note::LeavingOut { wanted, error } => {
                tracing::error!(consumer = %name, %stream, wanted = wanted.0, %error, "a chunk cannot be read; it is left out as on_bad_message says, once the next one shows how far it reached");
            }
            Note::LeftOut { from, to, reason, error } => {
                let records = to.0.saturating_sub(from.0);
                tracing::error!(consumer = %name, %stream, from = from.0, to = to.0, up_to_records = records, %error, "a chunk that cannot be read was left out as on_bad_message says");
                metrics.lost(reason).increment(records);
            }
            Note::BatchLeftOut { first, records, reason, error } => {
                tracing::error!(consumer = %name, %stream, first_offset = first.0, records, %error, "a sub-entry batch cannot be read; left out as on_bad_message says");
                metrics.lost(reason).increment(records.into());
            }
            Note::SinkWorks { messages, bytes, took } => {
                self.sink_works(messages, bytes, took, now)
            }
            Note::SinkFailed { error, wait } => self.sink_failed(error, wait, now),
            Note::SinkStopped { reason, messages } => {
                metrics.sink_errors(reason).increment(1);
                metrics.written_messages.increment(messages);
            }
            Note::WoundUp { batches } => {
                tracing::info!(consumer = %name, batches, "shutdown_grace is half over: what the sink has not begun to write is left to the next start");
            }
            Note::Restarted => self.status.update(|facts| {
                facts.durable = None;
                facts.stored = None;
            }),
            Note::Skipped(skipped) => self.skipped(&skipped),
            Note::Progress(at) => self.status.update(|facts| facts.durable_at = Some(at)),
            Note::Store(end, error) => self.stored(end, error),
            Note::Unconfirmed => {
                tracing::warn!(consumer = %name, %stream, "the offset is not stored: the stream does not hold the position any more");
            }
            Note::SinkAborted => {
                tracing::error!(consumer = %name, %stream, "the sink did not end in time for another instance to take over: it was aborted, and what it had not made durable is read by that one");
            }
            Note::Active(active) => {
                if !active {
                    self.status.update(Facts::stand_by);
                }
                tracing::info!(consumer = %name, %stream, active, "the broker has chosen the active consumer");
            }
            Note::Internal(what) => tracing::error!(consumer = %name, "{what}"),
        }
    }

    fn subscribed(&mut self, resumption: &Resumption, base: Offset, resumed: bool, now: Moment) {
        let Resumption { plan, stored, bounds, node, version, .. } = resumption;
        tracing::info!(
            %node, broker = %version, from = %plan.subscribe,
            wanted = plan.wanted.map(|o| o.0), by = plan.origin.map(|o| o.to_string()),
            stored = stored.map(|o| o.0), "subscribed"
        );
        if let Some(past) = self.link_trouble.over(now.at) {
            let lasted_ms = past.lasted.as_millis();
            tracing::info!(attempts = past.attempts, lasted_ms, "connected again");
        }
        self.status.update(|facts| {
            facts.stored = *stored;
            facts.bounds = bounds.or(facts.bounds);
            facts.quiet_since = Some(now.at);
            facts.delivered = false;
            facts.foreign = false;
            facts.watch.heard(now.wall);
            if facts.durable.is_none() {
                facts.position = base.prev();
                facts.positioned = true;
                facts.durable = facts.position.filter(|_| resumed);
            }
        });
    }

    /// Logs a warning for a new error, and debug for a repeated one.
    fn not_connected(&mut self, error: &str, wait: Duration, now: Moment) {
        let wait_ms = wait.as_millis();
        match self.link_trouble.failed(error, now.at) {
            true => tracing::warn!(error, wait_ms, "not connected; trying again"),
            false => tracing::debug!(error, wait_ms, "not connected, as before; trying again"),
        }
    }

    fn sink_works(&mut self, messages: u64, bytes: u64, took: Option<Duration>, now: Moment) {
        let metrics = &self.status.metrics;
        metrics.written_messages.increment(messages);
        metrics.written_bytes.increment(bytes);
        if let Some(took) = took.filter(|_| messages > 0) {
            metrics.write_duration.record(took.as_secs_f64());
        }
        if let Some(past) = self.sink_trouble.over(now.at) {
            let lasted_ms = past.lasted.as_millis();
            tracing::info!(attempts = past.attempts, lasted_ms, "the sink works again");
        }
        self.status.update(|facts| {
            facts.sink_trouble = None;
            facts.sink_busy_since = None;
        });
    }

    /// Logs a warning for a new error, and debug for a repeated one.
    fn sink_failed(&mut self, error: String, wait: Duration, now: Moment) {
        self.status.metrics.sink_errors(SinkErrorReason::Transient).increment(1);
        let wait_ms = wait.as_millis();
        match self.sink_trouble.failed(&error, now.at) {
            true => tracing::warn!(error, wait_ms, "the sink failed; trying again"),
            false => tracing::debug!(error, wait_ms, "the sink failed as before; trying again"),
        }
        self.status.update(|facts| facts.sink_trouble = Some(error));
    }

    fn skipped(&self, skipped: &[BadRecord]) {
        let (name, stream, metrics) = (&self.spec.name, &self.spec.stream, &self.status.metrics);
        metrics.sink_errors(SinkErrorReason::Poison).increment(skipped.len() as u64);
        self.status.update(|facts| facts.skipped += skipped.len() as u64);
        let mut by_policy = Vec::new();
        for bad in skipped {
            let ordered = self.status.skips.done_with(bad.offset);
            let is_letter = ordered.unwrap_or(self.spec.on_bad) == OnBad::DeadLetter;
            match is_letter {
                true => metrics.dead_letters(dead_reason(bad.reason)).increment(1),
                false => metrics.lost(bad_reason(bad.reason)).increment(1),
            }
            let (offset, detail) = (bad.offset.0, &bad.detail);
            match (ordered.is_some(), is_letter) {
                (true, true) => {
                    tracing::warn!(consumer = %name, %stream, offset, detail, "a message cannot be written; it is among the dead letters by order of an operator");
                }
                (true, false) => {
                    tracing::error!(consumer = %name, %stream, offset, detail, "a message cannot be written; left out by order of an operator");
                }
                (false, _) => {
                    tracing::debug!(offset, detail, "cannot be written");
                    by_policy.push(bad);
                }
            }
        }
        let Some(first) = by_policy.first() else { return };
        let (messages, first_offset, detail) = (by_policy.len(), first.offset.0, &first.detail);
        if self.spec.on_bad == OnBad::DeadLetter {
            tracing::warn!(consumer = %name, %stream, messages, first_offset, detail, "messages cannot be written; they are among the dead letters");
        } else {
            tracing::error!(consumer = %name, %stream, messages, first_offset, detail, "messages cannot be written; left out as on_bad_message says");
        }
    }

    fn stored(&self, end: StoreEnd, error: Option<SourceError>) {
        let (name, metrics) = (&self.spec.name, &self.status.metrics);
        let counted = match end {
            StoreEnd::Stored(_) => StoreResult::Stored,
            StoreEnd::Higher { .. } | StoreEnd::NotArrived { .. } => StoreResult::NotConfirmed,
            StoreEnd::Failed => StoreResult::Failed,
            StoreEnd::Outdated => return,
        };
        metrics.offset_stores(counted).increment(1);
        match end {
            StoreEnd::Stored(held) => {
                self.status.update(|facts| {
                    facts.stored = Some(held);
                    facts.unstored_since = None;
                });
                tracing::debug!(offset = held.0, "offset stored");
            }
            StoreEnd::Higher { ours, theirs } => {
                tracing::error!(consumer = %name, reference = %self.spec.reference, ours = ours.0, theirs = theirs.0, "the broker holds a higher offset than was stored: does another process use this reference?");
            }
            StoreEnd::NotArrived { ours, held } => {
                tracing::warn!(consumer = %name, ours = ours.0, held = held.map(|o| o.0), "a stored offset did not arrive; storing it again");
            }
            StoreEnd::Failed | StoreEnd::Outdated => {
                let error = error.map(|error| error.to_string());
                tracing::warn!(consumer = %name, error, "the offset could not be stored; trying again");
            }
        }
    }
}

fn lost_reason(lost: &Lost) -> LostReason {
    match lost {
        Lost::Evicted { .. } => LostReason::Retention,
        Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => {
            LostReason::Recreated
        }
    }
}

fn dead_reason(reason: BadReason) -> DeadReason {
    match reason {
        BadReason::Undecodable => DeadReason::Undecodable,
        BadReason::OverLimit => DeadReason::OverLimit,
        BadReason::Misfit => DeadReason::Misfit,
        BadReason::Refused => DeadReason::Refused,
        BadReason::Program => DeadReason::Program,
    }
}

fn bad_reason(reason: BadReason) -> LostReason {
    match reason {
        BadReason::Undecodable => LostReason::Undecodable,
        BadReason::OverLimit => LostReason::OverLimit,
        BadReason::Misfit => LostReason::Misfit,
        BadReason::Refused => LostReason::Refused,
        BadReason::Program => LostReason::Program,
    }
}
