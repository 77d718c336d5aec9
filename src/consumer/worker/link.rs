//! The worker's way to the broker: down, on its way, up, or only good for storing an offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::super::begin::{self, Anew};
use super::super::intake::{Checked, Intake};
use super::super::session::{self, Own, Session, SessionError};
use super::{Restarting, Turn, Worker};
use crate::flow::beginning::Memory;
use crate::flow::lag::Tail;
use crate::flow::resume::{self, Lost, Origin, Start};
use crate::source::{self, Bounds, ErrorKind, Event, Prefer, SourceError, Subscription};
use crate::telemetry::{RestartReason, State};
use crate::types::{Checkpoint, Offset, Timestamp};

pub(super) enum Link {
    Down {
        until: Instant,
    },
    Linking(BoxFuture<'static, Result<Linked, SessionError>>),
    Up(Box<Up>),
    /// While ending: nothing is read any more.
    Bare(Arc<dyn source::Link>),
}

/// What came of linking.
pub(super) enum Linked {
    Session(Box<Session>),
    Bare(Arc<dyn source::Link>),
}

pub(super) struct Up {
    pub(super) subscription: Subscription,
    pub(super) intake: Intake,
    /// Where the position was found.
    pub(super) origin: Option<Origin>,
    /// A chunk that waits for room to be inflated, or for a gap to be explained.
    pub(super) chunk: Option<Checked>,
    asking: Option<BoxFuture<'static, Result<Asked, SourceError>>>,
    /// What came before it could be taken.
    ahead: Option<Event>,
}

/// The broker's answer about a gap.
pub(super) struct Asked {
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) bounds: Option<Bounds>,
    /// The first offset of the chunk that the broker gives when it is asked for `from`.
    pub(super) there: Option<Offset>,
    /// The same when it is asked for `to`, where that is another one.
    pub(super) again: Option<Offset>,
}

impl Link {
    /// Waits for what comes of it; new chunks only where `intake` is set.
    pub(super) async fn next(&mut self, intake: bool) -> Turn {
        match self {
            Link::Down { .. } => std::future::pending().await,
            Link::Linking(linking) => Turn::Linked(linking.await),
            Link::Up(up) => up.next(intake).await,
            Link::Bare(connection) => {
                let reason = connection.ended().await;
                Turn::Asked(Err(reason))
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Link::Down { until } => Some(*until),
            Link::Linking(_) | Link::Up(_) | Link::Bare(_) => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Link::Up(_))
    }

    pub(super) fn connection(&self) -> Option<&Arc<dyn source::Link>> {
        match self {
            Link::Up(up) => Some(up.subscription.link()),
            Link::Bare(connection) => Some(connection),
            Link::Down { .. } | Link::Linking(_) => None,
        }
    }

    pub(super) fn into_connection(self) -> Option<Arc<dyn source::Link>> {
        self.connection().cloned()
    }

    /// Whether nothing is there to be taken right now.
    pub(super) fn queue_is_empty(&mut self) -> bool {
        match self {
            Link::Up(up) => up.chunk.is_none() && up.peek().is_none(),
            Link::Down { .. } | Link::Linking(_) | Link::Bare(_) => true,
        }
    }

    /// True where an event can be taken without waiting.
    pub(super) fn has_more(&mut self) -> bool {
        match self {
            Link::Up(up) => up.chunk.is_none() && up.peek().is_some(),
            Link::Down { .. } | Link::Linking(_) | Link::Bare(_) => false,
        }
    }

    /// Reads nothing any more; the connection stays for storing the offset.
    pub(super) fn stop(&mut self) {
        *self = match std::mem::replace(self, Link::Down { until: Instant::now() }) {
            Link::Up(up) => Link::Bare(up.subscription.link().clone()),
            Link::Linking(_) => Link::Down { until: Instant::now() },
            other @ (Link::Down { .. } | Link::Bare(_)) => other,
        };
    }
}

impl Up {
    async fn next(&mut self, intake: bool) -> Turn {
        if let Some(asking) = &mut self.asking {
            let asked = asking.await;
            self.asking = None;
            return Turn::Asked(asked);
        }
        if !intake || self.chunk.is_some() {
            return std::future::pending().await;
        }
        if let Some(event) = self.ahead.take() {
            return Turn::Event(Some(event));
        }
        Turn::Event(self.subscription.next().await)
    }

    fn peek(&mut self) -> Option<&Event> {
        if self.ahead.is_none() {
            self.ahead = self.subscription.try_next();
        }
        self.ahead.as_ref()
    }

    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.ahead.take().or_else(|| self.subscription.try_next())
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }
}

