//! `rillway replay`: writes a range of a stream through a consumer's sink once more, beside the consumer.
//!
//! The reader is a [consumer](crate::consumer) under a reference that is used once, so it resumes, retries
//! and treats bad messages as every consumer does; its sink is [`bounded`] by the range. The consumer's
//! own position, stored offset and state are not touched.
//!
//! Invariants: the range is decided once and kept, so that a continued replay has the same ends; a sink
//! that holds a position which is not this replay's is not written to, because it would take messages for
//! written; success means that every message of the range is durable, left out by the filter, or bad and
//! treated as the policy says.

mod args;
mod bounded;
mod report;
mod span;
mod state;
mod through;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

pub(super) use args::ReplayArgs;

use self::bounded::{Range, bounded};
use self::report::Done;
use self::span::Span;
use self::state::{Kept, StateFile, What};
use self::through::Through;
use super::exit::Failure;
use super::progress::Progress;
use super::schema::write;
use super::traces;
use crate::config::{Config, ConsumerConfig, OnBadMessage, Protocol};
use crate::consumer::{self, Command, Outcome, Resources, Spec, Status};
use crate::flow::backoff::Backoff;
use crate::flow::beginning::Memory;
use crate::sink::factory::SinkFactory;
use crate::source::Prefer;
use crate::supervisor::{self, RangeArgs, RangeReplay};
use crate::telemetry::logging::{self, consumer_span};
use crate::telemetry::{ConsumerMetrics, Heartbeats};
use crate::types::StreamName;

/// Runs of the reader in a row that may fail without progress.
const FAILURES_MAX: u32 = 8;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Replays the range.
pub(super) async fn replay(config: Config, args: ReplayArgs, as_json: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take signals")?;
    let (layer, exporter) = traces::start(config.traces.as_ref());
    logging::init(logging::Format::Text, &logging::filter_from_env("warn"), layer)?;
    let (consumer, super_stream) = find(&config, &args)?;
    let consumer = supervisor::replaying(&config, &consumer);
    check_filter(&config, &consumer)?;
    let through = Through::find(&config, &consumer, args.sink.as_deref(), super_stream.as_ref())?;
    through.check(consumer.name.as_str(), args.append)?;
    let prints = through.prints();
    let done = Replay { config, consumer, args, through }.run(&mut signals).await;
    traces::finish(exporter.as_deref()).await;
    let done = done?;
    let told =
        if as_json { format!("{:#}\n", serde_json::to_value(&done)?) } else { done.to_string() };
    match prints {
        // Messages stand there.
        true => eprint!("{told}"),
        false => write(&told)?,
    }
    Ok(())
}

/// The consumer, of the one stream that is replayed, and the super stream which that is a partition of.
fn find(
    config: &Config,
    args: &ReplayArgs,
) -> Result<(ConsumerConfig, Option<StreamName>), Failure> {
    let name = args.consumer.as_str();
    let consumer = config.consumers.iter().find(|c| c.name.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = config.consumers.iter().map(|c| c.name.as_str()).collect();
        Failure::Usage(format!("there is no consumer {name:?}: there are {}", known.join(", ")))
    })?;
    let stream = &consumer.stream;
    match (&args.stream, consumer.is_super_stream) {
        (Some(partition), true) => {
            let one = consumer.of_stream(Some(&partition.as_str().into()));
            Ok((one, Some(stream.clone())))
        }
        (None, false) => Ok((consumer.of_stream(None), None)),
        (Some(named), false) if named == stream.as_str() => Ok((consumer.of_stream(None), None)),
        (None, true) => Err(Failure::Usage(format!(
            "consumer {name:?} reads super stream {stream:?}, and each partition has its own offsets and its \
             own position: name one with --stream"
        ))),
        (Some(named), false) => Err(Failure::Usage(format!(
            "consumer {name:?} reads stream {stream:?}, not {named:?}: leave --stream out"
        ))),
    }
}

/// Over AMQP 0.9.1 the broker does not tell that nothing more is selected, so the range would not end.
fn check_filter(config: &Config, consumer: &ConsumerConfig) -> Result<(), Failure> {
    let at_broker = consumer.filter.as_ref().is_some_and(|filter| filter.is_at_broker());
    match config.broker.protocol == Protocol::Amqp && at_broker {
        false => Ok(()),
        true => Err(Failure::Usage(format!(
            "consumer {:?} has a `filter` that only the broker knows, and AMQP 0.9.1 does not tell where it \
             selects nothing more: set filter.by, or use a broker.uri of rabbitmq-stream://",
            consumer.name.as_str()
        ))),
    }
}

struct Replay {
    config: Config,
    /// What is read, as it is read.
    consumer: ConsumerConfig,
    args: ReplayArgs,
    through: Through,
}

