//! Sources of records: the [`Source`] and [`Link`] traits, their contract, and one file or folder
//! for each transport.
//!
//! A [`Source`] is one stream under one reference, as plain data. [`Source::connect`] returns a
//! [`Link`], one open connection; [`begin`] makes a [`Subscription`] on it, which delivers
//! [`Event`]s.
//!
//! The contract, which `conformance` checks for every source:
//! - A transport declares its [`Abilities`] as data. The consumer asks them first, and does without
//!   a missing one. A missing ability never causes a panic or an error.
//! - [`Event::Chunk`] is a chunk in the stream protocol's layout, whatever the transport: records
//!   numbered with the stream's own offsets, in order. The first chunk holds the requested offset,
//!   or the first record after it if no record has that offset; it may begin below it.
//! - A chunk holds a permit for its bytes. The bytes held never exceed the budget, and are used up
//!   to it while there is more to deliver. Dropping the last clone of a permit, from any thread,
//!   requests more.
//! - Every operation has a time limit of its own. Only [`Subscription::next`] may wait
//!   indefinitely. It is cancel-safe: a dropped call loses no event.
//! - [`Link::store`] returns the offset that is held afterwards, read back; only that counts.
//!   `Ok(None)` of [`Link::stored`] means that nothing is stored, never that the answer is unknown.
//! - [`Bounds`] are a lower bound of the stream's end: records up to it exist, later ones may.
//! - A link that ended gives one reason, the same to every caller: [`Link::ended`],
//!   [`Link::reason`]. Events received before are still delivered; then [`Subscription::next`]
//!   returns `None`.
//! - A subscription is active at once, unless [`Source::activation`] says that the broker
//!   decides. Then nothing is delivered before an [`Event::Activation`] was answered. What was
//!   delivered before a change comes before its event. [`Subscription::change`] tells of a change
//!   although chunks wait before it: these are for the next active consumer.
//! - A source knows nothing of sinks, batches, policies or metrics.

pub mod amqp;
#[doc(hidden)]
pub mod conformance;
mod creating;
mod error;
pub mod lookout;
mod moving;
pub mod points;
#[cfg(test)]
pub(crate) mod scripted;
pub mod stream;
mod subscription;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

pub use self::creating::{Creating, Foreseen};
pub use self::error::{ErrorKind, SourceError};
pub use self::subscription::{Subscription, begin};
pub use crate::broker::{Bounds, Budget, ConnectOptions, Delivery, Mechanism, Prefer};
use crate::flow::resume::{Evidence, Start};
use crate::types::Offset;
use crate::wire::chunk::ProbedChunk;

/// One stream under one reference, with its connection options.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Connects to a node that can serve the stream.
    ///
    /// # Errors
    /// If it cannot connect; the caller retries after a back-off.
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError>;

    /// Creates the stream if it is absent and is to be created. Called before [`Source::connect`]; does
    /// nothing once it has succeeded. A consumer that `has_begun` has read the stream, or may have: then
    /// its absence is a loss, and nothing is created.
    ///
    /// # Errors
    /// If it cannot be created, or is not to be although it is absent.
    async fn prepare(&self, _has_begun: bool) -> Result<(), SourceError> {
        Ok(())
    }

    /// True if [`Source::prepare`] may create the stream.
    fn creates(&self) -> bool {
        false
    }

    /// What [`Source::prepare`] would do.
    ///
    /// # Errors
    /// As [`Source::prepare`].
    async fn foresee(&self, _has_begun: bool) -> Result<Foreseen, SourceError> {
        Ok(Foreseen::Nothing)
    }

    /// When a subscription may deliver. It is asked before anything connects: a consumer that is not the
    /// active one must not open its sink.
    fn activation(&self) -> Activation {
        Activation::AtOnce
    }

    /// True if the stream protocol reaches the same broker at the same address, so that the
    /// stream's end can be observed for the lag. Otherwise the lag is unknown.
    fn is_observable(&self) -> bool {
        true
    }

    /// True if the broker leaves out chunks of a subscription in which its filter selects nothing. Then
    /// a gap says nothing, and neither does silence.
    fn is_filtered(&self) -> bool {
        false
    }
}

/// What the broker's filter selects. The broker (RabbitMQ 3.13 and later) has a Bloom filter for each
/// chunk, of the filter values with which its messages were published: it leaves out whole chunks, and
/// not all that could be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Chunks with a message of one of these filter values.
    pub values: Vec<String>,
    /// Also chunks with a message that has no filter value.
    pub match_unfiltered: bool,
}

/// One open connection. Dropping the last clone ends it without a closing handshake.
#[async_trait]
pub trait Link: Send + Sync {
    /// The transport's abilities on this connection.
    fn abilities(&self) -> Abilities;

    /// Name of the node, for the log.
    fn node(&self) -> String;