impl Worker {
    /// Begins to link, where that is due.
    pub(super) fn start_linking(&mut self, now: Instant) {
        if !matches!(self.link, Link::Down { until } if until <= now) || !self.may_link() {
            return;
        }
        let spec = Arc::clone(&self.spec);
        if self.ending.is_some() {
            self.link = Link::Linking(Box::pin(async move {
                let connection = spec.source.connect(Prefer::Replica).await?;
                Ok(Linked::Bare(connection))
            }));
            return;
        }
        self.status.set_state(State::Connecting, self.status.facts().reason);
        let budget = Arc::clone(&self.budget);
        let own = self.own;
        self.link = Link::Linking(Box::pin(async move {
            // After a burst that did not fit: first the sink has to catch up.
            budget.relaxed().await;
            let session = session::establish(&spec, own, &budget).await?;
            Ok(Linked::Session(Box::new(session)))
        }));
    }

    /// Whether a connection would be of any use now.
    pub(super) fn may_link(&self) -> bool {
        match self.ending {
            None => !self.is_restarting() && !self.storing.is_outdated(),
            Some(_) => self.storing.needs_connection(self.sink_alive),
        }
    }

    /// Whether the leader says so itself; if not, it is asked, and `false` returned. Another node
    /// may be behind, or keep less.
    pub(super) fn leader_says(&mut self, what: &str) -> bool {
        if self.own.prefer == Prefer::Leader {
            return true;
        }
        self.own.prefer = Prefer::Leader;
        let asking = SourceError::given_up(format!("{what}; asking the leader"));
        self.unlink_because(asking, RestartReason::Stream);
        false
    }

    pub(super) fn on_linked(&mut self, linked: Result<Linked, SessionError>) {
        match linked {
            Ok(Linked::Bare(connection)) => self.link = Link::Bare(connection),
            Ok(Linked::Session(session)) => self.on_session(*session),
            Err(SessionError::Broker(error)) => self.unlink(error),
            Err(SessionError::Lost { lost, of }) => self.on_lost(lost, of),
            Err(SessionError::Doubt { doubt, of }) => {
                if self.doubts.lasted(Instant::now()) {
                    self.on_lost(doubt.into(), of);
                } else {
                    let wait = self.backoff.next(fastrand::f64());
                    self.try_again(doubt.to_string(), RestartReason::Stream, wait);
                }
            }
            Err(error @ (SessionError::State(_) | SessionError::NotKept { .. })) => {
                self.doubts.interrupted();
                let wait = self.backoff.next(fastrand::f64());
                self.try_again(error.to_string(), RestartReason::Other, wait);
            }
        }
    }

    fn on_session(&mut self, session: Session) {
        let Session { subscription, plan, stored, bounds } = session;
        let connection = subscription.link();
        tracing::info!(
            node = %connection.node(), broker = %connection.version(), from = %plan.subscribe,
            wanted = plan.wanted.map(|o| o.0), by = plan.origin.map(|o| o.to_string()),
            stored = stored.map(|o| o.0), "subscribed"
        );
        self.note_connected();
        self.doubts.clear();
        self.storing.observed(stored);
        if let Some(beginning) = plan.begins {
            // It is kept: until a record of it came, it counts for the next connection too.
            self.own.remembered = Some(Memory::Beginning(beginning));
            self.own.anew = None;
        }
        let end = match bounds.map_or(Tail::Empty, |bounds| bounds.tail) {
            Tail::Offset(last) | Tail::Chunk(last) => Some(last.next()),
            Tail::Empty => None,
        };
        // Who waits for what is written later has all that is there behind it.
        let base = plan
            .wanted
            .or(end.filter(|_| plan.awaits.is_some()))
            .or(bounds.and_then(|bounds| bounds.first));
        let base = base.unwrap_or(Offset(0));
        // A beginning is no data: nothing is durable because of it.
        let resumed = matches!(plan.origin, Some(Origin::Sink | Origin::Broker | Origin::Session));
        self.status.update(|facts| {
            facts.stored = stored;
            facts.bounds = bounds.or(facts.bounds);
            facts.quiet_since = Some(Instant::now());
            facts.delivered = false;
            facts.foreign = false;
            facts.watch.heard(Timestamp::now());
            if facts.durable.is_none() {
                facts.position = base.prev();
                facts.positioned = true;
                facts.durable = facts.position.filter(|_| resumed);
            }
        });
        self.status.set_state(State::Running, None);
        self.backoff.reset();
        let intake = Intake::new(&plan);
        let origin = plan.origin;
        let up = Up { subscription, intake, origin, chunk: None, asking: None, ahead: None };
        self.link = Link::Up(Box::new(up));
    }

    /// The connection is gone, or none could be had: try again later.
    pub(super) fn unlink(&mut self, error: SourceError) {
        let why = super::settling::restart_reason(&error);
        self.unlink_because(error, why);
    }

