//! Credit of the consumer's channel. An acknowledgement lets the broker send another delivery; and a consumer whose
//! prefetch count has become too small is replaced by one with a larger count.
//!
//! The broker accepts a prefetch count only for a new consumer (`rabbit_stream_queue:consume`), and none for the
//! whole channel. So when far smaller messages follow large ones, the consumer is cancelled, and a new one begins on
//! the same channel behind the last delivery. Deliveries of the former consumer are still acknowledged, which then lets
//! the broker send nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::channels::MAIN;
use crate::broker::{Budget, Held};
use crate::sync::lock;
use crate::types::Offset;
use crate::wire::amqp091::{self as amqp, StartAt};

/// A consumer is replaced if the new prefetch count is at least this many times the old one.
const WORTHWHILE: u64 = 4;

/// Number of messages that are requested one by one after the broker ended a connection with an internal error: as
/// many as it may have been about to deliver.
const CAREFUL: u64 = 1024;

/// Request for a consumer that begins there.
pub(super) type Consume = Box<dyn Fn(StartAt) -> Vec<u8> + Send + Sync>;

/// Deliveries of one channel, numbered from 1. An acknowledgement covers all deliveries up to a number.
pub(super) struct Acks {
    state: Mutex<State>,
    budget: Arc<Budget>,
    wake: Arc<Notify>,
    consume: Consume,
    /// See [`Acks::is_careful`].
    careful: Arc<AtomicBool>,
}

struct State {
    /// First number that is not finished.
    next: u64,
    /// Finished ranges above it: last numbers by first ones.
    done: BTreeMap<u64, u64>,
    /// Last number that was acknowledged.
    told: u64,
    is_open: bool,
    /// First number of the present consumer's deliveries.
    first: u64,
    prefetch: u16,
    stage: Stage,
}

/// The consumer's replacement by one with a larger prefetch count.
enum Stage {
    /// The broker has not confirmed the consumer yet, asked at this time.
    Beginning(Instant),
    /// The consumer has this tag.
    Consuming(Vec<u8>),
    /// It was cancelled at this time.
    Cancelling(Instant),
    /// It has ended; the next consumer has to begin at this offset.
    Cancelled(Offset),
}

impl Acks {
    /// For a consumer that is about to be requested with this prefetch count.
    pub(super) fn new(
        budget: &Arc<Budget>,
        wake: &Arc<Notify>,
        prefetch: u16,
        careful: &Arc<AtomicBool>,
        consume: Consume,
    ) -> Arc<Acks> {
        let state = State {
            next: 1,
            done: BTreeMap::new(),
            told: 0,
            is_open: true,
            first: 1,
            prefetch,
            stage: Stage::Beginning(Instant::now()),
        };
        let (budget, wake, careful) = (Arc::clone(budget), Arc::clone(wake), Arc::clone(careful));
        Arc::new(Acks { state: Mutex::new(state), budget, wake, consume, careful })
    }

    /// True if messages are requested one by one, on all connections of this source, because the broker may be unable
    /// to deliver one of them.
    pub(super) fn is_careful(&self) -> bool {
        self.careful.load(Ordering::Relaxed)
    }

    /// Makes the next connections request messages one by one.
    pub(super) fn be_careful(&self) {
        self.careful.store(true, Ordering::Relaxed);
    }

    /// Request for a consumer that begins there.
    pub(super) fn request(&self, start: StartAt) -> Vec<u8> {
        (self.consume)(start)
    }

    /// The broker has confirmed the consumer, which has this tag.
    pub(super) fn confirmed(&self, tag: &[u8]) {
        lock(&self.state).stage = Stage::Consuming(tag.to_vec());
    }

    /// The broker has cancelled the consumer: the next one begins at this offset, and its first delivery has
    /// this number.
    pub(super) fn cancelled(&self, at: Offset, first: u64) {
        let mut state = lock(&self.state);
        (state.stage, state.first) = (Stage::Cancelled(at), first);
        drop(state);
        self.wake.notify_one();
    }

    /// True if the broker has not answered a request for a consumer, or for its end, for so long.
    pub(super) fn is_overdue(&self, limit: Duration) -> bool {
        let state = lock(&self.state);
        match &state.stage {
            Stage::Beginning(since) | Stage::Cancelling(since) => {
                state.is_open && since.elapsed() > limit
            }
            Stage::Consuming(_) | Stage::Cancelled(_) => false,
        }
    }

