//! The loop around the [`brain`](super::brain): it waits for the next event, passes it to the brain, and
//! carries out the resulting actions.
//!
//! Only [`Worker::wait`] waits. Settlements are taken before new intake, so that memory is given back
//! before more is asked for.

mod connection;
mod reporting;
mod sink_task;
#[cfg(test)]
mod tests;
mod ticks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use self::connection::Connection;
use self::reporting::Reporter;
use self::sink_task::SinkTask;
use super::brain::{
    self, Action, Brain, Event, Moment, NotCommitted, Opened, Outcome, Surroundings,
};
use super::concluding;
use super::intake::Inflated;
use super::opening::{self, HoldSlot, OpenSinks, Resources};
use super::session;
use super::spec::Spec;
use super::state_file::StateFile;
use super::status::Status;
use crate::faults::{self, Point};
use crate::flow::beginning::Memory;
use crate::source::{Activation, Budget, SourceError};
use crate::sync::lock;
use crate::telemetry::operations::Operation;
use crate::telemetry::{Heartbeats, Pulse};
use crate::types::{Checkpoint, Offset, Timestamp};

/// Chunks taken in one turn, before the loop looks at anything else.
const CHUNKS_PER_TURN_MAX: usize = 64;

/// How long the loop may give no heartbeat before the watchdog and `/livez` call it stuck.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Time limit for closing the sink and the connection, once everything is settled and stored.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A command for a consumer.
#[derive(Debug)]
pub enum Command {
    /// Take nothing new, finish what is in flight, store the offset, and end.
    Drain,
    /// Finish what was accepted, store the offset now, and answer with what the broker holds.
    Commit(oneshot::Sender<Result<Option<Offset>, NotCommitted>>),
}

/// The channel for the answer to a forced commit.
type Answer = oneshot::Sender<Result<Option<Offset>, NotCommitted>>;

impl brain::Caller for Answer {
    fn is_gone(&self) -> bool {
        self.is_closed()
    }
}

struct Worker {
    spec: Arc<Spec>,
    brain: Brain<Answer>,
    reporter: Reporter,
    pulse: Pulse,
    commands: mpsc::Receiver<Command>,
    /// False once the command channel has closed.
    is_commanded: bool,
    resources: Resources,
    budget: Arc<Budget>,
    state_file: StateFile,
    /// The sink that is being opened.
    opening: Option<BoxFuture<'static, Result<OpenSinks, Outcome>>>,
    sink: Option<SinkTask>,
    connection: Connection,
    /// The store that is running.
    store: Option<BoxFuture<'static, Result<Option<Offset>, SourceError>>>,
    /// The drain, once it was ordered.
    draining: Option<Operation>,
    /// Room for what the brain decides; empty between two events.
    actions: Vec<Action<Answer>>,
}

/// Runs one reference until it is told to stop, has to stop, or fails.
///
/// Dropping the future stops it at once: what is not durable is read again next time.
pub async fn run(
    spec: Arc<Spec>,
    resources: Resources,
    status: Arc<Status>,
    commands: mpsc::Receiver<Command>,
    heartbeats: &Heartbeats,
) -> Outcome {
    let budget = Budget::new(spec.chunk_budget_bytes());
    let inflated = Arc::new(Inflated::default());
    let state_file = StateFile::of(&spec);
    let path = state_file.path().to_owned();
    let random = fastrand::Rng::new();
    let worker = Worker {
        brain: Brain::new(Arc::clone(&spec), path, Arc::clone(&inflated), random, now()),
        reporter: Reporter::new(Arc::clone(&spec), status, Arc::clone(&budget), inflated),
        pulse: heartbeats.register_consumer(&spec.key(), SILENCE_MAX),
        commands,
        is_commanded: true,
        resources,
        connection: Connection::new(Arc::clone(&spec), Arc::clone(&budget)),
        budget,
        state_file,
        opening: None,
        sink: None,
        store: None,
        draining: None,
        actions: Vec::new(),
        spec,
    };
    worker.run().await
}

