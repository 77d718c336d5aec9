//! Sets of offsets, kept as ranges. Pure.

use std::collections::BTreeMap;

use crate::types::Offset;

/// Most ranges that are kept; beyond it offsets are counted only. So memory is bounded, whatever is found.
const RANGES_MAX: usize = 65_536;

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The last offset of each range, by its first one.
    ends: BTreeMap<u64, u64>,
    kept: u64,
    /// Offsets for which there was no room.
    beyond: u64,
}

impl Ranges {
    /// Adds an offset.
    pub fn add(&mut self, offset: Offset) {
        self.add_all(offset, offset);
    }

    /// Adds offsets, both ends included. They must not overlap what is there, except wholly.
    pub fn add_all(&mut self, from: Offset, to: Offset) {
        let (mut first, mut last) = (from.0, to.0);
        if last < first || (self.has(from) && self.has(to)) {
            return;
        }
        let count = last - first + 1;
        let before = self.ends.range(..first).next_back().map(|(first, last)| (*first, *last));
        let before = before.filter(|(_, end)| end.checked_add(1) == Some(first));
        let behind = last.checked_add(1).and_then(|at| self.ends.remove_entry(&at));
        if before.is_none() && behind.is_none() && self.ends.len() >= RANGES_MAX {
            self.beyond += count;
            return;
        }
        first = before.map_or(first, |(start, _)| start);
        last = behind.map_or(last, |(_, end)| end);
        self.ends.insert(first, last);
        self.kept += count;
    }

    /// Removes an offset; `true` if it was there.
    pub fn remove(&mut self, offset: Offset) -> bool {
        let Some((first, last)) = self.range_of(offset) else { return false };
        self.ends.remove(&first);
        if first < offset.0 {
            self.ends.insert(first, offset.0 - 1);
        }
        if last > offset.0 {
            self.ends.insert(offset.0 + 1, last);
        }
        self.kept -= 1;
        true
    }

    /// True if the offset is in it.
    pub fn has(&self, offset: Offset) -> bool {
        self.range_of(offset).is_some()
    }

    fn range_of(&self, offset: Offset) -> Option<(u64, u64)> {
        let (first, last) = self.ends.range(..=offset.0).next_back()?;
        (*last >= offset.0).then_some((*first, *last))
    }

    /// Number of offsets.
    pub fn count(&self) -> u64 {
        self.kept + self.beyond
    }

    /// The first ranges, both ends included.
    pub fn first(&self, most: usize) -> Vec<(u64, u64)> {
        self.ends.iter().take(most).map(|(first, last)| (*first, *last)).collect()
    }

    /// The first ranges as text: `7, 10-19, …`.
    pub fn text(&self, most: usize) -> String {
        let one = |(first, last): (u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let mut all: Vec<String> = self.first(most).into_iter().map(one).collect();
        if self.ends.len() > most || self.beyond > 0 {
            all.push("…".to_owned());
        }
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let mut ranges = Ranges::default();
        for offset in [7, 5, 6, 9, u64::MAX, 0] {
            ranges.add(Offset(offset));
        }
        assert_eq!(ranges.text(9), format!("0, 5-7, 9, {}", u64::MAX));
        assert_eq!((ranges.text(2).as_str(), ranges.count()), ("0, 5-7, …", 6));
        assert!(ranges.remove(Offset(6)) && !ranges.remove(Offset(6)));
        assert_eq!(ranges.first(3), [(0, 0), (5, 5), (7, 7)]);
        ranges.add_all(Offset(10), Offset(19));
        assert_eq!((ranges.first(9)[3], ranges.count()), ((9, 19), 15));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut ranges = Ranges::default();
        let all = RANGES_MAX as u64 + 10;
        (0..all).for_each(|nth| ranges.add(Offset(2 * nth)));
        assert_eq!((ranges.count(), ranges.ends.len()), (all, RANGES_MAX));
        assert!(ranges.text(1).ends_with('…'));
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..40), 0..200)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (adds, offset) in steps {
                if adds {
                    ranges.add(Offset(offset));
                    set.insert(offset);
                } else {
                    prop_assert_eq!(ranges.remove(Offset(offset)), set.remove(&offset));
                }
                prop_assert_eq!(ranges.count(), set.len() as u64);
            }
            let all = ranges.first(usize::MAX).into_iter().flat_map(|(a, b)| a..=b);
            prop_assert_eq!(all.collect::<BTreeSet<_>>(), set);
        }
    }
}