    /// The broker's version, as reported by it.
    fn version(&self) -> String;

    /// Reason why this is another node than the leader, although the leader was wanted: it is out of
    /// reach. `None` if this is the node that was wanted. What such a node has dropped is gone from all
    /// nodes that can be reached; what it lacks at its end, it may get yet.
    fn no_leader(&self) -> Option<&str> {
        None
    }

    /// Checks that there is such a stream, where connecting has not.
    async fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// First offset and end of the stream. `None` without [`Abilities::bounds`].
    async fn bounds(&self) -> Result<Option<Bounds>, SourceError>;

    /// Header of the chunk with which a subscription at `start` would begin. `None` if none arrived
    /// in time, and without [`Abilities::probes`].
    async fn chunk_at(&self, start: Start) -> Result<Option<ProbedChunk>, SourceError>;

    /// First offset that `start` means now. `None` if nothing came in time that shows it; a time for
    /// which nothing was written yet has none. Asked where there are no [`Abilities::probes`].
    async fn resolve(&self, _: Start) -> Result<Option<Offset>, SourceError> {
        Ok(None)
    }

    /// What the stream shows of this position. Asked where there are no [`Abilities::probes`];
    /// [`Evidence::Nothing`] if that cannot be found out.
    async fn evidence(&self, _: Offset) -> Result<Evidence, SourceError> {
        Ok(Evidence::Nothing)
    }

    /// Offset of the first message that can still be read; `None` if unknown or if there is none.
    async fn oldest(&self) -> Result<Option<Offset>, SourceError> {
        Ok(self.bounds().await?.and_then(|bounds| bounds.first))
    }

    /// The stream's last chunk, if the filter of this source selects none from `from` on, up to and
    /// including that one. `None` if it selects one, or if that cannot be told. Retention may have
    /// taken some of them: the first offset of the stream shows that, if it is asked for afterwards.
    async fn nothing_selected(&self, _from: Offset) -> Result<Option<ProbedChunk>, SourceError> {
        Ok(None)
    }

    /// Begins to deliver from `start` on, under the budget. Called by [`begin`].
    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError>;

    /// The offset stored under the reference. `None` if there is none, and without
    /// [`Abilities::offsets`].
    async fn stored(&self) -> Result<Option<Offset>, SourceError>;

    /// Stores an offset and returns the one that is held afterwards. `None` without
    /// [`Abilities::offsets`].
    async fn store(&self, offset: Offset) -> Result<Option<Offset>, SourceError>;

    /// Waits for the end of the link and returns the reason. Cancel-safe.
    async fn ended(&self) -> SourceError;

    /// Reason of its end; [`ErrorKind::Connection`] with a general text if it has not ended.
    fn reason(&self) -> SourceError;

    /// Closes normally, within the time limit of a request.
    async fn close(&self);
}

/// The events of a subscription.
pub trait Feed: Send {
    /// The next event; `None` once the connection has ended and all earlier events are delivered.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>>;

    /// An event that has already arrived.
    fn try_next(&mut self) -> Option<Event>;

    /// Number of events that have already arrived, or less.
    fn waiting(&self) -> usize {
        0
    }
}

/// Abilities of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Reports the first offset and the end of the stream.
    pub bounds: bool,
    /// Distinguishes an empty stream from one whose first chunk is slow to arrive.
    pub emptiness: bool,
    /// Shows the chunk at a position without subscribing to everything after it.
    pub probes: bool,
    /// Stores an offset for the reference. Otherwise only the sink's position and the state file
    /// exist.
    pub offsets: bool,
}

/// Condition for a subscription to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Delivers as soon as it exists.
    AtOnce,
    /// Delivers when the broker activates it: of several with one reference only one is active.
    ByBroker,
}

/// An event of a subscription.
pub enum Event {
    /// A chunk was delivered.
    Chunk(Delivery),
    /// The subscription has ended for this reason: the stream was deleted, or its member on this
    /// node went away. The connection stays open.
    Unavailable(SourceError),
    /// The broker makes this subscription active or passive, and waits for an answer.
    Activation(Handover),
}

/// A change of activation that the broker waits for.
pub struct Handover {
    /// True if this subscription is to become active.
    pub active: bool,
    answer: Box<dyn FnOnce(Option<Start>) + Send>,
}

impl Handover {
    /// A change, and the function that sends its answer.
    pub fn new(active: bool, answer: impl FnOnce(Option<Start>) + Send + 'static) -> Handover {
        Handover { active, answer: Box::new(answer) }
    }

    /// Answers: everything in flight is stored or, if it becomes active, this is the position to
    /// begin at. Where it is dropped, the end of the subscription answers.
    pub fn answer(self, begin_at: Option<Start>) {
        (self.answer)(begin_at);
    }
}
