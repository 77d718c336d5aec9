//! Specification of one consumer, as plain data, in the terms of the code that uses it.
//!
//! [`Spec::new`] makes it of the consumer's keys. Nothing else in this module knows the
//! configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::filter::Filter;
use super::transform::Transform;
use crate::config::consumer::{ConsumerConfig, OnBadMessage, OnOffsetLost};
use crate::flow::resume::{OnLost, Start};
use crate::flow::{commit, cutter};
use crate::settings;
use crate::source::{ConnectOptions, Source};
use crate::telemetry::operations::Operations;
use crate::types::{ConsumerKey, ConsumerName, Offset, Reference, StreamName, Timestamp};

/// Time between two records of a position that is not kept: as good as never.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Start of a reference that never had a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A start in the broker's terms.
    At(Start),
    /// This long before the consumer first subscribes.
    Ago(Duration),
}

impl Begin {
    /// The start that the configuration, or an operator, names.
    pub fn of(start: settings::Start) -> Begin {
        Begin::At(match start {
            settings::Start::First => Start::First,
            settings::Start::Last => Start::Last,
            settings::Start::Next => Start::Next,
            settings::Start::Offset(offset) => Start::Offset(offset),
            settings::Start::Timestamp(at) => Start::Timestamp(at),
            settings::Start::Ago(ago) => return Begin::Ago(ago.0),
        })
    }

    /// The start in the broker's terms.
    pub fn resolve(self, now: Timestamp) -> Start {
        match self {
            Begin::At(start) => start,
            Begin::Ago(ago) => {
                let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Start::Timestamp(Timestamp(now.0.saturating_sub(ago_ms)))
            }
        }
    }
}

/// Policy for a record, or a chunk, that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// Stop with an error.
    Halt,
    /// Leave it out, count it, and log it.
    Skip,
    /// Write it to the dead letters' sink, and leave it out once it is durable there. A chunk that
    /// cannot be read has no message to write: then the consumer halts.
    DeadLetter,
}

/// One reference on one stream.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name in the configuration.
    pub name: ConsumerName,
    /// The stream to read.
    pub stream: StreamName,
    /// Name under which its offset is stored on the broker.
    pub reference: Reference,
    /// The messages that are wanted; `None` for all that come.
    pub filter: Option<Arc<Filter>>,
    /// Its programs; `None` if it has none.
    pub transform: Option<Arc<Transform>>,
    /// Start without a position.
    pub begin: Begin,
    /// The last offset whose message is wanted; `None` for all. Reading goes on behind it.
    pub upto: Option<Offset>,
    /// Policy for a lost position.
    pub on_lost: OnLost,
    /// Policy for bad records.
    pub on_bad: OnBad,
    /// When offsets are stored.
    pub commit: commit::Policy,
    /// Limits of batches.
    pub batch: cutter::BatchLimits,
    /// Most bytes of chunks, received and inflated, in memory.
    pub memory_bytes: u64,
    /// Time after the start of a drain in which it still starts batches. Then it only completes
    /// those in flight, and leaves the rest to the next start.
    pub wind_up_after: Duration,
    /// Shortest wait before a retry.
    pub backoff_min: Duration,
    /// Longest wait before a retry.
    pub backoff_max: Duration,
    /// Source of its records.
    pub source: Arc<dyn Source>,
    /// Options of the stream protocol connection that observes the lag.
    pub connect: ConnectOptions,
    /// Folder of its state files.
    pub state_dir: PathBuf,
    /// False if it leaves no state file behind: the next run begins where `begin` says.
    pub keeps_state: bool,
}

/// Everything that a consumer needs besides its own keys.
pub struct Surroundings {
    /// See [`Spec::source`].
    pub source: Arc<dyn Source>,
    /// See [`Spec::connect`].
    pub connect: ConnectOptions,
    /// See [`Spec::state_dir`].
    pub state_dir: PathBuf,
    /// See [`Spec::wind_up_after`].
    pub wind_up_after: Duration,
}

impl Spec {
    /// Its operations, for traces.
    pub fn operations(&self) -> Operations {
        Operations::of(&self.name, &self.stream, &self.reference)
    }

