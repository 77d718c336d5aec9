//! When offsets are stored, batches are passed on, and failed consumers are restarted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ByteSize, HumanDuration};

/// `commit`: when an offset is stored on the broker. The first limit reached counts; it is also
/// stored at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CommitConfig {
    /// After this number of messages.
    pub every_messages: u64,
    /// After this time, if the position changed.
    pub every: HumanDuration,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self { every_messages: 10_000, every: HumanDuration::secs(5) }
    }
}

/// `batch`: when a batch is passed to the sink. The first limit reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BatchConfig {
    /// When it holds this number of messages.
    pub max_messages: u64,
    /// When it holds this many bytes; at most the consumer's `memory`.
    pub max_bytes: ByteSize,
    /// When its first message has waited this long.
    pub max_age: HumanDuration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_messages: 10_000, max_bytes: ByteSize::mib(8), max_age: HumanDuration::secs(1) }
    }
}

/// `restart`: waiting time before a consumer restarts after a failure. The wait doubles, with some
/// jitter, and is reset once the consumer has made progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RestartConfig {
    /// First wait.
    pub min_backoff: HumanDuration,
    /// Longest wait.
    pub max_backoff: HumanDuration,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self { min_backoff: HumanDuration::millis(500), max_backoff: HumanDuration::secs(30) }
    }
}
