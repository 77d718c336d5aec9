//! Compares records that do not tell their offsets with the expected ones, by their order. Pure.
//!
//! Where the two differ, the nearest place from which on they agree again tells what happened: records
//! that only one side has are missing or too many, and others are altered. What differs for longer than
//! [`WINDOW`] records counts as altered, record by record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::merge::{Expected, Join, Letters, Need, Tally, without_record};
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
    /// Whether what stands behind its end was there before; known from there on.
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
                self.pairs.add(entry, found.content);
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
mod tests {
    use super::*;

    fn entry(offset: u64, content: &str) -> Entry {
        Entry { offset: Offset(offset), content: content.into() }
    }

    fn expected() -> Vec<Expected> {
        (100..400).map(|n| Expected::Record(entry(n, &format!("content {n}")))).collect()
    }

    /// The same records, at other offsets.
    fn found() -> Vec<Entry> {
        (0..300).map(|n| entry(n, &format!("content {}", n + 100))).collect()
    }

    fn aligned(expected: &[Expected], found: &[Entry], skips: Skips, page: usize) -> String {
        let mut align = Align::new(Letters::None, skips, false);
        let found: Vec<Found> = found.iter().cloned().map(Found::Record).collect();
        let (mut expected, mut found) = (expected.chunks(page), found.chunks(page));
        let mut altered = Vec::new();
        loop {
            match align.run() {
                Need::Expected => align.expect(expected.next().map(<[_]>::to_vec)),
                Need::Found => align.find(found.next().map(<[_]>::to_vec)),
                Need::Judging => altered.extend(align.take_pairs().iter().map(|p| p.offset.0)),
                Need::Nothing => break,
            }
        }
        let Tally { same, missing, doubled, surplus, unknown, foreign, .. } = &align.tally;
        format!(
            "same {same}, missing {}, doubled {} by {surplus}, altered {altered:?}, unknown {}, foreign {foreign:?}",
            missing.text(9),
            doubled.text(9),
            unknown.text(9)
        )
    }

    #[test]
    fn each_kind_is_told_at_any_page_size() {
        type Change = fn(&mut Vec<Entry>);
        let changes: [(Change, &str); 8] = [
            (|_| {}, "same 300, missing , doubled  by 0, altered [], unknown , foreign []"),
            (
                |all| drop(all.remove(7)),
                "same 299, missing 107, doubled  by 0, altered [], unknown , foreign []",
            ),
            (
                |all| all[7].content = b"other".to_vec(),
                "same 299, missing , doubled  by 0, altered [107], unknown , foreign []",
            ),
            (
                |all| all.insert(8, entry(0, "content 107")),
                "same 300, missing , doubled 107 by 1, altered [], unknown , foreign []",
            ),
            (
                |all| all.insert(8, entry(9, "other")),
                "same 300, missing , doubled  by 0, altered [], unknown , foreign [9]",
            ),
            (
                |all| all.truncate(290),
                "same 290, missing 390-399, doubled  by 0, altered [], unknown , foreign []",
            ),
            (
                |all| {
                    all.remove(250);
                    all[200].content = b"other".to_vec();
                    all.insert(100, entry(0, "content 150"));
                    all.remove(0);
                },
                "same 297, missing 100, 350, doubled 150 by 1, altered [300], unknown , foreign []",
            ),
            (
                |all| drop(all.drain(50..90)),
                "same 260, missing 150-189, doubled  by 0, altered [], unknown , foreign []",
            ),
        ];
        for (change, told) in changes {
            let mut found = found();
            change(&mut found);
            for page in [1, 7, 1000] {
                assert_eq!(aligned(&expected(), &found, Skips::Nothing, page), told, "page {page}");
            }
        }
    }

