//! The worker's other half: what the sink reports, and what is stored on the broker.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::super::brain::{ReadBack, StoreEnd};
use super::super::session;
use super::super::sinking::{Report, Stopped};
use super::super::spec::{OnBad, Spec};
use super::super::state_file::StateFile;
use super::{Outcome, Restarting, Worker};
use crate::faults::{self, Point};
use crate::flow::beginning::Memory;
use crate::flow::ledger::Ticket;
use crate::flow::resume::Lost;
use crate::sink::{BadReason, BadRecord};
use crate::source::{ErrorKind, SourceError};
use crate::telemetry::{DeadReason, LostReason, RestartReason, SinkErrorReason, StoreResult};
use crate::types::{Checkpoint, Offset, Timestamp};

/// What came of storing an offset.
pub(super) struct Stored {
    result: Result<Option<Offset>, SourceError>,
}

/// The channel for the answer to a forced commit.
pub(super) type Answer = oneshot::Sender<Result<Option<Offset>, String>>;

pub(super) fn answer(waiter: Answer, result: Result<Option<Offset>, String>) {
    // Whoever asked may have stopped waiting.
    waiter.send(result).unwrap_or_default();
}

/// The running store, if there is one.
pub(super) async fn of(store: &mut Option<BoxFuture<'static, Stored>>) -> Stored {
    match store {
        Some(future) => {
            let stored = future.await;
            *store = None;
            stored
        }
        None => std::future::pending().await,
    }
}

impl Worker {
    pub(super) fn on_report(&mut self, report: Report) {
        let metrics = &self.status.metrics;
        match report {
            Report::Settled { tickets, messages, bytes, skipped, took } => {
                metrics.written_messages.increment(messages);
                metrics.written_bytes.increment(bytes);
                self.pace.wrote(took, Instant::now());
                if messages > 0 {
                    metrics.write_duration.record(took.as_secs_f64());
                }
                self.note_sink_works();
                self.status.update(|facts| {
                    facts.sink_trouble = None;
                    facts.sink_busy_since = None;
                });
                self.held = 0;
                self.flush_asked = false;
                self.note_skipped(&skipped);
                tickets.into_iter().for_each(|ticket| self.settle(ticket));
            }
            Report::Part { written, bytes, oldest, skipped } => {
                metrics.written_messages.increment(written.messages);
                metrics.written_bytes.increment(bytes);
                self.note_sink_works();
                self.status.update(|facts| {
                    facts.sink_trouble = None;
                    facts.sink_busy_since = None;
                });
                self.note_skipped(&skipped);
                written.tickets.into_iter().for_each(|ticket| self.settle(ticket));
                if let Some((ticket, checkpoint, messages)) = written.part {
                    match self.storing.advance(ticket, checkpoint, messages, oldest) {
                        Ok(moved) => self.note_progress(moved),
                        Err(error) => self.end(Outcome::Failed(format!("internal error: {error}"))),
                    }
                }
            }
            Report::WoundUp => {
                self.sink_alive = false;
                tracing::info!(consumer = %self.spec.name, batches = self.storing.ledger().under_way(), "shutdown_grace is half over: what the sink has not begun to write is left to the next start");
            }
            Report::Held { batches, skipped } => {
                if batches > 0 {
                    self.pace.holds();
                }
                self.held += batches;
                self.note_sink_works();
                self.status.update(|facts| {
                    facts.sink_trouble = None;
                    facts.sink_busy_since = None;
                });
                self.note_skipped(&skipped);
            }
            Report::Retrying { error, wait } => {
                metrics.sink_errors(SinkErrorReason::Transient).increment(1);
                self.note_sink_failed(&error, wait);
                self.status.update(|facts| facts.sink_trouble = Some(error));
            }
            Report::Restarted => {
                for waiter in self.storing.restart() {
                    answer(waiter, Err("the stream was created again meanwhile".to_owned()));
                }
                self.restarting = Restarting::No;
                self.status.update(|facts| {
                    facts.durable = None;
                    facts.stored = None;
                });
            }
            Report::Stopped(stopped) => self.on_sink_stopped(stopped),
        }
    }

