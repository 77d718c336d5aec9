//! Subscriptions: the consumer's, and short ones (probes) that look at a single chunk.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use super::budget::Budget;
use super::connection::Connection;
use super::error::BrokerError;
use super::slot::{INITIAL_CREDIT, MAIN, Main, Probe, ProbeSender, Received, Slot, queue_max};
use crate::flow::resume::Start;
use crate::sync::lock;
use crate::types::StreamName;
use crate::wire::chunk::ProbedChunk;
use crate::wire::commands::{OffsetSpec, Subscribe, Unsubscribe};

/// A subscription of a consumer. Dropping it ends the credit, and chunks that still arrive are
/// discarded. The broker ends it with the connection.
pub struct Subscribed {
    connection: Connection,
    budget: Arc<Budget>,
    events: mpsc::Receiver<Received>,
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
        let main = Main { stream: stream.clone(), sender, budget: Arc::clone(budget) };
        lock(&self.shared().slots).insert(MAIN, Slot::Main(main));
        let subscription =
            Subscribed { connection: self.clone(), budget: Arc::clone(budget), events };
        // The credit is counted before the request is sent: the first chunk may overtake the
        // answer.
        budget.open(INITIAL_CREDIT);
        let request = Subscribe {
            subscription: MAIN,
            stream: stream.clone(),
            start: offset_spec(start),
            credits: INITIAL_CREDIT,
            properties,
        };
        self.call(&request).await.map_err(|error| self.about(stream, error))?;
        budget.attach(&self.shared().credit, MAIN);
        Ok(subscription)
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
        let (sender, probed) = oneshot::channel();
        let mut probing = self.probing(stream, sender)?;
        let request = Subscribe {
            subscription: probing.id,
            stream: stream.clone(),
            start: offset_spec(start),
            credits: 1,
            properties: Vec::new(),
        };
        match self.call(&request).await {
            Ok(()) => {}
            Err(error) => {
                // After a refusal there is no subscription; without an answer there may be one.
                probing.over |= matches!(error, BrokerError::Refused { .. });
                return Err(self.about(stream, error));
            }
        }
        let found = tokio::time::timeout(wait, probed).await;
        let ended = self.call(&Unsubscribe { subscription: probing.id }).await;
        // A refusal also means that the broker has no such subscription any more.
        probing.over = matches!(ended, Ok(()) | Err(BrokerError::Refused { .. }));
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

    /// Reserves an id for a probe.
    fn probing(
        &self,
        stream: &StreamName,
        sender: ProbeSender,
    ) -> Result<Probing<'_>, BrokerError> {
        let mut slots = lock(&self.shared().slots);
        let free = (MAIN + 1..=u8::MAX).find(|id| !slots.contains_key(id));
        let id = free.ok_or_else(|| {
            BrokerError::Lost("all subscription ids of the connection are in use".into())
        })?;
        let probe = Probe { stream: stream.clone(), watching: None, sender: Some(sender) };
        slots.insert(id, Slot::Probe(probe));
        Ok(Probing { connection: self, id, over: false })
    }
}

/// Id of a running probe.
struct Probing<'a> {
    connection: &'a Connection,
    id: u8,
    /// True once the broker has no subscription of this id.
    over: bool,
}

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        let shared = self.connection.shared();
        let mut slots = lock(&shared.slots);
        if self.over {
            slots.remove(&self.id);
            return;
        }
        // The id stays reserved while chunks of this subscription may still arrive; they are
        // discarded.
        if let Some(Slot::Probe(probe)) = slots.get_mut(&self.id) {
            probe.sender = None;
        }
        drop(slots);
        let (connection, id) = (self.connection.clone(), self.id);
        let unsubscribing = async move {
            let ended = connection.call(&Unsubscribe { subscription: id }).await;
            if matches!(ended, Ok(()) | Err(BrokerError::Refused { .. })) {
                lock(&connection.shared().slots).remove(&id);
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(unsubscribing);
        }
    }
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

    /// The connection of the subscription.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.budget.close();
        lock(&self.connection.shared().slots).remove(&MAIN);
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
