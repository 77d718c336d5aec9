//! Queues of a comparison between stream and sink: expected messages, records found in the sink, and the pairs of
//! both that a sink has to judge. No I/O.

use std::collections::VecDeque;

use super::join::{Expected, Need, Tally};
use crate::sink::audit::{Entry, Found, Pair};

/// Pairs, and bytes of them, that are judged at once.
const PAIRS_MAX: usize = 500;
const PAIR_BYTES_MAX: usize = 4 << 20;

/// Pairs that are to be judged.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    all: Vec<Pair>,
    bytes: usize,
}

impl Pairs {
    /// Copies both contents: the buffers that they are in hold many others.
    pub(super) fn add(&mut self, expected: &Entry, found: &[u8]) {
        self.bytes += expected.content.len() + found.len();
        let (offset, expected) = (expected.offset, expected.content.to_vec());
        self.all.push(Pair { offset, expected, found: found.to_vec() });
    }

    pub(super) fn are_enough(&self) -> bool {
        self.all.len() >= PAIRS_MAX || self.bytes >= PAIR_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Pair> {
        self.bytes = 0;
        std::mem::take(&mut self.all)
    }
}

/// Both sides, as far as they were read and not compared.
#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) expected: VecDeque<Expected>,
    pub(super) found: VecDeque<Entry>,
    expected_ended: bool,
    found_ended: bool,
}

impl Queues {
    pub(super) fn expect(&mut self, more: Option<Vec<Expected>>) {
        self.expected_ended |= more.is_none();
        self.expected.extend(more.unwrap_or_default());
    }

    /// Adds records found in the sink; `None` ends them. Unreadable places are counted in the tally.
    pub(super) fn find(&mut self, more: Option<Vec<Found>>, tally: &mut Tally) {
        self.found_ended |= more.is_none();
        for found in more.into_iter().flatten() {
            match found {
                Found::Record(entry) => self.found.push_back(entry),
                Found::Unreadable(place) => tally.add_unreadable(place),
            }
        }
    }

    /// The side that has fewer than `of_each` entries and has not ended; `None` if neither has.
    pub(super) fn need(&self, of_each: usize) -> Option<Need> {
        if self.expected.len() < of_each && !self.expected_ended {
            return Some(Need::Expected);
        }
        (self.found.len() < of_each && !self.found_ended).then_some(Need::Found)
    }
}