    fn on_sink_stopped(&mut self, stopped: Stopped) {
        let Stopped { written, bad, reason } = stopped;
        let kind = if bad.is_empty() { SinkErrorReason::Fatal } else { SinkErrorReason::Poison };
        self.status.metrics.sink_errors(kind).increment(1);
        self.sink_alive = false;
        self.status.metrics.written_messages.increment(written.messages);
        written.tickets.into_iter().for_each(|ticket| self.settle(ticket));
        if let Some((ticket, checkpoint, messages)) = written.part {
            match self.storing.settle_part(ticket, checkpoint, messages) {
                Ok(moved) => self.note_progress(moved),
                Err(error) => tracing::error!(%error, "internal error in the ledger"),
            }
        }
        let hint = if bad.is_empty() || self.spec.on_bad == OnBad::DeadLetter {
            ""
        } else {
            ". To leave such messages out, set on_bad_message = \"skip\"; to set them aside, \
             \"dead_letter\""
        };
        self.end(Outcome::Halted(format!("{reason}{hint}")));
    }

    /// Says that the sink failed, where that is news.
    fn note_sink_failed(&mut self, error: &str, wait: std::time::Duration) {
        let wait_ms = wait.as_millis();
        match self.sink_trouble.failed(error, Instant::now()) {
            true => tracing::warn!(error, wait_ms, "the sink failed; trying again"),
            false => tracing::debug!(error, wait_ms, "the sink failed as before; trying again"),
        }
    }

    /// Says that the sink works again, where it had failed.
    fn note_sink_works(&mut self) {
        if let Some(past) = self.sink_trouble.over(Instant::now()) {
            let lasted_ms = past.lasted.as_millis();
            tracing::info!(attempts = past.attempts, lasted_ms, "the sink works again");
        }
    }

    /// Logs that there is no connection: as a warning where that is news.
    pub(super) fn note_not_connected(&mut self, error: &str, wait: std::time::Duration) {
        let wait_ms = wait.as_millis();
        match self.link_trouble.failed(error, Instant::now()) {
            true => tracing::warn!(error, wait_ms, "not connected; trying again"),
            false => tracing::debug!(error, wait_ms, "not connected, as before; trying again"),
        }
    }

    /// Logs that the stream can be read again, after failures.
    pub(super) fn note_connected(&mut self) {
        if let Some(past) = self.link_trouble.over(Instant::now()) {
            let lasted_ms = past.lasted.as_millis();
            tracing::info!(attempts = past.attempts, lasted_ms, "connected again");
        }
    }

    fn note_skipped(&self, skipped: &[BadRecord]) {
        let Some(first) = skipped.first() else { return };
        if self.spec.on_bad == OnBad::DeadLetter {
            for bad in skipped {
                self.status.metrics.sink_errors(SinkErrorReason::Poison).increment(1);
                let reason = match bad.reason {
                    BadReason::Undecodable => DeadReason::Undecodable,
                    BadReason::OverLimit => DeadReason::OverLimit,
                    BadReason::Misfit => DeadReason::Misfit,
                    BadReason::Refused => DeadReason::Refused,
                };
                self.status.metrics.dead_letters(reason).increment(1);
            }
            tracing::warn!(consumer = %self.spec.name, stream = %self.spec.stream, messages = skipped.len(), first_offset = first.offset.0, detail = %first.detail, "messages cannot be written; they are among the dead letters");
            return;
        }
        for bad in skipped {
            self.status.metrics.sink_errors(SinkErrorReason::Poison).increment(1);
            let reason = match bad.reason {
                BadReason::Undecodable => LostReason::Undecodable,
                BadReason::OverLimit => LostReason::OverLimit,
                BadReason::Misfit => LostReason::Misfit,
                BadReason::Refused => LostReason::Refused,
            };
            self.status.metrics.lost(reason).increment(1);
            tracing::debug!(offset = bad.offset.0, detail = %bad.detail, "left out");
        }
        tracing::error!(consumer = %self.spec.name, stream = %self.spec.stream, messages = skipped.len(), first_offset = first.offset.0, detail = %first.detail, "messages cannot be written; left out as on_bad_message says");
    }

