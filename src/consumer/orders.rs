//! What the consumer orders of its sink's task, and what that reports back.

use std::time::Duration;

use crate::flow::batch::Batch;
use crate::flow::ledger::Ticket;
use crate::sink::BadRecord;
use crate::types::{Checkpoint, Timestamp};

/// What the sink's task is told.
pub(super) enum Message {
    Write(Order),
    /// Everything that is held has to become durable.
    Flush,
    /// A new history begins: the next batch may start at any offset. Sent only when nothing is
    /// under way.
    Restart,
}

/// A batch to write.
pub(super) struct Order {
    pub(super) ticket: Ticket,
    pub(super) batch: Batch,
}

/// How far what was under way got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// In all.
    pub(super) messages: u64,
    /// Orders that are durable as a whole.
    pub(super) tickets: Vec<Ticket>,
    /// The one that is durable up to a position that lies within it, and how much of it is.
    pub(super) part: Option<(Ticket, Checkpoint, u64)>,
}

/// What happened to an order.
pub(super) enum Report {
    /// These are durable, with all that was held.
    Settled {
        tickets: Vec<Ticket>,
        messages: u64,
        bytes: u64,
        skipped: Vec<BadRecord>,
        took: Duration,
    },
    /// This much of what is under way is durable; the sink is not done. `oldest`: when the chunk was
    /// written that the rest begins in.
    Part { written: Written, bytes: u64, oldest: Timestamp, skipped: Vec<BadRecord> },
    /// The sink has ended what it had begun, and gets no more: what it has not settled is read again
    /// next time.
    WoundUp,
    /// The sink has taken these; what was held is settled later, all at once.
    Held { batches: usize, skipped: Vec<BadRecord> },
    /// It could not be written, and is tried again after `wait`.
    Retrying { error: String, wait: Duration },
    /// The sink is ready for a new history.
    Restarted,
    /// The sink will not go on.
    Stopped(Stopped),
}

/// Why a sink will not go on.
pub(super) struct Stopped {
    /// What was written all the same: up to the first bad record.
    pub(super) written: Written,
    /// The bad records, if it was for them.
    pub(super) bad: Vec<BadRecord>,
    /// In words.
    pub(super) reason: String,
}

impl Stopped {
    pub(super) fn by_itself(reason: String) -> Stopped {
        Stopped { written: Written::default(), bad: Vec::new(), reason }
    }
}
