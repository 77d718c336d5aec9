//! Compares records that do not tell their offsets with the expected ones, by their order. Pure.
//!
//! Where the two differ, the nearest place from which on they agree again tells what happened: records
//! that only one side has are missing or too many, and others are altered. What differs for longer than
//! [`WINDOW`] records counts as altered, record by record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::join::{Expected, Join, Letters, Need, Tally, without_record};
use super::queues::{Pairs, Queues};
use crate::sink::audit::{Entry, Found, Pair};
use crate::types::Offset;

/// Records of each side that are looked through for a place where both agree again.
const WINDOW: usize = 128;

/// Records that have to agree there.
const AGREE: usize = 4;

/// Records that a copy may stand behind its original.
const RECENT: usize = 1024;

/// Which side may have records that the other does not, until both first agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skips {
    /// Neither.
    Nothing,
    /// The stream: the sink has lost its beginning.
    Expected,
    /// The sink: the stream, or the range that is compared, begins later.
    Found,
}

/// A piece of the sink.
#[derive(Default)]
struct Piece {
    /// Its place; `None` before the first one.
    at: Option<Offset>,
    /// The place of the next one, once it is known.
    next: Option<Offset>,
    /// Whether the records behind the end of this piece repeat ones that were compared before; `None` until the
    /// comparison has come there.
    repeats: Option<bool>,
}

/// Both sides, as far as they were read.
pub(super) struct Align {
    queues: Queues,
    letters: Letters,
    skips: Skips,
    /// The place of a record is the first offset of its piece.
    in_pieces: bool,
    /// The piece of the record that is compared next.
    piece: Piece,
    /// The piece of which the stream, or the range that is compared, may have lost the beginning.
    cut: Option<Offset>,
    hasher: RandomState,
    last_same: Option<Offset>,
    /// Hashes of the last records that agreed, and their offsets.
    recent: VecDeque<(u64, Offset)>,
    pairs: Pairs,
    tally: Tally,
}

impl Align {
    pub(super) fn new(letters: Letters, skips: Skips, in_pieces: bool) -> Align {
        Align {
            queues: Queues::default(),
            letters,
            skips,
            in_pieces,
            piece: Piece::default(),
            cut: None,
            hasher: RandomState::new(),
            last_same: None,
            recent: VecDeque::new(),
            pairs: Pairs::default(),
            tally: Tally::default(),
        }
    }

    /// The nearest place from which on both agree: how many records of each side come before it.
    fn agreement(&self) -> Option<(usize, usize)> {
        let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (at, expected) in self.queues.expected.iter().take(WINDOW).enumerate() {
            if let Expected::Record(entry) = expected {
                places.entry(&entry.content).or_default().push(at);
            }
        }
        let mut best: Option<(usize, usize)> = None;
        for (behind, entry) in self.queues.found.iter().take(WINDOW).enumerate() {
            for at in places.get(&*entry.content).into_iter().flatten() {
                let is_nearer = best.is_none_or(|(a, b)| at + behind < a + b);
                let is_before = self
                    .queues
                    .expected
                    .get(*at)
                    .is_some_and(|expected| self.is_before(expected, entry));
                if is_nearer && !is_before && self.agree_from(*at, behind) {
                    best = Some((*at, behind));
                }
            }
        }
        best
    }

    /// True if the record is in a piece that begins behind this offset.
    fn is_before(&self, expected: &Expected, found: &Entry) -> bool {
        self.in_pieces && expected.offset() < found.offset
    }

    /// True if the piece of the first record has ended before what is expected next.
    fn has_ended(&mut self) -> bool {
        let Queues { expected, found, .. } = &self.queues;
        let (Some(expected), Some(front), Some(last)) =
            (expected.front(), found.front(), found.back())
        else {
            return false;
        };
        if !self.in_pieces {
            return false;
        }
        if self.piece.at != Some(front.offset) {
            self.piece = Piece { at: Some(front.offset), ..Piece::default() };
        }
        if self.piece.next.is_none() && last.offset != front.offset {
            let places = found.iter().map(|entry| entry.offset);
            self.piece.next = places.into_iter().find(|place| *place > front.offset);
        }
        self.piece.next.is_some_and(|next| next <= expected.offset())
    }

    /// True if the first record, which is what is expected next, stands behind the end of its piece, and so do only
    /// bodies that were there before: then it is one of these once more. Otherwise the messages behind the end
    /// were written into this piece, and again into the next one.
    fn is_repeated(&mut self) -> bool {
        if !self.has_ended() {
            return false;
        }
        let Align { queues, recent, hasher, piece, .. } = self;
        *piece.repeats.get_or_insert_with(|| {
            let known: HashSet<u64> = recent.iter().map(|(hash, _)| *hash).collect();
            let behind = queues.found.iter().take_while(|entry| Some(entry.offset) == piece.at);
            behind.take(WINDOW).all(|entry| known.contains(&hasher.hash_one(&entry.content)))
        })
    }

    fn agree_from(&self, expected: usize, found: usize) -> bool {
        let records =
            self.queues.expected.iter().skip(expected).filter_map(|expected| match expected {
                Expected::Record(entry) => Some(&entry.content),
                _ => None,
            });
        let both = records.zip(self.queues.found.iter().skip(found).map(|entry| &entry.content));
        both.take(AGREE).all(|(expected, found)| expected == found)
    }

