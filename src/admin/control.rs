//! The admin server's interface to what an operator changes: single consumers, and the daemon itself.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::telemetry::{ConfigResult, State};
use crate::types::{ConsumerName, Offset, StreamName, Timestamp};

/// Carries out the orders of an operator.
#[async_trait]
pub trait Control: Send + Sync {
    /// Pauses, resumes or restarts a consumer, and waits for the effect for at most `wait`.
    ///
    /// Dropped when the caller goes away; the order is carried out all the same.
    async fn change(
        &self,
        verb: Verb,
        target: Target<'_>,
        wait: Duration,
    ) -> Result<Changed, ControlError>;

    /// Leaves out the message at which a consumer has halted, and starts it; waits for that for at most `wait`.
    async fn skip(&self, order: SkipOrder<'_>, wait: Duration) -> Result<Changed, ControlError>;

    /// Moves the positions of a consumer together, or says what that would do.
    ///
    /// Dropped when the caller goes away; a move that has begun is brought to its end all the same.
    async fn seek(&self, target: Target<'_>, seek: Seek) -> Result<Sought, SeekError>;

    /// Ends the daemon as SIGTERM does. Returns at once.
    fn drain(&self) -> Draining;

    /// The filter of the log.
    fn log_filter(&self) -> String;

    /// Replaces the filter of the log. The error says why it is none.
    fn set_log_filter(&self, filter: &str) -> Result<(), String>;

    /// Reads the configuration again and applies it; waits for the effect for at most `wait`.
    async fn reload(&self, wait: Duration) -> Result<Reloaded, NotReloaded>;

    /// The configuration that is in use.
    fn configuration(&self) -> ConfigurationView;
}

/// An order for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Reads nothing more, finishes what it has read, and stores the offset.
    Pause,
    /// Goes on after a pause.
    Resume,
    /// Drains, and starts anew; a halted consumer too.
    Restart,
    /// Leaves out the message at which it has halted, and starts.
    Skip,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Restart => "restart",
            Verb::Skip => "skip",
        })
    }
}

/// The consumer that an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its name in the configuration.
    pub consumer: &'a str,
    /// One of its streams; `None` for all.
    pub stream: Option<&'a str>,
}

/// One message that is to be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipOrder<'a> {
    /// The consumer that has halted there, and its stream.
    pub target: Target<'a>,
    /// The message.
    pub offset: Offset,
    /// True if it is to become a dead letter.
    pub to_dead_letters: bool,
}

/// Result of an order: whether it is finished, and the state of each stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The consumer's name.
    pub consumer: ConsumerName,
    /// The order.
    pub verb: Verb,
    /// True if it is carried out: the streams are paused, or work normally again.
    pub finished: bool,
    /// A reason for people, where the result is not the one that was ordered: a message that was to be skipped
    /// could be written after all, for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The streams that it was for. A consumer of a super stream whose partitions are not known has one,
    /// with the name of the super stream.
    pub streams: Vec<StreamState>,
}

/// One stream of a consumer, at the time of the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamState {
    /// The stream.
    pub stream: StreamName,
    /// State of the consumer on it.
    pub state: State,
    /// True while it works normally.
    pub ready: bool,
    /// Reason why it does not; `None` if it is ready.
    pub reason: Option<String>,
    /// The last durable offset.
    pub durable_offset: Option<Offset>,
    /// The offset stored on the broker.
    pub stored_offset: Option<Offset>,
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No consumer has this name.
    #[error("no consumer is named {0:?}")]
    Unknown(String),
    /// The consumer does not read this stream.
    #[error("consumer {consumer:?} does not read stream {stream:?}{}", list(known))]
    UnknownStream {
        /// The consumer.
        consumer: String,
        /// The stream.
        stream: String,
        /// The streams that it reads.
        known: Vec<StreamName>,
    },
    /// The skip is refused: the consumer has not halted at this offset, or has no `dead_letter`.
    #[error("{0}")]
    NotSkipped(String),
    /// The daemon shuts down.
    #[error("the daemon is shutting down")]
    Ending,
}

