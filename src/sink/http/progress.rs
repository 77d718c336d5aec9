//! Progress of the batch at hand: what the service accepted of it, and what it refused.
//!
//! After an error a batch returns, whole, or without its bad records, or only up to the first of them.
//! What was accepted by then is not sent again.
//!
//! Invariants: intervals are sorted and apart from each other, and cover only offsets that the service
//! answered for. A batch that begins behind all of them empties the list, so it is bounded by the number
//! of requests that one batch makes.

use crate::flow::batch::Batch;
use crate::sink::BadRecord;
use crate::types::Offset;

/// Progress of the batch at hand.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// First and last offset, both inclusive.
    accepted: Vec<(Offset, Offset)>,
    /// What the service refused, and what cannot be encoded, in order of offset.
    refused: Vec<BadRecord>,
}

impl Progress {
    /// Begins a batch: forgets everything below it.
    pub(super) fn begin(&mut self, batch: &Batch) {
        let first = batch.first_offset();
        self.accepted.retain(|(_, last)| *last >= first);
        self.refused.retain(|bad| bad.offset >= first);
    }

    /// Forgets everything: the batch is done.
    pub(super) fn clear(&mut self) {
        self.accepted.clear();
        self.refused.clear();
    }

    /// Every record from `first` to `last` that was not settled before is accepted.
    pub(super) fn accepted(&mut self, first: Offset, last: Offset) {
        let at = self.accepted.partition_point(|(_, end)| *end < first);
        let touched = self.accepted.iter().skip(at).take_while(|(start, _)| *start <= last).count();
        let (mut first, mut last) = (first, last);
        for (start, end) in self.accepted.drain(at..at + touched) {
            first = first.min(start);
            last = last.max(end);
        }
        self.accepted.insert(at, (first, last));
        // Neighbours that touch are merged, so that a long batch done in order is one interval.
        let next_of = |end: Offset| end.0.checked_add(1).map(Offset);
        if let Some((start, _)) = self.accepted.get(at + 1).copied()
            && next_of(last) == Some(start)
        {
            let (_, end) = self.accepted.remove(at + 1);
            self.accepted[at].1 = end;
        }
        if let Some(before) = at.checked_sub(1)
            && next_of(self.accepted[before].1) == Some(self.accepted[at].0)
        {
            let (_, end) = self.accepted.remove(at);
            self.accepted[before].1 = end;
        }
    }

    /// This record is bad, and is not to be sent.
    pub(super) fn refused(&mut self, bad: BadRecord) {
        let at = self.refused.partition_point(|known| known.offset < bad.offset);
        if self.refused.get(at).is_none_or(|known| known.offset != bad.offset) {
            self.refused.insert(at, bad);
        }
    }

    /// How many bad records there are apart from these, which are sorted, and the last one of them.
    pub(super) fn refused_but(&self, others: &[BadRecord]) -> (usize, Option<Offset>) {
        let is_other = |at: Offset| others.binary_search_by_key(&at, |bad| bad.offset).is_ok();
        let refused = self.refused.iter().filter(|bad| !is_other(bad.offset));
        refused.fold((0, None), |(count, _), bad| (count + 1, Some(bad.offset)))
    }

    /// Forgets the refused records behind this offset: they are found again.
    pub(super) fn forget_refused_behind(&mut self, last: Offset) {
        self.refused.retain(|bad| bad.offset <= last);
    }

    /// Takes the bad records: the caller handles them from now on.
    pub(super) fn take_refused(&mut self) -> Vec<BadRecord> {
        std::mem::take(&mut self.refused)
    }

    /// Whether the service has accepted the record at this offset. A bad one may lie between the first
    /// and the last record of a request that was accepted.
    pub(super) fn is_accepted(&self, offset: Offset) -> bool {
        self.is_covered(offset) && !self.is_refused(offset)
    }

    fn is_covered(&self, offset: Offset) -> bool {
        let at = self.accepted.partition_point(|(_, last)| *last < offset);
        self.accepted.get(at).is_some_and(|(first, _)| *first <= offset)
    }

    fn is_refused(&self, offset: Offset) -> bool {
        self.refused.binary_search_by_key(&offset, |bad| bad.offset).is_ok()
    }

    /// The highest accepted offset.
    pub(super) fn highest(&self) -> Option<Offset> {
        self.accepted.last().map(|(_, last)| *last)
    }

    /// Takes the bad records below an accepted one: they delay its settling.
    pub(super) fn take_refused_within(&mut self) -> Vec<BadRecord> {
        let Some(highest) = self.highest() else { return Vec::new() };
        let within = self.refused.partition_point(|bad| bad.offset < highest);
        self.refused.drain(..within).collect()
    }

    /// Whether nothing is to be sent for this offset.
    pub(super) fn is_settled(&self, offset: Offset) -> bool {
        self.is_covered(offset) || self.is_refused(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::sink::BadReason;
    use crate::sink::conformance::batch;

    fn settled(progress: &Progress, below: u64) -> Vec<u64> {
        (0..below).filter(|offset| progress.is_settled(Offset(*offset))).collect()
    }

    #[test]
    fn a_new_batch_forgets_what_lies_before_it() {
        let mut progress = Progress::default();
        progress.accepted(Offset(0), Offset(4));
        progress.accepted(Offset(8), Offset(9));
        progress.refused(BadRecord {
            about: None,
            offset: Offset(6),
            reason: BadReason::Refused,
            detail: String::new(),
        });
        progress.begin(&batch(0..10));
        assert_eq!(settled(&progress, 12), [0, 1, 2, 3, 4, 6, 8, 9]);
        progress.begin(&batch(7..20));
        assert_eq!(settled(&progress, 12), [8, 9]);
        progress.begin(&batch(10..20));
        assert!(progress.accepted.is_empty() && progress.take_refused().is_empty());
    }

    #[test]
    fn the_last_offset_of_all_is_no_trap() {
        let mut progress = Progress::default();
        progress.accepted(Offset(u64::MAX - 1), Offset(u64::MAX));
        progress.accepted(Offset(0), Offset(0));
        assert!(progress.is_settled(Offset(u64::MAX)) && !progress.is_settled(Offset(1)));
        assert_eq!(progress.accepted.len(), 2);
    }

    #[test]
    fn a_bad_record_amid_a_request_is_not_accepted_with_it() {
        let mut progress = Progress::default();
        let (reason, detail) = (BadReason::Undecodable, String::new());
        progress.refused(BadRecord { about: None, offset: Offset(6), reason, detail });
        progress.accepted(Offset(4), Offset(9));
        assert!(progress.is_accepted(Offset(5)) && progress.is_settled(Offset(6)));
        assert!(!progress.is_accepted(Offset(6)));
    }

    proptest! {
        #[test]
        fn it_is_a_set(ranges in proptest::collection::vec((0u64..60, 0u64..8), 0..40)) {
            let mut progress = Progress::default();
            let mut model = BTreeSet::new();
            for (first, more) in ranges {
                progress.accepted(Offset(first), Offset(first + more));
                model.extend(first..=first + more);
                prop_assert_eq!(settled(&progress, 80), model.iter().copied().collect::<Vec<_>>());
            }
            for pair in progress.accepted.windows(2) {
                prop_assert!(pair[0].1.0 + 1 < pair[1].0.0, "{:?}", progress.accepted);
            }
        }
    }
}
