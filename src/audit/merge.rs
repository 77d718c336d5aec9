//! Merges what should be in a sink with what is there, in the order of offsets. Pure: no I/O, no clock.
//!
//! Both sides ascend. Where the sink's own order is wrong (a line was moved or copied), what comes too
//! early waits for its turn, and what comes too late is compared with what was missed.

use std::collections::{BTreeMap, VecDeque};

use super::join::{Expected, Join, LEFT_OUT, Letters, Need, Tally, not_written, without_record};
use super::queues::Pairs;
use crate::sink::audit::{Entry, Found, Pair};
use crate::types::Offset;

/// Records that may wait for their turn.
const EARLY_MAX: usize = 10_000;

/// Both sides, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Merge {
    expected: VecDeque<Expected>,
    found: VecDeque<Found>,
    expected_ended: bool,
    found_ended: bool,
    letters: Letters,
    /// Records that came before their turn.
    early: BTreeMap<Offset, Vec<u8>>,
    /// The highest offset that was found in its turn, and whether it should be there.
    highest: Option<(Offset, bool)>,
    pairs: Pairs,
    /// The result so far.
    pub(super) tally: Tally,
}

impl Merge {
    /// A merge of a consumer with these dead letters.
    pub(super) fn new(letters: Letters) -> Merge {
        Merge { letters, ..Merge::default() }
    }

    /// Places a record of the sink.
    fn record(&mut self, entry: Entry) {
        let at = entry.offset;
        if let Some((highest, belongs)) = self.highest
            && at <= highest
        {
            return self.late(at, at == highest && !belongs);
        }
        let next = self.expected.front().map(Expected::offset);
        if next.is_some_and(|next| next < at) && self.is_early(at) {
            if self.early.insert(at, entry.content.to_vec()).is_some() {
                self.tally.double(at);
            }
            return;
        }
        if next.is_some_and(|next| next < at) {
            // The sink has nothing for what is expected before it: it stays for its own turn.
            if let Some(expected) = self.expected.pop_front() {
                self.without_record(expected);
            }
            self.found.push_front(Found::Record(entry));
            return;
        }
        let belongs = match self.expected.front() {
            Some(expected) if expected.offset() == at => match self.expected.pop_front() {
                Some(Expected::Record(expected)) => {
                    if self.early.remove(&at).is_some() {
                        self.tally.double(at);
                    }
                    self.compare(&expected, &entry.content);
                    true
                }
                Some(Expected::Refused(_, why)) => {
                    self.tally.add_extra(at, Some(not_written(&why)));
                    false
                }
                Some(Expected::Unwanted(_)) => {
                    self.tally.unwanted += 1;
                    self.tally.add_extra(at, Some(LEFT_OUT.to_owned()));
                    false
                }
                Some(Expected::Unknown(from, to)) => {
                    self.tally.unknown.add_all(from, to);
                    true
                }
                None => false,
            },
            _ if self.tally.unknown.has(at) => true,
            _ => {
                self.tally.add_extra(at, None);
                false
            }
        };
        self.highest = Some((at, belongs));
        self.tally.reached = self.tally.reached.max(Some(at));
    }

    /// True if the record after it belongs before it, so that this one stands too early.
    fn is_early(&self, at: Offset) -> bool {
        let next = self.found.iter().find_map(|found| match found {
            Found::Record(entry) => Some(entry.offset),
            Found::Unreadable(_) => None,
        });
        let in_turn = self.highest.is_none_or(|(highest, _)| next > Some(highest));
        next.is_some_and(|next| next < at) && in_turn && self.early.len() < EARLY_MAX
    }

    /// What came early and was never expected should not be there.
    fn end(&mut self) {
        for at in std::mem::take(&mut self.early).into_keys() {
            if !self.tally.unknown.has(at) {
                self.tally.add_extra(at, None);
            }
        }
    }

    /// A record at or below one that came before it.
    fn late(&mut self, at: Offset, is_extra: bool) {
        if self.tally.unknown.has(at) {
            return;
        }
        if is_extra || self.tally.extra.has(at) {
            self.tally.add_extra(at, None);
        } else if self.tally.missing.remove(at) {
            self.tally.misplaced.add(at);
        } else {
            self.tally.double(at);
        }
    }

    /// The sink holds nothing at this offset, in its turn.
    fn without_record(&mut self, expected: Expected) {
        match expected {
            Expected::Record(entry) if self.early.contains_key(&entry.offset) => {
                let content = self.early.remove(&entry.offset).unwrap_or_default();
                self.tally.reached = self.tally.reached.max(Some(entry.offset));
                self.tally.misplaced.add(entry.offset);
                self.compare(&entry, &content);
            }
            expected => without_record(&mut self.tally, &self.letters, expected),
        }
    }

    fn compare(&mut self, expected: &Entry, found: &[u8]) {
        if expected.content == found {
            self.tally.same += 1;
            return;
        }
        self.pairs.add(expected, found);
    }
}

impl Join for Merge {
    fn expect(&mut self, more: Option<Vec<Expected>>) {
        self.expected_ended |= more.is_none();
        self.expected.extend(more.unwrap_or_default());
    }

    fn find(&mut self, more: Option<Vec<Found>>) {
        self.found_ended |= more.is_none();
        self.found.extend(more.unwrap_or_default());
    }

    fn take_pairs(&mut self) -> Vec<Pair> {
        self.pairs.take()
    }

    fn run(&mut self) -> Need {
        loop {
            if self.pairs.are_enough() {
                return Need::Judging;
            }
            if self.expected.is_empty() && !self.expected_ended {
                return Need::Expected;
            }
            // Whether a record comes too early is told by the one after it.
            if self.found.len() < 2 && !self.found_ended {
                return Need::Found;
            }
            let Some(found) = self.found.pop_front() else {
                match self.expected.pop_front() {
                    Some(expected) => self.without_record(expected),
                    None if !self.pairs.is_empty() => return Need::Judging,
                    None => {
                        self.end();
                        return Need::Nothing;
                    }
                }
                continue;
            };
            match found {
                Found::Unreadable(place) => self.tally.add_unreadable(place),
                Found::Record(entry) => self.record(entry),
            }
        }
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
}

#[cfg(test)]
mod tests;