    /// The same where the error does not tell why.
    pub(super) fn unlink_because(&mut self, error: SourceError, why: RestartReason) {
        let now = Instant::now();
        if self.ending.is_some() {
            self.link = Link::Down { until: now + self.backoff.next(fastrand::f64()) };
            // Whoever was told to stop stores as long as the time lasts. After a fault, which may
            // have taken the connection with it, one more is tried; the next run reads again what
            // was not stored.
            self.storing.connection_lost();
            return;
        }
        if error.is_fatal() {
            self.end(super::Outcome::Halted(error.to_string()));
            return;
        }
        if error.kind() == ErrorKind::Missing {
            // What comes under this name next is another stream.
            self.storing.suspend();
        }
        let wait = match error.kind() {
            ErrorKind::Overrun => {
                self.flush();
                Duration::ZERO
            }
            _ => self.backoff.next(fastrand::f64()),
        };
        match error.kind() {
            ErrorKind::Missing => self.doubts.missing(),
            _ => self.doubts.interrupted(),
        }
        self.try_again(error.to_string(), why, wait);
    }

    pub(super) fn try_again(&mut self, error: String, why: RestartReason, wait: Duration) {
        self.note_not_connected(&error, wait);
        self.status.set_state(State::Backoff, Some(error));
        self.status.count_restart(why);
        self.link = Link::Down { until: Instant::now() + wait };
    }

    /// The first chunk has come of those that a beginning waited for: it is looked up, and kept.
    pub(super) fn begin_now(&mut self) {
        tracing::info!(consumer = %self.spec.name, stream = %self.spec.stream, "the first message to begin with is there");
        self.link = Link::Down { until: Instant::now() };
    }

    /// The position is lost: the policy decides.
    pub(super) fn on_lost(&mut self, lost: Lost, of: Option<Origin>) {
        self.status.update(|facts| facts.note_lost(&lost));
        if of == Some(Origin::Beginning) && begin::again(&lost) {
            begin::say_again(&self.spec, &lost);
            self.begin_anew(Anew::first(&lost), true);
            return;
        }
        let halt = |lost: &Lost| {
            let hint = match lost {
                Lost::Forgotten { .. } => {
                    format!("; the state file is {}", self.remembered.path().display())
                }
                _ => String::new(),
            };
            format!(
                "the position of reference {:?} on stream {:?} is lost: {lost}{hint}. Set on_offset_lost to \"first\" or \"next\" to go on all the same",
                self.spec.reference.as_str(),
                self.spec.stream.as_str()
            )
        };
        if lost.is_new_history() {
            // What is durable is of another history than what the broker would store it for.
            self.storing.suspend();
        }
        let Some(start) = resume::after_loss(self.spec.on_lost) else {
            self.end(super::Outcome::Halted(halt(&lost)));
            return;
        };
        tracing::error!(%lost, policy = %start, "the position is lost; going on as on_offset_lost says");
        self.count_lost(super::settling::lost_reason(&lost), lost.messages());
        let from = match (&lost, start) {
            // So that what retention takes from now on is noticed.
            (Lost::Evicted { first, .. }, Start::First) => Some(*first),
            _ => None,
        };
        let lost_at = |offset| Checkpoint { offset, chunk: None };
        let own = self.own.position.map(|(_, checkpoint)| checkpoint);
        let instead_of = own.or(lost.position().map(lost_at));
        self.begin_anew(Anew { start, from, instead_of }, lost.is_new_history());
    }

    /// Begins anew, once everything under way is settled.
    fn begin_anew(&mut self, anew: Anew, new_history: bool) {
        self.flush();
        self.doubts.clear();
        self.own =
            Own { position: None, remembered: None, anew: Some(anew), prefer: Prefer::Replica };
        self.link = Link::Down { until: Instant::now() };
        self.status.set_state(State::Connecting, self.status.facts().reason);
        self.restarting = if new_history { Restarting::Wanted } else { Restarting::Settling };
    }

    /// Asks the broker where the stream begins, to explain a gap; the chunk waits meanwhile.
    pub(super) fn ask_about_gap(&mut self, from: Offset, to: Offset, checked: Checked) {
        if let Link::Up(up) = &mut self.link {
            let connection = up.subscription.link().clone();
            up.chunk = Some(checked);
            up.asking = Some(Box::pin(async move {
                let at = |offset| connection.chunk_at(Start::Offset(offset));
                let there = match at(from).await {
                    Ok(chunk) => chunk.map(|chunk| chunk.first_offset()),
                    // Something is there, with a header that cannot be read.
                    Err(error) if error.kind() == ErrorKind::Unreadable => Some(from),
                    Err(error) => return Err(error),
                };
                let again = match there {
                    Some(there) if there != to => at(to).await?.map(|chunk| chunk.first_offset()),
                    _ => None,
                };
                // After the chunks: what is truncated meanwhile shows here.
                let bounds = connection.bounds().await?;
                Ok(Asked { from, to, bounds, there, again })
            }));
        }
    }
}
