//! What a sink says of itself: the one place that the rest of the program learns of a sink from.
//!
//! A sink's folder has its keys (`settings.rs`), its [`Declaration`] (`declaration.rs`) and its part of
//! config/reference.toml (`reference.toml`); a line in [`registry`](super::registry) adds it. `config`,
//! `check`, `schema`, the supervisor and the tests of the documentation read nothing else.
//!
//! No method has a default: a sink that forgets one does not compile.
//!
//! Must not know: how the file is read, what runs a sink.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::factory::{Look, SinkFactory};
use super::metrics::{MetricsSettings, Recorder};
use super::stream::{Destination, Publisher};
use super::{BAD_RECORDS_MAX, JOINED_MAX};
use crate::settings::{BrokerConfig, Problem, Start, join};
use crate::types::{ConsumerName, Guarantee, Reference, StreamName};

/// What is the same for every sink of a kind.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name, as the key `type` has it.
    pub kind: &'static str,
    /// How often a record can reach the destination.
    pub guarantee: Guarantee,
    /// The fewest keys that configure one, as TOML, beside `type`.
    pub least: &'static str,
    /// Its part of config/reference.toml: a whole `[[consumer]]`.
    pub reference: &'static str,
}

/// The settings of a sink, and all that follows from them.
pub trait Declaration: Send + Sync {
    /// What is the same for every sink of this kind.
    fn about() -> &'static About
    where
        Self: Sized;

    /// Checks the values, and has relative paths start at the folder of the configuration file.
    fn validate(&mut self, check: &mut Check<'_>);

    /// Checks all sinks of this kind against each other, beyond what [`Declaration::exclusive`] says.
    fn validate_together(
        uses: &[Use<'_, Self>],
        broker: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) where
        Self: Sized;

    /// Where it writes, as `rillway check` shows it, where that is a place. No secret.
    fn place(&self) -> Option<PathBuf>;

    /// The place that takes each stream once only, if there is such a rule.
    fn exclusive(&self) -> Option<Exclusive>;

    /// The memory that it takes on top of the batches, at the most: its buffers, and what its
    /// compressor works with.
    fn overhead_bytes(&self) -> u64;

    /// How many times its own bytes a large message takes at the most while it is written: 0 where
    /// messages are not looked at, 1 where they are copied, [`JSON_GROWTH_MAX`] where they become JSON.
    fn growth_max(&self) -> u64;

    /// The most bad records that it names at once, where a batch has so many messages.
    fn bad_records_max(&self, batch_messages: u64) -> u64;

    /// Where a consumer of it starts that has no position and is not told where.
    fn start(&self) -> Start;

    /// Becomes the sink for a replay of dead letters. Where the consumer's own destination can take
    /// nothing else, that is a place beside it; other sinks tell the two by the reference.
    fn turn_to_replay(&mut self, suffix: &str);

    /// Where dead letters that it wrote can be read back from, if they can.
    fn readable(&self) -> Option<Readable>;

    /// How to open it, and how to look at its position. Does no I/O itself.
    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look);
}

/// How many times its own bytes a message takes as JSON: six for a control character, three to four
/// for each byte of a number.
pub const JSON_GROWTH_MAX: u64 = 6;

/// So many, but not more than a batch has messages. Batches that were joined are one.
pub fn at_most_of_joined(records: u64, batch_messages: u64) -> u64 {
    records.min(batch_messages.saturating_mul(JOINED_MAX as u64))
}

/// For a sink that stops looking once it has found [`BAD_RECORDS_MAX`](super::BAD_RECORDS_MAX) bad records.
pub fn bad_records_up_to_the_limit(batch_messages: u64) -> u64 {
    at_most_of_joined(BAD_RECORDS_MAX as u64, batch_messages)
}

/// For a sink that finds so many by itself, and as many again that the other side refuses.
pub fn bad_records_of_both_sides(batch_messages: u64) -> u64 {
    at_most_of_joined(2 * BAD_RECORDS_MAX as u64, batch_messages)
}

/// The validation of one sink: where its table stands, and what was found.
pub struct Check<'a> {
    at: &'a str,
    folder: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    /// For the table at this path of the file.
    pub fn new(at: &'a str, folder: &'a Path, problems: &'a mut Vec<Problem>) -> Check<'a> {
        Check { at, folder, problems }
    }

    /// The path of the sink's table in the file.
    pub fn at(&self) -> &'a str {
        self.at
    }

    /// The folder of the configuration file.
    pub fn folder(&self) -> &'a Path {
        self.folder
    }

    /// Takes the complaints about keys of the sink.
    pub fn bad(&mut self) -> impl FnMut(&str, String) {
        |key, message| self.problems.push(Problem::new(join(self.at, key), message))
    }

    /// All that was found up to now.
    pub fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }
}

/// A place that takes each stream once only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exclusive {
    /// The key that says where it is.
    pub key: &'static str,
    /// The place, without a secret; the same for all that write there.
    pub place: String,
}

/// What a consumer uses a sink for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For its records.
    Records,
    /// For its dead letters.
    DeadLetters,
}

impl Role {
    /// The key of the consumer under which the sink stands.
    pub fn key(self) -> &'static str {
        match self {
            Role::Records => "sink",
            Role::DeadLetters => "dead_letter",
        }
    }
}

/// A sink of a configuration, with the consumer that uses it.
#[derive(Clone, Debug)]
pub struct Use<'a, S> {
    /// The path of the consumer in the file.
    pub at: &'a str,
    /// What the consumer uses it for.
    pub role: Role,
    /// The stream that the consumer reads.
    pub stream: &'a StreamName,
    /// The reference under which the sink keeps its position.
    pub reference: Reference,
    /// The sink.
    pub sink: &'a S,
}

impl<'a, S> Use<'a, S> {
    /// The path of one of the sink's keys.
    pub fn path(&self, key: &str) -> String {
        format!("{}.{}.{key}", self.at, self.role.key())
    }

    /// The same use, of another view of the sink.
    pub fn with<T>(&self, sink: &'a T) -> Use<'a, T> {
        Use {
            at: self.at,
            role: self.role,
            stream: self.stream,
            reference: self.reference.clone(),
            sink,
        }
    }
}

/// Where dead letters can be read back from.
#[derive(Clone, Debug, PartialEq)]
pub enum Readable {
    /// Files below this folder.
    Files(PathBuf),
    /// A stream, on this broker or, without one, on that of `[broker]`.
    Stream {
        /// The stream.
        stream: StreamName,
        /// The broker.
        broker: Option<Box<BrokerConfig>>,
    },
}

/// For whom a sink is opened, and what of the process it may use.
#[derive(Clone)]
pub struct Opening {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The stream that it reads.
    pub stream: StreamName,
    /// The reference under which the position is kept.
    pub reference: Reference,
    /// What the sink cannot do by itself.
    pub services: Arc<dyn Services>,
}

/// What sinks use of the process, and what does not lie below them.
pub trait Services: Send + Sync {
    /// A publisher to a stream, on a connection of its own. It connects when it is told to.
    fn publisher(&self, destination: &Destination) -> Box<dyn Publisher>;

    /// The metrics of a sink, on the process's page.
    fn recorder(&self, settings: &MetricsSettings, opening: &Opening) -> Arc<dyn Recorder>;
}
