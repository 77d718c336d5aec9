//! Calls of a sink, repeated while it returns transient errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Report, Stop};
use crate::consumer::dead_letters::{DeadLetters, Piece};
use crate::flow::backoff::Backoff;
use crate::flow::batch::Batch;
use crate::sink::{BadRecord, Durability, Sink, SinkError};

/// Retries calls of a sink while it returns transient errors.
pub(super) struct Retry<'a> {
    pub(super) reports: &'a mpsc::Sender<Report>,
    pub(super) backoff: Backoff,
    pub(super) stop: &'a Stop,
    /// How often a call was repeated.
    pub(super) retries: u64,
}

impl Retry<'_> {
    /// Flushes the sink.
    pub(super) async fn flush(&mut self, sink: &mut dyn Sink) -> Result<(), String> {
        self.backoff.reset();
        loop {
            match sink.flush().await {
                Ok(()) => return Ok(()),
                Err(SinkError::Transient { what, retry_after }) => {
                    self.wait(what, retry_after).await?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Makes the sink continue with a re-created stream.
    pub(super) async fn restart(&mut self, sink: &mut dyn Sink) -> Result<(), String> {
        self.backoff.reset();
        loop {
            match sink.restart().await {
                Ok(()) => return Ok(()),
                Err(SinkError::Transient { what, .. }) => self.wait(what, None).await?,
                Err(error) => {
                    return Err(format!(
                        "the data of the old incarnation of the stream could not be set aside: {error}"
                    ));
                }
            }
        }
    }

    /// Writes one whole batch.
    pub(super) async fn write_whole(
        &mut self,
        sink: &mut dyn Sink,
        batch: &Arc<Batch>,
    ) -> Result<Durability, Refusal> {
        self.backoff.reset();
        loop {
            match self.attempt(sink, batch, false).await? {
                Durability::Part(_) => {}
                done => return Ok(done),
            }
        }
    }

    /// Writes one batch, or part of it; when the time runs short, completes what is in flight.
    pub(super) async fn write(
        &mut self,
        sink: &mut dyn Sink,
        batch: &Arc<Batch>,
    ) -> Result<Durability, Refusal> {
        self.attempt(sink, batch, true).await
    }

    async fn attempt(
        &mut self,
        sink: &mut dyn Sink,
        batch: &Arc<Batch>,
        may_stop: bool,
    ) -> Result<Durability, Refusal> {
        loop {
            let winds_up = may_stop && self.stop.is_set();
            let written = match winds_up {
                true => sink.wind_up(batch).await,
                false => sink.write(batch).await,
            };
            match written {
                Ok(Durability::Part(None)) if winds_up => return Err(Refusal::WoundUp),
                Ok(durability) => return Ok(durability),
                Err(SinkError::Fatal(reason)) => return Err(Refusal::Fatal(reason)),
                // A sink that names no record would be called without end.
                Err(SinkError::Poison(bad)) if bad.is_empty() => {
                    return Err(Refusal::Fatal(
                        "the sink refused records without naming one".into(),
                    ));
                }
                Err(SinkError::Poison(bad)) => return Err(Refusal::Poison(bad)),
                // The signal came during the write: what was started is completed, and not retried.
                Err(SinkError::Transient { .. }) if may_stop && !winds_up && self.stop.is_set() => {
                }
                Err(SinkError::Transient { what, retry_after }) => {
                    self.wait(what, retry_after).await.map_err(Refusal::Fatal)?;
                }
            }
        }
    }

    /// Stores the offsets of these dead letters on disk.
    pub(super) async fn note(
        &mut self,
        letters: &mut DeadLetters,
        piece: &Piece,
    ) -> Result<(), String> {
        self.backoff.reset();
        while let Err(what) = letters.note(piece).await {
            self.wait(what, None).await?;
        }
        Ok(())
    }

    /// Reports a transient failure, and waits; only once when the time runs short.
    async fn wait(&mut self, what: String, retry_after: Option<Duration>) -> Result<(), String> {
        let wait = self.backoff.next(fastrand::f64()).max(retry_after.unwrap_or_default());
        let report = Report::Retrying { error: what, wait };
        self.reports.send(report).await.map_err(|_| GONE.to_owned())?;
        self.retries += 1;
        tokio::select! {
            () = self.stop.comes() => {}
            () = tokio::time::sleep(wait) => {}
        }
        Ok(())
    }
}

/// Result of the sink's task when its consumer is gone.
pub(super) const GONE: &str = "the consumer is gone";

/// Reason why a batch is not written again unchanged.
pub(super) enum Refusal {
    Poison(Vec<BadRecord>),
    Fatal(String),
    /// The time of a graceful shutdown runs short, and nothing is in flight any more.
    WoundUp,
}
