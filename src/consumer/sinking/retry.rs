//! Calls of a sink that are repeated for as long as it says that they may work later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Report, Stop};
use crate::consumer::dead_letters::{DeadLetters, Piece};
use crate::flow::backoff::Backoff;
use crate::flow::batch::Batch;
use crate::sink::{BadRecord, Durability, Sink, SinkError};

/// Tries again for as long as a sink says that it may work later.
pub(super) struct Retry<'a> {
    pub(super) reports: &'a mpsc::Sender<Report>,
    pub(super) backoff: Backoff,
    pub(super) stop: &'a Stop,
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

    /// Has the sink begin a new history.
    pub(super) async fn restart(&mut self, sink: &mut dyn Sink) -> Result<(), String> {
        self.backoff.reset();
        loop {
            match sink.restart().await {
                Ok(()) => return Ok(()),
                Err(SinkError::Transient { what, .. }) => self.wait(what, None).await?,
                Err(error) => {
                    return Err(format!("the former history could not be set aside: {error}"));
                }
            }
        }
    }

    /// Writes one batch to its end.
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

    /// Writes one batch, or part of it; once the time runs short, ends what is under way.
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
                // A sink that names no record would be asked for ever.
                Err(SinkError::Poison(bad)) if bad.is_empty() => {
                    return Err(Refusal::Fatal(
                        "the sink refused records without naming one".into(),
                    ));
                }
                Err(SinkError::Poison(bad)) => return Err(Refusal::Poison(bad)),
                // The word came while it was written: what has begun is to be ended, and not repeated.
                Err(SinkError::Transient { .. }) if may_stop && !winds_up && self.stop.is_set() => {
                }
                Err(SinkError::Transient { what, retry_after }) => {
                    self.wait(what, retry_after).await.map_err(Refusal::Fatal)?;
                }
            }
        }
    }

    /// Has it on disk that these letters come.
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

    /// Reports a failure that may pass, and waits; not on and on once the time runs short.
    async fn wait(&mut self, what: String, retry_after: Option<Duration>) -> Result<(), String> {
        let wait = self.backoff.next(fastrand::f64()).max(retry_after.unwrap_or_default());
        let report = Report::Retrying { error: what, wait };
        self.reports.send(report).await.map_err(|_| GONE.to_owned())?;
        tokio::select! {
            () = self.stop.comes() => {}
            () = tokio::time::sleep(wait) => {}
        }
        Ok(())
    }
}

/// What ends the sink's task when there is nobody left to tell.
pub(super) const GONE: &str = "the consumer is gone";

/// Why a batch is not tried again as it is.
pub(super) enum Refusal {
    Poison(Vec<BadRecord>),
    Fatal(String),
    /// The time of a graceful shutdown runs short, and nothing is under way any more.
    WoundUp,
}
