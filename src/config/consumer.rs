//! `[[consumer]]`: one stream, read under one reference, carried into one sink.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::settings::read::typed;
use crate::settings::{ByteSize, HumanDuration, Problem, Start, join};
use crate::sink::registry::SinkConfig;
use crate::types::{ConsumerName, Guarantee, Reference, StreamName};

/// The protocol's limit; a longer reference is dropped by the broker without an answer.
const REFERENCE_BYTES_MAX: usize = 255;
/// The broker's limit for the name of a stream.
const STREAM_BYTES_MAX: usize = 255;
const NAME_CHARS_MAX: usize = 64;
const MEMORY_MIN: ByteSize = ByteSize::mib(1);
/// What the dead letters that are written at once take, but for the last.
const LETTERS: ByteSize = ByteSize::mib(2);

/// One stream, read under one reference, carried into one sink.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Its name: the `consumer` label of its metrics.
    pub name: ConsumerName,
    /// The name under which its offset is stored on the server.
    pub reference: Reference,
    /// The stream that it reads.
    pub stream: StreamName,
    /// Where it starts when it has never stored an offset.
    pub start: Start,
    /// When it stores its offset.
    pub commit: CommitConfig,
    /// How its batches are cut.
    pub batch: BatchConfig,
    /// How many bytes of messages it may hold.
    pub memory: ByteSize,
    /// What it does when its position no longer lies within the stream.
    pub on_offset_lost: OnOffsetLost,
    /// What it does with a message that cannot be written.
    pub on_bad_message: OnBadMessage,
    /// True if what is said of a bad message may quote it.
    pub show_values: bool,
    /// How long it waits before it starts again after a failure.
    pub restart: RestartConfig,
    /// Where its records go.
    pub sink: SinkConfig,
    /// Where messages go that cannot be written; there exactly where the policy wants it.
    pub dead_letter: Option<SinkConfig>,
}

/// What is told of a bad record: its offset, and why in words.
const BAD_RECORD_BYTES: u64 = 256;
/// The shortest message that there is, with its length.
const MESSAGE_BYTES_MIN: u64 = 7;

/// What a reference is followed by for the position of its dead letters.
const DEAD_LETTERS: &str = ".dead-letters";

impl ConsumerConfig {
    /// The memory that this consumer may take, at the most: the messages it holds, its sink's own
    /// buffers, the largest message (which is no longer than half of `memory`) as the sink writes it,
    /// what is told of bad records, and the buffers of the dead letters' sink, with a message copied into
    /// its letter.
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
        [self.sink.overhead_bytes(), letters, encoded, bad.saturating_mul(BAD_RECORD_BYTES)]
            .into_iter()
            .fold(self.memory, |sum, bytes| ByteSize(sum.0.saturating_add(bytes)))
    }

    /// The reference under which the dead letters' sink keeps its position.
    pub fn dead_letter_reference(&self) -> Reference {
        Reference::new(format!("{}{DEAD_LETTERS}", self.reference))
    }
}

/// `commit`: when an offset is stored on the server. Whichever comes first, and at shutdown anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CommitConfig {
    /// After so many messages.
    pub every_messages: u64,
    /// After so long, if the position moved.
    pub every: HumanDuration,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self { every_messages: 10_000, every: HumanDuration::secs(5) }
    }
}

/// `batch`: when a batch is handed to the sink. Whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BatchConfig {
    /// When it holds so many messages.
    pub max_messages: u64,
    /// When it holds so many bytes; at most the consumer's `memory`.
    pub max_bytes: ByteSize,
    /// When its first message has waited so long.
    pub max_age: HumanDuration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_messages: 10_000, max_bytes: ByteSize::mib(8), max_age: HumanDuration::secs(1) }
    }
}

/// `restart`: how long a consumer waits before it starts again after a failure. The wait doubles,
/// with some jitter, and starts anew once it has made progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RestartConfig {
    /// The first wait.
    pub min_backoff: HumanDuration,
    /// The longest wait.
    pub max_backoff: HumanDuration,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self { min_backoff: HumanDuration::millis(500), max_backoff: HumanDuration::secs(30) }
    }
}

/// What to do when the position no longer lies within the stream: retention took what came next,
/// or the stream was created anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOffsetLost {
    /// Stop, and wait for a person.
    #[default]
    Halt,
    /// Go on with the oldest message that there is.
    First,
    /// Go on with the next message that is published.
    Next,
}