    /// Pieces of 100 records, each with its first offset.
    #[test]
    fn a_piece_that_is_gone_is_missing_and_the_rest_is_the_same() {
        let all: Vec<Entry> =
            (0..300).map(|n| entry(100 + n / 100 * 100, &format!("content {}", n + 100))).collect();
        let told = |found: &[Entry]| {
            let mut align = Align::new(Letters::None, Skips::Nothing, true);
            align.expect(Some(expected()));
            align.expect(None);
            align.find(Some(found.iter().cloned().map(Found::Record).collect()));
            align.find(None);
            let mut altered = 0;
            while let Need::Judging = align.run() {
                altered += align.take_pairs().len();
            }
            let Tally { same, missing, doubled, foreign, .. } = &align.tally;
            format!("{same} {} {} {altered} {foreign:?}", missing.text(9), doubled.text(9))
        };
        assert_eq!(told(&all), "300   0 []");
        assert_eq!(told(&all[100..]), "200 100-199  0 []");
        assert_eq!(told(&[&all[..100], &all[200..]].concat()), "200 200-299  0 []");
        assert_eq!(told(&[&all[..40], &all[250..]].concat()), "90 140-349  0 []");
        // Written again in the next piece; and what others have put at the end of one.
        let again: Vec<Entry> = all[50..100]
            .iter()
            .map(|e| entry(150, std::str::from_utf8(&e.content).unwrap()))
            .collect();
        assert_eq!(told(&[&all[..100], &again, &all[100..]].concat()), "300  150-199 0 []");
        let strange: Vec<Entry> = (0..150).map(|n| entry(100, &format!("strange {n}"))).collect();
        assert_eq!(told(&[&all[..100], &strange[..2], &all[100..]].concat()), "300   0 [100, 100]");
        assert!(told(&[&all[..100], &strange, &all[100..]].concat()).starts_with("300   0 [100, "));
    }

    #[test]
    fn equal_bodies_of_one_piece_do_not_make_up_for_those_of_another() {
        let told = |from: u64, pieces: &[(u64, usize)]| {
            let skips = if from > 0 { Skips::Found } else { Skips::Nothing };
            let mut align = Align::new(Letters::None, skips, true);
            let mut expected: Vec<_> =
                (from..300).map(|at| Expected::Record(entry(at, "tick"))).collect();
            let found = pieces.iter().flat_map(|(at, count)| vec![entry(*at, "tick"); *count]);
            let found: Vec<Found> = found.map(Found::Record).collect();
            let mut found = found.chunks(40);
            loop {
                match align.run() {
                    Need::Expected if expected.is_empty() => align.expect(None),
                    Need::Expected => align.expect(Some(std::mem::take(&mut expected))),
                    Need::Found => align.find(found.next().map(<[_]>::to_vec)),
                    Need::Judging => unreachable!("all are equal"),
                    Need::Nothing => break,
                }
            }
            let Tally { same, missing, doubled, surplus, foreign_count, .. } = &align.tally;
            assert_eq!(*foreign_count, 0);
            format!("{same}, missing {}, doubled {} by {surplus}", missing.text(9), doubled.text(9))
        };
        assert_eq!(told(0, &[(0, 100), (100, 100), (200, 100)]), "300, missing , doubled  by 0");
        assert_eq!(
            told(0, &[(0, 105), (100, 95), (200, 100)]),
            "295, missing 195-199, doubled 99 by 5"
        );
        assert_eq!(told(0, &[(0, 105), (100, 200)]), "300, missing , doubled 99 by 5");
        assert_eq!(
            told(0, &[(0, 95), (100, 105), (200, 100)]),
            "295, missing 95-99, doubled 199 by 5"
        );
        // Written again into the next piece.
        assert_eq!(told(0, &[(0, 100), (50, 150), (200, 100)]), "300, missing , doubled 49 by 50");
        // What comes before the range is nothing too many.
        assert_eq!(told(50, &[(0, 100), (100, 200)]), "250, missing , doubled  by 0");
        assert_eq!(
            told(50, &[(0, 100), (100, 101), (200, 99)]),
            "249, missing 299, doubled 199 by 1"
        );
    }

    #[test]
    fn one_side_may_begin_later() {
        let told = aligned(&expected(), &found()[280..], Skips::Expected, 10);
        assert_eq!(
            told,
            "same 20, missing , doubled  by 0, altered [], unknown 100-379, foreign []"
        );
        let told = aligned(&expected()[280..], &found(), Skips::Found, 10);
        assert_eq!(told, "same 20, missing , doubled  by 0, altered [], unknown , foreign []");
    }

    #[test]
    fn what_is_not_expected_needs_no_counterpart() {
        let mut all = expected();
        all[3] = Expected::Unwanted(Offset(103));
        all[150] = Expected::Refused(Offset(250), "bad".to_owned());
        let mut found = found();
        found.remove(150);
        found.remove(3);
        found.remove(200);
        let told = "same 297, missing 302, doubled  by 0, altered [], unknown , foreign []";
        assert_eq!(aligned(&all, &found, Skips::Nothing, 10), told);
    }
}
