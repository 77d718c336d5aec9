//! The consumer's loop.
//!
//! One turn: [`Worker::prepare`] does whatever is due, [`Worker::wait`] waits for the next thing to
//! happen, [`Worker::apply`] takes it in. Only `wait` waits. Settlements are taken before new
//! intake, so that memory is given back before more is asked for.

mod ending;
mod intaking;
mod link;
mod settling;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use self::ending::AbortOnDrop;
use self::link::{Asked, Link, Linked};
use self::settling::{Answer, Stored};
use super::brain::Storing;
use super::dead_letters::DeadLetters;
use super::intake::Inflated;
use super::joined::{JOINED_MAX, Order};
use super::session::{Own, SessionError};
use super::sinking::{self, Message, Report, Stop};
use super::spec::Spec;
use super::state_file::StateFile;
use super::status::Status;
use crate::faults::{self, Point};
use crate::flow::backoff::Backoff;
use crate::flow::batch::Batch;
use crate::flow::beginning::Memory;
use crate::flow::cutter::Cutter;
use crate::flow::pace::Pace;
use crate::flow::resume::{Doubts, Origin};
use crate::flow::trouble::Trouble;
use crate::sink::{Sink, SinkError};
use crate::source::{Budget, Event, Prefer, SourceError};
use crate::telemetry::{Heartbeats, Pulse, State};
use crate::types::{Checkpoint, Offset};

/// Batches that wait for the sink, beside the one that it writes.
const ORDERS_MAX: usize = 2;

/// Chunks taken in one turn, before the loop looks at anything else.
const CHUNKS_PER_TURN_MAX: usize = 64;

/// The longest that the loop sleeps: it shows that it is alive.
const TICK: Duration = Duration::from_secs(1);

/// How long the loop may show no sign of life before the watchdog and `/livez` call it stuck.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a consumer can be told.
#[derive(Debug)]
pub enum Command {
    /// Take nothing new, finish what is under way, store the offset, and end.
    Drain,
    /// Finish what was accepted, store the offset now, and answer with what the broker holds.
    Commit(oneshot::Sender<Result<Option<Offset>, String>>),
}

/// How a consumer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it was told; everything is stored.
    Drained,
    /// It does not go on before a person acts.
    Halted(String),
    /// It may go on if it is started anew.
    Failed(String),
    /// So it may after a panic of its sink, which is a fault in this program.
    Panicked(String),
}

/// What happened while the loop waited.
enum Turn {
    Command(Option<Command>),
    Report(Option<Report>),
    Stored(Stored),
    Linked(Result<Linked, SessionError>),
    Event(Option<Event>),
    Asked(Result<Asked, SourceError>),
    Due,
}

/// Whether it begins anew after a loss. Nothing is read meanwhile, and no beginning is kept: what
/// was accepted before has to be durable first, or the beginning would speak for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restarting {
    No,
    /// Once everything under way is settled.
    Settling,
    /// The same, and then the sink is told that a new history begins.
    Wanted,
    /// Until the sink answers.
    Told,
}

struct Worker {
    spec: Arc<Spec>,
    status: Arc<Status>,
    pulse: Pulse,
    commands: mpsc::Receiver<Command>,
    /// Whoever commands may go away, and says nothing more then.
    commanded: bool,
    orders: mpsc::Sender<Message>,
    reports: mpsc::Receiver<Report>,
    sink_alive: bool,
    /// Tells the sink's task that the time to drain runs short, and when to.
    stop: Stop,
    stop_at: Option<Instant>,
    /// What its writes fail with, for the log.
    sink_trouble: Trouble,
    /// Failures to connect in a row, for the log.
    link_trouble: Trouble,
    /// Batches that the sink has taken and holds back.
    held: usize,
    /// It was asked to make them durable.
    flush_asked: bool,
    remembered: StateFile,
    storing: Storing<Answer>,
    cutter: Cutter,
    pace: Pace,
    ready: VecDeque<Order>,
    budget: Arc<Budget>,
    inflated: Arc<Inflated>,
    link: Link,
    backoff: Backoff,
    own: Own,
    restarting: Restarting,
    /// Whether the stream still holds the position.
    doubts: Doubts,
    /// How often in a row the chunk at this offset could not be read.
    unreadable: Option<(Offset, u32)>,
    /// The store that is running.
    store: Option<BoxFuture<'static, Stored>>,
    ending: Option<Outcome>,
    turned: Instant,
}