/// What to do with a message that cannot be decoded or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadMessage {
    /// Stop, and wait for a person.
    #[default]
    Halt,
    /// Count it, log it, and go on without it.
    Skip,
    /// Write it to the sink `dead_letter`, and go on without it.
    DeadLetter,
}

/// One stream, read under one reference, carried into one sink.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ConsumerKeys {
    /// Its name, the `consumer` label of its metrics: 1 to 64 letters, digits, `_`, `-` and `.`.
    pub(super) name: String,
    /// The name under which its offset is stored on the server, at most 255 bytes. Default: `name`.
    #[serde(default)]
    reference: Option<String>,
    /// The stream that it reads.
    stream: String,
    /// Where it starts when it has never stored an offset. `last` is the last chunk, not the last
    /// message; a timestamp is exact to the chunk, too. Default: `first`; for the sink `metrics`,
    /// `next`.
    #[serde(default)]
    start: Option<Start>,
    /// When it stores its offset on the server: whichever comes first, and at shutdown anyway.
    #[serde(default)]
    commit: CommitConfig,
    /// When a batch is handed to the sink: whichever comes first.
    #[serde(default)]
    batch: BatchConfig,
    /// How many bytes of messages it may hold, however far behind it is; at least 1MiB.
    #[serde(default = "memory")]
    memory: ByteSize,
    /// What it does when its position no longer lies within the stream, because retention took
    /// what came next or the stream was created anew: `halt`, or go on with the `first` message
    /// that there is or the `next` that is published.
    #[serde(default)]
    on_offset_lost: OnOffsetLost,
    /// What it does with a message that cannot be decoded or written: `halt`, `skip` it, or write it
    /// to the sink `dead_letter` (`dead_letter`) and go on.
    #[serde(default)]
    on_bad_message: OnBadMessage,
    /// Where messages go that cannot be written, with `on_bad_message = "dead_letter"`.
    #[serde(default)]
    #[schemars(with = "Option<SinkConfig>")]
    dead_letter: Option<Value>,
    /// Whether the log, `/readyz` and dead letters' errors may show a glimpse of the value for which a
    /// message cannot be written.
    #[serde(default = "yes")]
    show_values: bool,
    /// How long it waits before it starts again after a failure. The wait doubles each time.
    #[serde(default)]
    restart: RestartConfig,
    /// Where its records go.
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
    /// Reads the table of a consumer. `None` only where a problem was added.
    pub(super) fn from_value(
        value: Value,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<ConsumerConfig> {
        let before = problems.len();
        let keys: ConsumerKeys = match typed(value, at) {
            Ok(keys) => keys,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        check(&keys, at, problems);
        let sink = SinkConfig::from_value(keys.sink, &join(at, "sink"), folder, problems)?;
        let dead_letter = dead_letter(keys.dead_letter, keys.on_bad_message, at, folder, problems);
        let reference = Reference::new(keys.reference.unwrap_or_else(|| keys.name.clone()));
        let stream = StreamName::new(keys.stream);
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
            start: keys.start.unwrap_or_else(|| sink.start()),
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

/// Where the dead letters go, if the policy is to have some.
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
        (Some(_), OnBadMessage::Halt | OnBadMessage::Skip) => {
            let message = "it has no effect without on_bad_message = \"dead_letter\"";
            problems.push(Problem::new(at, message));
            None
        }
        (Some(value), OnBadMessage::DeadLetter) => {
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

fn check(keys: &ConsumerKeys, at: &str, problems: &mut Vec<Problem>) {
    let mut bad = |key: &str, message: String| problems.push(Problem::new(join(at, key), message));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    // It becomes a file's name, too: hence no slash, and no dot in front.
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
        && (reference.is_empty() || reference.len() > REFERENCE_BYTES_MAX)
    {
        bad(
            "reference",
            format!(
                "it is {} bytes long: expected 1 to {REFERENCE_BYTES_MAX} (the broker drops the \
                 offsets of a longer one without an answer)",
                reference.len()
            ),
        );
    }
    if let Some(reference) = &keys.reference
        && reference.contains(char::is_control)
    {
        bad("reference", format!("{reference:?} holds a control character: leave it out"));
    }
    if keys.stream.is_empty() || keys.stream.len() > STREAM_BYTES_MAX {
        bad(
            "stream",
            format!("it is {} bytes long: expected 1 to {STREAM_BYTES_MAX}", keys.stream.len()),
        );
    } else if keys.stream.chars().any(char::is_control) {
        bad("stream", format!("{:?} holds a control character", keys.stream));
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
