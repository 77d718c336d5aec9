//! `rillway tail`: prints what a stream contains, from any position, and leaves nothing behind.
//!
//! Each stream has a reader, which is a [consumer](crate::consumer) without a reference of its own: it
//! connects again, goes on behind the last message, and notices what is missing, as every consumer does.
//! Its sink is a [`tap`]; what comes out of that is [merged](merge), filtered and printed here.
//!
//! Invariants: a message is printed once, and in the order of its stream; memory is bounded, since a batch
//! gives its memory back only when it is printed.

mod args;
mod condition;
mod lanes;
mod merge;
mod tap;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

pub(super) use args::TailArgs;
pub(super) use condition::fuzz_condition;

use self::condition::Conditions;
use self::lanes::{End, Lane, Lanes};
use self::merge::{Enough, Merge, Step};
use self::tap::{Arrival, WAITING_MAX};
use super::Shared;
use super::exit::Failure;
use super::point::Until;
use super::print::{Printer, Style};
use crate::consumer::{self, Command, Outcome, Resources, Status};
use crate::sink::stdout;
use crate::source::Prefer;
use crate::supervisor::Guest;
use crate::telemetry::logging::{self, consumer_span};
use crate::telemetry::{ConsumerMetrics, Heartbeats};
use crate::types::{StreamName, Timestamp};

/// Bytes that are printed at once.
const PIECE_BYTES: usize = 256 << 10;

/// Time limit for closing the connections.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How long after a time that was to come the broker is asked what was written until then: its clock may
/// be behind ours.
const TIME_SLACK: Duration = Duration::from_secs(1);

/// Prints until the end, a signal, or until nobody reads any more.
pub(super) async fn tail(
    args: TailArgs,
    shared: &Shared,
    env: &crate::config::Env,
) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take signals")?;
    logging::init(logging::LineFormat::Text, &logging::filter_from_env("warn"), None)?;
    let guest = Guest::new(args.broker.broker(shared, env)?, args.selection()?);
    let gone = stdout::reader_goes();
    tokio::pin!(gone);
    let lanes = tokio::select! {
        lanes = lanes::find(&guest, &args) => lanes?,
        _ = signals.next() => return Ok(()),
        () = &mut gone => return Ok(()),
    };
    let mut tail = Tail::begin(guest, lanes, &args, args.print.style(shared.json));
    let ended = tokio::select! {
        ended = tail.run() => ended,
        _ = signals.next() => Ok(()),
        () = &mut gone => Ok(()),
    };
    // The readers have nobody to pass anything on to.
    tail.arrivals.close();
    tail.readers.close().await;
    ended
}

struct Tail {
    guest: Guest,
    streams: Vec<StreamName>,
    until: Option<Until>,
    merge: Merge,
    printers: Vec<(Conditions, Printer)>,
    /// Messages that may still be printed; `None` for any number.
    left: Option<u64>,
    readers: Readers,
    arrivals: mpsc::Receiver<Arrival>,
    /// From when on nothing is printed until the end is known; `None` if messages tell it themselves.
    holds_at: Option<Instant>,
    /// When an end that is still to come is asked for.
    ask_at: Option<Instant>,
    out: Vec<u8>,
}

impl Tail {
    fn begin(guest: Guest, lanes: Lanes, args: &TailArgs, style: Style) -> Tail {
        let Lanes { lanes, is_super } = lanes;
        let style = if is_super { style.naming_streams() } else { style };
        let (now, wall) = (Instant::now(), Timestamp::now());
        let until = args.until.and_then(|until| until.time(wall));
        let upto = lanes.iter().map(|lane| match lane.end {
            End::At(offset) => Some(offset),
            End::Open | End::Nothing => None,
        });
        // Over AMQP 0.9.1 a message's time is the one that its publisher gave it: that is no end.
        let is_amqp = guest.is_amqp();
        let mut merge = Merge::new(upto, until.filter(|_| !is_amqp), now);
        let (to, arrivals) = mpsc::channel(lanes.len() * WAITING_MAX);
        let mut readers = Readers::default();
        let of = lanes.len();
        for (nth, lane) in lanes.iter().enumerate() {
            match lane.end {
                End::Nothing => merge.end(nth),
                End::Open | End::At(_) => readers.start(&guest, nth, lane, of, &to),
            }
        }
        let streams: Vec<StreamName> = lanes.into_iter().map(|lane| lane.stream).collect();
        let printer = |stream: &StreamName| {
            (Conditions::new(stream, &args.filter), Printer::new(stream, &style))
        };
        let to_come = until.filter(|at| *at > wall).map(|at| {
            let ms = u64::try_from(at.0.saturating_sub(wall.0)).unwrap_or(0);
            now.checked_add(Duration::from_millis(ms))
        });
        let to_come = to_come.flatten();
        Tail {
            guest,
            until: args.until,
            merge,
            printers: streams.iter().map(printer).collect(),
            streams,
            left: args.limit,
            readers,
            arrivals,
            holds_at: to_come.filter(|_| is_amqp),
            ask_at: to_come.and_then(|at| at.checked_add(TIME_SLACK)),
            out: Vec::new(),
        }
    }

