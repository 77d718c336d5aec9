//! One message that an operator has ordered to leave out, although the policy halts at it.
//!
//! The order is for the message at which the consumer has halted, and for nothing else: it is taken only for
//! that offset, in place of the policy, once. It is in memory alone, until the position has passed the message: after a crash
//! before that, the consumer halts there again.

use std::sync::{Arc, Mutex};

use super::spec::OnBad;
use crate::sink::BadRecord;
use crate::sync::lock;
use crate::types::Offset;

/// The order of one consumer and stream, and what it is about. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Skips(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The bad message at which the consumer has halted.
    halted_at: Option<Offset>,
    order: Option<Skip>,
    /// The last order that was carried out.
    done: Option<Skip>,
    /// What became of the last order.
    fate: Option<(Offset, Fate)>,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The position has passed the message, which is left out.
    LeftOut,
    /// The position has passed the message, which could be written after all.
    Written,
    /// The stream is another one: the order does not stand any more.
    Forgotten,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Skip {
    offset: Offset,
    to_dead_letters: bool,
}

impl Skip {
    /// The policy for this one message.
    fn policy(self) -> OnBad {
        if self.to_dead_letters { OnBad::DeadLetter } else { OnBad::Skip }
    }
}

/// Why an order is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// It has halted at another message.
    #[error("it has halted at offset {0}: only that message can be skipped")]
    At(Offset),
    /// It has not halted at a message.
    #[error("it has not halted at a message that cannot be written")]
    Nowhere,
}

impl Skips {
    /// The bad message at which the consumer has halted; `None` if it has not, or for another reason.
    pub fn halted_at(&self) -> Option<Offset> {
        lock(&self.0).halted_at
    }

    /// Orders that the message at this offset is left out at the next start.
    ///
    /// # Errors
    /// If that is not where the consumer has halted.
    pub fn order(&self, offset: Offset, to_dead_letters: bool) -> Result<(), NotThere> {
        let mut state = lock(&self.0);
        match state.halted_at {
            Some(at) if at == offset => {
                state.order = Some(Skip { offset, to_dead_letters });
                (state.done, state.fate) = (None, None);
                Ok(())
            }
            Some(at) => Err(NotThere::At(at)),
            None => Err(NotThere::Nowhere),
        }
    }

    /// What became of the order for this message; `None` while it stands.
    pub fn fate(&self, offset: Offset) -> Option<Fate> {
        lock(&self.0).fate.filter(|(of, _)| *of == offset).map(|(_, fate)| fate)
    }

    /// A run begins: it has not halted yet.
    pub(super) fn begins(&self) {
        lock(&self.0).halted_at = None;
    }

    /// The stream is another one: its offsets mean other messages.
    pub(super) fn forget(&self) {
        let mut state = lock(&self.0);
        state.halted_at = None;
        if let Some(order) = state.order.take() {
            state.fate = Some((order.offset, Fate::Forgotten));
        }
    }

    /// The consumer halts at the first of these.
    pub(super) fn halts(&self, bad: &[BadRecord]) {
        lock(&self.0).halted_at = bad.iter().map(|bad| bad.offset).min();
    }

    /// What to do with the first of these bad messages by order, and which one that is.
    pub(super) fn ordered(&self, bad: &[BadRecord]) -> Option<(Offset, OnBad)> {
        let mut state = lock(&self.0);
        let first = bad.iter().map(|bad| bad.offset).min()?;
        let order = state.order.filter(|order| order.offset == first)?;
        state.done = Some(order);
        Some((order.offset, order.policy()))
    }

    /// What was done with this message by order; `None` if the policy decided.
    pub(super) fn done_with(&self, offset: Offset) -> Option<OnBad> {
        let done = lock(&self.0).done.filter(|done| done.offset == offset)?;
        Some(done.policy())
    }

    /// Everything up to this offset is durable, or was left out.
    pub(super) fn passed(&self, durable: Offset) {
        let mut state = lock(&self.0);
        if state.halted_at.is_some_and(|at| at <= durable) {
            state.halted_at = None;
        }
        if let Some(order) = state.order.filter(|order| order.offset <= durable) {
            let is_done = state.done.is_some_and(|done| done.offset == order.offset);
            let fate = if is_done { Fate::LeftOut } else { Fate::Written };
            (state.order, state.fate) = (None, Some((order.offset, fate)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::BadReason;

    fn bad(offsets: &[u64]) -> Vec<BadRecord> {
        let of = |offset: &u64| BadRecord {
            offset: Offset(*offset),
            reason: BadReason::Refused,
            about: None,
            detail: String::new(),
        };
        offsets.iter().map(of).collect()
    }

    #[test]
    fn an_order_is_for_the_message_at_which_the_consumer_halted_and_for_no_other() {
        let skips = Skips::default();
        assert_eq!(skips.order(Offset(7), false), Err(NotThere::Nowhere));
        skips.halts(&bad(&[9, 7]));
        assert_eq!(skips.order(Offset(9), false), Err(NotThere::At(Offset(7))));
        assert_eq!(skips.order(Offset(7), true), Ok(()));
        assert_eq!(skips.ordered(&bad(&[6, 7])), None);
        assert_eq!(skips.ordered(&bad(&[7, 8])), Some((Offset(7), OnBad::DeadLetter)));
        assert_eq!(skips.done_with(Offset(7)), Some(OnBad::DeadLetter));
        assert_eq!(skips.done_with(Offset(8)), None);
        // Read again before it is durable: it is still ordered.
        skips.passed(Offset(6));
        assert_eq!(skips.fate(Offset(7)), None);
        assert_eq!(skips.ordered(&bad(&[7])), Some((Offset(7), OnBad::DeadLetter)));
        // And then never again, even if the offset comes again.
        skips.passed(Offset(7));
        assert_eq!((skips.ordered(&bad(&[7])), skips.halted_at()), (None, None));
        assert_eq!(skips.fate(Offset(7)), Some(Fate::LeftOut));
    }

    #[test]
    fn what_became_of_an_order_is_known() {
        let skips = Skips::default();
        let order = || {
            skips.halts(&bad(&[7]));
            skips.order(Offset(7), false).unwrap();
            assert_eq!(skips.fate(Offset(7)), None, "nothing yet, of this one");
        };
        order();
        skips.passed(Offset(8));
        assert_eq!(skips.fate(Offset(7)), Some(Fate::Written));
        assert_eq!(skips.fate(Offset(6)), None);
        order();
        skips.forget();
        assert_eq!(skips.fate(Offset(7)), Some(Fate::Forgotten));
        order();
        assert!(skips.ordered(&bad(&[7])).is_some());
        skips.passed(Offset(7));
        assert_eq!(skips.fate(Offset(7)), Some(Fate::LeftOut));
    }
}
