//! What the brain is told, and what it wants done.

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
    /// As it was told; everything is stored.
    Drained,
    /// It does not go on before a person acts.
    Halted(String),
    /// It may go on if it is started anew.
    Failed(String),
    /// Another process, or another consumer of this one, holds the lock of its reference.
    Locked(String),
    /// It may go on too after a panic of its sink, which is a fault in this program.
    Panicked(String),
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
    /// The consumer is told to finish what is under way, store the offset, and end.
    Drain,
    /// The consumer is told to store the offset of everything that it has accepted.
    Commit(W),
    /// The sink is open, or could not be opened.
    Opened(Result<Opened, Outcome>),
    /// The sink's task reports.
    Reported(Report),
    /// The sink's task ended without a report that says so.
    SinkGone { panicked: bool },
    /// The sink that was told to close has closed.
    SinkClosed,
    /// A store has ended, with what the broker holds afterwards.
    Stored(Result<Option<Offset>, SourceError>),
    /// A [`Connect`] has ended.
    Linked(Result<Linked, SessionError>),
    /// A chunk came.
    Delivered(Delivery),
    /// The subscription is gone, and the connection goes on.
    Unavailable(SourceError),
    /// The broker has this consumer become the active one, or a passive one.
    Activation { active: bool },
    /// The connection has ended.
    LinkEnded(SourceError),
    /// The broker's answer about a gap.
    Asked(Result<Asked, SourceError>),
    /// The broker's answer about what its filter leaves out.
    Passed(Result<Passed, SessionError>),
}

/// The state of memory and of the connection when a turn begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Surroundings {
    /// The source may send more.
    pub(in crate::consumer) credit: bool,
    /// A chunk is there and can be taken at once.
    pub(in crate::consumer) waiting: bool,
}

/// A sink that was opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Opened {
    /// The position that the sink holds.
    pub(in crate::consumer) position: Option<Checkpoint>,
    /// The state file's content.
    pub(in crate::consumer) remembered: Option<Memory>,
    /// Batches that may be with the sink's task and not reported yet.
    pub(in crate::consumer) orders_max: usize,
}

/// A connection that can be used.
pub(in crate::consumer) enum Linked {
    /// Chunks come.
    Reading(Box<Resumption>),
    /// The broker says when chunks come.
    Passive,
    /// The offset can be stored, if the stream still holds the position.
    Storing { is_confirmed: bool },
}

/// The broker's answer about a gap.
pub(in crate::consumer) struct Asked {
    pub(in crate::consumer) from: Offset,
    pub(in crate::consumer) to: Offset,
    pub(in crate::consumer) bounds: Option<Bounds>,
    /// The first offset of the chunk that the broker gives when it is asked for `from`.
    pub(in crate::consumer) there: Option<Offset>,
    /// The source shows no chunks: only the stream's first offset is known.
    pub(in crate::consumer) is_blind: bool,
    /// The same when it is asked for `to`, where that is another one.
    pub(in crate::consumer) again: Option<Offset>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) enum Connect {
    /// To find the position and read from there on.
    Read(Own),
    /// To wait, subscribed, until the broker makes this consumer the active one.
    Wait(Prefer),
    /// To store the offset of this position, if the stream holds it.
    Store(Option<Checkpoint>),
}

/// Something that the brain wants done. An action that takes time ends with an [`Event`].
pub(in crate::consumer) enum Action<W> {
    /// Open the sink, taking it over from a former owner: [`Event::Opened`].
    OpenSink,
    /// Forget the sink that is being opened.
    AbortOpening,
    /// End the sink's task in good order: [`Event::SinkClosed`].
    CloseSink,
    /// End the sink's task at once, whatever it is doing.
    AbortSink,
    /// Give the sink's task this batch.
    Write(Order),
    /// Have the sink make everything durable that it holds.
    Flush,
    /// Have the sink begin a new history.
    Restart,
    /// Have the sink end what it has begun, and begin nothing more.
    StopSink,
    /// Connect, in place of any connection that there is: [`Event::Linked`].
    Connect(Connect),
    /// Find the position on the connection that there is: [`Event::Linked`].
    Resume(Own),
    /// Find out, on the connection that there is, whether the stream holds this position:
    /// [`Event::Linked`].
    Verify(Checkpoint),
    /// Take no more chunks; the connection stays.
    StopReading,
    /// Drop the connection, and whatever is under way to have one.
    Disconnect,
    /// Tell the broker that the change of activity is complete, and where to begin.
    AnswerActivation(Option<Start>),
    /// Ask about the gap between these offsets: [`Event::Asked`].
    Ask { from: Offset, to: Offset },
    /// Ask about what the broker's filter leaves out, in place of a question of this kind that is not
    /// answered: [`Event::Passed`].
    Pass(Question),
    /// Store this position: [`Event::Stored`].
    Store(Checkpoint),
    /// Answer the caller of a forced commit.
    Answer(W, Result<Option<Offset>, String>),
    /// Show, log or count this.
    Note(Note),
}

/// What others see of the brain at the end of a turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct View {
    /// Time at which the oldest chunk that was received and is not durable was written.
    pub(in crate::consumer) oldest: Option<Timestamp>,
    /// The last durable position.
    pub(in crate::consumer) durable: Option<Checkpoint>,
    /// A durable offset is not stored.
    pub(in crate::consumer) is_unstored: bool,
    /// Chunks come.
    pub(in crate::consumer) is_reading: bool,
    /// The sink has a batch that it has not made durable, and does not hold back.
    pub(in crate::consumer) is_sink_busy: bool,
}

/// The longest that the brain may go without [`Event::Due`].
pub(in crate::consumer) const TICK: Duration = Duration::from_secs(1);