    /// Notes that the ticket's batch is durable, or was given up by a policy.
    pub(super) fn settle(&mut self, ticket: Ticket) {
        match self.storing.settle(ticket) {
            Ok(moved) => self.note_progress(moved),
            Err(error) => self.end(Outcome::Failed(format!("internal error: {error}"))),
        }
    }

    fn note_progress(&mut self, moved: bool) {
        if moved {
            self.status.update(|facts| facts.durable_at = Some(Timestamp::now()));
        }
    }

    pub(super) fn count_lost(&self, reason: LostReason, messages: u64) {
        self.status.metrics.lost(reason).increment(messages);
    }

    /// A forced commit: what was accepted is finished first.
    pub(super) fn commit_now(&mut self, answer: Answer) {
        self.flush();
        self.storing.wait(answer);
    }

    /// When an offset will have to be stored, as far as it can be.
    pub(super) fn storing_deadline(&self) -> Option<Instant> {
        self.storing.deadline(self.link.connection().is_some())
    }

    /// Stores the durable offset, where that is due and possible.
    pub(super) fn start_storing(&mut self, now: Instant) {
        self.storing.forget_waiters(Answer::is_closed);
        let (done, stored) = self.storing.answerable();
        done.into_iter().for_each(|waiter| answer(waiter, Ok(stored)));
        let connection = self.link.connection().cloned();
        let checkpoint = self.storing.next_store(now, connection.is_some());
        let (Some(checkpoint), Some(connection)) = (checkpoint, connection) else { return };
        let spec = Arc::clone(&self.spec);
        let remembered = self.remembered.clone();
        self.store = Some(Box::pin(async move {
            let offset = checkpoint.offset;
            let result = session::store(&*connection, offset).await;
            if matches!(result, Ok(Some(held)) if held == offset) {
                faults::reach(Point::OffsetStored);
                remember(&spec, remembered, checkpoint).await;
            }
            Stored { result }
        }));
    }

    pub(super) fn on_stored(&mut self, stored: Stored) {
        let read_back = match &stored.result {
            Ok(held) => ReadBack::Held(*held),
            Err(_) => ReadBack::Failed,
        };
        let end = self.storing.stored(read_back, Instant::now());
        let metrics = &self.status.metrics;
        let name = &self.spec.name;
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
                let error = stored.result.err().map(|error| error.to_string());
                tracing::warn!(consumer = %name, error, "the offset could not be stored; trying again");
            }
        }
    }
}

/// Writes the state file where a disk that hangs holds nobody up but the next store.
async fn remember(spec: &Spec, remembered: StateFile, checkpoint: Checkpoint) {
    let written =
        tokio::task::spawn_blocking(move || remembered.write(Memory::Position(checkpoint))).await;
    let failed = match written {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(consumer = %spec.name, error = failed, "the position could not be remembered; if the broker evicts the stored offset, this reference will look new");
}

pub(super) fn lost_reason(lost: &Lost) -> LostReason {
    match lost {
        Lost::Evicted { .. } => LostReason::Retention,
        Lost::PastEnd { .. } | Lost::Rewritten { .. } | Lost::Forgotten { .. } => {
            LostReason::Recreated
        }
    }
}

pub(super) fn restart_reason(error: &SourceError) -> RestartReason {
    match error.kind() {
        ErrorKind::Connection => RestartReason::Connection,
        ErrorKind::Refused | ErrorKind::TooLarge | ErrorKind::Unreadable | ErrorKind::Violation => {
            RestartReason::Broker
        }
        ErrorKind::Missing | ErrorKind::Unavailable => RestartReason::Stream,
        ErrorKind::Overrun => RestartReason::Other,
    }
}
