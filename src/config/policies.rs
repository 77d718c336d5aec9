//! Policies of a consumer for what it cannot read or write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policy for a position that no longer lies within the stream: retention dropped the next
/// messages, or the stream was re-created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOffsetLost {
    /// Stop until an operator acts.
    #[default]
    Halt,
    /// Continue with the oldest message that the stream holds.
    First,
    /// Continue with the next message that is published.
    Next,
}

/// Policy for a message that cannot be decoded or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadMessage {
    /// Stop until an operator acts.
    #[default]
    Halt,
    /// Count it, log it, and continue without it.
    Skip,
    /// Write it to the sink `dead_letter`, and continue without it.
    DeadLetter,
}
