//! Memory and credit of one consumer, for all its subscriptions.
//!
//! A chunk that arrives takes a permit, which travels with its bytes through batches into the sink.
//! Dropping the last clone gives the bytes back and grants new credit on the current subscription.
//! That works from any thread and never waits.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::flow::batch::Permit;
use crate::flow::credit::Window;
use crate::sync::lock;

/// Credit to be sent on one connection.
#[derive(Default)]
pub(crate) struct CreditQueue {
    owed: Mutex<Vec<(u8, u32)>>,
    wake: Notify,
}

impl CreditQueue {
    pub(super) fn add(&self, subscription: u8, credits: u16) {
        let mut owed = lock(&self.owed);
        match owed.iter_mut().find(|(id, _)| *id == subscription) {
            Some((_, sum)) => *sum += u32::from(credits),
            None => owed.push((subscription, u32::from(credits))),
        }
        drop(owed);
        self.wake.notify_one();
    }

    /// Drops what is owed to a subscription that has ended: its id may be used again.
    pub(super) fn forget(&self, subscription: u8) {
        lock(&self.owed).retain(|(id, _)| *id != subscription);
    }

    /// Waits until there may be some. Cancel-safe.
    pub(crate) async fn ready(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take(&self) -> Vec<(u8, u32)> {
        std::mem::take(&mut *lock(&self.owed))
    }
}

/// Memory and credit of one consumer.
pub struct Budget {
    inner: Mutex<Inner>,
    limit: u64,
    changed: Notify,
}

struct Inner {
    window: Window,
    port: Option<(Arc<CreditQueue>, u8)>,
}

/// Decision on reading a frame, or a message.
pub(crate) enum Admission {
    Granted,
    /// Not now: too much memory is held.
    Overrun,
    /// Never: larger than the whole budget.
    TooLarge,
}

impl Budget {
    /// A budget of this many bytes for chunks received and not yet durable.
    pub fn new(bytes: u64) -> Arc<Budget> {
        let inner = Inner { window: Window::new(bytes), port: None };
        Arc::new(Budget { inner: Mutex::new(inner), limit: bytes, changed: Notify::new() })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held now.
    pub fn buffered(&self) -> u64 {
        lock(&self.inner).window.buffered()
    }

    /// True if the broker may send at least one more chunk.
    pub fn has_credit(&self) -> bool {
        lock(&self.inner).window.outstanding() > 0
    }

    /// Waits until less than half of the budget is held. Cancel-safe.
    pub async fn relaxed(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.inner).window.relaxed() {
                return;
            }
            changed.await;
        }
    }

    /// Counts the initial credit of a subscription before it is requested.
    pub(crate) fn open(&self, initial: u16) {
        let mut inner = lock(&self.inner);
        inner.window.subscribed(initial);
        inner.port = None;
    }

    /// Grants credit on this subscription from now on.
    pub(crate) fn attach(&self, queue: &Arc<CreditQueue>, subscription: u8) {
        let mut inner = lock(&self.inner);
        inner.port = Some((Arc::clone(queue), subscription));
        Self::grant(&mut inner);
    }

    /// Ends the credit of the current subscription.
    pub(crate) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.window.closed();
        inner.port = None;
    }

    pub(crate) fn admit(&self, frame_bytes: u64) -> Admission {
        let cost = Window::cost(frame_bytes);
        let mut inner = lock(&self.inner);
        if inner.window.admits(cost) {
            Admission::Granted
        } else if inner.window.could_admit(cost) {
            inner.window.refused(cost);
            Admission::Overrun
        } else {
            Admission::TooLarge
        }
    }

    pub(crate) fn take(self: &Arc<Self>, frame_bytes: u64) -> Permit {
        let cost = Window::cost(frame_bytes);
        let mut inner = lock(&self.inner);
        inner.window.received(cost);
        Self::grant(&mut inner);
        Arc::new(Held { budget: Arc::clone(self), cost })
    }

    /// Number of single messages that may be outstanding on the next subscription.
    pub(crate) fn affordable(&self) -> u64 {
        lock(&self.inner).window.affordable()
    }

    /// Counts credit that a source grants by itself.
    pub(crate) fn returned(&self, credits: u64) {
        lock(&self.inner).window.returned(credits);
    }

    /// Takes memory that [`Budget::admit`] granted, for a message that is part of a chunk.
    pub(crate) fn reserve(self: &Arc<Self>, frame_bytes: u64) -> Held {
        let cost = Window::cost(frame_bytes);
        lock(&self.inner).window.received(cost);
        Held { budget: Arc::clone(self), cost }
    }

    fn release(&self, cost: u64) {
        let mut inner = lock(&self.inner);
        inner.window.released(cost);
        Self::grant(&mut inner);
        drop(inner);
        self.changed.notify_waiters();
    }

    fn grant(inner: &mut Inner) {
        if let Some((queue, subscription)) = &inner.port {
            let credits = inner.window.grant();
            if credits > 0 {
                queue.add(*subscription, credits);
            }
        }
    }
}

/// Memory of a chunk, or of messages that become one.
pub(crate) struct Held {
    budget: Arc<Budget>,
    cost: u64,
}

impl Held {
    /// Takes another one of the same budget over.
    pub(crate) fn merge(&mut self, mut other: Held) {
        self.cost += std::mem::take(&mut other.cost);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.release(self.cost);
    }
}
