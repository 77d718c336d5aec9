//! `[[consumer]]`: a stream or a super stream, read under one reference, written to one sink.

mod limits;

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use self::limits::{BatchConfig, CommitConfig, RestartConfig};
use super::create::CreateConfig;
pub use super::filter::FilterConfig;
use super::filter::FilterKeys;
use super::names::{REFERENCE_BYTES_MAX, STREAM_BYTES_MAX};
pub use super::policies::{OnBadMessage, OnOffsetLost};
use super::program::ProgramKeys;
use crate::settings::read::typed;
use crate::settings::{ByteSize, Problem, Start, join};
use crate::sink::placeholders::{self, Names};
use crate::sink::registry::SinkConfig;
use crate::transform::{self, Program};
use crate::types::{ConsumerName, Guarantee, Reference, StreamName};

const NAME_CHARS_MAX: usize = 64;
const MEMORY_MIN: ByteSize = ByteSize::mib(1);
/// Memory of the dead letters that are written together, except the last.
const LETTERS: ByteSize = ByteSize::mib(2);

/// A stream, or a super stream with its partitions, read under one reference, written to one sink.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Name of the consumer: the `consumer` label of its metrics.
    pub name: ConsumerName,
    /// Name under which its offset is stored on the broker.
    pub reference: Reference,
    /// The stream to read, or the super stream.
    pub stream: StreamName,
    /// True if the broker has one active consumer among all of this reference.
    pub single_active: bool,
    /// True if it is a super stream: each of its partitions is read for itself.
    pub is_super_stream: bool,
    /// Arguments with which it is created if it is absent; `None` if it is never created.
    pub create: Option<CreateConfig>,
    /// The messages that it wants; `None` for all.
    pub filter: Option<FilterConfig>,
    /// Program that says of each message whether it is wanted (`where`); `None` for all.
    pub keep: Option<Program>,
    /// Program that makes the body of each message (`map`); `None` if it stays as it is.
    pub reshape: Option<Program>,
    /// Start position if it has never stored an offset.
    pub start: Start,
    /// When it stores its offset on the broker.
    pub commit: CommitConfig,
    /// Limits of its batches.
    pub batch: BatchConfig,
    /// Most bytes of messages that it holds.
    pub memory: ByteSize,
    /// Policy for a position that no longer lies within the stream.
    pub on_offset_lost: OnOffsetLost,
    /// Policy for a message that cannot be written.
    pub on_bad_message: OnBadMessage,
    /// True if the report of a bad message may quote its value.
    pub show_values: bool,
    /// Waiting times before it restarts after a failure.
    pub restart: RestartConfig,
    /// Destination of its records.
    pub sink: SinkConfig,
    /// Destination of messages that cannot be written. Always `Some` if the policy is dead-letter; if it is to
    /// halt, for those that an operator sends there.
    pub dead_letter: Option<SinkConfig>,
}

/// Bytes of the report of a bad record: its offset and the reason.
const BAD_RECORD_BYTES: u64 = 256;
/// Bytes of the shortest possible message with its length.
const MESSAGE_BYTES_MIN: u64 = 7;

/// Batches that are written together at the most.
const JOINED_BATCHES_MAX: u64 = 8;

/// Suffix of the reference for the position of the dead letters.
const DEAD_LETTERS: &str = ".dead-letters";

impl ConsumerConfig {
    /// Upper bound of this consumer's memory: the messages it holds, its sink's own buffers, the
    /// largest message (at most half of `memory`) in the sink's format, the reports of bad records,
    /// and the buffers of the dead letters' sink, with a message copied into its dead letter.
    pub fn memory_bound(&self) -> ByteSize {
        let letters = self
            .dead_letter
            .as_ref()
            .map_or(0, |sink| sink.overhead_bytes().saturating_add(LETTERS.0 + self.memory.0 / 2));
        let largest = self.memory.0 / 2;
        let encoded = [Some(&self.sink), self.dead_letter.as_ref()]
            .into_iter()
            .flatten()
            .map(|sink| largest.saturating_mul(sink.growth_max()))
            .max()
            .unwrap_or_default();
        let bad =
            self.sink.bad_records_max(self.batch.max_messages).min(largest / MESSAGE_BYTES_MIN);
        let bad = bad.saturating_mul(BAD_RECORD_BYTES);
        let together = self.batch.max_messages.saturating_mul(JOINED_BATCHES_MAX);
        let together = together.min(largest / MESSAGE_BYTES_MIN);
        let filter = self.filter.as_ref().map_or(0, |filter| filter.overhead_bytes(together));
        let programs = match self.keep.is_some() || self.reshape.is_some() {
            true => transform::memory_max(largest),
            false => 0,
        };
        [self.sink.overhead_bytes(), letters, encoded, bad, filter, programs]
            .into_iter()
            .fold(self.memory, |sum, bytes| ByteSize(sum.0.saturating_add(bytes)))
    }

