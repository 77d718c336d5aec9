//! Chunks that are damaged or missing: they are requested again, and then a policy decides.

use super::linking::Link;
use super::{Brain, Caller, Moment, Note, Outcome};
use crate::consumer::intake::Damaged;
use crate::consumer::spec::OnBad;
use crate::source::SourceError;
use crate::telemetry::{LostReason, RestartReason};
use crate::types::Offset;
use crate::wire::chunk::ChunkError;

/// Failed reads of the same offset in a row, after which `on_bad_message` decides.
const READS_MAX: u32 = 3;

/// Most offsets that have a count.
const COUNTED_MAX: usize = 64;

impl<W: Caller> Brain<W> {
    /// Handles a chunk that begins below the end of the one before it. One of the two headers is damaged,
    /// and nothing tells which. So neither chunk is dropped as already read.
    pub(super) fn on_backwards(&mut self, first: Offset, reached: Offset, now: Moment) {
        if let Link::Up(up) = &self.link
            && let Some((from, next)) = up.passing.passed_with(first)
        {
            // It would not come again: the position is behind it.
            let what = format!(
                "stream {:?} gave a chunk at offset {first}, although the broker had said that its filter selects nothing of the offsets {from} to {}. These are passed over, so messages in them are missing in the sink, unless the header of this chunk is damaged. Please report it with the broker's version. With client_side = true, nothing depends on the broker's filter; to go on behind them all the same, restart",
                self.spec.stream.as_str(),
                next.0 - 1
            );
            return self.end(Outcome::Halted(what), now);
        }
        let what = format!(
            "stream {:?} gave a chunk at offset {first} after one that ends before {reached}: the header of one of them is damaged",
            self.spec.stream.as_str()
        );
        if !self.is_read_in_vain((reached, 0), &what, "them", now) {
            return;
        }
        self.end(Outcome::Halted(format!("{what}, {READS_MAX} times in a row. Messages from there on may have been written under wrong offsets. If another replica holds the chunks whole, restart")), now);
    }

    /// Handles missing records: the stream holds them, but they were not delivered. Reads on from the
    /// gap, on a new connection.
    pub(super) fn on_undelivered(&mut self, from: Offset, to: Offset, now: Moment) {
        let what = format!(
            "stream {:?} holds messages between offsets {from} and {} that were not delivered, or the header of the chunk at {to} is damaged",
            self.spec.stream.as_str(),
            to.0 - 1
        );
        if !self.is_read_in_vain((from, 0), &what, "them", now) {
            return;
        }
        self.end(Outcome::Halted(format!("{what}, {READS_MAX} times in a row: this is a fault of the broker or of rillway; please report it with the broker's version")), now);
    }

    /// Handles a chunk that cannot be read: requests it again, and then does what the policy says.
    pub(super) fn on_unreadable(&mut self, error: ChunkError, at_position: bool, now: Moment) {
        if planted!(self, DropsUnreadable) {
            return;
        }
        let Link::Up(up) = &mut self.link else { return };
        // The offsets in a damaged header are not trusted: this chunk is the one that was expected next, or one
        // of those behind it that are damaged too.
        let wanted = up.intake.wanted().unwrap_or(Offset(0));
        let nth = up.intake.damaged().map_or(0, |damaged| damaged.chunks);
        if at_position {
            return self.on_unreadable_position(wanted, error, now);
        }
        if !self.is_given_up((wanted, nth), &error, now) {
            return;
        }
        if let Link::Up(up) = &mut self.link {
            up.intake.leave_out(error.clone(), false);
        }
        self.note(Note::LeavingOut { wanted, error });
    }

    /// Handles damage in the chunk that holds the position. All of it may have been read before, so it
    /// never halts the consumer. It is requested again all the same: on a quiet stream, no next chunk
    /// would show what it held.
    fn on_unreadable_position(&mut self, wanted: Offset, error: ChunkError, now: Moment) {
        let times = self.reading.position_unreadable.count((wanted, 0));
        if times < READS_MAX {
            return self.ask_again(&error.to_string(), "it", times, now);
        }
        if let Link::Up(up) = &mut self.link {
            up.passing.give_up_position();
            up.intake.leave_out(error.clone(), true);
        }
        self.note(Note::DamagedAtPosition(error));
    }

