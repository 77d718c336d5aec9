//! The connection to the broker, as the loop sees it: what is connected, and what is being asked.
//! There is at most one connection, and at most one attempt to connect. Whatever is replaced is dropped,
//! and with it every operation on it: its answer never arrives.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Answer, of};
use crate::consumer::brain::{Asked, Connect, Event, Linked, Passed, Question};
use crate::consumer::resumption::{Own, SessionError};
use crate::consumer::session;
use crate::consumer::spec::Spec;
use crate::consumer::state_file::StateFile;
use crate::consumer::stood_by;
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::source::{
    self, Activation, Bounds, Budget, Delivery, ErrorKind, Handover, Link, Prefer, SourceError,
    Subscription,
};
use crate::telemetry::operations::Operation;
use crate::types::{Checkpoint, Offset};
use crate::wire::chunk::ChunkHeader;

/// State of the connection.
pub(super) enum Connected {
    No,
    /// Only for storing and asking.
    Bare(Arc<dyn Link>),
    Subscribed {
        subscription: Subscription,
        /// Its chunks are not wanted any more.
        is_stopped: bool,
    },
}

impl Connected {
    fn link(&self) -> Option<&Arc<dyn Link>> {
        match self {
            Connected::No => None,
            Connected::Bare(link) => Some(link),
            Connected::Subscribed { subscription, .. } => Some(subscription.link()),
        }
    }
}

/// Result of an attempt: the connection if it is a new one, and what it can be used for.
type Attempt = Result<(Option<Connected>, Linked), SessionError>;

pub(super) struct Connection {
    spec: Arc<Spec>,
    budget: Arc<Budget>,
    connected: Connected,
    attempt: Option<BoxFuture<'static, Attempt>>,
    asking: Option<BoxFuture<'static, Result<Asked, SourceError>>>,
    passing: Option<BoxFuture<'static, Result<Passed, SessionError>>>,
    /// The broker waits for an answer to this change of activity.
    handover: Option<Handover>,
}

impl Connection {
    pub(super) fn new(spec: Arc<Spec>, budget: Arc<Budget>) -> Connection {
        let connected = Connected::No;
        let (attempt, asking, passing, handover) = (None, None, None, None);
        Connection { spec, budget, connected, attempt, asking, passing, handover }
    }

    pub(super) fn link(&self) -> Option<&Arc<dyn Link>> {
        self.connected.link()
    }

    pub(super) fn disconnect(&mut self) {
        (self.attempt, self.asking, self.passing, self.handover) = (None, None, None, None);
        self.connected = Connected::No;
    }

    pub(super) fn connect(&mut self, purpose: Connect) {
        self.disconnect();
        let (spec, budget) = (Arc::clone(&self.spec), Arc::clone(&self.budget));
        self.attempt = Some(Box::pin(async move {
            let operation = spec.operations().connect(match purpose {
                Connect::Read(_) => "read",
                Connect::Wait(_) => "wait",
                Connect::Store(_) => "store",
            });
            let attempt = match purpose {
                Connect::Read(own) => read(&spec, &budget, own, &operation).await,
                Connect::Wait(prefer) => wait(&spec, &budget, prefer, &operation).await,
                Connect::Store(position) => store(&spec, position).await,
            };
            if let Ok((Some(connected), _)) = &attempt {
                operation.node(|| connected.link().map(|link| link.node()));
            }
            operation.end(&attempt);
            attempt
        }));
    }

    pub(super) fn resume(&mut self, own: Own) {
        let (spec, link) = (Arc::clone(&self.spec), self.link().cloned());
        self.attempt = Some(Box::pin(async move {
            let link = link.ok_or_else(no_connection)?;
            let resumption = session::resume(&spec, own, link).await?;
            Ok((None, Linked::Reading(Box::new(resumption))))
        }));
    }

    pub(super) fn verify(&mut self, position: Checkpoint) {
        let link = self.link().cloned();
        self.attempt = Some(Box::pin(async move {
            let link = link.ok_or_else(no_connection)?;
            // If it cannot tell, the next connection asks the leader.
            session::confirm(&*link, position).await?;
            Ok((None, Linked::Storing { is_confirmed: true }))
        }));
    }