    /// Prints until the end.
    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let step = self.step();
            if !self.out.is_empty() && !self.write().await? {
                return Ok(());
            }
            let due = match step {
                Step::Done | Step::Stopped => return Ok(()),
                Step::Moved => continue,
                Step::Waits(due) => due,
            };
            tokio::select! {
                Some(Arrival { lane, batch, slot }) = self.arrivals.recv() => {
                    self.merge.add(lane, batch, Some(slot));
                }
                ended = self.readers.ended() => return Err(ended.into()),
                () = at(due) => {}
                () = at(self.ask_at) => self.ask_for_the_end().await,
            }
        }
    }

    /// Prints as much as may be printed at once.
    fn step(&mut self) -> Step {
        let now = Instant::now();
        if self.ask_at.is_some() && self.holds_at.is_some_and(|at| at <= now) {
            return Step::Waits(None);
        }
        loop {
            let (printers, out, left) = (&mut self.printers, &mut self.out, &mut self.left);
            let step = self.merge.step(now, |lane, record| {
                let Some((conditions, printer)) = printers.get_mut(lane) else {
                    return ControlFlow::Continue(());
                };
                if !conditions.are_met(record) {
                    return ControlFlow::Continue(());
                }
                printer.print(record, out);
                if let Some(left) = left {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        return ControlFlow::Break(Enough::ForGood);
                    }
                }
                // A small batch may be large when it is printed.
                match out.len() >= PIECE_BYTES {
                    true => ControlFlow::Break(Enough::ForNow),
                    false => ControlFlow::Continue(()),
                }
            });
            if step != Step::Moved || self.out.len() >= PIECE_BYTES {
                return step;
            }
        }
    }

    /// Writes what is to be printed, on a thread that may block. `false` if nobody reads it.
    async fn write(&mut self) -> Result<bool, Failure> {
        let out = std::mem::take(&mut self.out);
        let writing = tokio::task::spawn_blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&out).and_then(|()| stdout.flush()).map(|()| out)
        });
        match writing.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(mut out) => {
                out.clear();
                self.out = out;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                Err(Failure::Unavailable(format!("cannot write to standard output: {error}")))
            }
        }
    }

    /// The time has come: what was written until then is there now, and no more of it comes.
    async fn ask_for_the_end(&mut self) {
        self.ask_at = None;
        let Some(until) = self.until else { return };
        for (nth, stream) in self.streams.iter().enumerate() {
            let asked = async {
                let link = self.guest.source(stream).connect(Prefer::Leader).await?;
                let end = lanes::end_of(&*link, until, Timestamp::now()).await;
                link.close().await;
                end
            };
            match asked.await {
                Ok(End::At(upto)) => self.merge.end_at(nth, upto),
                Ok(End::Nothing) => self.merge.end(nth),
                Ok(End::Open) | Err(_) => self.ask_at = Some(Instant::now() + TIME_SLACK),
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The readers of the streams.
#[derive(Default)]
struct Readers {
    tasks: JoinSet<(StreamName, Outcome)>,
    /// A reader ends when its own is dropped.
    commands: Vec<mpsc::Sender<Command>>,
}

impl Readers {
    fn start(
        &mut self,
        guest: &Guest,
        nth: usize,
        lane: &Lane,
        of: usize,
        to: &mpsc::Sender<Arrival>,
    ) {
        let spec = Arc::new(guest.spec(&lane.stream, lane.begin, of));
        let sink = tap::tap(nth, to);
        let resources =
            Resources { sink, dead_letters: None, hold: None, renaming: None, shares_hold: false };
        let metrics = ConsumerMetrics::new(&spec.name, &spec.stream, "tail");
        let status = Arc::new(Status::new(metrics));
        let (command, commands) = mpsc::channel(1);
        self.commands.push(command);
        let span = consumer_span(&spec.name, &spec.stream, None);
        let stream = lane.stream.clone();
        let reader = async move {
            let heartbeats = Heartbeats::new();
            (stream, consumer::run(spec, resources, status, commands, &heartbeats).await)
        };
        self.tasks.spawn(reader.instrument(span));
    }

    /// Waits for the end of a reader: none ends by itself unless it has to.
    async fn ended(&mut self) -> Failure {
        let why = match self.tasks.join_next().await {
            None => return std::future::pending().await,
            Some(Ok((stream, outcome))) => match outcome {
                Outcome::Drained => format!("reading stream {stream:?} ended"),
                Outcome::Halted(why)
                | Outcome::Failed(why)
                | Outcome::Locked(why)
                | Outcome::Panicked(why) => format!("stream {stream:?}: {why}"),
            },
            Some(Err(error)) => format!("internal error: {error}"),
        };
        Failure::Unavailable(why)
    }

    /// Closes the connections.
    async fn close(&mut self) {
        self.commands.clear();
        let closed = async { while self.tasks.join_next().await.is_some() {} };
        // What has not closed by then is dropped.
        drop(tokio::time::timeout(CLOSE_MAX, closed).await);
    }
}
