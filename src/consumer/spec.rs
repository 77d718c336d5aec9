//! What one consumer is to do, as plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::resume::{OnLost, Start};
use crate::flow::{commit, cutter};
use crate::source::{ConnectOptions, Source};
use crate::types::{ConsumerKey, ConsumerName, Reference, StreamName, Timestamp};

/// Where a reference starts that never had a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As the broker says it.
    At(Start),
    /// So long before the consumer first subscribes.
    Ago(Duration),
}

impl Begin {
    /// In the broker's words.
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

/// What to do with a record, or a chunk, that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// Stop, and say so.
    Halt,
    /// Leave it out, count it, and say so.
    Skip,
    /// Write it to the dead letters' sink, and leave it out once it is durable there. A chunk that
    /// cannot be read has no message to write: that is a halt.
    DeadLetter,
}

/// One offset-tracking reference on one stream.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name in the configuration.
    pub name: ConsumerName,
    /// What it reads.
    pub stream: StreamName,
    /// Under which its offset is stored on the broker.
    pub reference: Reference,
    /// Where it starts without a position.
    pub begin: Begin,
    /// What to do when its position is lost.
    pub on_lost: OnLost,
    /// What to do with bad records.
    pub on_bad: OnBad,
    /// When offsets are stored.
    pub commit: commit::Policy,
    /// How batches are cut.
    pub batch: cutter::Limits,
    /// Bytes of chunks, received and inflated, that may be held.
    pub memory_bytes: u64,
    /// How long it writes what it has taken once it was told to drain. Then what is under way is ended,
    /// and the rest is left to the next start.
    pub wind_up_after: Duration,
    /// The shortest wait before something that failed is tried again.
    pub backoff_min: Duration,
    /// The longest.
    pub backoff_max: Duration,
    /// Where its records come from.
    pub source: Arc<dyn Source>,
    /// How to reach the broker by the stream protocol, for the lag.
    pub connect: ConnectOptions,
    /// Where positions are remembered.
    pub state_dir: PathBuf,
}

impl Spec {
    /// What this consumer, on this stream, is kept by.
    pub fn key(&self) -> ConsumerKey {
        ConsumerKey { consumer: self.name.clone(), stream: self.stream.clone() }
    }

    /// Half of the memory is for chunks as they came, half for what is inflated from them.
    pub fn chunk_budget_bytes(&self) -> u64 {
        self.memory_bytes / 2
    }

    /// See [`Spec::chunk_budget_bytes`].
    pub fn inflate_budget_bytes(&self) -> u64 {
        self.memory_bytes - self.chunk_budget_bytes()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use super::{Begin, Duration, OnBad, OnLost, Spec, Start, commit, cutter};
    use crate::sink::conformance::STREAM;
    use crate::source::ConnectOptions;
    use crate::source::scripted::Scripted;

    /// A consumer that keeps its state here, and knows no broker.
    pub(in crate::consumer) fn spec(state_dir: &Path) -> Spec {
        let second = Duration::from_secs(1);
        Spec {
            name: "c".into(),
            stream: STREAM.into(),
            reference: "r".into(),
            begin: Begin::At(Start::First),
            on_lost: OnLost::Halt,
            on_bad: OnBad::DeadLetter,
            commit: commit::Policy { every_messages: 1, every: second },
            batch: cutter::Limits { max_messages: 1, max_bytes: 1, max_age: second },
            memory_bytes: 1 << 20,
            wind_up_after: second,
            backoff_min: second,
            backoff_max: second,
            source: std::sync::Arc::new(Scripted::missing()),
            connect: ConnectOptions {
                seeds: Vec::new(),
                vhost: String::new(),
                mechanism: crate::source::Mechanism::External,
                tls: None,
                heartbeat: second,
                connect_timeout: second,
                request_timeout: second,
                follow_advertised_hosts: false,
                name: String::new(),
            },
            state_dir: state_dir.to_owned(),
        }
    }
}