    /// The consumer of one stream: of its own, or of this partition of its super stream. Its sinks
    /// have the stream's names in place of the placeholders.
    #[must_use]
    pub fn of_stream(&self, partition: Option<&StreamName>) -> ConsumerConfig {
        let names = Names {
            stream: partition.unwrap_or(&self.stream).clone(),
            super_stream: self.is_super_stream.then(|| self.stream.clone()),
        };
        ConsumerConfig {
            stream: names.stream.clone(),
            is_super_stream: false,
            // A super stream is created as a whole, or not at all.
            create: self.create.clone().filter(|_| partition.is_none()),
            sink: self.sink.for_stream(&names),
            dead_letter: self.dead_letter.as_ref().map(|sink| sink.for_stream(&names)),
            ..self.clone()
        }
    }

    /// Checks that this can be a reference.
    ///
    /// # Errors
    /// If it cannot; the text says why.
    pub fn check_reference(reference: &str) -> Result<(), String> {
        if reference.is_empty() || reference.len() > REFERENCE_BYTES_MAX {
            return Err(format!(
                "it is {} bytes long: expected 1 to {REFERENCE_BYTES_MAX} (the broker drops the \
                 offsets of a longer one without an answer)",
                reference.len()
            ));
        }
        match reference.contains(char::is_control) {
            true => Err(format!("{reference:?} holds a control character: leave it out")),
            false => Ok(()),
        }
    }

    /// Reference of the dead letters' sink for its position.
    pub fn dead_letter_reference(&self) -> Reference {
        ConsumerConfig::dead_letters_of(&self.reference)
    }

    /// The same for a consumer with this reference.
    pub fn dead_letters_of(reference: &Reference) -> Reference {
        Reference::new(format!("{reference}{DEAD_LETTERS}"))
    }
}

/// A stream or a super stream, read under one reference, written to one sink.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ConsumerKeys {
    /// Name of the consumer, the `consumer` label of its metrics: 1 to 64 letters, digits, `_`, `-`
    /// and `.`.
    pub(super) name: String,
    /// Name under which its offset is stored on the broker, at most 255 bytes. Default: `name`.
    #[serde(default)]
    reference: Option<String>,
    /// The stream to read. This or `super_stream` is required.
    #[serde(default)]
    stream: Option<String>,
    /// The super stream to read (RabbitMQ 3.11 and later): each partition has its own position,
    /// restarts and metrics.
    #[serde(default)]
    super_stream: Option<String>,
    /// Of all consumers with this stream and reference, in any number of daemons, the broker has one
    /// active, and another one when that ends; of a super stream, one for each partition. Needs
    /// RabbitMQ 3.11.
    #[serde(default)]
    single_active: bool,
    /// Creates the stream or super stream with these arguments if it is absent when the consumer first
    /// starts. One that exists is never changed.
    #[serde(default)]
    create: Option<CreateConfig>,
    /// Reads only messages with one of these filter values.
    #[serde(default)]
    filter: Option<FilterKeys>,
    /// Program in the language jq that keeps a message, or leaves it out if the result is false or null:
    /// its text, or { file = "PATH" }.
    #[serde(default, rename = "where")]
    keep: Option<ProgramKeys>,
    /// Program in the language jq whose result becomes the body of the message, as JSON: its text, or
    /// { file = "PATH" }.
    #[serde(default, rename = "map")]
    reshape: Option<ProgramKeys>,
    /// Start position if the consumer has never stored an offset. `last` is the last chunk, not the
    /// last message; a timestamp is also exact to the chunk only. Default: `first`; for the sink
    /// `metrics`, `next`.
    #[serde(default)]
    start: Option<Start>,
    /// When it stores its offset on the broker: the first limit reached counts. It is also stored
    /// at shutdown.
    #[serde(default)]
    commit: CommitConfig,
    /// When a batch is passed to the sink: the first limit reached counts.
    #[serde(default)]
    batch: BatchConfig,
    /// Most bytes of messages that it holds, however far behind it is; at least 1MiB.
    #[serde(default = "memory")]
    memory: ByteSize,
    /// Policy for a position that no longer lies within the stream, because retention dropped the
    /// next messages or the stream was re-created: `halt`, or continue with the `first` message
    /// that the stream holds or the `next` that is published.
    #[serde(default)]
    on_offset_lost: OnOffsetLost,
    /// Policy for a message that cannot be decoded or written: `halt`, `skip` it, or write it to
    /// the sink `dead_letter` (`dead_letter`) and continue.
    #[serde(default)]
    on_bad_message: OnBadMessage,
    /// Destination of messages that cannot be written, with `on_bad_message = "dead_letter"`; with `"halt"`, of
    /// those that `rillway skip --to-dead-letters` sends there.
    #[serde(default)]
    #[schemars(with = "Option<SinkConfig>")]
    dead_letter: Option<Value>,
    /// Allows the log, `/readyz` and the errors in dead letters to show part of the value because
    /// of which a message cannot be written, and folders that are made of values.
    #[serde(default = "yes")]
    show_values: bool,
    /// Waiting times before it restarts after a failure. The wait doubles each time.
    #[serde(default)]
    restart: RestartConfig,
    /// Destination of its records.
    #[schemars(with = "SinkConfig")]
    sink: Value,
}