    /// Specification of the consumer that has these keys.
    pub fn new(keys: &ConsumerConfig, surroundings: Surroundings) -> Spec {
        let Surroundings { source, connect, state_dir, wind_up_after } = surroundings;
        Spec {
            name: keys.name.clone(),
            stream: keys.stream.clone(),
            reference: keys.reference.clone(),
            filter: filter_of(keys),
            transform: transform_of(keys),
            begin: Begin::of(keys.start),
            upto: None,
            on_lost: match keys.on_offset_lost {
                OnOffsetLost::Halt => OnLost::Halt,
                OnOffsetLost::First => OnLost::First,
                OnOffsetLost::Next => OnLost::Next,
            },
            on_bad: match keys.on_bad_message {
                OnBadMessage::Halt => OnBad::Halt,
                OnBadMessage::Skip => OnBad::Skip,
                OnBadMessage::DeadLetter => OnBad::DeadLetter,
            },
            commit: commit::Policy {
                every_messages: keys.commit.every_messages,
                every: keys.commit.every.0,
            },
            batch: cutter::BatchLimits {
                max_messages: keys.batch.max_messages,
                max_bytes: keys.batch.max_bytes.0,
                max_age: keys.batch.max_age.0,
            },
            memory_bytes: keys.memory.0,
            wind_up_after,
            backoff_min: keys.restart.min_backoff.0,
            backoff_max: keys.restart.max_backoff.0,
            source,
            connect,
            state_dir,
            keeps_state: true,
        }
    }

    /// Specification of a reader without a reference of its own: it leaves nothing behind, and passes over what is
    /// lost or damaged, with a line in the log.
    pub fn of_reader(
        name: &str,
        stream: &StreamName,
        begin: Begin,
        memory_bytes: u64,
        surroundings: Surroundings,
    ) -> Spec {
        let Surroundings { source, connect, state_dir, wind_up_after } = surroundings;
        Spec {
            name: name.into(),
            stream: stream.clone(),
            reference: name.into(),
            filter: None,
            transform: None,
            begin,
            upto: None,
            on_lost: OnLost::First,
            on_bad: OnBad::Skip,
            commit: commit::Policy { every_messages: u64::MAX, every: NEVER },
            batch: cutter::BatchLimits {
                max_messages: 1000,
                max_bytes: 1 << 20,
                max_age: Duration::from_millis(50),
            },
            memory_bytes,
            wind_up_after,
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
            source,
            connect,
            state_dir,
            keeps_state: false,
        }
    }

    /// Key of this consumer and stream.
    pub fn key(&self) -> ConsumerKey {
        ConsumerKey { consumer: self.name.clone(), stream: self.stream.clone() }
    }

    /// Half of the memory is for chunks as received, half for inflated data.
    pub fn chunk_budget_bytes(&self) -> u64 {
        self.memory_bytes / 2
    }

    /// See [`Spec::chunk_budget_bytes`].
    pub fn inflate_budget_bytes(&self) -> u64 {
        self.memory_bytes - self.chunk_budget_bytes()
    }
}

/// The consumer's own filter. The broker alone selects if the value is not in the message.
fn filter_of(keys: &ConsumerConfig) -> Option<Arc<Filter>> {
    let filter = keys.filter.as_ref()?;
    let by = filter.by.clone()?;
    let (values, match_unfiltered) = (&filter.values, filter.match_unfiltered);
    let show_values = keys.show_values;
    Some(Arc::new(Filter::new(&keys.stream, by, values, match_unfiltered, show_values)))
}

/// The consumer's own programs.
fn transform_of(keys: &ConsumerConfig) -> Option<Arc<Transform>> {
    let (keep, reshape) = (keys.keep.clone(), keys.reshape.clone());
    Transform::new(keys.stream.clone(), keep, reshape, keys.show_values).map(Arc::new)
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use super::{Begin, Duration, OnBad, OnLost, Spec, Start, commit, cutter};
    use crate::sink::conformance::STREAM;
    use crate::source::ConnectOptions;
    use crate::source::scripted::Scripted;

    /// A consumer that keeps its state here, without a broker.
    pub(in crate::consumer) fn spec(state_dir: &Path) -> Spec {
        let second = Duration::from_secs(1);
        Spec {
            name: "c".into(),
            stream: STREAM.into(),
            reference: "r".into(),
            filter: None,
            transform: None,
            begin: Begin::At(Start::First),
            upto: None,
            on_lost: OnLost::Halt,
            on_bad: OnBad::DeadLetter,
            commit: commit::Policy { every_messages: 1, every: second },
            batch: cutter::BatchLimits { max_messages: 1, max_bytes: 1, max_age: second },
            memory_bytes: 1 << 20,
            wind_up_after: second,
            backoff_min: second,
            backoff_max: second,
            source: std::sync::Arc::new(Scripted::missing()),
            connect: ConnectOptions::testing(),
            state_dir: state_dir.to_owned(),
            keeps_state: true,
        }
    }
}