/// Runs one reference until it is told to stop, must stop, or fails.
///
/// Dropping the future stops it at once: what is not durable is read again next time.
pub async fn run(
    spec: Arc<Spec>,
    mut sink: Box<dyn Sink>,
    letters: Option<Box<dyn Sink>>,
    status: Arc<Status>,
    commands: mpsc::Receiver<Command>,
    heartbeats: &Heartbeats,
) -> Outcome {
    status.set_state(State::Starting, None);
    let position = match position_of(&mut *sink, "sink").await {
        Ok(position) => position,
        Err(outcome) => return outcome,
    };
    let letters = match letters {
        None => None,
        Some(mut letters) => match position_of(&mut *letters, "dead letters").await {
            Err(outcome) => return outcome,
            Ok(at) => {
                let (spec, at) = (Arc::clone(&spec), at.map(|c| c.offset));
                let opened =
                    tokio::task::spawn_blocking(move || DeadLetters::new(letters, spec, at));
                let failed = |what: String| format!("reading which dead letters there are: {what}");
                match opened.await {
                    Ok(Ok(letters)) => Some(letters),
                    Ok(Err(error)) => return Outcome::Halted(failed(error.to_string())),
                    Err(error) => return Outcome::Failed(failed(error.to_string())),
                }
            }
        },
    };
    let remembered = StateFile::of(&spec);
    let reading = remembered.clone();
    // A disk that hangs holds up this consumer, and no thread that others need.
    let memory = match tokio::task::spawn_blocking(move || reading.read()).await {
        Ok(Ok(memory)) => memory,
        Ok(Err(error)) => return Outcome::Halted(error.to_string()),
        Err(error) => return Outcome::Failed(format!("reading the state file: {error}")),
    };
    // A policy let a loss pass, and the sink has written nothing since: its position is of before.
    let began = memory.and_then(|memory: Memory| memory.beginning());
    let position = position.filter(|at| !began.is_some_and(|began| began.replaces(at)));
    let is_new_history = position.is_none() && began.is_some_and(|began| began.is_new_history());
    let now = Instant::now();
    let orders_max = if sink.joins_batches() { JOINED_MAX } else { ORDERS_MAX };
    let (orders, receive_orders) = mpsc::channel(orders_max);
    let (send_reports, reports) = mpsc::channel(orders_max);
    let backoff = Backoff::new(spec.backoff_min, spec.backoff_max);
    let stop = Stop::default();
    let sink_task = AbortOnDrop(tokio::spawn(
        sinking::run(
            sink,
            letters,
            receive_orders,
            send_reports,
            spec.on_bad,
            (backoff, stop.clone()),
        )
        .in_current_span(),
    ));

    // Not before: opening a sink may take as long as it likes, the loop may not.
    let pulse = heartbeats.register_consumer(&spec.key(), SILENCE_MAX);
    let worker = Worker {
        pulse,
        commands,
        commanded: true,
        orders,
        reports,
        sink_alive: true,
        stop,
        stop_at: None,
        sink_trouble: Trouble::default(),
        link_trouble: Trouble::default(),
        held: 0,
        flush_asked: false,
        remembered,
        storing: Storing::new(spec.commit, position, now),
        cutter: Cutter::new(spec.stream.clone(), spec.batch),
        pace: Pace::new(spec.batch.max_age),
        ready: VecDeque::new(),
        budget: Budget::new(spec.chunk_budget_bytes()),
        inflated: Arc::default(),
        link: Link::Down { until: now },
        backoff,
        own: Own {
            position: position.map(|p| (Origin::Sink, p)),
            remembered: memory,
            anew: None,
            prefer: Prefer::Replica,
        },
        restarting: if is_new_history { Restarting::Wanted } else { Restarting::No },
        doubts: Doubts::default(),
        unreadable: None,
        store: None,
        ending: None,
        turned: now,
        spec,
        status,
    };
    worker.run(sink_task).await
}