fn now() -> Moment {
    Moment { at: Instant::now(), wall: Timestamp::now() }
}

/// Waits for the future if there is one, and removes it when it has ended. Cancel-safe.
async fn of<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(running) => {
            let value = running.await;
            *future = None;
            value
        }
        None => std::future::pending().await,
    }
}

impl Worker {
    async fn run(mut self) -> Outcome {
        loop {
            let around = Surroundings {
                credit: self.budget.has_credit(),
                waiting: self.connection.has_event(),
            };
            self.tell(Event::Due(around));
            self.reporter.publish(&self.brain.view());
            if let Some(outcome) = self.brain.finished() {
                let outcome = outcome.clone();
                return self.close(outcome).await;
            }
            let event = self.wait().await;
            self.pulse.touch();
            if let Some(event) = event {
                let is_of_source = matches!(event, Event::Delivered(_));
                if matches!(event, Event::SinkClosed) {
                    self.release();
                }
                self.tell(event);
                if is_of_source {
                    self.take_more();
                }
            }
        }
    }

    /// Takes events that have arrived already, as far as the brain has room for them.
    fn take_more(&mut self) {
        for _ in 1..CHUNKS_PER_TURN_MAX {
            if !self.brain.takes_events() {
                return;
            }
            // An event that is taken here must be used: it cannot be put back.
            match self.connection.try_next() {
                Some(event) => self.tell(event),
                None => return,
            }
        }
    }

    /// Waits for the next event. Cancel-safe: nothing is taken that is not returned.
    async fn wait(&mut self) -> Option<Event<Answer>> {
        let tick = ticks::next(Instant::now());
        let due = self.brain.deadline().map_or(tick, |due| due.min(tick));
        let takes_events = self.brain.takes_events();
        tokio::select! {
            biased;
            command = self.commands.recv(), if self.is_commanded => Some(match command {
                Some(Command::Commit(answer)) => Event::Commit(answer),
                Some(Command::Drain) => Event::Drain,
                None => {
                    self.is_commanded = false;
                    Event::Drain
                }
            }),
            opened = of(&mut self.opening) => Some(self.on_opened(opened)),
            event = sink_task::next(&mut self.sink) => Some(event),
            stored = of(&mut self.store) => Some(Event::Stored(stored)),
            event = self.connection.next(takes_events) => Some(event),
            () = tokio::time::sleep_until(due.into()) => None,
        }
    }

    fn on_opened(&mut self, opened: Result<OpenSinks, Outcome>) -> Event<Answer> {
        let OpenSinks { sink, letters, position, remembered } = match opened {
            Ok(opened) => opened,
            Err(outcome) => return Event::Opened(Err(outcome)),
        };
        self.reporter.opened();
        let sieve = self.reporter.sieve();
        let skips = self.reporter.skips();
        let (task, orders_max) = SinkTask::spawn(&self.spec, sink, letters, sieve, skips);
        self.sink = Some(task);
        Event::Opened(Ok(Opened { position, remembered, orders_max }))
    }

