//! Merges what should be in a sink with what is there, in the order of offsets. Pure: no I/O, no clock.
//!
//! Both sides ascend. Where the sink's own order is wrong (a line was moved or copied), what comes too
//! early waits for its turn, and what comes too late is compared with what was missed.

use std::collections::{BTreeMap, VecDeque};

use super::queues::Pairs;
use super::ranges::Ranges;
use crate::sink::audit::{Entry, Found, Pair};
use crate::types::Offset;

/// What the stream says about the next offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The sink should hold this.
    Record(Entry),
    /// The sink should not hold this: it cannot write it, for this reason.
    Refused(Offset, String),
    /// The sink should not hold this: the consumer's filter leaves it out.
    Unwanted(Offset),
    /// Nothing is known about these, both included: retention has taken them, or they cannot be read.
    Unknown(Offset, Offset),
}

impl Expected {
    /// Its offset; the first one, if it is about several.
    pub(super) fn offset(&self) -> Offset {
        match self {
            Expected::Record(entry) => entry.offset,
            Expected::Refused(at, _) | Expected::Unwanted(at) | Expected::Unknown(at, _) => *at,
        }
    }
}

/// What the merge needs to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// More of what should be there.
    Expected,
    /// More of what is there.
    Found,
    /// The collected pairs are to be judged.
    Judging,
    /// Nothing: it has ended.
    Nothing,
}

/// Pairs, and bytes of them, that are judged at once.
pub(super) const PAIRS_MAX: usize = 500;
pub(super) const PAIR_BYTES_MAX: usize = 4 << 20;

/// Records that may wait for their turn.
const EARLY_MAX: usize = 10_000;

/// Examples that are kept of each kind.
const EXAMPLES_MAX: usize = 100;

/// Counts and offsets of everything that was found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records that are as they should be.
    pub same: u64,
    /// Offsets that should be there and are not.
    pub missing: Ranges,
    /// Why a missing one could not be written, where that is known.
    pub missing_because: Vec<(Offset, String)>,
    /// Offsets that are there more than once.
    pub doubled: Ranges,
    /// Number of copies too many.
    pub surplus: u64,
    /// Offsets that are there, but not where they belong in the sink's order.
    pub misplaced: Ranges,
    /// Offsets that should not be there.
    pub extra: Ranges,
    /// Why some of them should not.
    pub extra_because: Vec<(Offset, String)>,
    /// Places in the sink of messages that the stream never had, where offsets are not known.
    pub foreign: Vec<u64>,
    /// Number of such messages.
    pub foreign_count: u64,
    /// What cannot be read in the sink.
    pub unreadable: Vec<String>,
    /// Number of such places.
    pub unreadable_count: u64,
    /// Offsets that are not there because they are dead letters.
    pub dead_letters: Ranges,
    /// Offsets that the sink cannot write, and that the policy leaves out.
    pub left_out: Ranges,
    /// Number of messages that the filter leaves out.
    pub unwanted: u64,
    /// Number of messages without a row in an upsert table, because a later message of the same key replaced the
    /// row, or it was deleted.
    pub superseded: u64,
    /// Offsets about which nothing is known.
    pub unknown: Ranges,
    /// The last offset that was compared.
    pub reached: Option<Offset>,
}

impl Tally {
    pub(super) fn add_unreadable(&mut self, place: String) {
        self.unreadable_count += 1;
        if self.unreadable.len() < EXAMPLES_MAX {
            self.unreadable.push(place);
        }
    }

    pub(super) fn add_extra(&mut self, at: Offset, why: Option<String>) {
        self.extra.add(at);
        if let Some(why) = why
            && self.extra_because.len() < EXAMPLES_MAX
        {
            self.extra_because.push((at, why));
        }
    }

    pub(super) fn double(&mut self, at: Offset) {
        self.surplus += 1;
        self.doubled.add(at);
    }

    pub(super) fn add_foreign(&mut self, place: Offset) {
        self.foreign_count += 1;
        if self.foreign.len() < EXAMPLES_MAX {
            self.foreign.push(place.0);
        }
    }
}

/// Dead letters of the consumer.
#[derive(Debug, Default)]
pub enum Letters {
    /// Its policy has none.
    #[default]
    None,
    /// These offsets have one.
    At(Ranges),
    /// It has some, which cannot be read.
    Unknown,
}

/// A comparison of both sides, which are handed over in pieces.
pub(super) trait Join: Send {
    /// Adds what should be there; nothing at its end.
    fn expect(&mut self, more: Option<Vec<Expected>>);

    /// Adds what is there; nothing at its end.
    fn find(&mut self, more: Option<Vec<Found>>);

    /// Goes on as far as possible.
    fn run(&mut self) -> Need;

    /// Takes the pairs to be judged.
    fn take_pairs(&mut self) -> Vec<Pair>;

    /// The result so far.
    fn tally(&mut self) -> &mut Tally;

    /// Why it cannot go on.
    fn trouble(&mut self) -> Option<String> {
        None
    }

    /// Notes for the end of the report, such as limits of this comparison.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Why the sink should not hold what it cannot write.
pub(super) fn not_written(why: &str) -> String {
    format!("the sink would not write it: {why}")
}

/// Why the sink should not hold what is not wanted.
pub(super) const LEFT_OUT: &str = "the filter leaves it out";

/// Counts what is expected where the sink holds nothing.
pub(super) fn without_record(tally: &mut Tally, letters: &Letters, expected: Expected) {
    let at = expected.offset();
    let reached = if let Expected::Unknown(_, to) = expected { to } else { at };
    tally.reached = tally.reached.max(Some(reached));
    let lettered = matches!(letters, Letters::At(letters) if letters.has(at));
    match expected {
        Expected::Record(_) | Expected::Refused(..) if lettered => tally.dead_letters.add(at),
        Expected::Record(_) => tally.missing.add(at),
        Expected::Refused(_, why) if matches!(letters, Letters::At(_)) => {
            tally.missing.add(at);
            if tally.missing_because.len() < EXAMPLES_MAX {
                let why = format!("the sink cannot write it, and it is no dead letter: {why}");
                tally.missing_because.push((at, why));
            }
        }
        Expected::Refused(..) => tally.left_out.add(at),
        Expected::Unwanted(_) => tally.unwanted += 1,
        Expected::Unknown(from, to) => tally.unknown.add_all(from, to),
    }
}

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
