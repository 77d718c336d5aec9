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
mod reader;
mod report;
mod span;
mod state;
mod through;
mod whole;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

pub(super) use args::ReplayArgs;

use self::bounded::{Range, bounded};
use self::reader::Reader;
use self::report::Done;
use self::span::Span;
use self::state::Part;
use self::through::Through;
use self::whole::{Place, Whole};
use super::exit::Failure;
use super::progress::Progress;
use super::schema::write;
use super::traces;
use crate::config::{Config, ConsumerConfig, OnBadMessage, Protocol};
use crate::consumer::{self, Outcome, Status};
use crate::faults::{self, Point};
use crate::flow::backoff::Backoff;
use crate::flow::beginning::Memory;
use crate::source::Prefer;
use crate::supervisor::{self, RangeArgs, RangeReplay};
use crate::telemetry::ConsumerMetrics;
use crate::telemetry::logging;

/// Runs of the reader in a row that may fail without progress.
const FAILURES_MAX: u32 = 8;

/// Replays the range.
pub(super) async fn replay(config: Config, args: ReplayArgs, as_json: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take signals")?;
    let (layer, exporter) = traces::start(config.traces.as_ref());
    logging::init(logging::LineFormat::Text, &logging::filter_from_env("warn"), layer)?;
    let whole = Whole::find(&config, &args)?;
    let prints = whole.of(&whole.stream)?.through.prints();
    let ran = whole.run(&mut signals).await;
    traces::finish(exporter.as_deref()).await;
    let (state, done) = ran?;
    let told = done.told(as_json)?;
    match prints {
        // Messages stand there.
        true => eprint!("{told}"),
        false => write(&told)?,
    }
    faults::reach(Point::ReplayTold);
    // From here on, the same command begins a new replay.
    state.remove()?;
    Ok(())
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

/// The replay of one stream.
struct Replay<'a> {
    config: &'a Config,
    /// What is read, as it is read.
    consumer: ConsumerConfig,
    args: &'a ReplayArgs,
    through: Through,
}

/// A part that is ready to run.
struct Run<'a> {
    of: Replay<'a>,
    replay: RangeReplay,
    range: Arc<Range>,
    status: Arc<Status>,
    missing: Option<String>,
    began: Instant,
}

impl<'a> Replay<'a> {
    /// Gets a part ready, whose place is looked at.
    async fn ready(mut self, place: &Place, part: &Part) -> Result<Run<'a>, Failure> {
        let Place { suffix, state_dir, is_new } = place.clone();
        self.consumer.sink = self.through.of_replay(&suffix);
        let (from, upto) = (part.from, part.upto);
        let allows_missing = self.args.allow_missing;
        let range_args = RangeArgs { suffix, from, upto, allows_missing, state_dir };
        let replay = supervisor::range_replay(self.config, &self.consumer, &range_args);
        let range = Range::new(from, upto);
        match part.is_done {
            true => range.found(upto),
            false => self.look(&replay, &range, part, is_new).await?,
        }
        let metrics =
            ConsumerMetrics::new(&replay.spec.name, &replay.spec.stream, self.consumer.sink.kind());
        let status = Arc::new(Status::new(metrics));
        let missing = part.missing.clone();
        Ok(Run { of: self, replay, range, status, missing, began: Instant::now() })
    }

    /// The range in the stream now.
    async fn span(&self) -> Result<Span, Failure> {
        let source = supervisor::replay_source(self.config, &self.consumer);
        // A replica may not have all that the stream holds now.
        let link = source.connect(Prefer::Leader).await.map_err(Failure::unavailable)?;
        link.check().await.map_err(Failure::unavailable)?;
        let span = span::find(&*link, &self.consumer.stream, self.args.from, self.args.to).await;
        link.close().await;
        span
    }

    /// Looks at the place before anything is written to it. What stands there must be this replay's.
    async fn look(
        &self,
        replay: &RangeReplay,
        range: &Range,
        part: &Part,
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
            if let Some(at) = remembered.filter(|at| at.next() >= part.from && *at <= part.upto) {
                range.found(at);
            }
            return Ok(());
        };
        let at = position.offset;
        let is_within = at.next() >= part.from && at <= part.upto;
        if is_new || !is_within {
            return Err(Failure::Usage(format!(
                "{} holds stream {:?} up to offset {at} already, from elsewhere than this replay: it would take \
                 messages up to there for written, and leave them out in silence. Name an empty place with --sink",
                self.through.whose, part.stream
            )));
        }
        // Not done, even at the end: the sink may have something to finish.
        range.stands_at(at);
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

    /// The result of a range with no message, or of this one.
    fn done(&self, ran: Option<&Run<'_>>, missing: Option<String>) -> Done {
        let range = ran.map(|run| &*run.range);
        let counts = range.map(Range::counts).unwrap_or_default();
        let bad = ran.map_or(0, |run| run.status.facts().skipped);
        let sink = &self.consumer.sink;
        Done {
            consumer: self.consumer.name.to_string(),
            stream: self.consumer.stream.to_string(),
            from_offset: range.map(|range| range.from.0),
            to_offset: range.map(|range| range.upto.0),
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
            into: sink.place().filter(|_| ran.is_some()).map(|place| place.display().to_string()),
            seconds: ran.map_or(0.0, |run| run.began.elapsed().as_secs_f64()),
        }
    }
}

impl Run<'_> {
    async fn carry_out(&self, signals: &mut Signals) -> Result<(), Failure> {
        if self.range.is_done() {
            return Ok(());
        }
        self.of.carry_out(&self.replay, (&self.range, &self.status), signals).await
    }

    fn done(&self) -> Done {
        self.of.done(Some(self), self.missing.clone())
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