fn yes() -> bool {
    true
}

fn memory() -> ByteSize {
    ByteSize::mib(32)
}

impl ConsumerConfig {
    /// Reads the table of a consumer. `None` only if a problem was added.
    pub(super) fn from_value(
        value: Value,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<ConsumerConfig> {
        let before = problems.len();
        // Of a table without anything in it, this is the first thing to say.
        if let Value::Object(table) = &value
            && !table.contains_key("stream")
            && !table.contains_key("super_stream")
        {
            let message = "the key `stream` is missing: the stream to read, or else `super_stream`";
            problems.push(Problem::new(at, message));
            return None;
        }
        let keys: ConsumerKeys = match typed(value, at) {
            Ok(keys) => keys,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        check(&keys, at, problems);
        let source = check_source(&keys, at, problems);
        if let (Some(create), Some((stream, is_super_stream))) = (&keys.create, &source) {
            create.check(stream, *is_super_stream, &join(at, "create"), problems);
        }
        let filter = keys.filter.map(|keys| keys.check(&join(at, "filter"), problems));
        let mut compile = |program: Option<ProgramKeys>, key| {
            program.and_then(|program| program.compile(&join(at, key), folder, problems))
        };
        let (keep, reshape) = (compile(keys.keep, "where"), compile(keys.reshape, "map"));
        let sink = SinkConfig::from_value(keys.sink, &join(at, "sink"), folder, problems)?;
        let dead_letter = dead_letter(keys.dead_letter, keys.on_bad_message, at, folder, problems);
        let start = keys.start.unwrap_or_else(|| sink.start());
        if keys.single_active && matches!(start, Start::Next | Start::Last | Start::Ago(_)) {
            let message = format!(
                "with `single_active`, {start} would mean something else for a daemon that becomes active \
                 later, and messages could be skipped: use \"first\", an offset or a timestamp"
            );
            problems.push(Problem::new(join(at, "start"), message));
        }
        let reference = Reference::new(keys.reference.unwrap_or_else(|| keys.name.clone()));
        let (stream, is_super_stream) = source?;
        if !is_super_stream {
            let sinks = [("sink", Some(&sink)), ("dead_letter", dead_letter.as_ref())];
            check_partitions(&sinks, at, problems);
        }
        if dead_letter.is_some()
            && reference.as_str().len() + DEAD_LETTERS.len() > REFERENCE_BYTES_MAX
        {
            let message = format!(
                "with dead letters it may be {} bytes long at the most: their position is kept under \
                 it and {DEAD_LETTERS:?}",
                REFERENCE_BYTES_MAX - DEAD_LETTERS.len()
            );
            problems.push(Problem::new(join(at, "reference"), message));
        }
        (problems.len() == before).then(|| ConsumerConfig {
            reference,
            name: ConsumerName::new(keys.name),
            stream,
            single_active: keys.single_active,
            is_super_stream,
            create: keys.create,
            filter,
            keep,
            reshape,
            start,
            commit: keys.commit,
            batch: keys.batch,
            memory: keys.memory,
            on_offset_lost: keys.on_offset_lost,
            on_bad_message: keys.on_bad_message,
            show_values: keys.show_values,
            restart: keys.restart,
            sink,
            dead_letter,
        })
    }
}

/// The destination of dead letters, if the policy needs one.
fn dead_letter(
    value: Option<Value>,
    policy: OnBadMessage,
    at: &str,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<SinkConfig> {
    let at = join(at, "dead_letter");
    match (value, policy) {
        (None, OnBadMessage::Halt | OnBadMessage::Skip) => None,
        (None, OnBadMessage::DeadLetter) => {
            let message = "on_bad_message = \"dead_letter\" needs a sink for them: expected a table, \
                           as in { type = \"file\", dir = \"dead-letters\" }";
            problems.push(Problem::new(at, message));
            None
        }
        (Some(_), OnBadMessage::Skip) => {
            let message = "it has no effect with on_bad_message = \"skip\"";
            problems.push(Problem::new(at, message));
            None
        }
        // With `halt`, for single messages that an operator sends there.
        (Some(value), OnBadMessage::Halt | OnBadMessage::DeadLetter) => {
            let sink = SinkConfig::from_value(value, &at, folder, problems)?;
            if sink.guarantee() == Guarantee::None {
                let message = format!(
                    "the sink `{}` keeps no messages: on_bad_message = \"skip\" says so plainly",
                    sink.kind()
                );
                problems.push(Problem::new(at, message));
            }
            Some(sink)
        }
    }
}

/// The stream to read, and whether it is a super stream. `None` only if a problem was added.
fn check_source(
    keys: &ConsumerKeys,
    at: &str,
    problems: &mut Vec<Problem>,
) -> Option<(StreamName, bool)> {
    let mut bad = |key: &str, message: String| problems.push(Problem::new(join(at, key), message));
    let (key, name, is_super_stream) = match (&keys.stream, &keys.super_stream) {
        (Some(stream), None) => ("stream", stream, false),
        (None, Some(super_stream)) => ("super_stream", super_stream, true),
        (Some(_), Some(_)) => {
            let message = "the consumer has a `stream` already: a consumer reads one of the two";
            bad("super_stream", message.to_owned());
            return None;
        }
        // Found before.
        (None, None) => return None,
    };
    if name.is_empty() || name.len() > STREAM_BYTES_MAX {
        bad(key, format!("it is {} bytes long: expected 1 to {STREAM_BYTES_MAX}", name.len()));
    } else if name.chars().any(char::is_control) {
        bad(key, format!("{name:?} holds a control character"));
    }
    if is_super_stream && let Some(start @ Start::Offset(_)) = keys.start {
        let message = format!(
            "{start} is a position in one stream, and the partitions of a super stream have nothing in \
             common there: use \"first\", \"last\", \"next\", a timestamp, or {{ ago = ... }}"
        );
        bad("start", message);
    }
    Some((StreamName::new(name.as_str()), is_super_stream))
}

/// Checks that no value of a consumer without partitions names one.
fn check_partitions(sinks: &[(&str, Option<&SinkConfig>)], at: &str, problems: &mut Vec<Problem>) {
    for (which, sink) in sinks {
        for (key, text) in sink.iter().flat_map(|sink| sink.templates()) {
            if let Some(what) = placeholders::problem_without_super_stream(&text) {
                problems.push(Problem::new(join(&join(at, which), key), what));
            }
        }
    }
}

fn check(keys: &ConsumerKeys, at: &str, problems: &mut Vec<Problem>) {
    let mut bad = |key: &str, message: String| problems.push(Problem::new(join(at, key), message));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    // The name also becomes part of a file name: hence no slash, and no dot at its beginning.
    if keys.name.is_empty()
        || keys.name.len() > NAME_CHARS_MAX
        || keys.name.starts_with('.')
        || !keys.name.chars().all(allowed)
    {
        bad(
            "name",
            format!(
                "{:?} cannot be a name: expected 1 to {NAME_CHARS_MAX} letters (a-z, A-Z), digits, `_`, \
             `-` and `.`, and no `.` in front",
                keys.name
            ),
        );
    }
    if let Some(reference) = &keys.reference
        && let Err(what) = ConsumerConfig::check_reference(reference)
    {
        bad("reference", what);
    }
    for (key, count) in [
        ("commit.every_messages", keys.commit.every_messages),
        ("batch.max_messages", keys.batch.max_messages),
        ("batch.max_bytes", keys.batch.max_bytes.0),
    ] {
        if count == 0 {
            bad(key, "0 is out of range: expected at least 1".to_owned());
        }
    }
    for (key, time) in [
        ("commit.every", keys.commit.every),
        ("batch.max_age", keys.batch.max_age),
        ("restart.min_backoff", keys.restart.min_backoff),
    ] {
        if time.0.is_zero() {
            bad(key, "0s is out of range: expected more".to_owned());
        }
    }
    if keys.restart.max_backoff < keys.restart.min_backoff {
        bad(
            "restart.max_backoff",
            format!(
                "{} is less than restart.min_backoff, {}",
                keys.restart.max_backoff, keys.restart.min_backoff
            ),
        );
    }
    if keys.memory < MEMORY_MIN {
        bad("memory", format!("{} is out of range: expected at least {MEMORY_MIN}", keys.memory));
    } else if keys.batch.max_bytes > keys.memory {
        bad(
            "batch.max_bytes",
            format!(
                "a batch of {} does not fit into `memory`, {}",
                keys.batch.max_bytes, keys.memory
            ),
        );
    }
}
