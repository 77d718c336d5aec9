//! Finds out whether anything is missing between one chunk and the next.
//!
//! Offsets are not contiguous: the broker's tracking chunks take an offset each and are not
//! delivered. So a gap alone proves nothing. Two facts decide. First, where the stream starts
//! *now*: while its first offset is at or below the expected one, nothing in the gap was truncated;
//! if it starts above, records may be lost. Second, which chunk the broker returns for the expected
//! offset: one that begins inside the gap should have been delivered and was not.

use crate::types::Offset;

/// Result of comparing a chunk's offsets with the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// It continues where the last one ended (or it is the first one, and holds the wanted offset).
    InOrder,
    /// Some or all of its records come before the wanted one: they are dropped. Normal for the
    /// first chunk of a subscription.
    Behind {
        /// Number of records before it.
        records: u64,
    },
    /// The offsets from `from` (included) to `to` (not included) were not delivered.
    Gap {
        /// The offset that was expected.
        from: Offset,
        /// First offset of the chunk.
        to: Offset,
    },
}

/// Cause of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// The broker's own chunks, which are never delivered: nothing was lost.
    Internal,
    /// Records that the stream holds but did not deliver; or the broker now contradicts what it
    /// delivered.
    Undelivered,
    /// The stream was truncated past the expected offset: up to `records` records are lost.
    Truncated {
        /// An upper bound, since some of these offsets may have been the broker's own.
        records: u64,
    },
}

/// The next expected offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Continuity {
    next: Option<Offset>,
}

impl Continuity {
    /// `next` is the first offset wanted; `None` if any is accepted (`first`, `last`, `next`, a
    /// timestamp).
    pub fn starting_at(next: Option<Offset>) -> Continuity {
        Continuity { next }
    }

    /// The first offset wanted.
    pub fn next(&self) -> Option<Offset> {
        self.next
    }

    /// Compares a chunk of `records` records, beginning at `first`, with the expected offset.
    /// Changes nothing.
    pub fn judge(&self, first: Offset, records: u32) -> Succession {
        match self.next {
            None => Succession::InOrder,
            Some(next) if first == next => Succession::InOrder,
            Some(next) if first > next => Succession::Gap { from: next, to: first },
            Some(next) => {
                Succession::Behind { records: (next.0 - first.0).min(u64::from(records)) }
            }
        }
    }

    /// Takes the chunk: the offset after it is expected next.
    pub fn advance(&mut self, first: Offset, records: u32) {
        let end = Offset(first.0.saturating_add(u64::from(records)));
        self.next = Some(self.next.map_or(end, |next| next.max(end)));
    }
}

/// Cause of a gap, from the first offset of the chunk that the broker returns for `from` (`None` if
/// it returns none), and the first offset of the stream after that (`None` if it is empty). No
/// checksum covers a header: the chunk after the gap is requested again to confirm its first
/// offset.
pub fn classify(
    from: Offset,
    to: Offset,
    stream_first: Option<Offset>,
    there: Option<Offset>,
) -> GapKind {
    let records = to.0.saturating_sub(from.0);
    match (stream_first, there) {
        (_, Some(chunk)) if chunk < to => GapKind::Undelivered,
        // Retention may meanwhile have taken the chunk after the gap as well.
        (Some(first), Some(chunk)) if chunk > to && first > to => GapKind::Truncated { records },
        (_, Some(chunk)) if chunk > to => GapKind::Undelivered,
        (Some(first), _) if first <= from => GapKind::Internal,
        _ => GapKind::Truncated { records },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let at = |next| Continuity::starting_at(Some(Offset(next)));
        assert_eq!(Continuity::starting_at(None).judge(Offset(50), 10), Succession::InOrder);
        assert_eq!(at(50).judge(Offset(50), 10), Succession::InOrder);
        assert_eq!(at(55).judge(Offset(50), 10), Succession::Behind { records: 5 });
        assert_eq!(at(60).judge(Offset(50), 10), Succession::Behind { records: 10 });
        assert_eq!(at(900).judge(Offset(50), 10), Succession::Behind { records: 10 });
        assert_eq!(
            at(49).judge(Offset(50), 10),
            Succession::Gap { from: Offset(49), to: Offset(50) }
        );
    }

    #[test]
    fn an_old_chunk_never_moves_the_expectation_back() {
        let mut continuity = Continuity::starting_at(Some(Offset(100)));
        continuity.advance(Offset(50), 10);
        assert_eq!(continuity.next(), Some(Offset(100)));
        continuity.advance(Offset(100), 10);
        assert_eq!(continuity.next(), Some(Offset(110)));
    }

    #[test]
    fn a_gap_is_a_loss_only_where_the_stream_now_starts_behind_it() {
        let next = Some(Offset(20));
        let gap = |first: Option<u64>| classify(Offset(10), Offset(20), first.map(Offset), next);
        assert_eq!(gap(Some(0)), GapKind::Internal);
        assert_eq!(gap(Some(10)), GapKind::Internal);
        assert_eq!(gap(Some(11)), GapKind::Truncated { records: 10 });
        assert_eq!(gap(Some(20)), GapKind::Truncated { records: 10 });
        assert_eq!(gap(None), GapKind::Truncated { records: 10 });
    }

    #[test]
    fn a_chunk_inside_the_gap_should_have_come() {
        let gap = |there| classify(Offset(10), Offset(20), Some(Offset(0)), Some(Offset(there)));
        assert_eq!(gap(10), GapKind::Undelivered);
        assert_eq!(gap(5), GapKind::Undelivered, "it began before the gap and reaches into it");
        assert_eq!(gap(19), GapKind::Undelivered);
        assert_eq!(gap(20), GapKind::Internal);
    }

    #[test]
    fn a_chunk_that_is_not_there_a_second_time_is_not_believed() {
        let gap = |first| classify(Offset(10), Offset(20), Some(Offset(first)), Some(Offset(30)));
        assert_eq!(gap(0), GapKind::Undelivered);
        assert_eq!(gap(15), GapKind::Undelivered);
        assert_eq!(gap(30), GapKind::Truncated { records: 10 });
    }
}
