//! Subscriptions: the consumer's, and short ones (probes) that look at a single chunk.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use super::budget::Budget;
use super::claim::Claim;
use super::connection::Connection;
use super::error::BrokerError;
use super::slot::{INITIAL_CREDIT, Main, Probe, Received, Slot, queue_max};
use crate::flow::resume::Start;
use crate::sync::lock;
use crate::types::StreamName;
use crate::wire::chunk::ProbedChunk;
use crate::wire::commands::{self, OffsetSpec, ResponseCode, Subscribe, Unsubscribe};
use crate::wire::error::WireError;

/// Subscription property of a single active consumer; its value is `true`.
pub const SINGLE_ACTIVE: &str = "single-active-consumer";

/// A subscription of a consumer. Dropping it ends the credit and unsubscribes; chunks that still
/// arrive are discarded.
pub struct Subscribed {
    connection: Connection,
    budget: Arc<Budget>,
    events: mpsc::Receiver<Received>,
    // Dropped after the budget is closed, so that no credit is granted any more.
    claim: Claim,
}

impl Connection {
    /// Subscribes. Chunks arrive from now on, under the budget.
    pub async fn subscribe(
        &self,
        stream: &StreamName,
        start: Start,
        budget: &Arc<Budget>,
        properties: Vec<(String, String)>,
    ) -> Result<Subscribed, BrokerError> {
        let (sender, events) = mpsc::channel(queue_max(budget));
        let main = Main {
            stream: stream.clone(),
            sender,
            budget: Arc::clone(budget),
            is_single_active: properties.iter().any(|(key, _)| key == SINGLE_ACTIVE),
            unanswered: Vec::new(),
        };
        let mut claim = self.claim(Slot::Main(main))?;
        let subscription = claim.id();
        // The credit is counted before the request is sent: the first chunk may overtake the
        // answer.
        budget.open(INITIAL_CREDIT);
        let request = Subscribe {
            subscription,
            stream: stream.clone(),
            start: offset_spec(start),
            credits: INITIAL_CREDIT,
            properties,
        };
        let answer = self.call(&request).await;
        claim.note_subscribed(&answer);
        let budget = Arc::clone(budget);
        let subscribed = Subscribed { connection: self.clone(), budget, events, claim };
        answer.map_err(|error| self.about(stream, error))?;
        subscribed.budget.attach(&self.shared().credit, subscription);
        Ok(subscribed)
    }

    /// Subscribes for one chunk, checks it as it arrives without keeping it, and returns its
    /// header. `None` if it did not arrive within `wait`. Several probes may run at the same time.
    ///
    /// Cancel-safe: a dropped call ends its subscription, and frees its id after the broker has
    /// confirmed that.
    pub(super) async fn probe(
        &self,
        stream: &StreamName,
        start: Start,
        wait: std::time::Duration,
    ) -> Result<Option<ProbedChunk>, BrokerError> {
        // Probes beyond the number of ids wait for one another.
        let _permit = self.shared().probes.acquire().await.map_err(|_| BrokerError::Closed)?;
        let mut probing = self.begin_probe(stream, start, Vec::new()).await?;
        let found = tokio::time::timeout(wait, &mut probing.probed).await;
        let ended = self.end_probe(&mut probing).await;
        match found {
            Ok(Ok(probed)) => probed.map(Some).map_err(BrokerError::Protocol),
            // The slot was dropped: the connection or the stream went away.
            Ok(Err(_)) => Err(match ended {
                Err(error) => self.about(stream, error),
                Ok(()) => BrokerError::StreamUnavailable {
                    stream: stream.clone(),
                    detail: "its member on this node went away".into(),
                },
            }),
            Err(_) => ended.map(|()| None).map_err(|error| self.about(stream, error)),
        }
    }

    /// Subscribes for one chunk. The caller holds a permit of the probes.
    pub(super) async fn begin_probe(
        &self,
        stream: &StreamName,
        start: Start,
        properties: Vec<(String, String)>,
    ) -> Result<Probing, BrokerError> {
        let (sender, probed) = oneshot::channel();
        let probe = Probe { stream: stream.clone(), watching: None, sender: Some(sender) };
        let mut claim = self.claim(Slot::Probe(probe))?;
        let request = Subscribe {
            subscription: claim.id(),
            stream: stream.clone(),
            start: offset_spec(start),
            credits: 1,
            properties,
        };
        let answer = self.call(&request).await;
        claim.note_subscribed(&answer);
        answer.map_err(|error| self.about(stream, error))?;
        Ok(Probing { claim, probed })
    }

    /// Ends a probe. An error also means that the broker had ended it before.
    pub(super) async fn end_probe(&self, probing: &mut Probing) -> Result<(), BrokerError> {
        let ended = self.call(&Unsubscribe { subscription: probing.claim.id() }).await;
        probing.claim.note_unsubscribed(&ended);
        ended
    }
}

/// A probe that was begun. Dropping it ends its subscription.
pub(super) struct Probing {
    claim: Claim,
    /// The chunk, once it has arrived completely.
    pub(super) probed: oneshot::Receiver<Result<ProbedChunk, WireError>>,
}

impl Subscribed {
    /// The next event; `None` when the connection has ended (it has the reason). Cancel-safe.
    pub async fn next(&mut self) -> Option<Received> {
        self.events.recv().await
    }

    /// The poll form of [`Subscribed::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.events.poll_recv(context)
    }

    /// An event that has already arrived.
    pub fn try_next(&mut self) -> Option<Received> {
        self.events.try_recv().ok()
    }

    /// Number of events that have already arrived.
    pub fn waiting(&self) -> usize {
        self.events.len()
    }

    /// A function that answers an update: with the start position of a consumer that becomes
    /// active, with `None` for one that becomes passive. It never waits. Where it is not called, the
    /// end of the subscription answers.
    pub fn answer(&self, correlation: u32) -> impl FnOnce(Option<Start>) + Send + 'static {
        let (connection, id) = (self.connection.clone(), self.claim.id());
        move |start| {
            let shared = connection.shared();
            let awaits = |slot: &mut Slot| slot.answered(correlation);
            if lock(&shared.slots).get_mut(&id).is_some_and(awaits) {
                let start = start.map(offset_spec);
                let answer =
                    commands::consumer_update_response(correlation, ResponseCode::Ok, start);
                shared.reply(&answer);
            }
        }
    }

    /// The connection of the subscription.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.budget.close();
    }
}

fn offset_spec(start: Start) -> OffsetSpec {
    match start {
        Start::First => OffsetSpec::First,
        Start::Last => OffsetSpec::Last,
        Start::Next => OffsetSpec::Next,
        Start::Offset(offset) => OffsetSpec::Offset(offset),
        Start::Timestamp(at) => OffsetSpec::Timestamp(at),
    }
}