    /// Takes no more chunks. A subscription by which the broker chooses the active consumer remains: its
    /// end would make another one active at once.
    pub(super) fn stop_reading(&mut self) {
        (self.asking, self.passing, self.attempt) = (None, None, None);
        self.connected = match std::mem::replace(&mut self.connected, Connected::No) {
            Connected::Subscribed { subscription, .. }
                if self.spec.source.activation() == Activation::ByBroker =>
            {
                Connected::Subscribed { subscription, is_stopped: true }
            }
            Connected::Subscribed { subscription, .. } => {
                Connected::Bare(Arc::clone(subscription.link()))
            }
            other @ (Connected::No | Connected::Bare(_)) => other,
        };
    }

    pub(super) fn answer(&mut self, begin_at: Option<Start>) {
        if let Some(handover) = self.handover.take() {
            handover.answer(begin_at);
        }
        if let Connected::Subscribed { is_stopped, .. } = &mut self.connected {
            *is_stopped = false;
        }
    }

    /// Asks the broker about a gap.
    pub(super) fn ask(&mut self, from: Offset, to: Offset) {
        let link = self.link().cloned();
        self.asking = Some(Box::pin(async move {
            let link = link.ok_or_else(no_connection)?;
            if !link.abilities().probes {
                let first = link.oldest().await?;
                let bounds = Some(Bounds { first, tail: Tail::Empty });
                return Ok(Asked { from, to, bounds, there: None, is_blind: true, again: None });
            }
            let at = |offset| link.chunk_at(Start::Offset(offset));
            let there = match at(from).await {
                Ok(chunk) => chunk.map(|chunk| chunk.first_offset()),
                // A chunk has arrived whose header cannot be read.
                Err(error) if error.kind() == ErrorKind::Unreadable => Some(from),
                Err(error) => return Err(error),
            };
            let again = match there {
                Some(there) if there != to => at(to).await?.map(|chunk| chunk.first_offset()),
                _ => None,
            };
            // Asked after the chunks: a truncation in between shows here.
            let bounds = link.bounds().await?;
            Ok(Asked { from, to, bounds, there, is_blind: false, again })
        }));
    }

    /// Asks about what the broker's filter leaves out. At a gap, for as long as the connection lives: the
    /// broker answers after it has looked for all the chunks for which it has credit, which may take it
    /// longer than a request may, and the chunk behind the gap would only be requested again.
    pub(super) fn pass(&mut self, question: Question) {
        let waiting = match &self.connected {
            Connected::Subscribed { subscription, .. } => subscription.waiting(),
            Connected::No | Connected::Bare(_) => 0,
        };
        let (name, link) = (self.spec.name.clone(), self.link().cloned());
        self.passing = Some(Box::pin(async move {
            let link = link.ok_or_else(no_connection)?;
            loop {
                match session::passed(&*link, question, waiting).await {
                    // Nothing more is answered once the connection has ended, and with another error.
                    Err(SessionError::Broker(error))
                        if question.to.is_some() && error.kind() == ErrorKind::Overdue =>
                    {
                        tracing::info!(consumer = %name, %error, "the broker is still looking for what the filter selects; asking again");
                    }
                    answered => return answered,
                }
            }
        }));
    }

    /// True if an event can be taken without waiting.
    pub(super) fn has_event(&mut self) -> bool {
        match &mut self.connected {
            Connected::Subscribed { subscription, is_stopped: false } => subscription.has_next(),
            _ => false,
        }
    }

    /// An event that has arrived already.
    pub(super) fn try_next(&mut self) -> Option<Event<Answer>> {
        let Connected::Subscribed { subscription, is_stopped: false } = &mut self.connected else {
            return None;
        };
        let event = subscription.try_next()?;
        Some(self.told(event))
    }

    /// Waits for the next event; for events of the subscription only if `takes_events` is set. A change
    /// of the active consumer is always reported. Cancel-safe.
    pub(super) async fn next(&mut self, takes_events: bool) -> Event<Answer> {
        let (activation, is_asked) = (self.spec.source.activation(), self.handover.is_some());
        let event = tokio::select! {
            attempt = of(&mut self.attempt) => {
                return Event::Linked(attempt.map(|(connected, linked)| {
                    if let Some(connected) = connected {
                        self.connected = connected;
                    }
                    linked
                }));
            }
            asked = of(&mut self.asking) => return Event::Asked(asked),
            passed = of(&mut self.passing) => return Event::Passed(passed),
            event = next_of(&mut self.connected, activation, is_asked, takes_events) => event,
        };
        match event {
            Some(event) => self.told(event),
            None => Event::LinkEnded(self.link().map_or_else(no_connection, |link| link.reason())),
        }
    }