impl Replay {
    async fn run(mut self, signals: &mut Signals) -> Result<Done, Failure> {
        let began = Instant::now();
        let what = What {
            consumer: self.consumer.name.clone(),
            stream: self.consumer.stream.clone(),
            reference: self.consumer.reference.clone(),
            replays: self.args.identity(),
        };
        let named = self.args.state.as_deref();
        let (file, kept) = StateFile::open(named, &self.config.state_dir, &what)?;
        let is_new = kept.is_none();
        let kept = match kept {
            Some(kept) => kept,
            None => {
                let Span { offsets, missing } = tokio::select! {
                    span = self.span() => span?,
                    _ = signals.next() => {
                        let what = "interrupted before anything was written";
                        return Err(Failure::unavailable(what));
                    }
                };
                self.mind_missing(missing.as_deref(), offsets.is_none())?;
                let Some((from, upto)) = offsets else {
                    file.remove()?;
                    return Ok(self.done(None, missing, began));
                };
                what.begin(from, upto, missing)
            }
        };
        let suffix = kept.suffix();
        self.consumer.sink = self.through.of_replay(&suffix);
        let range_args = RangeArgs {
            suffix,
            from: kept.from,
            upto: kept.upto,
            allows_missing: self.args.allow_missing,
            state_dir: file.folder(),
        };
        let replay = supervisor::range_replay(&self.config, &self.consumer, &range_args);
        let range = Range::new(kept.from, kept.upto);
        self.look(&replay, &range, &kept, is_new).await?;
        if is_new {
            file.write(&kept)?;
        }
        let metrics =
            ConsumerMetrics::new(&replay.spec.name, &replay.spec.stream, self.consumer.sink.kind());
        let status = Arc::new(Status::new(metrics));
        if !range.is_done() {
            self.carry_out(&replay, (&range, &status), signals).await?;
        }
        consumer::forget(&replay.spec).map_err(|error| {
            Failure::Unavailable(format!("what the replay had noted cannot be removed: {error}"))
        })?;
        file.remove()?;
        let ran = Some((&kept, &*range, status.facts().skipped));
        Ok(self.done(ran, kept.missing.clone(), began))
    }

    /// The range in the stream now.
    async fn span(&self) -> Result<Span, Failure> {
        let source = supervisor::replay_source(&self.config, &self.consumer);
        // A replica may not have all that the stream holds now.
        let link = source.connect(Prefer::Leader).await.map_err(Failure::unavailable)?;
        link.check().await.map_err(Failure::unavailable)?;
        let span = span::find(&*link, &self.consumer.stream, self.args.from, self.args.to).await;
        link.close().await;
        span
    }

