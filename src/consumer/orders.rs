//! What the consumer orders of its sink's task, and what that reports back.

use std::time::Duration;

use crate::flow::batch::Batch;
use crate::flow::ledger::Ticket;
use crate::sink::BadRecord;
use crate::types::{Checkpoint, Timestamp};

/// Message to the sink's task.
pub(super) enum Message {
    Write(Order),
    /// Make everything durable that is held.
    Flush,
    /// The stream was re-created: the next batch may start at any offset. Sent only when nothing is
    /// in flight.
    Restart,
}

/// A batch to write.
pub(super) struct Order {
    pub(super) ticket: Ticket,
    pub(super) batch: Batch,
}

/// Progress of the orders in flight.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Number of messages in all.
    pub(super) messages: u64,
    /// Orders that are completely durable.
    pub(super) tickets: Vec<Ticket>,
    /// The order that is durable up to a position within it, with its number of durable messages.
    pub(super) part: Option<(Ticket, Checkpoint, u64)>,
}

/// Result of an order.
pub(super) enum Report {
    /// These are durable, with all that was held.
    Settled {
        tickets: Vec<Ticket>,
        messages: u64,
        bytes: u64,
        skipped: Vec<BadRecord>,
        took: Duration,
    },
    /// This part of the orders in flight is durable; the sink is not done. `oldest` is the time at
    /// which the chunk of the remaining part was written.
    Part { written: Written, bytes: u64, oldest: Timestamp, skipped: Vec<BadRecord> },
    /// The sink has completed what it had started, and gets no more: unsettled records are read
    /// again at the next start.
    WoundUp,
    /// The sink has accepted these; held batches are settled later, all together.
    Held { batches: usize, skipped: Vec<BadRecord> },
    /// The write failed, and is retried after `wait`.
    Retrying { error: String, wait: Duration },
    /// The sink is ready for the re-created stream.
    Restarted,
    /// The sink has stopped for good.
    Stopped(Stopped),
}

/// Reason why a sink has stopped.
pub(super) struct Stopped {
    /// What was written before: everything up to the first bad record.
    pub(super) written: Written,
    /// The bad records, if they were the reason.
    pub(super) bad: Vec<BadRecord>,
    /// Reason as text.
    pub(super) reason: String,
}

impl Stopped {
    pub(super) fn by_itself(reason: String) -> Stopped {
        Stopped { written: Written::default(), bad: Vec::new(), reason }
    }
}
