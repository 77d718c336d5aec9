//! A sink's declaration: all that the rest of the program knows of a sink.
//!
//! A sink's folder has its keys (`settings.rs`), its [`Declaration`] (`declaration.rs`) and its
//! part of config/reference.toml (`reference.toml`); a line in [`registry`](super::registry) adds
//! it. `config`, `check`, `schema`, the supervisor and the documentation tests use nothing else.
//!
//! No method has a default: a sink that forgets one does not compile.
//!
//! Knows nothing of how the file is read, or what runs a sink.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::audit::Auditing;
use super::factory::{Look, Renaming, SinkFactory};
use super::metrics::{MetricsSettings, Recorder};
use super::placeholders::Names;
use super::stream::{Destination, Publisher};
use super::{BAD_RECORDS_MAX, JOINED_MAX};
use crate::settings::columns::ColumnsConfig;
use crate::settings::{BrokerConfig, Problem, Start, join};
use crate::types::{ConsumerName, Guarantee, Reference, StreamName};

/// Facts that are the same for every sink of a kind.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Name of the kind, the value of `type`.
    pub kind: &'static str,
    /// Delivery guarantee.
    pub guarantee: Guarantee,
    /// Required keys besides `type`, as TOML.
    pub least: &'static str,
    /// Its part of config/reference.toml: a complete `[[consumer]]`.
    pub reference: &'static str,
}

/// The settings of a sink, and everything that follows from them.
pub trait Declaration: Send + Sync {
    /// Facts that are the same for every sink of this kind.
    fn about() -> &'static About
    where
        Self: Sized;

    /// Checks the values, and makes relative paths start at the folder of the configuration file.
    fn validate(&mut self, check: &mut Check<'_>);

    /// Checks all sinks of this kind against each other, beyond [`Declaration::exclusive`].
    fn validate_together(
        uses: &[Use<'_, Self>],
        broker: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) where
        Self: Sized;

    /// Path that it writes to, for `rillway check`; `None` if it has none. Without secrets.
    fn place(&self) -> Option<PathBuf>;

    /// The rows that it makes of messages, for `rillway check`; `None` if each message is one, or if it makes
    /// none.
    fn rows(&self) -> Option<String>;

    /// The destination that accepts each stream only once; `None` if there is no such rule.
    fn exclusive(&self) -> Option<Exclusive>;

    /// Most memory in bytes beyond the batches: its buffers, and its compressor.
    fn overhead_bytes(&self) -> u64;

    /// Most memory of a large message while it is written, as a multiple of its size: 0 if messages
    /// are not looked at, 1 if they are copied, [`JSON_GROWTH_MAX`] if they become JSON.
    fn growth_max(&self) -> u64;

    /// Most bad records that it reports at once, for a batch of this many messages.
    fn bad_records_max(&self, batch_messages: u64) -> u64;

    /// Default start position of its consumer.
    fn start(&self) -> Start;

    /// Where a replay writes.
    fn replay_place(&self) -> ReplayPlace;

    /// Turns it into the sink for a replay. If the consumer's own destination
    /// accepts nothing else, that is a separate place beside it; other sinks distinguish the two by
    /// the reference.
    fn turn_to_replay(&mut self, suffix: &str);

    /// The typed columns that are configured; `None` for a sink without them.
    fn columns(&self) -> Option<&ColumnsConfig> {
        None
    }

    /// The values in which placeholders may stand, each with its key.
    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)>;

    /// Puts the names of its stream in place of the placeholders, and into the defaults that follow
    /// from them.
    fn fill(&mut self, names: &Names);

    /// Where dead letters that it wrote can be read back from; `None` if they cannot.
    fn readable(&self) -> Option<Readable>;

    /// What becomes of messages that it is given again, after the position was moved back. Follows "they ".
    fn read_again(&self) -> &'static str;

    /// How `rillway verify` compares what it holds with the stream. Does no I/O itself.
    fn audit(&self, opening: &Opening) -> Auditing;

    /// Functions that open it, and that inspect its position. Does no I/O itself.
    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look);

    /// Gives what it keeps under a former reference that of `opening`; `None` if it keeps nothing that can be
    /// renamed. Does no I/O itself.
    fn renaming(&self, opening: &Opening) -> Option<Renaming>;
}

/// Where a replay through a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayPlace {
    /// To a place of its own, or where nothing is kept.
    Apart,
    /// Among what the consumer itself has written: a message that is there already is there once more.
    Among,
    /// To standard output: what else is to be said goes elsewhere.
    Printed,
    /// Nowhere: what it makes lives in the daemon's process.
    Nowhere,
}

