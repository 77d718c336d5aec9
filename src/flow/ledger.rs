//! The ledger: the batches in flight, and the offset up to which everything is durable.
//!
//! A ticket is opened for each batch, in stream order, and settled when the batch is durable. The
//! watermark is the end of the settled *prefix*: a batch that settles early waits for those before
//! it, and a ticket that is never settled holds the watermark back indefinitely. Forgetting one can
//! therefore delay progress, but can never count as success.

use std::collections::VecDeque;

use crate::types::{Checkpoint, Offset, Timestamp};

/// Ticket of a batch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Misuse of a ledger.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A batch that does not come after the one before it.
    #[error("a batch that ends at offset {new} was opened after one that ends at {last}")]
    OutOfOrder {
        /// Last offset of the new batch.
        new: Offset,
        /// Last offset of the newest batch so far.
        last: Offset,
    },
    /// A ticket that is not open: settled twice, or of another ledger.
    #[error("ticket {} is not open", .0.0)]
    Unknown(Ticket),
}

struct Entry {
    checkpoint: Checkpoint,
    messages: u64,
    oldest: Timestamp,
    settled: bool,
}

/// A step of the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything at or below this is now durable.
    pub checkpoint: Checkpoint,
    /// Number of messages that became durable with this step.
    pub messages: u64,
}

/// The batches in flight, oldest first.
#[derive(Default)]
pub struct Ledger {
    /// Number of the oldest open entry.
    base: u64,
    entries: VecDeque<Entry>,
    durable: Option<Checkpoint>,
}

impl Ledger {
    /// A ledger without batches, in which everything up to `durable` is durable.
    pub fn starting_at(durable: Option<Checkpoint>) -> Ledger {
        Ledger { base: 0, entries: VecDeque::new(), durable }
    }

    /// Opens a ticket for a batch that ends at `checkpoint`.
    pub fn open(
        &mut self,
        checkpoint: Checkpoint,
        messages: u64,
        oldest: Timestamp,
    ) -> Result<Ticket, LedgerError> {
        let last = self.entries.back().map(|e| e.checkpoint).or(self.durable);
        if let Some(last) = last
            && checkpoint.offset <= last.offset
        {
            return Err(LedgerError::OutOfOrder { new: checkpoint.offset, last: last.offset });
        }
        self.entries.push_back(Entry { checkpoint, messages, oldest, settled: false });
        Ok(Ticket(self.base + self.entries.len() as u64 - 1))
    }

    /// Records that the ticket's batch is durable. Returns the step of the watermark, if it moved.
    pub fn settle(&mut self, ticket: Ticket) -> Result<Option<Progress>, LedgerError> {
        let entry = ticket
            .0
            .checked_sub(self.base)
            .and_then(|index| self.entries.get_mut(usize::try_from(index).ok()?))
            .filter(|e| !e.settled)
            .ok_or(LedgerError::Unknown(ticket))?;
        entry.settled = true;

        let mut progress = None;
        let mut messages = 0;
        while let Some(entry) = self.entries.pop_front_if(|e| e.settled) {
            self.base += 1;
            messages += entry.messages;
            self.durable = Some(entry.checkpoint);
            progress = Some(Progress { checkpoint: entry.checkpoint, messages });
        }
        Ok(progress)
    }

    /// Records that the ticket's batch is durable only up to `checkpoint`, and that the rest never
    /// will be. Later tickets are forgotten.
    pub fn settle_part(
        &mut self,
        ticket: Ticket,
        checkpoint: Checkpoint,
        messages: u64,
    ) -> Result<Option<Progress>, LedgerError> {
        let index = ticket
            .0
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .filter(|index| *index < self.entries.len())
            .ok_or(LedgerError::Unknown(ticket))?;
        self.entries.truncate(index + 1);
        if let Some(entry) = self.entries.back_mut() {
            entry.checkpoint = checkpoint;
            entry.messages = messages;
        }
        self.settle(ticket)
    }

    /// Records that the oldest ticket's batch is durable up to `checkpoint`, which lies within it.
    /// `oldest` is the time at which the chunk of the first record after `checkpoint` was written.
    /// The ticket stays open.
    pub fn advance(
        &mut self,
        ticket: Ticket,
        checkpoint: Checkpoint,
        messages: u64,
        oldest: Timestamp,
    ) -> Result<Progress, LedgerError> {
        let durable = self.durable;
        let entry = self
            .entries
            .front_mut()
            .filter(|entry| {
                ticket.0 == self.base
                    && !entry.settled
                    && checkpoint.offset < entry.checkpoint.offset
            })
            .filter(|_| durable.is_none_or(|durable| durable.offset < checkpoint.offset))
            .ok_or(LedgerError::Unknown(ticket))?;
        entry.messages = entry.messages.saturating_sub(messages);
        entry.oldest = oldest;
        self.durable = Some(checkpoint);
        Ok(Progress { checkpoint, messages })
    }

    /// Everything at or below this is durable; `None` if nothing is yet.
    pub fn durable(&self) -> Option<Checkpoint> {
        self.durable
    }

    /// Last offset of the newest batch, durable or not.
    pub fn last(&self) -> Option<Offset> {
        self.entries.back().map(|e| e.checkpoint).or(self.durable).map(|c| c.offset)
    }

    /// Number of batches that are not yet in the settled prefix.
    pub fn under_way(&self) -> usize {
        self.entries.len()
    }