    /// Both fronts are the same record.
    fn agreed(&mut self) {
        let (expected, found) = (self.queues.expected.pop_front(), self.queues.found.pop_front());
        if let (Some(Expected::Record(entry)), Some(found)) = (expected, found) {
            self.skipped_in(found.offset);
            // A message may be several records.
            self.tally.same += u64::from(self.last_same != Some(entry.offset));
            self.last_same = Some(entry.offset);
            self.tally.reached = Some(entry.offset);
            self.remember(&entry);
        }
    }

    /// From here on, neither side may have records that the other does not.
    fn skipped_in(&mut self, place: Offset) {
        if self.skips != Skips::Nothing {
            self.skips = Skips::Nothing;
            self.cut = Some(place);
        }
    }

    fn remember(&mut self, entry: &Entry) {
        self.recent.push_back((self.hasher.hash_one(&entry.content), entry.offset));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Both fronts differ.
    fn differ(&mut self) {
        if self.skips == Skips::Nothing && self.has_ended() {
            return self.surplus();
        }
        let agreement = self.agreement();
        match (self.skips, agreement) {
            (Skips::Nothing, Some((expected, found))) => {
                let altered = expected.min(found);
                (0..altered).for_each(|_| self.alter());
                (altered..expected).for_each(|_| self.miss());
                (altered..found).for_each(|_| self.surplus());
            }
            (Skips::Nothing, None) => self.alter(),
            (Skips::Expected, place) => {
                let count = place.map_or(WINDOW, |(expected, _)| expected);
                for expected in self.queues.expected.drain(..count.min(self.queues.expected.len()))
                {
                    self.tally.unknown.add(expected.offset());
                }
                self.found_agreement(place);
            }
            (Skips::Found, place) => {
                let count = place.map_or(WINDOW, |(_, found)| found);
                self.queues.found.drain(..count.min(self.queues.found.len()));
                self.found_agreement(place);
            }
        }
    }

    /// From an agreement on, neither side may have records that the other does not.
    fn found_agreement(&mut self, place: Option<(usize, usize)>) {
        if let (Some(_), Some(front)) = (place, self.queues.found.front()) {
            self.skipped_in(front.offset);
        }
    }

    fn alter(&mut self) {
        match (self.queues.expected.pop_front(), self.queues.found.pop_front()) {
            (Some(Expected::Record(entry)), Some(found)) => {
                self.tally.reached = Some(entry.offset);
                self.remember(&entry);
                self.pairs.add(&entry, &found.content);
            }
            // What is not expected to be there has no counterpart.
            (Some(other), found) => {
                without_record(&mut self.tally, &self.letters, other);
                if let Some(found) = found {
                    self.queues.found.push_front(found);
                }
            }
            (None, _) => {}
        }
    }

    fn miss(&mut self) {
        if let Some(expected) = self.queues.expected.pop_front() {
            without_record(&mut self.tally, &self.letters, expected);
        }
    }

    /// The first record is one too many, unless it may be one of those before the range.
    fn repeated(&mut self) {
        match self.cut == self.piece.at {
            true => drop(self.queues.found.pop_front()),
            false => self.surplus(),
        }
    }

    fn surplus(&mut self) {
        let Some(found) = self.queues.found.pop_front() else { return };
        let hash = self.hasher.hash_one(&found.content);
        match self.recent.iter().rev().find(|(known, _)| *known == hash) {
            Some((_, at)) => {
                self.tally.double(*at);
            }
            None => self.tally.add_foreign(found.offset),
        }
    }
}

impl Join for Align {
    fn expect(&mut self, more: Option<Vec<Expected>>) {
        self.queues.expect(more);
    }

    fn find(&mut self, more: Option<Vec<Found>>) {
        self.queues.find(more, &mut self.tally);
    }

    fn take_pairs(&mut self) -> Vec<Pair> {
        self.pairs.take()
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn run(&mut self) -> Need {
        loop {
            if self.pairs.are_enough() {
                return Need::Judging;
            }
            if let Some(need) = self.queues.need(2 * WINDOW) {
                return need;
            }
            match (self.queues.expected.front(), self.queues.found.front()) {
                (None, _) if self.pairs.is_empty() => {
                    // Where the beginning was not found at all, nothing was compared.
                    if self.skips == Skips::Expected && !self.queues.found.is_empty() {
                        self.skips = Skips::Nothing;
                        let what = "no record of the target agrees with the stream, so it is not known where it begins";
                        self.tally.add_unreadable(what.to_owned());
                    }
                    return Need::Nothing;
                }
                (None, _) => return Need::Judging,
                (Some(expected), Some(found)) if self.is_before(expected, found) => self.miss(),
                (Some(Expected::Record(entry)), Some(found)) => {
                    let is_same = entry.content == found.content;
                    let in_step = self.skips == Skips::Nothing;
                    if !is_same || !(in_step || self.agree_from(0, 0)) {
                        self.differ();
                    } else if in_step && self.is_repeated() {
                        self.repeated();
                    } else {
                        self.agreed();
                    }
                }
                (Some(Expected::Unknown(..)), _) => {
                    self.miss();
                    // The sink may hold what the stream does not any more.
                    self.skips = Skips::Found;
                }
                (Some(_), _) => self.miss(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