async fn position_of(sink: &mut dyn Sink, which: &str) -> Result<Option<Checkpoint>, Outcome> {
    sink.position().await.map_err(|error| {
        let what = format!("the {which}'s position: {error}");
        match error {
            SinkError::Transient { .. } => Outcome::Failed(what),
            SinkError::Poison(_) | SinkError::Fatal(_) => Outcome::Halted(what),
        }
    })
}

impl Worker {
    async fn run(mut self, sink_task: AbortOnDrop) -> Outcome {
        self.status.metrics.buffer_limit_bytes.set(self.spec.memory_bytes as f64);
        loop {
            self.prepare(Instant::now());
            self.publish();
            if let Some(outcome) = self.finished() {
                return self.close(sink_task, outcome).await;
            }
            let turn = self.wait().await;
            self.pulse.touch();
            self.apply(turn);
        }
    }

    /// Does whatever is due, without waiting.
    fn prepare(&mut self, now: Instant) {
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop.set();
            self.stop_at = None;
        }
        let starved = !self.cutter.is_empty()
            && self.storing.ledger().unsettled() == self.held
            && !self.budget.has_credit()
            && self.link.queue_is_empty();
        if starved || self.is_batch_due(now) {
            self.flush();
        }
        self.hand_over();
        self.continue_chunk(now);
        self.hand_over();
        self.start_storing(now);
        self.start_linking(now);
    }

    /// Waits for one thing to happen. Cancel-safe: nothing is taken that is not returned.
    async fn wait(&mut self) -> Turn {
        let due = tokio::time::Instant::from_std(self.next_deadline());
        let intake = self.ready.is_empty() && self.ending.is_none() && !self.is_restarting();
        tokio::select! {
            biased;
            command = self.commands.recv(), if self.commanded => Turn::Command(command),
            report = self.reports.recv(), if self.sink_alive => Turn::Report(report),
            stored = settling::of(&mut self.store) => Turn::Stored(stored),
            turn = self.link.next(intake) => turn,
            () = tokio::time::sleep_until(due) => Turn::Due,
        }
    }

    fn apply(&mut self, turn: Turn) {
        match turn {
            Turn::Command(Some(Command::Drain)) => self.end(Outcome::Drained),
            Turn::Command(None) => {
                self.commanded = false;
                self.end(Outcome::Drained);
            }
            Turn::Command(Some(Command::Commit(answer))) => self.commit_now(answer),
            Turn::Report(Some(report)) => self.on_report(report),
            Turn::Report(None) => {
                self.sink_alive = false;
                self.end(Outcome::Failed("the sink's task ended unexpectedly".to_owned()));
            }
            Turn::Stored(stored) => self.on_stored(stored),
            Turn::Linked(linked) => self.on_linked(linked),
            Turn::Event(event) => self.on_event(event),
            Turn::Asked(asked) => self.on_asked(asked),
            Turn::Due => {}
        }
    }

    fn next_deadline(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let link = self.link.deadline().filter(|_| self.may_link());
        [self.batch_deadline(), self.storing_deadline(), link, self.stop_at]
            .into_iter()
            .flatten()
            .fold(tick, Instant::min)
    }

    /// Whether the batch under way goes to the sink as it is: by its age, or because the sink is idle
    /// and nothing more is there to be taken at once.
    fn is_batch_due(&mut self, now: Instant) -> bool {
        let Some(since) = self.cutter.since() else { return false };
        self.pace.by_age(since) <= now
            || (self.sink_is_idle() && self.pace.while_idle(since) <= now && !self.link.has_more())
    }

    fn batch_deadline(&self) -> Option<Instant> {
        let since = self.cutter.since()?;
        Some(match self.sink_is_idle() {
            true => self.pace.while_idle(since),
            false => self.pace.by_age(since),
        })
    }

    fn sink_is_idle(&self) -> bool {
        self.ready.is_empty() && self.storing.ledger().unsettled() == 0
    }

    /// Cuts the batch under way.
    fn flush(&mut self) {
        if let Some(batch) = self.cutter.flush() {
            self.cut(batch);
        }
    }

    fn cut(&mut self, batch: Batch) {
        let opened = self.storing.open(batch.checkpoint(), batch.messages(), batch.oldest());
        match opened {
            Ok(ticket) => self.ready.push_back(Order { ticket, batch }),
            Err(error) => self.end(Outcome::Failed(format!("internal error: {error}"))),
        }
    }

    /// Gives the sink what is cut, as far as it takes it.
    fn hand_over(&mut self) {
        while let Some(order) = self.ready.pop_front() {
            match self.orders.try_send(Message::Write(order)) {
                Ok(()) => faults::reach(Point::Received),
                Err(mpsc::error::TrySendError::Full(Message::Write(order))) => {
                    self.ready.push_front(order);
                    return;
                }
                // The sink's task is gone; its last report says why.
                Err(_) => return,
            }
        }
        self.ask_for_flush();
        // A store under way speaks of what was before.
        let idle = self.cutter.is_empty()
            && self.storing.ledger().under_way() == 0
            && self.store.is_none();
        match self.restarting {
            Restarting::Settling if idle => self.restarting = Restarting::No,
            Restarting::Wanted if idle && self.orders.try_send(Message::Restart).is_ok() => {
                self.restarting = Restarting::Told;
            }
            _ => {}
        }
    }

    /// Where everything has to be durable, and all that is not is held by the sink, asks it for that.
    fn ask_for_flush(&mut self) {
        let wanted = self.ending.is_some()
            || self.storing.is_awaited()
            || matches!(self.restarting, Restarting::Settling | Restarting::Wanted);
        if wanted
            && !self.flush_asked
            && self.held > 0
            && self.held == self.storing.ledger().unsettled()
            && self.orders.try_send(Message::Flush).is_ok()
        {
            self.flush_asked = true;
        }
    }

    fn is_restarting(&self) -> bool {
        self.restarting != Restarting::No
    }

    /// Shows others where it is.
    fn publish(&mut self) {
        let now = Instant::now();
        let credit = self.budget.has_credit();
        if !credit && self.link.is_up() {
            self.status.metrics.backpressure.add(now - self.turned);
        }
        self.turned = now;
        let buffered = self.budget.buffered() + self.inflated.bytes();
        let oldest =
            self.storing.ledger().oldest().or(self.cutter.oldest().map(|chunk| chunk.timestamp));
        let durable = self.storing.ledger().durable();
        let unstored = self.storing.is_pending();
        let up = self.link.is_up();
        let busy = self.storing.ledger().unsettled() > self.held;
        self.status.update(|facts| {
            facts.sink_busy_since = busy.then(|| facts.sink_busy_since.unwrap_or(now));
            facts.oldest = oldest;
            facts.buffered_bytes = buffered;
            facts.credit = credit;
            facts.unstored_since = unstored.then(|| facts.unstored_since.unwrap_or(now));
            if !up {
                facts.quiet_since = None;
            }
            if let Some(Checkpoint { offset, .. }) = durable
                && !facts.foreign
            {
                facts.durable = Some(offset);
                facts.position = Some(offset);
                facts.positioned = true;
            }
        });
    }
}
