//! Events that the brain receives, and actions that it returns.

use std::time::{Duration, Instant};

use super::note::Note;
use super::passing::{Passed, Question};
use crate::consumer::orders::{Order, Report};
use crate::consumer::resumption::{Own, Resumption, SessionError};
use crate::flow::beginning::Memory;
use crate::flow::resume::Start;
use crate::source::{Bounds, Delivery, Prefer, SourceError};
use crate::types::{Checkpoint, Offset, Timestamp};

/// How a consumer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to end, and everything is stored.
    Drained,
    /// It does not continue until an operator acts.
    Halted(String),
    /// It may be started again.
    Failed(String),
    /// Another process, or another consumer of this one, holds the lock of its reference.
    Locked(String),
    /// Its sink panicked, which is a fault in this program. It may be started again.
    Panicked(String),
}

/// Why a forced commit was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// Nothing can become durable.
    #[error("the consumer cannot store its offset now: its sink is not open")]
    SinkNotOpen,
    /// What was to be stored is of the old incarnation.
    #[error("the stream was created again meanwhile")]
    ReCreated,
    /// What was to be stored is another instance's now.
    #[error("another instance of this consumer took over")]
    TakenOver,
    /// The consumer ended before.
    #[error("the consumer ended before it could be stored")]
    Ended,
}

/// The time of an event, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Moment {
    pub(in crate::consumer) at: Instant,
    pub(in crate::consumer) wall: Timestamp,
}

/// Something that happened. `W` is how the caller of a forced commit is answered.
pub(in crate::consumer) enum Event<W> {
    /// Time has passed; sent once in every turn.
    Due(Surroundings),
    /// The consumer is told to finish what is in flight, store the offset, and end.
    Drain,
    /// The consumer is told to store the offset of everything that it has accepted.
    Commit(W),
    /// The sink is open, or could not be opened.
    Opened(Result<Opened, Outcome>),
    /// A report of the sink's task.
    Reported(Report),
    /// The sink's task ended without a last report.
    SinkGone { panicked: bool },
    /// The sink has closed, as it was told to.
    SinkClosed,
    /// A store has ended; `read_back` is what the broker holds afterwards.
    Stored(Result<Option<Offset>, SourceError>),
    /// A [`Connect`] has ended.
    Linked(Result<Linked, SessionError>),
    /// A chunk arrived.
    Delivered(Delivery),
    /// The subscription has ended; the connection remains.
    Unavailable(SourceError),
    /// The broker made this consumer active or passive.
    Activation { active: bool },
    /// The connection has ended.
    LinkEnded(SourceError),
    /// The broker's answer about a gap.
    Asked(Result<Asked, SourceError>),
    /// The broker's answer about what its filter leaves out.
    Passed(Result<Passed, SessionError>),
}

/// State of memory and of the connection at the beginning of a turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Surroundings {
    /// The source may send more.
    pub(in crate::consumer) credit: bool,
    /// A chunk has arrived and can be taken at once.
    pub(in crate::consumer) waiting: bool,
}

/// A sink that was opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Opened {
    /// The position that the sink holds.
    pub(in crate::consumer) position: Option<Checkpoint>,
    /// The state file's content.
    pub(in crate::consumer) remembered: Option<Memory>,
    /// The most batches that may be with the sink's task and not reported yet.
    pub(in crate::consumer) orders_max: usize,
}

/// A usable connection.
pub(in crate::consumer) enum Linked {
    /// Chunks arrive.
    Reading(Box<Resumption>),
    /// The broker decides when chunks arrive.
    Passive,
    /// The offset can be stored, provided that the stream still holds the position.
    Storing { is_confirmed: bool },
}

/// The broker's answer about a gap.
pub(in crate::consumer) struct Asked {
    pub(in crate::consumer) from: Offset,
    pub(in crate::consumer) to: Offset,
    pub(in crate::consumer) bounds: Option<Bounds>,
    /// First offset of the chunk that the broker returns when it is asked for `from`.
    pub(in crate::consumer) there: Option<Offset>,
    /// The source does not show chunks: only the stream's first offset is known.
    pub(in crate::consumer) is_blind: bool,
    /// First offset of the chunk for `to`; only asked for if `there` is another one.
    pub(in crate::consumer) again: Option<Offset>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "made once for each connection, and copied")]
pub(in crate::consumer) enum Connect {
    /// To find the position and read from there.
    Read(Own),
    /// To wait, subscribed, until the broker makes this consumer the active one.
    Wait(Prefer),
    /// To store the offset of this position, if the stream holds it.
    Store(Option<Checkpoint>),
}

/// Something for the worker to do. An action that takes time ends with an [`Event`].
pub(in crate::consumer) enum Action<W> {
    /// Open the sink, taking it over from a former owner: [`Event::Opened`].
    OpenSink,
    /// Stop opening the sink.
    AbortOpening,
    /// Close the sink gracefully: [`Event::SinkClosed`].
    CloseSink,
    /// Abort the sink's task, whatever it is doing.
    AbortSink,
    /// Give this batch to the sink's task.
    Write(Order),
    /// Have the sink make everything durable that it holds.
    Flush,
    /// Have the sink begin a new incarnation.
    Restart,
    /// Have the sink finish the batches that it has begun, and begin no others.
    StopSink,
    /// Connect, replacing the present connection if there is one: [`Event::Linked`].
    Connect(Box<Connect>),
    /// Find the position on the present connection: [`Event::Linked`].
    Resume(Box<Own>),
    /// Ask, on the present connection, whether the stream holds this position: [`Event::Linked`].
    Verify(Checkpoint),
    /// Take no more chunks; the connection remains.
    StopReading,
    /// Drop the connection, and any attempt to connect.
    Disconnect,
    /// Tell the broker that the change of activity is complete, and where to begin.
    AnswerActivation(Option<Start>),
    /// Ask the broker about the gap between these offsets: [`Event::Asked`].
    Ask { from: Offset, to: Offset },
    /// Ask about what the broker's filter leaves out, in place of a question of this kind that is not
    /// answered: [`Event::Passed`].
    Pass(Question),
    /// Store this position: [`Event::Stored`].
    Store(Checkpoint),
    /// Answer the caller of a forced commit.
    Answer(W, Result<Option<Offset>, NotCommitted>),
    /// Show, log or count this.
    Note(Note),
}

/// The brain's state at the end of a turn, as others see it.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct View {
    /// Write time of the oldest chunk that was received and is not durable yet.
    pub(in crate::consumer) oldest: Option<Timestamp>,
    /// The last durable position.
    pub(in crate::consumer) durable: Option<Checkpoint>,
    /// True if a durable offset is not stored yet.
    pub(in crate::consumer) is_unstored: bool,
    /// True if chunks arrive.
    pub(in crate::consumer) is_reading: bool,
    /// True if the sink has a batch that is not durable yet, and that it does not hold back.
    pub(in crate::consumer) is_sink_busy: bool,
}

/// Longest time between two [`Event::Due`].
pub(in crate::consumer) const TICK: Duration = Duration::from_secs(1);