fn list(known: &[StreamName]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown: Vec<String> = known.iter().take(SHOWN_MAX).map(|s| format!("{s:?}")).collect();
    let more = if known.len() > SHOWN_MAX { ", …" } else { "" };
    match shown.is_empty() {
        true => ": its partitions are not known yet".to_owned(),
        false => format!(": it reads {}{more}", shown.join(", ")),
    }
}

/// Target of a seek: the next message to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The first message that the stream holds.
    First,
    /// The first message of the last chunk.
    Last,
    /// The next message that is published.
    Next,
    /// This one.
    Offset(Offset),
    /// The first one of the first chunk that was written at this time or later.
    Timestamp(Timestamp),
}

/// A move that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// Where to.
    pub to: SeekTo,
    /// Only say what it would do.
    pub dry_run: bool,
    /// True if messages may be skipped, also those that come before it is moved.
    pub may_skip: bool,
    /// True if no other daemon stands by for the consumer, as the operator says. Asked for where the broker has
    /// one of several active.
    pub alone: bool,
    /// Longest wait for the order's effect.
    pub wait: Duration,
}

/// A move that was made, or would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sought {
    /// The consumer's name.
    pub consumer: ConsumerName,
    /// True if nothing was moved.
    pub dry_run: bool,
    /// False if it is not done yet: then it is done later.
    pub finished: bool,
    /// For each stream what is read again or skipped, as `rillway offsets set --json` prints it.
    pub moves: Vec<Value>,
}

/// Why a consumer was not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeekError {
    /// There is no such consumer or stream, or the daemon ends.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It cannot be moved there. Nothing was moved.
    #[error("{0}")]
    Refused(String),
    /// It could not be moved; the text says how far it came.
    #[error("{0}")]
    Failed(String),
}

/// The daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Draining {
    /// Always true.
    pub draining: bool,
    /// Time in seconds after which consumers that have not finished are aborted.
    pub grace_seconds: f64,
}

/// The configuration was read again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reloaded {
    /// `applied` or `unchanged`.
    pub result: ConfigResult,
    /// The file.
    pub file: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Consumers that are new.
    pub added: Vec<ConsumerName>,
    /// Consumers that were drained and started with other settings.
    pub changed: Vec<ConsumerName>,
    /// Consumers that were drained and are gone.
    pub removed: Vec<ConsumerName>,
    /// Number of consumers that did not notice anything.
    pub unchanged: usize,
    /// True if other references are watched than before.
    pub watches_changed: bool,
    /// The new filter of the log; `None` if it was not changed.
    pub log_filter: Option<String>,
    /// True if nothing runs by the former configuration any more, and everything has started by the new one.
    pub finished: bool,
}

/// Why the configuration was not applied. Nothing has changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotReloaded {
    /// It cannot be used.
    #[error("{text}")]
    Refused {
        /// All problems, as text.
        text: String,
        /// The same, one by one.
        problems: Vec<ProblemView>,
    },
    /// The daemon shuts down.
    #[error("the daemon is shutting down")]
    Ending,
    /// It could not be read in time.
    #[error("{0}")]
    Failed(String),
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemView {
    /// The file.
    pub file: Option<String>,
    /// Line in the file, counted from 1; `None` if the key is not in the file.
    pub line: Option<usize>,
    /// Path of the key; empty for the whole file.
    pub key: String,
    /// Name of the consumer that the key belongs to.
    pub consumer: Option<String>,
    /// Environment variable that set the key.
    pub variable: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The configuration that is in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigurationView {
    /// The file that it was read from.
    pub file: String,
    /// SHA-256 of the file's content, in hexadecimal.
    pub sha256: String,
    /// Time at which it came into use, in RFC 3339.
    pub loaded_at: String,
    /// Number of its consumers.
    pub consumers: usize,
    /// The last attempt to load it again; `None` if there was none.
    pub last_reload: Option<LastReload>,
}

/// An attempt to load the configuration again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastReload {
    /// Time of the attempt, in RFC 3339.
    pub at: String,
    /// Its result.
    pub result: ConfigResult,
    /// Why it failed.
    pub error: Option<String>,
}
