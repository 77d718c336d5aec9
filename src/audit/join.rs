//! Types that all comparisons of a sink with its stream share: the expected side, the result, and the interface
//! through which both sides are handed over. No I/O.

use super::ranges::Ranges;
use crate::sink::audit::{Entry, Found, Pair};
use crate::types::Offset;

/// Expected content of the sink for the next offsets, by the stream.
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

/// Input that the merge needs to continue.
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
    /// Places of the sink that cannot be read.
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
    /// Dead letters exist, and cannot be read.
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
