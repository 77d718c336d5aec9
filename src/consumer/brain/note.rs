//! What the brain reports, to be shown, logged and counted. It decides nothing by these.

use std::time::Duration;

use crate::consumer::brain::storing::StoreEnd;
use crate::consumer::resumption::Resumption;
use crate::flow::lag::SeenChunk;
use crate::flow::resume::{Lost, OnLost};
use crate::sink::BadRecord;
use crate::source::SourceError;
use crate::telemetry::{LostReason, RestartReason, SinkErrorReason, State};
use crate::types::{Offset, Timestamp};
use crate::wire::chunk::ChunkError;

/// One report.
pub(in crate::consumer) enum Note {
    /// A new state, with the reason if it is a bad one.
    State(State, Option<String>),
    /// It is connecting; the reason shown before remains.
    Connecting,
    /// Chunks arrive from here on. `base` is the first offset that counts for the lag; `resumed` is true
    /// if everything below it is durable.
    Subscribed { resumption: Box<Resumption>, base: Offset, resumed: bool },
    /// There is no connection; the next attempt is after `wait`.
    NotConnected { error: String, wait: Duration },
    /// The back-off begins: it will be started or connected again.
    Restart(RestartReason),
    /// The position is lost.
    Lost(Lost),
    /// The position is lost, and a policy lets the consumer continue.
    GoingOn { lost: Lost, policy: OnLost },
    /// After a loss, it continues with what is published next. At most this many messages, which the
    /// stream holds, are skipped.
    PassedOver { records: u64, is_new_history: bool },
    /// The stream was re-created before its first message was read.
    ReCreatedUnread(Lost),
    /// The first chunk after a beginning has arrived.
    FirstMessage,
    /// A chunk of this many bytes arrived.
    Received { bytes: u64 },
    /// This many records of a chunk were accepted.
    Accepted { records: u32 },
    /// The whole chunk was taken.
    Taken { seen: SeenChunk, last: Offset },
    /// A chunk that was written before the time to begin with; the value is its last offset.
    TooEarly(Offset),
    /// The offsets between these hold no messages.
    GapOfChunks { from: Offset, to: Offset },
    /// The broker's filter left out the offsets between.
    LeftByFilter { from: Offset, to: Offset },
    /// The broker's filter selects nothing from `from` to `upto`: the position moves there.
    Passed { from: Offset, upto: Offset },
    /// How much can be passed over could not be found out; it is asked again.
    NotPassed(SourceError),
    /// Retention dropped messages before they were read, and a policy lets the consumer continue.
    Truncated { what: String, records: u64 },
    /// The chunk at the position is damaged.
    DamagedAtPosition(ChunkError),
    /// A chunk is left out by policy, once the next one shows how far it reached.
    LeavingOut { wanted: Offset, error: ChunkError },
    /// The offsets from `from` to `to` (not included) were left out by policy.
    LeftOut { from: Offset, to: Offset, reason: LostReason, error: ChunkError },
    /// A sub-entry batch was left out by policy.
    BatchLeftOut { first: Offset, records: u32, reason: LostReason, error: ChunkError },
    /// The sink works. `wrote` is what became durable, and how long that took if known.
    SinkWorks { messages: u64, bytes: u64, took: Option<Duration> },
    /// The sink could not write, and tries again after `wait`.
    SinkFailed { error: String, wait: Duration },
    /// The sink has failed permanently.
    SinkStopped { reason: SinkErrorReason, messages: u64 },
    /// The sink stopped at the time limit; this many batches are left.
    WoundUp { batches: usize },
    /// The sink has set the old incarnation's data aside.
    Restarted,
    /// Records were left out by policy, or were written to the dead letters.
    Skipped(Vec<BadRecord>),
    /// The durable offset moved.
    Progress(Timestamp),
    /// A store has ended.
    Store(StoreEnd, Option<SourceError>),
    /// The offset is not stored: the stream no longer holds the position.
    Unconfirmed,
    /// The sink's task was aborted: it did not end in time for another instance to become active.
    SinkAborted,
    /// This consumer became active or passive.
    Active(bool),
    /// A fault in this program that does not end the consumer.
    Internal(String),
}
