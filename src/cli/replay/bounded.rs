//! A sink that takes the messages of a range, and no others, and tells when all of them are durable.
//!
//! What it passes on to the real sink ends exactly at the last offset of the range; what comes behind it
//! counts as written, so that the reader can end. Nothing is done before everything is durable: a sink
//! that holds what it was given is flushed first.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::flow::batch::Batch;
use crate::sink::factory::SinkFactory;
use crate::sink::{Durability, Sink, SinkError};
use crate::sync::lock;
use crate::types::{Checkpoint, Guarantee, Offset};

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Number of messages that the sink has accepted.
    pub(super) written: u64,
    /// Number of messages of the range that were read.
    pub(super) read: u64,
    /// Last offset that the sink has accepted, or that was left out.
    pub(super) upto: Option<Offset>,
}

#[derive(Default)]
struct State {
    /// With what the sink holds.
    accepted: Counts,
    /// Without that.
    durable: Counts,
    /// Position to which an earlier run came.
    found: Option<Offset>,
}

/// The end of a range, and the way there.
pub(super) struct Range {
    pub(super) from: Offset,
    pub(super) upto: Offset,
    state: Mutex<State>,
    is_done: watch::Sender<bool>,
}

impl Range {
    pub(super) fn new(from: Offset, upto: Offset) -> Arc<Range> {
        let state = Mutex::default();
        Arc::new(Range { from, upto, state, is_done: watch::Sender::new(false) })
    }

    /// What is durable.
    pub(super) fn counts(&self) -> Counts {
        lock(&self.state).durable
    }

    /// Position to which an earlier run came; `None` if there was none.
    pub(super) fn before(&self) -> Option<Offset> {
        lock(&self.state).found
    }

    /// Records that an earlier run came there, and left nothing to do up to there.
    pub(super) fn found(&self, at: Offset) {
        self.stands_at(at);
        if at >= self.upto {
            self.is_done.send_replace(true);
        }
    }

    /// Records that the sink stands there. Only when it is open it is known whether it has something to finish.
    pub(super) fn stands_at(&self, at: Offset) {
        let mut state = lock(&self.state);
        let first = state.durable.upto.is_none();
        state.durable.upto = state.durable.upto.max(Some(at));
        state.accepted.upto = state.accepted.upto.max(Some(at));
        if first {
            state.found = Some(at);
        }
    }

    /// Number of offsets of the range that are done.
    pub(super) fn reached(&self) -> u64 {
        let accepted = lock(&self.state).accepted.upto;
        let upto = accepted.map_or(self.from, |offset| offset.min(self.upto).next());
        upto.0.saturating_sub(self.from.0)
    }

    /// Waits until all of it is durable. Cancel-safe.
    pub(super) async fn done(&self) {
        // The sender lives as long as `self`.
        drop(self.is_done.subscribe().wait_for(|done| *done).await);
    }

    pub(super) fn is_done(&self) -> bool {
        *self.is_done.borrow()
    }

    /// A sink is opened: what a former one held is read again.
    fn opened(&self) {
        let mut state = lock(&self.state);
        state.accepted = state.durable;
    }

    fn accepted(&self, batch: &Batch) {
        let mut state = lock(&self.state);
        state.accepted.written += batch.messages();
        let read = batch.parts().iter().map(|part| u64::from(part.block.count()));
        state.accepted.read += read.sum::<u64>();
        state.accepted.upto = state.accepted.upto.max(Some(batch.last_offset()));
    }

    /// Everything that was accepted is durable.
    fn durable(&self) {
        let mut state = lock(&self.state);
        state.durable = state.accepted;
    }
}

/// A factory of sinks that take this range.
pub(super) fn bounded(open: SinkFactory, range: &Arc<Range>) -> SinkFactory {
    let range = Arc::clone(range);
    Arc::new(move || {
        let (opening, range) = (open(), Arc::clone(&range));
        Box::pin(async move {
            let sink = opening.await?;
            range.opened();
            let (is_holding, is_over) = (false, false);
            Ok(Box::new(Bounded { sink, range, is_holding, is_over }) as Box<dyn Sink>)
        })
    })
}

struct Bounded {
    sink: Box<dyn Sink>,
    range: Arc<Range>,
    /// The sink holds what is not durable.
    is_holding: bool,
    /// The last message of the range was accepted.
    is_over: bool,
}

/// Which of the sink's methods is called with a batch.
#[derive(Clone, Copy)]
enum Call {
    Write,
    WindUp,
}

impl Bounded {
    async fn pass(&mut self, batch: &Arc<Batch>, call: Call) -> Result<Durability, SinkError> {
        let upto = self.range.upto;
        let wanted = match batch.last_offset() > upto {
            true => batch.before(upto.next()).map(Arc::new),
            false => Some(Arc::clone(batch)),
        };
        let reaches = batch.last_offset() >= upto;
        let Some(wanted) = wanted else { return Ok(self.over()) };
        let written = match call {
            Call::Write => self.sink.write(&wanted).await,
            Call::WindUp => self.sink.wind_up(&wanted).await,
        };
        match written {
            Ok(Durability::Part(part)) => {
                if let Some(done) = part.and_then(|part| wanted.before(part.next())) {
                    self.range.accepted(&done);
                    self.range.durable();
                }
                Ok(Durability::Part(part))
            }
            Ok(durability) => {
                self.range.accepted(&wanted);
                self.is_holding = durability == Durability::Held;
                if !self.is_holding {
                    self.range.durable();
                }
                match reaches {
                    true => Ok(self.over()),
                    false => Ok(durability),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The range has come to its end: all of it is done, once it is durable.
    fn over(&mut self) -> Durability {
        self.is_over = true;
        if self.is_holding {
            return Durability::Held;
        }
        self.range.is_done.send_replace(true);
        Durability::Durable
    }
}

#[async_trait]
impl Sink for Bounded {
    fn kind(&self) -> &'static str {
        self.sink.kind()
    }

    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        let position = self.sink.position().await?;
        if let Some(at) = position.map(|position| position.offset) {
            if at.next() < self.range.from || at > self.range.upto {
                return Err(SinkError::Fatal(format!(
                    "the sink holds this stream up to offset {at}, from elsewhere than this replay (offsets {} to \
                     {}): something else writes there. Name an empty place with --sink",
                    self.range.from, self.range.upto
                )));
            }
            match self.sink.flush_at() {
                // What an earlier run has claimed counts, and is finished by the first flush.
                Some(_) if at >= self.range.upto => {
                    self.range.stands_at(at);
                    (self.is_over, self.is_holding) = (true, true);
                }
                _ => self.range.found(at),
            }
        }
        Ok(position)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.pass(batch, Call::Write).await
    }

    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.pass(batch, Call::WindUp).await
    }

    fn flush_at(&self) -> Option<Instant> {
        match self.is_over && self.is_holding {
            true => Some(Instant::now()),
            false => self.sink.flush_at(),
        }
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush().await?;
        self.is_holding = false;
        self.range.durable();
        if self.is_over {
            self.range.is_done.send_replace(true);
        }
        Ok(())
    }

    fn joins_batches(&self) -> bool {
        self.sink.joins_batches()
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        Err(SinkError::Fatal(
            "the stream was deleted and created again during the replay: its offsets mean other messages \
             now"
                .to_owned(),
        ))
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.sink.close().await
    }
}

#[cfg(test)]
mod tests;
