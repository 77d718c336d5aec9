//! The reader's part of a subscription: it decides about each Deliver frame.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::budget::{Admission, Budget};
use super::error::BrokerError;
use crate::flow::batch::Permit;
use crate::flow::credit::CHUNK_OVERHEAD_BYTES;
use crate::types::StreamName;
use crate::wire::chunk::{HEADER_BYTES, ProbedChunk, Watcher};
use crate::wire::commands::{Deliver, ResponseCode};
use crate::wire::error::WireError;
use crate::wire::frame::Peek;

/// The broker sends only while more than half of the *initial* credit is left, so the initial
/// credit is 1 and the rest is granted at once. Then any number of chunks may be outstanding
/// without a stall.
pub(super) const INITIAL_CREDIT: u16 = 1;

/// A delivered chunk.
pub struct Delivery {
    /// The chunk's bytes.
    pub chunk: Bytes,
    /// Id of the last committed chunk when it was sent (Deliver v2); else `None`.
    pub committed: Option<u64>,
    /// Its memory and credit.
    pub permit: Permit,
}

/// An event of a subscription.
pub enum Received {
    /// A chunk was delivered.
    Chunk(Delivery),
    /// The subscription has ended: the stream was deleted, or its member on this node went away.
    /// The connection stays open.
    Unavailable(ResponseCode),
    /// The broker makes this single active consumer active or passive, and waits for an answer
    /// ([`Subscribed::answer`](super::Subscribed::answer)).
    Update {
        /// True if it is to become active.
        active: bool,
        /// Id for the answer.
        correlation: u32,
    },
    /// The subscription has ended for this reason: one of its chunks did not fit into the memory.
    /// The connection stays open.
    Failed(BrokerError),
}

/// Most updates that may wait for a consumer. The broker sends the next one only after an answer,
/// or where the group changes meanwhile.
const UPDATES_MAX: usize = 16;

