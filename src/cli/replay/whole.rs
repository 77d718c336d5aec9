//! All streams of a replay: that of the consumer, or the partitions of its super stream, one after the other.
//!
//! The range in each is decided before anything is written to any, and so is whether the place of each is free.

use std::path::PathBuf;

use futures_util::StreamExt;
use signal_hook_tokio::Signals;

use super::report::AllDone;
use super::state::{Kept, Part, StateFile, What};
use super::through::Through;
use super::{Replay, ReplayArgs, Span, check_filter};
use crate::cli::exit::Failure;
use crate::cli::point::Until;
use crate::config::{Config, ConsumerConfig, Start};
use crate::consumer;
use crate::faults::{self, Point};
use crate::supervisor;
use crate::types::StreamName;

/// What a command replays.
pub(super) struct Whole<'a> {
    config: &'a Config,
    args: &'a ReplayArgs,
    /// As it is configured.
    consumer: &'a ConsumerConfig,
    /// The stream, or the super stream of which all partitions are replayed.
    pub(super) stream: StreamName,
}

/// Where the replay of a part writes, and keeps its state.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) suffix: String,
    pub(super) state_dir: PathBuf,
    /// True if the replay begins.
    pub(super) is_new: bool,
}

impl<'a> Whole<'a> {
    /// What these arguments mean.
    ///
    /// # Errors
    /// If they do not fit the configuration.
    pub(super) fn find(config: &'a Config, args: &'a ReplayArgs) -> Result<Whole<'a>, Failure> {
        let name = args.consumer.as_str();
        let consumer =
            config.consumers.iter().find(|c| c.name.as_str() == name).ok_or_else(|| {
                let known: Vec<_> = config.consumers.iter().map(|c| c.name.as_str()).collect();
                Failure::Usage(format!(
                    "there is no consumer {name:?}: there are {}",
                    known.join(", ")
                ))
            })?;
        let stream = &consumer.stream;
        let named = args.stream.as_deref();
        let by_offset =
            matches!(args.from, Start::Offset(_)) || matches!(args.to, Until::Offset(_));
        let stream = match (named, consumer.is_super_stream) {
            (Some(partition), true) => partition.into(),
            (None, true) if by_offset => {
                return Err(Failure::Usage(format!(
                    "consumer {name:?} reads super stream {stream:?}, and each partition has its own offsets: name one \
                     with --stream, or give times (time:T, ago:1h), first or end"
                )));
            }
            (Some(named), false) if named != stream.as_str() => {
                return Err(Failure::Usage(format!(
                    "consumer {name:?} reads stream {stream:?}, not {named:?}: leave --stream out"
                )));
            }
            (None, _) | (Some(_), false) => stream.clone(),
        };
        Ok(Whole { config, args, consumer, stream })
    }

    /// True if all partitions of a super stream are replayed.
    fn is_all(&self) -> bool {
        self.consumer.is_super_stream && self.args.stream.is_none()
    }

    /// The replay of one stream.
    ///
    /// # Errors
    /// If it must not write to its sink.
    pub(super) fn of(&self, stream: &StreamName) -> Result<Replay<'a>, Failure> {
        let Whole { config, args, consumer, .. } = *self;
        let partition = consumer.is_super_stream.then_some(stream);
        let super_stream = partition.map(|_| &consumer.stream);
        let consumer = supervisor::replaying(config, &consumer.of_stream(partition));
        check_filter(config, &consumer)?;
        let through = Through::find(config, &consumer, args.sink.as_deref(), super_stream)?;
        through.check(consumer.name.as_str(), args.append)?;
        Ok(Replay { config, consumer, args, through })
    }

    /// Replays all of it. The state is to be removed when that was told.
    pub(super) async fn run(&self, signals: &mut Signals) -> Result<(StateFile, AllDone), Failure> {
        let what = What {
            consumer: self.consumer.name.clone(),
            stream: self.stream.clone(),
            reference: self.consumer.reference.clone(),
            replays: self.args.identity(),
        };
        let (file, kept) =
            StateFile::open(self.args.state.as_deref(), &self.config.state_dir, &what)?;
        let is_new = kept.is_none();
        let mut done = Vec::new();
        let mut kept: Kept = match kept {
            Some(kept) => kept,
            None => {
                let ranges = tokio::select! {
                    ranges = self.ranges() => ranges?,
                    _ = signals.next() => {
                        let what = "interrupted before anything was written";
                        return Err(Failure::unavailable(what));
                    }
                };
                let mut parts = Vec::new();
                for (stream, Span { offsets, missing }) in ranges {
                    match offsets {
                        Some((from, upto)) => {
                            parts.push(Part { stream, from, upto, missing, is_done: false });
                        }
                        None => done.push(self.of(&stream)?.done(None, missing)),
                    }
                }
                what.begin(parts)
            }
        };
        let place = Place { suffix: kept.suffix(), state_dir: file.folder(), is_new };
        let mut runs = Vec::new();
        for part in &kept.parts {
            runs.push(self.of(&part.stream)?.ready(&place, part).await?);
        }
        if is_new && !runs.is_empty() {
            file.write(&kept)?;
            faults::reach(Point::ReplayKept);
        }
        for (nth, run) in runs.iter().enumerate() {
            run.carry_out(signals).await.map_err(|failure| self.in_stream(failure, &kept, nth))?;
            if let Some(part) = kept.parts.get_mut(nth).filter(|part| !part.is_done) {
                part.is_done = true;
                file.write(&kept)?;
                faults::reach(Point::StreamReplayed);
            }
            consumer::forget(&run.replay.spec).map_err(|error| {
                Failure::Unavailable(format!(
                    "what the replay had noted cannot be removed: {error}"
                ))
            })?;
            done.push(run.done());
        }
        let super_stream = self.is_all().then(|| self.stream.clone());
        Ok((file, AllDone { super_stream, parts: done }))
    }

    /// Says in which of several partitions it failed.
    fn in_stream(&self, failure: Failure, kept: &Kept, nth: usize) -> Failure {
        match (failure, kept.parts.get(nth)) {
            (Failure::Unavailable(what), Some(part)) if self.is_all() => {
                Failure::Unavailable(format!("partition {:?}: {what}", part.stream.as_str()))
            }
            (failure, _) => failure,
        }
    }

    /// The range in each stream now.
    ///
    /// # Errors
    /// If a part of one is missing, and that was not accepted.
    async fn ranges(&self) -> Result<Vec<(StreamName, Span)>, Failure> {
        let streams: Vec<StreamName> = match self.is_all() {
            false => vec![self.stream.clone()],
            true => {
                let plans = supervisor::partitions_of(self.config, self.consumer).await;
                let plans = plans.map_err(Failure::Unavailable)?;
                plans.into_iter().map(|plan| plan.spec.stream.clone()).collect()
            }
        };
        let mut ranges = Vec::new();
        for stream in streams {
            let span = self.of(&stream)?.span().await?;
            ranges.push((stream, span));
        }
        let missing: Vec<&str> =
            ranges.iter().filter_map(|(_, span)| span.missing.as_deref()).collect();
        if missing.is_empty() || self.args.allow_missing {
            return Ok(ranges);
        }
        let is_all = ranges.iter().all(|(_, span)| span.offsets.is_none());
        let rest = if is_all { "nothing is left" } else { "--allow-missing replays what is left" };
        Err(Failure::Unavailable(format!(
            "a part of the range is missing: {}. Nothing was written; {rest}",
            missing.join("; ")
        )))
    }
}