    /// Passes an event to the brain, and carries out the resulting actions.
    fn tell(&mut self, event: Event<Answer>) {
        let now = now();
        let mut actions = std::mem::take(&mut self.actions);
        if matches!(event, Event::Drain) && self.draining.is_none() {
            self.draining = Some(self.spec.operations().drain());
        }
        self.brain.apply(event, now, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action, now);
        }
        self.actions = actions;
    }

    fn carry_out(&mut self, action: Action<Answer>, now: Moment) {
        match action {
            Action::OpenSink => {
                let (spec, resources) = (Arc::clone(&self.spec), self.resources.clone());
                self.opening = Some(opening::open(spec, resources));
            }
            Action::AbortOpening => {
                self.opening = None;
                self.release();
            }
            Action::CloseSink => self.sink.iter_mut().for_each(SinkTask::close),
            Action::AbortSink => {
                self.sink = None;
                self.release();
            }
            Action::Write(order) => {
                self.sink.iter().for_each(|_| faults::reach(Point::Received));
                self.send(sink_task::Message::Write(order));
            }
            Action::Flush => self.send(sink_task::Message::Flush),
            Action::Restart => self.send(sink_task::Message::Restart),
            Action::StopSink => self.sink.iter().for_each(SinkTask::stop),
            Action::Connect(purpose) => self.connection.connect(*purpose),
            Action::Resume(own) => self.connection.resume(*own),
            Action::Verify(position) => self.connection.verify(position),
            Action::StopReading => self.connection.stop_reading(),
            Action::Disconnect => self.connection.disconnect(),
            Action::AnswerActivation(start) => self.connection.answer(start),
            Action::Ask { from, to } => self.connection.ask(from, to),
            Action::Pass(question) => self.connection.pass(question),
            Action::Store(checkpoint) => self.store(checkpoint),
            // The caller may have stopped waiting.
            Action::Answer(caller, result) => caller.send(result).unwrap_or_default(),
            Action::Note(note) => self.reporter.note(note, now),
        }
    }

    /// Releases the lock of the reference: the next active consumer may be on this machine.
    fn release(&self) {
        give_back(self.hold_of_the_active());
    }

    /// The lock that only the active consumer holds, if the broker decides which one that is.
    fn hold_of_the_active(&self) -> Option<HoldSlot> {
        let by_broker = self.spec.source.activation() == Activation::ByBroker;
        self.resources.hold.clone().filter(|_| by_broker)
    }

    fn send(&self, message: sink_task::Message) {
        if let Some(sink) = &self.sink {
            sink.send(message);
        }
    }

    fn store(&mut self, checkpoint: Checkpoint) {
        let Some(link) = self.connection.link().cloned() else { return };
        let (spec, state_file) = (Arc::clone(&self.spec), self.state_file.clone());
        self.store = Some(Box::pin(async move {
            let offset = checkpoint.offset;
            let operation = spec.operations().store_offset(offset);
            let held = session::store(&*link, offset).await;
            operation.held(held.as_ref().ok().copied().flatten());
            operation.end(&held);
            let held = held?;
            if held == Some(offset) {
                faults::reach(Point::OffsetStored);
                remember(&spec, state_file, checkpoint).await;
            }
            Ok(held)
        }));
    }

    /// Closes the sink, and then the connection, within a time limit.
    async fn close(mut self, outcome: Outcome) -> Outcome {
        let draining = self.draining.take();
        for caller in self.brain.take_waiters() {
            caller.send(Err(NotCommitted::Ended)).unwrap_or_default();
        }
        let (sink, link) = (self.sink.take(), self.connection.link().cloned());
        let hold = self.hold_of_the_active();
        let closed = async {
            let ended = match sink {
                Some(sink) => sink.join().await,
                None => Ok(()),
            };
            give_back(hold);
            if let Some(link) = link {
                link.close().await;
            }
            ended
        };
        let outcome = match tokio::time::timeout(CLOSE_MAX, closed).await {
            Ok(Ok(())) => outcome,
            Ok(Err(error)) if error.is_panic() => {
                // The panic's own message was logged where it happened.
                Outcome::Panicked("the sink panicked".to_owned())
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    timeout_ms = CLOSE_MAX.as_millis(),
                    "closing the sink or the connection timed out"
                );
                outcome
            }
        };
        if let Some(draining) = draining {
            concluding::by_outcome(draining, &outcome);
        }
        outcome
    }
}

fn give_back(hold: Option<HoldSlot>) {
    if let Some(slot) = hold {
        drop(lock(&slot).take());
    }
}

/// Writes the state file on a thread where a disk that hangs delays nothing but the next store.
async fn remember(spec: &Spec, state_file: StateFile, checkpoint: Checkpoint) {
    let write = move || state_file.write(Memory::Position(checkpoint));
    let failed = match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(consumer = %spec.name, error = failed, "the position could not be written to the state file; if the broker evicts the stored offset, this reference will look new");
}