    fn told(&mut self, event: source::Event) -> Event<Answer> {
        match event {
            source::Event::Chunk(delivery) => {
                trace_chunk(&delivery);
                Event::Delivered(delivery)
            }
            source::Event::Unavailable(why) => Event::Unavailable(why),
            source::Event::Activation(handover) => {
                let active = handover.active;
                // A change that was not answered before this one has no effect any more, but the broker
                // still waits for an answer to it.
                if let Some(former) = self.handover.replace(handover) {
                    former.answer(None);
                }
                Event::Activation { active }
            }
        }
    }
}

/// The next event of a subscription; `None` when the connection has ended. `is_asked`: the broker waits for
/// an answer, and asks nothing more before it has that.
async fn next_of(
    connected: &mut Connected,
    activation: Activation,
    is_asked: bool,
    takes_events: bool,
) -> Option<source::Event> {
    match (connected, activation) {
        (Connected::No, _) => std::future::pending().await,
        (Connected::Bare(link), _) => {
            link.ended().await;
            None
        }
        (Connected::Subscribed { subscription, is_stopped: true }, _) => match is_asked {
            true => subscription.end().await,
            false => subscription.change(false).await,
        },
        (Connected::Subscribed { subscription, .. }, Activation::ByBroker) => {
            subscription.change(takes_events).await
        }
        (Connected::Subscribed { .. }, Activation::AtOnce) if !takes_events => {
            std::future::pending().await
        }
        (Connected::Subscribed { subscription, .. }, Activation::AtOnce) => {
            subscription.next().await
        }
    }
}

async fn read(spec: &Spec, budget: &Arc<Budget>, own: Own, operation: &Operation) -> Attempt {
    // A burst did not fit: first the sink has to catch up.
    budget.relaxed().await;
    let (subscription, resumption) = session::establish(spec, own, budget, operation).await?;
    let connected = Connected::Subscribed { subscription, is_stopped: false };
    Ok((Some(connected), Linked::Reading(Box::new(resumption))))
}

async fn wait(spec: &Spec, budget: &Arc<Budget>, prefer: Prefer, operation: &Operation) -> Attempt {
    let file = StateFile::of(spec);
    // Only read, since the reference is not held yet. Where it cannot be read, nothing is known: then nothing is
    // created either.
    let has_begun =
        tokio::task::spawn_blocking(move || file.read().map_or(true, |memory| memory.is_some()));
    let has_begun = has_begun.await.unwrap_or(true);
    spec.source.prepare(has_begun || stood_by::is_marked(spec).await).await?;
    let link = spec.source.connect(prefer).await?;
    stood_by::mark(spec).await?;
    // Where to begin is answered when the broker makes this consumer the active one.
    let subscribing = spec.operations().subscribe(operation, Start::Next);
    let subscription = source::begin(&link, Start::Next, budget).await;
    subscribing.end(&subscription);
    let subscription = subscription?;
    let connected = Connected::Subscribed { subscription, is_stopped: false };
    Ok((Some(connected), Linked::Passive))
}

async fn store(spec: &Spec, position: Option<Checkpoint>) -> Attempt {
    let (link, is_confirmed) = session::for_storing(spec, position).await?;
    Ok((Some(Connected::Bare(link)), Linked::Storing { is_confirmed }))
}

fn no_connection() -> SourceError {
    SourceError::new(ErrorKind::Connection, "there is no connection any more")
}

fn trace_chunk(delivery: &Delivery) {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    match ChunkHeader::parse(&delivery.chunk) {
        Ok(header) => tracing::trace!(
            first_offset = header.first_offset.0,
            records = header.records,
            epoch = header.epoch,
            written_at = %header.timestamp,
            bytes = delivery.chunk.len(),
            "chunk"
        ),
        Err(error) => tracing::trace!(%error, bytes = delivery.chunk.len(), "chunk"),
    }
}
