//! What the brain wants shown, logged and counted. It decides nothing by these.

use std::time::Duration;

use crate::consumer::brain::storing::StoreEnd;
use crate::consumer::resumption::Resumption;
use crate::flow::lag::Seen;
use crate::flow::resume::{Lost, OnLost};
use crate::sink::BadRecord;
use crate::source::SourceError;
use crate::telemetry::{LostReason, RestartReason, SinkErrorReason, State};
use crate::types::{Offset, Timestamp};
use crate::wire::chunk::ChunkError;

/// Something worth knowing.
pub(in crate::consumer) enum Note {
    /// A new state, with the reason if it is a bad one.
    State(State, Option<String>),
    /// It connects; the reason shown before stays.
    Connecting,
    /// Chunks come from here on. `base` is the first offset that counts for the lag; `resumed` is true
    /// where everything below it is durable.
    Subscribed { resumption: Box<Resumption>, base: Offset, resumed: bool },
    /// There is no connection, and it is tried again after `wait`.
    NotConnected { error: String, wait: Duration },
    /// It is started or connected again.
    Restart(RestartReason),
    /// The position is lost.
    Lost(Lost),
    /// The position is lost, and a policy lets it go on.
    GoingOn { lost: Lost, policy: OnLost },
    /// After a loss it goes on with what is published next: so many messages at the most, which the
    /// stream holds, are passed over.
    PassedOver { records: u64, is_new_history: bool },
    /// The stream was created again before its first message was read.
    ReCreatedUnread(Lost),
    /// The chunk that a beginning waited for is there.
    FirstMessage,
    /// A chunk came, of so many bytes.
    Received { bytes: u64 },
    /// So many records of a chunk were accepted.
    Accepted { records: u32 },
    /// All of a chunk was taken.
    Taken { seen: Seen, last: Offset },
    /// A chunk that was written before the time to begin with; its last offset.
    TooEarly(Offset),
    /// The offsets between are none of any message.
    GapOfChunks { from: Offset, to: Offset },
    /// The broker's filter left out the offsets between.
    LeftByFilter { from: Offset, to: Offset },
    /// The broker's filter selects nothing from `from` to `upto`: the position moves there.
    Passed { from: Offset, upto: Offset },
    /// How much can be passed over could not be found out; it is asked again.
    NotPassed(SourceError),
    /// Retention took messages before they were read, and a policy lets it go on.
    Truncated { what: String, records: u64 },
    /// The chunk at the position is damaged.
    DamagedAtPosition(ChunkError),
    /// A chunk is left out by policy, once the next one shows how far it reached.
    LeavingOut { wanted: Offset, error: ChunkError },
    /// The offsets from `from` to `to` (not included) were left out by policy.
    LeftOut { from: Offset, to: Offset, reason: LostReason, error: ChunkError },
    /// A sub-entry batch was left out by policy.
    BatchLeftOut { first: Offset, records: u32, reason: LostReason, error: ChunkError },
    /// The sink works; `wrote` is what became durable, and how long that took where it is known.
    SinkWorks { messages: u64, bytes: u64, took: Option<Duration> },
    /// The sink could not write, and tries again after `wait`.
    SinkFailed { error: String, wait: Duration },
    /// The sink ended for good.
    SinkStopped { reason: SinkErrorReason, messages: u64 },
    /// The sink ended what it had begun, with so many batches left.
    WoundUp { batches: usize },
    /// The sink has set the former history aside.
    Restarted,
    /// Records were left out by policy, or are among the dead letters.
    Skipped(Vec<BadRecord>),
    /// The durable offset moved.
    Progress(Timestamp),
    /// A store has ended.
    Store(StoreEnd, Option<SourceError>),
    /// The offset is not stored: the stream does not hold the position any more.
    Unconfirmed,
    /// The sink's task was aborted: it did not end in time for another consumer to become active.
    SinkAborted,
    /// This consumer is the active one, or a passive one.
    Active(bool),
    /// A fault in this program that does not end the consumer.
    Internal(String),
}