    fn mind_missing(&self, missing: Option<&str>, is_all: bool) -> Result<(), Failure> {
        match missing {
            Some(missing) if !self.args.allow_missing => {
                let rest =
                    if is_all { "nothing is left" } else { "--allow-missing replays what is left" };
                Err(Failure::Unavailable(format!(
                    "a part of the range is missing: {missing}. Nothing was written; {rest}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Looks at the place before anything is written to it. What stands there must be this replay's.
    async fn look(
        &self,
        replay: &RangeReplay,
        range: &Range,
        kept: &Kept,
        is_new: bool,
    ) -> Result<(), Failure> {
        let position = (replay.look)().await.map_err(|error| {
            Failure::Unavailable(format!("{} cannot be replayed to: {error}", self.through.whose))
        })?;
        let remembered =
            consumer::StateFile::of(&replay.spec).read().map_err(Failure::unavailable)?;
        let remembered = match remembered {
            Some(Memory::Position(position)) => Some(position.offset),
            Some(Memory::Beginning(_)) | None => None,
        };
        let Some(position) = position else {
            if let Some(at) = remembered.filter(|at| at.next() >= kept.from && *at <= kept.upto) {
                range.found(at);
            }
            return Ok(());
        };
        let at = position.offset;
        let is_within = at.next() >= kept.from && at <= kept.upto;
        if is_new || !is_within {
            return Err(Failure::Usage(format!(
                "{} holds stream {:?} up to offset {at} already, from elsewhere than this replay: it would take \
                 messages up to there for written, and leave them out in silence. Name an empty place with --sink",
                self.through.whose, kept.stream
            )));
        }
        range.found(at);
        Ok(())
    }

    /// Reads and writes until the range is done.
    async fn carry_out(
        &self,
        replay: &RangeReplay,
        (range, status): (&Arc<Range>, &Arc<Status>),
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let total = range.upto.0.saturating_sub(range.from.0).saturating_add(1);
        let progress =
            Progress::continued(Some(total), range.reached(), "replayed", self.args.quiet);
        let operation = replay.spec.operations().replay(range.from, range.upto);
        let ended = self.until_done(replay, (range, status), &progress, signals).await;
        operation.end(&ended);
        progress.finish();
        ended
    }

    async fn until_done(
        &self,
        replay: &RangeReplay,
        (range, status): (&Arc<Range>, &Arc<Status>),
        progress: &Progress,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let spec = Arc::new(replay.spec.clone());
        let sink = bounded(Arc::clone(&replay.sink), range);
        let mut backoff = Backoff::new(spec.backoff_min, spec.backoff_max);
        let mut reached = range.counts().upto;
        loop {
            let mut reader = Reader::start(&spec, &sink, replay.dead_letters.clone(), status);
            let outcome = tokio::select! {
                outcome = reader.ended(range, progress) => outcome,
                _ = signals.next() => {
                    reader.stop(self.config.shutdown_grace.0).await;
                    if range.is_done() {
                        return Ok(());
                    }
                    return Err(interrupted(range));
                }
            };
            let why = match outcome {
                Outcome::Drained if range.is_done() => return Ok(()),
                Outcome::Drained => "the reader ended before the range was done".to_owned(),
                Outcome::Halted(why) => {
                    return Err(Failure::Unavailable(format!(
                        "the replay stopped {}: {why}. When that is put right, the same command continues",
                        at(range)
                    )));
                }
                Outcome::Failed(why) | Outcome::Locked(why) | Outcome::Panicked(why) => why,
            };
            if range.is_done() {
                return Ok(());
            }
            if range.counts().upto > reached {
                reached = range.counts().upto;
                backoff.reset();
            }
            if backoff.failures() >= FAILURES_MAX {
                return Err(Failure::Unavailable(format!(
                    "the replay stopped {}: {why}. The same command continues it",
                    at(range)
                )));
            }
            let wait = backoff.next(fastrand::f64());
            progress.say(&format!("{why}; trying again in {wait:.1?}"));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = signals.next() => return Err(interrupted(range)),
            }
        }
    }

    fn done(
        &self,
        ran: Option<(&Kept, &Range, u64)>,
        missing: Option<String>,
        began: Instant,
    ) -> Done {
        let (kept, range) = (ran.map(|(kept, ..)| kept), ran.map(|(_, range, _)| range));
        let counts = range.map(Range::counts).unwrap_or_default();
        let bad = ran.map_or(0, |(.., skipped)| skipped);
        let sink = &self.consumer.sink;
        Done {
            consumer: self.consumer.name.to_string(),
            stream: self.consumer.stream.to_string(),
            from_offset: kept.map(|kept| kept.from.0),
            to_offset: kept.map(|kept| kept.upto.0),
            written: counts.written,
            filtered: counts.read.saturating_sub(counts.written).saturating_sub(bad),
            bad,
            bad_are: match self.consumer.on_bad_message {
                OnBadMessage::DeadLetter => "are dead letters of this replay",
                OnBadMessage::Halt | OnBadMessage::Skip => "are left out, as on_bad_message says",
            },
            done_before: range.and_then(Range::before).map(|offset| offset.0),
            missing,
            through: self.through.whose.clone(),
            into: sink.place().filter(|_| kept.is_some()).map(|place| place.display().to_string()),
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}

/// Where the replay stands, in words.
fn at(range: &Range) -> String {
    match range.counts().upto {
        Some(offset) => format!("behind offset {}", offset.min(range.upto)),
        None => "before its first message".to_owned(),
    }
}

fn interrupted(range: &Range) -> Failure {
    Failure::Unavailable(format!("interrupted {}; the same command continues", at(range)))
}

/// A running reader.
struct Reader {
    tasks: JoinSet<Outcome>,
    commands: mpsc::Sender<Command>,
}

impl Reader {
    fn start(
        spec: &Arc<Spec>,
        sink: &SinkFactory,
        dead_letters: Option<SinkFactory>,
        status: &Arc<Status>,
    ) -> Reader {
        let resources =
            Resources { sink: Arc::clone(sink), dead_letters, hold: None, shares_hold: false };
        let (commands, receive) = mpsc::channel(1);
        let (spec, status) = (Arc::clone(spec), Arc::clone(status));
        let span = consumer_span(&spec.name, &spec.stream, Some(&spec.reference));
        let mut tasks = JoinSet::new();
        tasks.spawn(
            async move {
                let heartbeats = Heartbeats::new();
                consumer::run(spec, resources, status, receive, &heartbeats).await
            }
            .instrument(span),
        );
        Reader { tasks, commands }
    }

    /// Waits for its end, which it is told when the range is done.
    async fn ended(&mut self, range: &Range, progress: &Progress) -> Outcome {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut is_told = false;
        loop {
            tokio::select! {
                outcome = self.tasks.join_next() => return of(outcome),
                () = range.done(), if !is_told => {
                    is_told = true;
                    self.drain();
                }
                _ = look.tick() => progress.at(range.reached()),
            }
        }
    }

    /// Has it finish what it has begun, within this time.
    async fn stop(&mut self, grace: Duration) {
        self.drain();
        // What is not durable by then is read again.
        drop(tokio::time::timeout(grace, self.tasks.join_next()).await);
    }

    fn drain(&self) {
        // It has ended if it takes no command, or has been told.
        drop(self.commands.try_send(Command::Drain));
    }
}

fn of(outcome: Option<Result<Outcome, tokio::task::JoinError>>) -> Outcome {
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Outcome::Panicked(format!("internal error: {error}")),
        None => Outcome::Failed("internal error: no task".to_owned()),
    }
}