    /// Appends the frames that are to be sent now.
    pub(super) fn put_due(&self, out: &mut Vec<u8>) {
        let mut state = lock(&self.state);
        if !state.is_open {
            return;
        }
        let last = state.next - 1;
        if last > state.told {
            state.told = last;
            out.extend(amqp::ack(MAIN, last));
        }
        match &state.stage {
            Stage::Consuming(_) if self.is_careful() => {
                self.careful.store(last < CAREFUL, Ordering::Relaxed);
            }
            Stage::Consuming(tag) => {
                if self.budget.affordable() >= u64::from(state.prefetch) * WORTHWHILE {
                    out.extend(amqp::cancel(MAIN, tag));
                    state.stage = Stage::Cancelling(Instant::now());
                }
            }
            Stage::Cancelled(at) => {
                let at = *at;
                state.prefetch = u16::try_from(self.budget.affordable()).unwrap_or(u16::MAX);
                state.stage = Stage::Beginning(Instant::now());
                self.budget.open(state.prefetch);
                tracing::debug!(
                    prefetch = state.prefetch,
                    at = at.0,
                    "a consumer that may have more messages under way begins"
                );
                out.extend(amqp::qos(MAIN, state.prefetch));
                out.extend((self.consume)(StartAt::Offset(at)));
            }
            Stage::Beginning(_) | Stage::Cancelling(_) => {}
        }
    }

    /// Stops all acknowledgements; later deliveries belong to another channel.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.is_open, false) {
            self.budget.close();
        }
    }

    fn done(&self, first: u64, last: u64) {
        let mut state = lock(&self.state);
        if !state.is_open {
            return;
        }
        state.done.insert(first, last);
        let before = state.next;
        let mut next = before;
        while let Some(last) = state.done.remove(&next) {
            next = last + 1;
        }
        state.next = next;
        if next > before {
            // Those of a former consumer ask for nothing.
            self.budget.returned(next.saturating_sub(before.max(state.first)));
            drop(state);
            self.wake.notify_one();
        }
    }
}

/// Memory and credit of the deliveries in one chunk.
pub(super) struct Permit {
    pub(super) held: Option<Held>,
    pub(super) acks: Arc<Acks>,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The memory first: the deliveries that the credit allows need it.
        drop(self.held.take());
        self.acks.done(self.first, self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(budget: &Arc<Budget>, prefetch: u16) -> Arc<Acks> {
        budget.open(prefetch);
        let consume: Consume = Box::new(|start| amqp::consume(MAIN, "q", start, (&[], false)));
        let careful = Arc::default();
        let acks = Acks::new(budget, &Arc::new(Notify::new()), prefetch, &careful, consume);
        acks.confirmed(b"first");
        acks
    }

    fn due(acks: &Acks) -> Vec<u8> {
        let mut out = Vec::new();
        acks.put_due(&mut out);
        out
    }

    #[test]
    fn only_what_is_done_without_a_gap_is_acknowledged() {
        let acks = acks(&Budget::new(1 << 20), 1024);
        acks.done(3, 4);
        assert!(due(&acks).is_empty());
        acks.done(1, 2);
        assert_eq!(due(&acks), amqp::ack(MAIN, 4));
        assert!(due(&acks).is_empty());
        acks.done(5, 5);
        acks.close();
        assert!(due(&acks).is_empty(), "nothing on a channel that is gone");
    }

    #[test]
    fn after_an_error_of_the_broker_messages_are_asked_for_one_by_one_for_a_while() {
        let acks = acks(&Budget::new(1 << 20), 1);
        acks.be_careful();
        acks.done(1, CAREFUL - 1);
        assert_eq!(due(&acks), amqp::ack(MAIN, CAREFUL - 1));
        assert!(acks.is_careful());
        acks.done(CAREFUL, CAREFUL);
        assert_eq!(due(&acks), amqp::ack(MAIN, CAREFUL));
        assert!(!acks.is_careful());
        assert_eq!(due(&acks), amqp::cancel(MAIN, b"first"));
    }

    #[test]
    fn a_consumer_that_has_become_too_small_is_replaced_behind_its_last_delivery() {
        let budget = Budget::new(1 << 20);
        let acks = acks(&budget, 2);
        assert_eq!(due(&acks), amqp::cancel(MAIN, b"first"), "nothing was seen that forbids more");
        assert!(due(&acks).is_empty(), "once");
        assert!(!acks.is_overdue(Duration::from_secs(60)) && acks.is_overdue(Duration::ZERO));
        acks.done(1, 1);
        assert_eq!(due(&acks), amqp::ack(MAIN, 1), "what comes meanwhile is acknowledged");
        acks.cancelled(Offset(77), 3);
        let wanted = [amqp::qos(MAIN, 1024), acks.request(StartAt::Offset(Offset(77)))].concat();
        assert_eq!(due(&acks), wanted);
        acks.confirmed(b"second");
        assert!(due(&acks).is_empty(), "it is large enough");
        // The former one's last delivery asks for nothing; what the new one may send stays the same.
        for _ in 0..1024 {
            assert!(budget.has_credit());
            drop(budget.reserve(1));
        }
        assert!(!budget.has_credit());
        acks.done(2, 2);
        assert!(!budget.has_credit());
        acks.done(3, 3);
        assert!(budget.has_credit());
    }
}
