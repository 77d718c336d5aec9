//! Ids of subscriptions on a connection.
//!
//! Invariant: an id is free again only when the broker has no subscription under it, so no chunk of
//! one subscription can reach the next one, and no credit of one can be granted to another.
//!
//! If a subscription ends with a request of the broker unanswered, the request is answered here, after the broker has
//! removed the subscription. Without an answer the broker closes the connection after a minute, for all streams that
//! share it.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::error::BrokerError;
use super::shared::Shared;
use super::slot::Slot;
use crate::sync::lock;
use crate::wire::commands::{ResponseCode, Unsubscribe, consumer_update_response};

type Answer = Result<(), BrokerError>;

/// An id in use, with its slot. Dropping it ends the slot, and unsubscribes if necessary. It does not keep the
/// connection open.
pub(super) struct Claim {
    shared: Arc<Shared>,
    id: u8,
    /// Time limit of a request.
    limit: Duration,
    /// True if the broker has no subscription of this id.
    is_free: bool,
}

impl Connection {
    /// Reserves an id for this slot.
    pub(super) fn claim(&self, slot: Slot) -> Result<Claim, BrokerError> {
        let shared = self.shared();
        let mut slots = lock(&shared.slots);
        let mut ids = 0..=u8::MAX;
        let is_free = |id: &u8| !slots.contains_key(id);
        // From both ends, so that a trace shows which is which.
        let free = match slot {
            Slot::Probe(_) => ids.rfind(is_free),
            Slot::Main(_) | Slot::Over(_) => ids.find(is_free),
        };
        let id = free.ok_or_else(|| {
            BrokerError::Lost("all subscription ids of the connection are in use".into())
        })?;
        slots.insert(id, slot);
        drop(slots);
        // Set before the request is sent: from then on a subscription may exist.
        let limit = self.request_timeout();
        Ok(Claim { shared: Arc::clone(shared), id, limit, is_free: false })
    }
}

impl Claim {
    /// The id.
    pub(super) fn id(&self) -> u8 {
        self.id
    }

    /// After a refusal there is no subscription; without an answer there may be one.
    pub(super) fn note_subscribed(&mut self, answer: &Answer) {
        self.is_free = matches!(answer, Err(BrokerError::Refused { .. }));
    }

    /// A refusal also means that the broker has no such subscription any more.
    pub(super) fn note_unsubscribed(&mut self, answer: &Answer) {
        self.is_free = is_over(answer);
    }
}

fn is_over(answer: &Answer) -> bool {
    matches!(answer, Ok(()) | Err(BrokerError::Refused { .. }))
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (shared, id, limit) = (Arc::clone(&self.shared), self.id, self.limit);
        shared.credit.forget(id);
        let mut slots = lock(&shared.slots);
        if self.is_free {
            slots.remove(&id);
            return;
        }
        let unanswered = match slots.get_mut(&id) {
            Some(slot) => slot.end(),
            // The connection has ended.
            None => return,
        };
        drop(slots);
        let unsubscribing = async move {
            let answer = shared.call(&Unsubscribe { subscription: id }, limit).await;
            let mut slots = lock(&shared.slots);
            // Requests that arrived while it unsubscribed.
            let late = slots.get_mut(&id).map(Slot::end).unwrap_or_default();
            if is_over(&answer) {
                slots.remove(&id);
            }
            drop(slots);
            // Not earlier: the answer would make a consumer active that has already ended.
            for correlation in unanswered.into_iter().chain(late) {
                shared.reply(&consumer_update_response(correlation, ResponseCode::Ok, None));
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(unsubscribing);
        }
    }
}