    /// Number of batches that are not settled. Unlike [`Ledger::under_way`], leaves out settled
    /// batches that wait for an earlier one.
    pub fn unsettled(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.settled).count()
    }

    /// Time at which the oldest chunk that was given to the sink and is not durable was written.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.entries.front().map(|e| e.oldest)
    }

    /// Forgets everything after the stream was re-created: the next batch may start at any offset.
    pub fn restart(&mut self) {
        self.base += self.entries.len() as u64;
        self.entries.clear();
        self.durable = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64) -> Checkpoint {
        Checkpoint { offset: Offset(offset), chunk: None }
    }

    fn open(ledger: &mut Ledger, offset: u64, messages: u64) -> Ticket {
        ledger.open(at(offset), messages, Timestamp(offset as i64)).unwrap()
    }

    #[test]
    fn the_watermark_moves_over_the_settled_prefix_only() {
        let mut ledger = Ledger::default();
        let tickets =
            [open(&mut ledger, 9, 10), open(&mut ledger, 19, 10), open(&mut ledger, 29, 10)];
        assert_eq!(ledger.settle(tickets[1]).unwrap(), None);
        assert_eq!(ledger.durable(), None);
        assert_eq!((ledger.under_way(), ledger.unsettled()), (3, 2));
        assert_eq!(
            ledger.settle(tickets[0]).unwrap(),
            Some(Progress { checkpoint: at(19), messages: 20 })
        );
        assert_eq!(ledger.oldest(), Some(Timestamp(29)));
        assert_eq!(
            ledger.settle(tickets[2]).unwrap(),
            Some(Progress { checkpoint: at(29), messages: 10 })
        );
        assert_eq!((ledger.under_way(), ledger.oldest()), (0, None));
    }

    #[test]
    fn the_oldest_batch_may_be_durable_in_part() {
        let mut ledger = Ledger::default();
        let first = open(&mut ledger, 9, 10);
        let second = open(&mut ledger, 19, 10);
        let later = Timestamp(5);
        let progress = Progress { checkpoint: at(3), messages: 4 };
        assert_eq!(ledger.advance(first, at(3), 4, later), Ok(progress));
        assert_eq!((ledger.durable(), ledger.under_way()), (Some(at(3)), 2));
        assert_eq!(ledger.oldest(), Some(later));
        // Neither backwards, nor to its end, nor beyond one that is not settled.
        assert!(ledger.advance(first, at(3), 4, later).is_err());
        assert!(ledger.advance(first, at(9), 10, later).is_err());
        assert!(ledger.advance(second, at(12), 3, later).is_err());
        assert_eq!(ledger.durable(), Some(at(3)));
        let progress = Progress { checkpoint: at(9), messages: 6 };
        assert_eq!(ledger.settle(first), Ok(Some(progress)));
        assert!(ledger.advance(second, at(12), 3, later).is_ok());
    }

    #[test]
    fn a_ticket_settles_once() {
        let mut ledger = Ledger::default();
        let first = open(&mut ledger, 1, 1);
        let second = open(&mut ledger, 2, 1);
        ledger.settle(second).unwrap();
        assert_eq!(ledger.settle(second), Err(LedgerError::Unknown(second)));
        ledger.settle(first).unwrap();
        assert_eq!(ledger.settle(first), Err(LedgerError::Unknown(first)));
    }

    #[test]
    fn a_batch_must_come_after_the_last() {
        let mut ledger = Ledger::starting_at(Some(at(5)));
        assert!(ledger.open(at(5), 1, Timestamp(0)).is_err());
        open(&mut ledger, 6, 1);
        assert!(ledger.open(at(6), 1, Timestamp(0)).is_err());
    }

    #[test]
    fn a_restart_accepts_lower_offsets_and_refuses_old_tickets() {
        let mut ledger = Ledger::starting_at(Some(at(100)));
        let old = open(&mut ledger, 110, 1);
        ledger.restart();
        assert_eq!(ledger.settle(old), Err(LedgerError::Unknown(old)));
        let new = open(&mut ledger, 0, 1);
        assert_eq!(ledger.settle(new).unwrap(), Some(Progress { checkpoint: at(0), messages: 1 }));
    }

    #[test]
    fn a_part_settles_up_to_its_end_and_nothing_behind_it() {
        let mut ledger = Ledger::default();
        let tickets =
            [open(&mut ledger, 9, 10), open(&mut ledger, 19, 10), open(&mut ledger, 29, 10)];
        assert_eq!(ledger.settle_part(tickets[1], at(14), 5).unwrap(), None);
        let progress = ledger.settle(tickets[0]).unwrap();
        assert_eq!(progress, Some(Progress { checkpoint: at(14), messages: 15 }));
        assert_eq!(ledger.settle(tickets[2]), Err(LedgerError::Unknown(tickets[2])));
        assert_eq!(ledger.durable(), Some(at(14)));
    }

    proptest! {
        /// Against a model: durable is the end of the longest settled prefix, whatever the order.
        #[test]
        fn any_order_of_settling_agrees_with_the_model(order in Just((0usize..20).collect::<Vec<_>>()).prop_shuffle(), settled in 0usize..20) {
            let mut ledger = Ledger::default();
            let tickets: Vec<_> = (0..20).map(|i| open(&mut ledger, i, 1)).collect();
            let mut model = [false; 20];
            let mut messages = 0;
            for &i in &order[..settled] {
                model[i] = true;
                if let Some(progress) = ledger.settle(tickets[i]).unwrap() { messages += progress.messages; }
                let prefix = model.iter().take_while(|s| **s).count();
                prop_assert_eq!(ledger.durable().map(|c| c.offset.0 + 1).unwrap_or(0), prefix as u64);
                prop_assert_eq!(messages, prefix as u64);
                prop_assert_eq!(ledger.under_way(), 20 - prefix);
            }
        }
    }
}
