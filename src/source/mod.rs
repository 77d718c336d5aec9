//! Where records come from: the [`Source`] and [`Link`] traits, their contract, and one file or
//! folder for each transport.
//!
//! A [`Source`] is one stream under one reference, as plain data. [`Source::connect`] makes a [`Link`],
//! one open connection; [`begin`] makes a [`Subscription`] on it, which delivers [`Event`]s.
//!
//! The contract, which `conformance` holds every source to:
//! - What a transport cannot do it says in its [`Abilities`], as data: the consumer asks them first, and
//!   goes another way. Nothing that is missing shows as a panic, or as an error that looks like a fault.
//! - [`Event::Chunk`] is a chunk in the stream protocol's layout, whatever brought it: records numbered
//!   with the stream's own offsets, in order. The first chunk holds the offset that was asked for, or what
//!   follows it where that offset is no record's; it may begin below it.
//! - A chunk holds a permit of its bytes. The bytes held never exceed the budget, and never stay below
//!   it while there is more: dropping the last clone of a permit, from any thread, asks for more.
//! - Whatever takes time has a limit of its own. [`Subscription::next`] alone may wait for ever, and is
//!   cancel-safe: a dropped call takes no event with it.
//! - [`Link::store`] answers with what is held afterwards, read back; only that counts. `Ok(None)` of
//!   [`Link::stored`] means that nothing is stored, never that it could not be found out.
//! - [`Bounds`] are a lower bound of the stream's end: what lies within is there, what lies beyond may be.
//! - A link that ended says why, once and the same to everyone: [`Link::ended`], [`Link::reason`]. Events
//!   that came before are still delivered; then [`Subscription::next`] answers `None`.
//! - A subscription is active at once, unless [`Abilities::activation`] says that the broker decides: then
//!   nothing is delivered before an [`Event::Activation`] was answered.
//! - A source knows nothing of sinks, batches, policies or metrics.

#[doc(hidden)]
pub mod conformance;
mod error;
#[cfg(test)]
pub(crate) mod scripted;
pub mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

pub use self::error::{ErrorKind, SourceError};
pub use crate::broker::{Bounds, Budget, ConnectOptions, Delivery, Mechanism, Prefer};
use crate::flow::resume::Start;
use crate::types::Offset;
use crate::wire::chunk::Sighting;

/// One stream under one reference, and how to reach it.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Connects to a node that can serve the stream.
    ///
    /// # Errors
    /// Whatever keeps it from that; the caller tries again after a back-off.
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError>;
}

/// One open connection. Dropping the last clone closes it without a word.
#[async_trait]
pub trait Link: Send + Sync {
    /// What the transport can do on this connection.
    fn abilities(&self) -> Abilities;

    /// The node, for the log.
    fn node(&self) -> String;

    /// The broker's version, as it says it.
    fn version(&self) -> String;

    /// Where the stream begins and ends. `None` without [`Abilities::bounds`].
    async fn bounds(&self) -> Result<Option<Bounds>, SourceError>;

    /// The chunk with which a subscription at `start` would begin. `None` where none came in time, and
    /// without [`Abilities::sightings`].
    async fn chunk_at(&self, start: Start) -> Result<Option<Sighting>, SourceError>;

    /// Begins to deliver from `start` on, under the budget. Called by [`begin`].
    async fn feed(&self, start: Start, budget: &Arc<Budget>) -> Result<Box<dyn Feed>, SourceError>;

    /// The offset stored under the reference. `None` where there is none, and without
    /// [`Abilities::offsets`].
    async fn stored(&self) -> Result<Option<Offset>, SourceError>;

    /// Stores an offset and answers with the one that is held afterwards. `None` without
    /// [`Abilities::offsets`].
    async fn store(&self, offset: Offset) -> Result<Option<Offset>, SourceError>;

    /// Waits for the end and says why. Cancel-safe.
    async fn ended(&self) -> SourceError;

    /// Why it ended; [`ErrorKind::Connection`] with a general text where it has not.
    fn reason(&self) -> SourceError;

    /// Closes in good order, within the time limit of a request.
    async fn close(&self);
}

/// What a subscription delivers.
pub trait Feed: Send {
    /// The next event; `None` once the connection has ended and all that came before is delivered.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>>;

    /// An event that is there already.
    fn try_next(&mut self) -> Option<Event>;
}

/// What a transport can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Says where the stream begins and ends.
    pub bounds: bool,
    /// Tells an empty stream from one whose first chunk is slow to come.
    pub emptiness: bool,
    /// Shows the chunk at a position without subscribing to all that follows.
    pub sightings: bool,
    /// Keeps an offset for the reference. Where it does not, the sink's position and the state file are
    /// all there is.
    pub offsets: bool,
    /// When a subscription may deliver.
    pub activation: Activation,
}

/// When a subscription may deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// As soon as it exists.
    AtOnce,
    /// When the broker says so: of several with one reference only one is active.
    ByBroker,
}

/// An event of a subscription.
pub enum Event {
    /// A chunk came.
    Chunk(Delivery),
    /// The subscription is gone, for this reason: the stream was deleted, or its member on this node
    /// went away. The connection goes on.
    Unavailable(SourceError),
    /// The broker has this subscription become active, or passive, and waits for an answer.
    Activation(Handover),
}

/// A change that the broker waits for.
pub struct Handover {
    /// True if this subscription is to be the active one.
    pub active: bool,
    answer: Box<dyn FnOnce(Option<Start>) + Send>,
}

impl Handover {
    /// A change, and what to do with its answer.
    pub fn new(active: bool, answer: impl FnOnce(Option<Start>) + Send + 'static) -> Handover {
        Handover { active, answer: Box::new(answer) }
    }

    /// Done: what was under way is stored, or, where it is to be active, this is where to begin. Not
    /// answered, the broker gives up waiting after a time of its own.
    pub fn answer(self, begin_at: Option<Start>) {
        (self.answer)(begin_at);
    }
}

/// A subscription that delivers, and the link that it lives on. Dropping it ends the credit.
pub struct Subscription {
    link: Arc<dyn Link>,
    feed: Box<dyn Feed>,
}

/// Begins to deliver from `start` on, under the budget.
///
/// # Errors
/// As [`Link::feed`].
pub async fn begin(
    link: &Arc<dyn Link>,
    start: Start,
    budget: &Arc<Budget>,
) -> Result<Subscription, SourceError> {
    let feed = link.feed(start, budget).await?;
    Ok(Subscription { link: Arc::clone(link), feed })
}

impl Subscription {
    /// The next event; `None` when the link ended (ask it why). Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.feed.poll_next(context)).await
    }

    /// An event that is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.feed.try_next()
    }

    /// The link that it lives on.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }
}
