//! Compares records that do not tell their offsets with the expected ones, by their order. Pure.
//!
//! Where the two differ, the nearest place from which on they agree again tells what happened: records
//! that only one side has are missing or too many, and others are altered. What differs for longer than
//! [`WINDOW`] records counts as altered, record by record.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::merge::{
    Expected, Join, Letters, Need, PAIR_BYTES_MAX, PAIRS_MAX, Tally, without_record,
};
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

/// Both sides, as far as they were read.
pub(super) struct Align {
    expected: VecDeque<Expected>,
    found: VecDeque<Entry>,
    expected_ended: bool,
    found_ended: bool,
    letters: Letters,
    skips: Skips,
    hasher: RandomState,
    /// Hashes of the last records that agreed, and their offsets.
    recent: VecDeque<(u64, Offset)>,
    pairs: Vec<Pair>,
    pair_bytes: usize,
    tally: Tally,
}

impl Align {
    pub(super) fn new(letters: Letters, skips: Skips) -> Align {
        Align {
            expected: VecDeque::new(),
            found: VecDeque::new(),
            expected_ended: false,
            found_ended: false,
            letters,
            skips,
            hasher: RandomState::new(),
            recent: VecDeque::new(),
            pairs: Vec::new(),
            pair_bytes: 0,
            tally: Tally::default(),
        }
    }

    /// The nearest place from which on both agree: how many records of each side come before it.
    fn agreement(&self) -> Option<(usize, usize)> {
        let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (at, expected) in self.expected.iter().take(WINDOW).enumerate() {
            if let Expected::Record(entry) = expected {
                places.entry(&entry.content).or_default().push(at);
            }
        }
        let mut best: Option<(usize, usize)> = None;
        for (behind, entry) in self.found.iter().take(WINDOW).enumerate() {
            for at in places.get(&*entry.content).into_iter().flatten() {
                let is_nearer = best.is_none_or(|(a, b)| at + behind < a + b);
                if is_nearer && self.agree_from(*at, behind) {
                    best = Some((*at, behind));
                }
            }
        }
        best
    }

    fn agree_from(&self, expected: usize, found: usize) -> bool {
        let records = self.expected.iter().skip(expected).filter_map(|expected| match expected {
            Expected::Record(entry) => Some(&entry.content),
            _ => None,
        });
        let both = records.zip(self.found.iter().skip(found).map(|entry| &entry.content));
        both.take(AGREE).all(|(expected, found)| expected == found)
    }

    /// Both fronts are the same record.
    fn agreed(&mut self) {
        let (expected, found) = (self.expected.pop_front(), self.found.pop_front());
        if let (Some(Expected::Record(entry)), Some(_)) = (expected, found) {
            self.skips = Skips::Nothing;
            self.tally.same += 1;
            self.tally.reached = Some(entry.offset);
            self.remember(&entry);
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
                for expected in self.expected.drain(..count.min(self.expected.len())) {
                    self.tally.unknown.add(expected.offset());
                }
                self.found_agreement(place);
            }
            (Skips::Found, place) => {
                let count = place.map_or(WINDOW, |(_, found)| found);
                self.found.drain(..count.min(self.found.len()));
                self.found_agreement(place);
            }
        }
    }

    /// From an agreement on, neither side may have records that the other does not.
    fn found_agreement(&mut self, place: Option<(usize, usize)>) {
        if place.is_some() {
            self.skips = Skips::Nothing;
        }
    }

    fn alter(&mut self) {
        match (self.expected.pop_front(), self.found.pop_front()) {
            (Some(Expected::Record(entry)), Some(found)) => {
                self.tally.reached = Some(entry.offset);
                self.remember(&entry);
                self.pair_bytes += entry.content.len() + found.content.len();
                let Entry { offset, content } = entry;
                self.pairs.push(Pair { offset, expected: content, found: found.content });
            }
            // What is not expected to be there has no counterpart.
            (Some(other), found) => {
                without_record(&mut self.tally, &self.letters, other);
                if let Some(found) = found {
                    self.found.push_front(found);
                }
            }
            (None, _) => {}
        }
    }

    fn miss(&mut self) {
        if let Some(expected) = self.expected.pop_front() {
            without_record(&mut self.tally, &self.letters, expected);
        }
    }

    fn surplus(&mut self) {
        let Some(found) = self.found.pop_front() else { return };
        let hash = self.hasher.hash_one(&found.content);
        match self.recent.iter().rev().find(|(known, _)| *known == hash) {
            Some((_, at)) => {
                self.tally.surplus += 1;
                self.tally.doubled.add(*at);
            }
            None => self.tally.add_foreign(found.offset),
        }
    }
}

impl Join for Align {
    fn expect(&mut self, more: Option<Vec<Expected>>) {
        self.expected_ended |= more.is_none();
        self.expected.extend(more.into_iter().flatten());
    }

    fn find(&mut self, more: Option<Vec<Found>>) {
        self.found_ended |= more.is_none();
        for found in more.into_iter().flatten() {
            match found {
                Found::Record(entry) => self.found.push_back(entry),
                Found::Unreadable(place) => self.tally.add_unreadable(place),
            }
        }
    }

    fn take_pairs(&mut self) -> Vec<Pair> {
        self.pair_bytes = 0;
        std::mem::take(&mut self.pairs)
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn run(&mut self) -> Need {
        loop {
            if self.pairs.len() >= PAIRS_MAX || self.pair_bytes >= PAIR_BYTES_MAX {
                return Need::Judging;
            }
            if self.expected.len() < 2 * WINDOW && !self.expected_ended {
                return Need::Expected;
            }
            if self.found.len() < 2 * WINDOW && !self.found_ended {
                return Need::Found;
            }
            match (self.expected.front(), self.found.front()) {
                (None, _) if self.pairs.is_empty() => {
                    // Where the beginning was not found at all, nothing was compared.
                    if self.skips == Skips::Expected && !self.found.is_empty() {
                        self.skips = Skips::Nothing;
                        let what = "no record of the target agrees with the stream, so it is not known where it begins";
                        self.tally.add_unreadable(what.to_owned());
                    }
                    return Need::Nothing;
                }
                (None, _) => return Need::Judging,
                (Some(Expected::Record(entry)), Some(found)) => {
                    match entry.content == found.content
                        && (self.skips == Skips::Nothing || self.agree_from(0, 0))
                    {
                        true => self.agreed(),
                        false => self.differ(),
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
        let mut align = Align::new(Letters::None, skips);
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