    /// Whether this chunk may be left out. If not, it is requested again, or the consumer halts.
    fn is_given_up(&mut self, at: Place, error: &ChunkError, now: Moment) -> bool {
        if !self.is_read_in_vain(at, &error.to_string(), "it", now) {
            return false;
        }
        match self.spec.on_bad {
            OnBad::Skip => true,
            // A chunk that cannot be read has no message that could become a dead letter.
            OnBad::Halt | OnBad::DeadLetter => {
                let stream = self.spec.stream.as_str();
                let what = format!(
                    "stream {stream:?} has a chunk that cannot be read, {READS_MAX} times in a row: {error}. If another replica holds it whole, restart; to leave it out, set on_bad_message = \"skip\""
                );
                self.end(Outcome::Halted(what), now);
                false
            }
        }
    }

    /// True once something at this place could not be read [`READS_MAX`] times in a row. Before that, it
    /// is requested again on a new connection.
    fn is_read_in_vain(&mut self, at: Place, what: &str, it: &str, now: Moment) -> bool {
        let times = self.reading.unreadable.count(at);
        let is_enough = times >= READS_MAX && !planted!(self, AsksAgainForEver);
        if is_enough || planted!(self, LeavesOutAtOnce) {
            return true;
        }
        self.ask_again(what, it, times, now);
        false
    }

    fn ask_again(&mut self, what: &str, it: &str, times: u32, now: Moment) {
        let again = format!("{what}; requesting {it} again ({times} of {READS_MAX})");
        self.unlink_because(SourceError::given_up(again), RestartReason::Reread, now);
    }

    /// The range left out before the chunk at `to`, if that chunk reaches into the gap before it. A chunk
    /// that was requested for the position does so only if the broker also returns it for the gap.
    pub(super) fn damaged_before(&mut self, to: Offset, there: Option<Offset>) -> Option<Damaged> {
        let Link::Up(up) = &mut self.link else { return None };
        let damaged = up.intake.damaged()?.clone();
        if damaged.at_position && there == Some(to) {
            up.intake.take_damaged();
            return None;
        }
        Some(damaged)
    }

    /// Leaves out the offsets from `from` to `to` (exclusive), where a chunk could not be read.
    pub(super) fn give_up_damaged(
        &mut self,
        from: Offset,
        to: Offset,
        damaged: Damaged,
        now: Moment,
    ) {
        let Damaged { error, at_position, .. } = damaged;
        if at_position && !self.is_given_up((from, 0), &error, now) {
            return;
        }
        let reason = match error {
            ChunkError::CrcMismatch { .. } => LostReason::Crc,
            _ => LostReason::Undecodable,
        };
        if let Link::Up(up) = &mut self.link {
            up.intake.take_damaged();
        }
        self.gap_explained(to);
        self.note(Note::LeftOut { from, to, reason, error });
        self.pass_over(from, to.0.saturating_sub(from.0), now);
        self.continue_chunk(now);
    }
}

/// The first wanted offset, and the number of damaged chunks from there on that come before the one that is
/// meant.
type Place = (Offset, u32);

/// Failed reads in a row, by place. There may be several: the count of a chunk has to survive that a damaged
/// one before it is read again.
#[derive(Default)]
pub(super) struct FailedReads(Vec<(Place, u32)>);

impl FailedReads {
    /// Counts one more failed read; returns how many there were in a row.
    fn count(&mut self, at: Place) -> u32 {
        if let Some((_, times)) = self.0.iter_mut().find(|(place, _)| *place == at) {
            *times = times.saturating_add(1);
            return *times;
        }
        if self.0.len() == COUNTED_MAX {
            self.0.remove(0);
        }
        self.0.push((at, 1));
        1
    }

    /// Drops the counts of offsets that were read after all, or left out.
    pub(super) fn forget(&mut self, is_read: impl Fn(Offset) -> bool) {
        self.0.retain(|((at, _), _)| !is_read(*at));
    }

    #[cfg(test)]
    pub(super) fn is_any_in_vain(&self) -> bool {
        self.0.iter().any(|(_, times)| *times >= READS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_count_until_it_is_passed() {
        let mut reads = FailedReads::default();
        let places = [(36, 0), (36, 0), (38, 0), (36, 1), (36, 0)];
        let counted = places.map(|(at, nth)| reads.count((Offset(at), nth)));
        assert_eq!(counted, [1, 2, 1, 1, 3]);
        reads.forget(|at| at < Offset(38));
        assert_eq!([38, 36].map(|at| reads.count((Offset(at), 0))), [2, 1]);
    }

    #[test]
    fn the_oldest_counts_make_room() {
        let mut reads = FailedReads::default();
        let many = COUNTED_MAX as u64 + 1;
        assert!((0..many).all(|at| reads.count((Offset(at), 0)) == 1));
        assert_eq!(reads.0.len(), COUNTED_MAX);
        assert_eq!([many - 1, 0].map(|at| reads.count((Offset(at), 0))), [2, 1]);
    }
}
