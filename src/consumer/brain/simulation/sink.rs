//! The simulated sink and its task: what it was told, what it holds, and what would survive a crash.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::broker::Id;
use crate::consumer::orders::{Message, Order, Report, Stopped, Written};
use crate::flow::batch::Batch;
use crate::flow::ledger::Ticket;
use crate::sink::{BadReason, BadRecord};
use crate::types::{Checkpoint, Offset};

/// A record, as the destination holds it.
pub(super) type Row = (u64, Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Commits its position with the data.
    KeepsPosition,
    /// Has no position, and may repeat after a crash.
    AtLeastOnce,
    /// Keeps its position, and holds batches back until a flush.
    Holds,
}

/// What outlives a run.
pub(super) struct Medium {
    pub(super) kind: Kind,
    pub(super) rows: Vec<Row>,
    pub(super) position: Option<Checkpoint>,
    /// Left out by policy.
    pub(super) skipped: BTreeSet<Id>,
}

/// The sink's task in one run.
pub(super) struct Task {
    pub(super) queue: VecDeque<Message>,
    held: Vec<Order>,
    is_stopping: bool,
    /// Another process has taken the sink over.
    pub(super) is_fenced: bool,
    /// The last report was taken.
    pub(super) is_over: bool,
    pub(super) is_closing: bool,
    /// Batches are held back for a long time.
    pub(super) holds_until_asked: bool,
}

impl Task {
    pub(super) fn new() -> Task {
        let queue = VecDeque::new();
        Task {
            queue,
            held: Vec::new(),
            is_stopping: false,
            is_fenced: false,
            is_over: false,
            is_closing: false,
            holds_until_asked: false,
        }
    }

    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty()
    }

    pub(super) fn orders(&self) -> usize {
        self.queue.iter().filter(|message| matches!(message, Message::Write(_))).count()
    }

    /// Takes one step; `trouble` may make it fail.
    pub(super) fn step(
        &mut self,
        medium: &mut Medium,
        random: &mut fastrand::Rng,
        trouble: bool,
    ) -> Option<Report> {
        if self.is_over {
            return None;
        }
        if self.is_fenced && !self.is_idle() {
            self.held.clear();
            self.is_over = true;
            return Some(Report::Stopped(Stopped::by_itself("taken over".to_owned())));
        }
        if self.queue.is_empty() && !self.held.is_empty() && !self.is_closing {
            // Batches are not held back for longer than a limit.
            let is_due = !self.holds_until_asked && random.u32(0..8) == 0;
            return is_due.then(|| self.settle(medium));
        }
        if trouble && !self.queue.is_empty() && random.u32(0..4) == 0 {
            return Some(Report::Retrying { error: "busy".into(), wait: Duration::from_secs(1) });
        }
        let report = match self.queue.pop_front()? {
            Message::Write(_) if self.is_stopping => Report::WoundUp,
            Message::Write(order) => self.write(order, medium, random, trouble),
            Message::Flush => self.settle(medium),
            Message::Restart => {
                medium.position = None;
                Report::Restarted
            }
        };
        self.is_over = matches!(report, Report::Stopped(_) | Report::WoundUp);
        Some(report)
    }

    fn write(
        &mut self,
        order: Order,
        medium: &mut Medium,
        random: &mut fastrand::Rng,
        trouble: bool,
    ) -> Report {
        match (medium.kind, random.u32(0..10)) {
            (_, 0) if trouble => self.stop_for_good(order, medium),
            (Kind::Holds, n) if n < 7 || self.holds_until_asked => {
                self.held.push(order);
                Report::Held { batches: 1, skipped: Vec::new() }
            }
            (Kind::Holds, _) => {
                self.held.push(order);
                self.settle(medium)
            }
            (Kind::AtLeastOnce, 0..4) if order.batch.messages() > 1 => {
                self.write_part(order, medium, random)
            }
            (_, 4) if trouble && order.batch.messages() > 0 => {
                self.write_without_one(order, medium, random)
            }
            _ => {
                self.held.push(order);
                self.settle(medium)
            }
        }
    }

    /// Everything that is held becomes durable.
    fn settle(&mut self, medium: &mut Medium) -> Report {
        let held = std::mem::take(&mut self.held);
        for order in &held {
            medium.take(&order.batch);
        }
        let tickets = held.iter().map(|order| order.ticket).collect();
        settled(tickets, held.iter().map(|order| order.batch.messages()).sum(), Vec::new())
    }

    fn write_part(
        &mut self,
        order: Order,
        medium: &mut Medium,
        random: &mut fastrand::Rng,
    ) -> Report {
        let (first, last) = (order.batch.first_offset(), order.batch.last_offset());
        let upto = Offset(random.u64(first.0..last.0));
        let (Some(done), Some(rest)) = (order.batch.before(upto.next()), order.batch.after(upto))
        else {
            self.held.push(order);
            return self.settle(medium);
        };
        medium.take(&done);
        let part = Some((order.ticket, done.checkpoint(), done.messages()));
        let written = Written { messages: done.messages(), tickets: Vec::new(), part };
        let oldest = rest.oldest();
        self.queue.push_front(Message::Write(Order { ticket: order.ticket, batch: rest }));
        Report::Part { written, bytes: 0, oldest, skipped: Vec::new() }
    }

    /// One record is bad, and is left out by policy.
    fn write_without_one(
        &mut self,
        order: Order,
        medium: &mut Medium,
        random: &mut fastrand::Rng,
    ) -> Report {
        let records = order.batch.records().map(|record| (record.offset, id_of(record.message)));
        let (bad, id) = random.choice(records.collect::<Vec<_>>()).unwrap();
        medium.skipped.insert(id);
        let batch = order.batch.without(vec![bad]);
        medium.take(&batch);
        medium.position = Some(batch.checkpoint()).filter(|_| medium.keeps_position());
        let detail = "on purpose".to_owned();
        let skipped =
            vec![BadRecord { about: None, offset: bad, reason: BadReason::Refused, detail }];
        settled(vec![order.ticket], batch.messages(), skipped)
    }

    /// It stops within a batch, of which only the beginning is durable.
    fn stop_for_good(&mut self, order: Order, medium: &mut Medium) -> Report {
        let tickets: Vec<Ticket> = self.held.iter().map(|order| order.ticket).collect();
        for held in std::mem::take(&mut self.held) {
            medium.take(&held.batch);
        }
        let mut written = Written { messages: 0, tickets, part: None };
        if let Some(before) = order.batch.before(order.batch.last_offset()) {
            medium.take(&before);
            written.part = Some((order.ticket, before.checkpoint(), before.messages()));
        }
        Report::Stopped(Stopped { written, bad: Vec::new(), reason: "full".to_owned() })
    }
}

fn settled(tickets: Vec<Ticket>, messages: u64, skipped: Vec<BadRecord>) -> Report {
    Report::Settled { tickets, messages, bytes: 0, skipped, took: Duration::from_millis(1) }
}

fn id_of(message: &[u8]) -> Id {
    Id::from_be_bytes(message.try_into().unwrap())
}

impl Medium {
    pub(super) fn keeps_position(&self) -> bool {
        matches!(self.kind, Kind::KeepsPosition | Kind::Holds)
    }

    fn take(&mut self, batch: &Batch) {
        self.rows.extend(batch.records().map(|record| (record.offset.0, id_of(record.message))));
        if self.keeps_position() {
            assert!(
                self.position.is_none_or(|at| at.offset < batch.first_offset()),
                "a batch from offset {} comes after position {:?}",
                batch.first_offset(),
                self.position
            );
            self.position = Some(batch.checkpoint());
        }
    }
}
