//! Orders written together: one batch, several tickets, and the share of each.
//!
//! Invariant: a ticket counts as written only if everything up to its last offset is.

use super::orders::{Order, Written};
use crate::flow::batch::Batch;
use crate::flow::ledger::Ticket;
pub(super) use crate::sink::JOINED_MAX;
use crate::telemetry::operations::{Load, Operation, Operations};
use crate::types::{Checkpoint, Offset};

/// Number of messages from which no more are added: the report of each bad one takes memory too.
const JOINED_MESSAGES_MAX: u64 = 80_000;

/// Orders that are written together.
pub(super) struct Joined {
    members: Vec<Member>,
    batch: Batch,
}

/// The orders of a batch, in order.
pub(super) struct Members(Vec<Member>);

struct Member {
    ticket: Ticket,
    last: Offset,
    messages: u64,
}

impl Joined {
    pub(super) fn of(order: Order) -> Joined {
        Joined { members: vec![Member::of(&order)], batch: order.batch }
    }

    /// Adds the next order.
    pub(super) fn add(&mut self, order: Order) {
        self.members.push(Member::of(&order));
        self.batch.append(order.batch);
    }

    /// True if more may be added.
    pub(super) fn has_room(&self) -> bool {
        self.members.len() < JOINED_MAX && self.batch.messages() < JOINED_MESSAGES_MAX
    }

    /// An operation that writes it to a sink of this kind.
    pub(super) fn operation(&self, of: &Operations, sink: &'static str) -> Operation {
        let (records, bytes) = (self.batch.messages(), self.batch.bytes());
        let load = Load { batches: self.members.len(), records, bytes };
        of.write(sink, load, (self.batch.first_offset(), self.batch.last_offset()))
    }

    pub(super) fn into_parts(self) -> (Members, Batch) {
        (Members(self.members), self.batch)
    }
}

impl Member {
    fn of(order: &Order) -> Member {
        let (last, messages) = (order.batch.last_offset(), order.batch.messages());
        Member { ticket: order.ticket, last, messages }
    }
}

impl Members {
    /// Removes what was written: `messages`, up to `checkpoint`.
    pub(super) fn take(&mut self, checkpoint: Checkpoint, messages: u64) -> Written {
        let written = self.share(checkpoint, messages);
        self.0.retain(|member| member.last > checkpoint.offset);
        if let (Some(member), Some((_, _, part))) = (self.0.first_mut(), &written.part) {
            member.messages = member.messages.saturating_sub(*part);
        }
        written
    }

    /// Excludes these records from the orders.
    pub(super) fn leave_out(&mut self, offsets: impl IntoIterator<Item = Offset>) {
        for offset in offsets {
            // In order, and each up to its last offset.
            let of = self.0.partition_point(|member| member.last < offset);
            if let Some(member) = self.0.get_mut(of) {
                member.messages = member.messages.saturating_sub(1);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.0.iter().map(|m| m.ticket).collect()
    }

    /// Distributes what was written: `messages`, up to `checkpoint`.
    fn share(&self, checkpoint: Checkpoint, messages: u64) -> Written {
        let mut written = Written { messages, ..Written::default() };
        let mut left = messages;
        for member in &self.0 {
            if member.last <= checkpoint.offset {
                written.tickets.push(member.ticket);
                left = left.saturating_sub(member.messages);
            } else {
                written.part = (left > 0).then_some((member.ticket, checkpoint, left));
                break;
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ledger::Ledger;
    use crate::sink::conformance::batch;

    #[test]
    fn left_out_records_count_nowhere() {
        let mut ledger = Ledger::starting_at(None);
        let mut order = |batch: Batch| {
            let ticket = ledger.open(batch.checkpoint(), batch.messages(), batch.oldest()).unwrap();
            Order { ticket, batch }
        };
        let (first, second) = (order(batch(0..5)), order(batch(5..10)));
        let tickets = (first.ticket, second.ticket);
        let mut joined = Joined::of(first);
        joined.add(second);
        let (mut members, _) = joined.into_parts();
        members.leave_out([1, 2, 7].map(Offset));
        // 0, 3 and 4 of the first, 5 and 6 of the second.
        let checkpoint = batch(0..7).checkpoint();
        let written = members.take(checkpoint, 5);
        assert_eq!(written.tickets, [tickets.0]);
        assert_eq!(written.part, Some((tickets.1, checkpoint, 2)));
    }
}