/// Largest growth of a message as JSON: six bytes for a control character, three to four for each
/// byte of a number.
pub const JSON_GROWTH_MAX: u64 = 6;

/// `records`, but at most the messages of a batch. Joined batches count as one.
pub fn at_most_of_joined(records: u64, batch_messages: u64) -> u64 {
    records.min(batch_messages.saturating_mul(JOINED_MAX as u64))
}

/// Limit for a sink that stops after [`BAD_RECORDS_MAX`](super::BAD_RECORDS_MAX) bad records.
pub fn bad_records_up_to_the_limit(batch_messages: u64) -> u64 {
    at_most_of_joined(BAD_RECORDS_MAX as u64, batch_messages)
}

/// Limit for a sink that finds that many itself, and as many again that the server refuses.
pub fn bad_records_of_both_sides(batch_messages: u64) -> u64 {
    at_most_of_joined(2 * BAD_RECORDS_MAX as u64, batch_messages)
}

/// Validation of one sink: the path of its table, and the problems found.
pub struct Check<'a> {
    at: &'a str,
    folder: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    /// A check for the table at this path of the file.
    pub fn new(at: &'a str, folder: &'a Path, problems: &'a mut Vec<Problem>) -> Check<'a> {
        Check { at, folder, problems }
    }

    /// Path of the sink's table in the file.
    pub fn at(&self) -> &'a str {
        self.at
    }

    /// The folder of the configuration file.
    pub fn folder(&self) -> &'a Path {
        self.folder
    }

    /// Returns a function that adds a problem of one of the sink's keys.
    pub fn bad(&mut self) -> impl FnMut(&str, String) {
        |key, message| self.problems.push(Problem::new(join(self.at, key), message))
    }

    /// All problems found so far.
    pub fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }
}

/// A destination that accepts each stream only once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exclusive {
    /// Key that configures it.
    pub key: &'static str,
    /// The destination, without a secret; the same text for all that write there.
    pub place: String,
}

/// A consumer's purpose for a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its records.
    Records,
    /// Its dead letters.
    DeadLetters,
}

impl Role {
    /// The consumer's key that holds the sink.
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
    /// Path of the consumer in the file.
    pub at: &'a str,
    /// The consumer's purpose for it.
    pub role: Role,
    /// The stream that the consumer reads, or the super stream.
    pub stream: &'a StreamName,
    /// True if that is a super stream.
    pub is_super_stream: bool,
    /// Reference under which the sink keeps its position.
    pub reference: Reference,
    /// The sink.
    pub sink: &'a S,
}

impl<'a, S> Use<'a, S> {
    /// Path of one of the sink's keys.
    pub fn path(&self, key: &str) -> String {
        format!("{}.{}.{key}", self.at, self.role.key())
    }

    /// The same use of another view of the sink.
    pub fn with<T>(&self, sink: &'a T) -> Use<'a, T> {
        Use {
            at: self.at,
            role: self.role,
            stream: self.stream,
            is_super_stream: self.is_super_stream,
            reference: self.reference.clone(),
            sink,
        }
    }
}

/// Source from which dead letters can be read back.
#[derive(Clone, Debug, PartialEq)]
pub enum Readable {
    /// Files below this folder.
    Files(PathBuf),
    /// A stream, on this broker or, if `None`, on that of `[broker]`.
    Stream {
        /// The stream.
        stream: StreamName,
        /// The broker.
        broker: Option<Box<BrokerConfig>>,
    },
}

/// The consumer that a sink is opened for, and the services it may use.
#[derive(Clone)]
pub struct Opening {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The stream that it reads.
    pub stream: StreamName,
    /// Reference under which the position is stored.
    pub reference: Reference,
    /// True if it is opened whenever the broker makes this consumer the active one of several. Whoever
    /// opens it then takes it over, also after another one had it.
    pub by_broker: bool,
    /// Services that the sink does not have itself.
    pub services: Arc<dyn Services>,
}

/// Services of the process for sinks.
pub trait Services: Send + Sync {
    /// A publisher to a stream, on its own connection. It connects on demand.
    fn publisher(&self, destination: &Destination) -> Box<dyn Publisher>;

    /// The metrics of a sink, on the process's page.
    fn recorder(&self, settings: &MetricsSettings, opening: &Opening) -> Arc<dyn Recorder>;
}