/// Capacity of the event queue: one slot per chunk that the budget admits, plus one for the
/// end-of-subscription event, plus those for updates. Credit does not limit the number of waiting chunks, because it is
/// granted again when a chunk *arrives*. But each chunk counts for at least the overhead, so the
/// budget does.
pub(crate) fn queue_max(budget: &Budget) -> usize {
    let chunks = usize::try_from(budget.limit() / CHUNK_OVERHEAD_BYTES + 1).unwrap_or(usize::MAX);
    chunks.saturating_add(UPDATES_MAX).min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// The broker sent more updates than there is room for.
pub(super) struct UpdatesExceeded;

/// Decision about a Deliver frame whose first bytes have arrived.
pub(super) enum Admit {
    Read,
    /// Its header has not arrived yet.
    NeedMore,
    /// Discard the frame.
    Skip,
    /// End the subscription with this error.
    Refuse(BrokerError),
}

/// The reader's part of a subscription.
pub(super) enum Slot {
    Main(Main),
    Probe(Probe),
    /// A subscription that has ended. The id stays reserved, and chunks are discarded, until the broker
    /// has confirmed the end. The ids are those of the broker's requests that have no answer yet.
    Over(Vec<u32>),
}

pub(super) struct Main {
    pub(super) stream: StreamName,
    pub(super) sender: mpsc::Sender<Received>,
    pub(super) budget: Arc<Budget>,
    /// True if the broker decides when it is active.
    pub(super) is_single_active: bool,
    /// Ids of the broker's requests that have no answer yet.
    pub(super) unanswered: Vec<u32>,
}

pub(super) type ProbeSender = oneshot::Sender<Result<ProbedChunk, WireError>>;

pub(super) struct Probe {
    pub(super) stream: StreamName,
    /// The chunk that is being discarded, and the bytes of its frame that come before it.
    pub(super) watching: Option<(Watcher, usize)>,
    /// Channel to the waiting caller; `None` after it was answered or gave up.
    pub(super) sender: Option<ProbeSender>,
}

impl Slot {
    /// The stream; `None` if it is over.
    pub(super) fn stream(&self) -> Option<&StreamName> {
        match self {
            Slot::Main(main) => Some(&main.stream),
            Slot::Probe(probe) => Some(&probe.stream),
            Slot::Over(_) => None,
        }
    }

    pub(super) fn admit(&mut self, head: &Peek, buffer: &[u8]) -> Admit {
        let bytes = head.frame_bytes;
        match self {
            Slot::Main(main) => match main.budget.admit(bytes) {
                Admission::Granted => Admit::Read,
                Admission::Overrun => Admit::Refuse(BrokerError::Overrun { bytes }),
                Admission::TooLarge => {
                    Admit::Refuse(BrokerError::ChunkTooLarge { bytes, budget: main.budget.limit() })
                }
            },
            Slot::Probe(probe) => {
                // The chunk of an unknown version cannot be located: parsing an empty slice reports
                // that.
                let at = head.chunk_at.unwrap_or(buffer.len());
                let chunk = buffer.get(at..).unwrap_or_default();
                if chunk.len() < HEADER_BYTES && (buffer.len() as u64) < bytes {
                    return Admit::NeedMore;
                }
                // Only the first chunk was asked for.
                if probe.watching.is_none() && probe.sender.is_some() {
                    probe.watching = Some((Watcher::default(), at));
                }
                Admit::Skip
            }
            Slot::Over(_) => Admit::Skip,
        }
    }

    /// Looks at bytes of a discarded frame; `last` marks its end.
    pub(super) fn watch(&mut self, bytes: &[u8], last: bool) {
        let Slot::Probe(probe) = self else { return };
        let Some((watcher, before)) = &mut probe.watching else { return };
        let passed = bytes.len().min(*before);
        *before -= passed;
        watcher.feed(bytes.get(passed..).unwrap_or_default());
        if last && let Some((watcher, _)) = probe.watching.take() {
            // The caller may have stopped waiting.
            probe.sender.take().map(|sender| sender.send(watcher.finish()).ok());
        }
    }

    pub(super) fn deliver(&self, deliver: Deliver, frame_bytes: u64) -> Result<(), BrokerError> {
        let Slot::Main(main) = self else { return Ok(()) };
        let delivery = Delivery {
            chunk: deliver.chunk,
            committed: deliver.committed_chunk_id,
            permit: main.budget.take(frame_bytes),
        };
        match main.sender.try_send(Received::Chunk(delivery)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(BrokerError::CreditExceeded),
            // The consumer has dropped the subscription.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Passes on that the broker makes the consumer active or passive; false if it is to be answered at
    /// once. Not for a subscription that is ending: until the broker has confirmed that, an answer would
    /// make it active, so that waits for the end too.
    pub(super) fn update(
        &mut self,
        active: bool,
        correlation: u32,
    ) -> Result<bool, UpdatesExceeded> {
        let main = match self {
            Slot::Main(main) => main,
            Slot::Over(unanswered) if unanswered.len() < UPDATES_MAX => {
                unanswered.push(correlation);
                return Ok(true);
            }
            Slot::Over(_) | Slot::Probe(_) => return Ok(false),
        };
        if !main.is_single_active {
            return Ok(false);
        }
        match main.sender.try_send(Received::Update { active, correlation }) {
            // Nobody takes events any more: the claim of the id ends next.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {
                main.unanswered.push(correlation);
                Ok(true)
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(UpdatesExceeded),
        }
    }

    /// Ends the subscription with this as its last event.
    pub(super) fn conclude(&mut self, last: Received) {
        match std::mem::replace(self, Slot::Over(Vec::new())) {
            Slot::Main(main) => {
                main.budget.close();
                *self = Slot::Over(main.unanswered);
                // The consumer may be gone; there is always a slot for this event.
                drop(main.sender.try_send(last));
            }
            Slot::Over(unanswered) => *self = Slot::Over(unanswered),
            Slot::Probe(_) => {}
        }
    }

    /// Notes that this request of the broker is answered now; false if it was already.
    pub(super) fn answered(&mut self, correlation: u32) -> bool {
        let unanswered = match self {
            Slot::Main(main) => &mut main.unanswered,
            Slot::Over(unanswered) => unanswered,
            Slot::Probe(_) => return false,
        };
        let at = unanswered.iter().position(|waiting| *waiting == correlation);
        at.map(|at| unanswered.swap_remove(at)).is_some()
    }

    /// Ends the subscription from this side; returns the ids of the broker's requests that have no
    /// answer yet.
    pub(super) fn end(&mut self) -> Vec<u32> {
        match std::mem::replace(self, Slot::Over(Vec::new())) {
            Slot::Main(main) => main.unanswered,
            Slot::Over(unanswered) => unanswered,
            Slot::Probe(_) => Vec::new(),
        }
    }

    /// The connection ended.
    pub(super) fn close(self) {
        if let Slot::Main(main) = self {
            main.budget.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_whoever_ends_the_subscription() {
        let budget = Budget::new(1 << 20);
        let (sender, mut events) = mpsc::channel(queue_max(&budget));
        let mut slot = Slot::Main(Main {
            stream: StreamName::new("s"),
            sender,
            budget: Arc::clone(&budget),
            is_single_active: true,
            unanswered: Vec::new(),
        });
        for (correlation, active) in [(7, true), (8, false), (9, true)] {
            assert!(matches!(slot.update(active, correlation), Ok(true)));
        }
        assert!(slot.answered(8) && !slot.answered(8), "once");
        // Twice, as where its stream is deleted after a chunk did not fit.
        slot.conclude(Received::Unavailable(ResponseCode::StreamNotAvailable));
        slot.conclude(Received::Unavailable(ResponseCode::StreamNotAvailable));
        assert!(slot.answered(9) && !slot.answered(9), "also when it is over");
        assert_eq!(slot.end(), [7], "the end of the subscription answers the rest");
        assert!(!slot.answered(7), "and nobody else");
        assert!(
            matches!(slot.update(true, 10), Ok(true)),
            "not before the broker confirms the end"
        );
        assert_eq!(slot.end(), [10]);
        let received = std::iter::from_fn(|| events.try_recv().ok()).count();
        assert_eq!(received, 4, "three requests and one end");
    }

    #[test]
    fn small_chunks_that_nobody_takes_fill_the_budget_and_never_the_queue() {
        let budget = Budget::new(1 << 20);
        budget.open(INITIAL_CREDIT);
        let (sender, events) = mpsc::channel(queue_max(&budget));
        let stream = StreamName::new("s");
        let mut slot = Slot::Main(Main {
            stream,
            sender,
            budget: Arc::clone(&budget),
            is_single_active: false,
            unanswered: Vec::new(),
        });
        let frame_bytes = 1;
        let mut taken = 0;
        while matches!(budget.admit(frame_bytes), Admission::Granted) {
            let deliver =
                Deliver { subscription: 0, committed_chunk_id: None, chunk: Bytes::new() };
            slot.deliver(deliver, frame_bytes).unwrap();
            taken += 1;
        }
        assert_eq!(taken, (1 << 20) / (CHUNK_OVERHEAD_BYTES + frame_bytes));
        slot.conclude(Received::Unavailable(ResponseCode::StreamNotAvailable));
        assert_eq!(events.len() as u64, taken + 1, "there is room for the last word");
    }
}
