//! Passing over what the broker's filter leaves out.
//!
//! Absent chunks say nothing then: nearly every chunk comes after a gap, and the broker is silent while
//! nothing matches. Two questions take the place of the one about a gap
//! ([ADR 20](../../../../docs/adr/0020-filters.md)):
//! - at a gap: where does the stream begin? At or below the gap, retention took nothing of it, so the
//!   broker has looked through all of it. The answer also holds for every chunk that had arrived when the
//!   question was asked, so a backlog asks rarely;
//! - in silence: is there nothing that the filter selects, up to the stream's last chunk? What one look
//!   shows is passed over at the next one, which shows that retention had taken nothing of it.

use std::time::{Duration, Instant};

use super::linking::Link;
use super::sinking::Restarting;
use super::{Action, Brain, Caller, Moment, Note, Surroundings};
use crate::consumer::intake::Checked;
use crate::consumer::resumption::{SessionError, check_jump};
use crate::flow::batch::Batch;
use crate::flow::lag::Tail;
use crate::flow::resume::Origin;
use crate::source::SourceError;
use crate::telemetry::RestartReason;
use crate::types::{Checkpoint, Offset};

/// Silence after which it is asked for how much can be passed over. A look costs the broker's last chunk,
/// and the headers of the chunks since the last look.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A question about what the filter leaves out.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Question {
    /// The first offset that is not accounted for.
    pub(in crate::consumer) from: Offset,
    /// First offset of the chunk that waits behind a gap; `None` in silence.
    pub(in crate::consumer) to: Option<Offset>,
    /// The position, if the stream has not shown on this connection that it holds it, or is to show it
    /// again before something is passed over.
    pub(in crate::consumer) position: Option<Checkpoint>,
    /// The stream's end at the last look.
    pub(in crate::consumer) seen: Option<Tail>,
}

/// The broker's answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Passed {
    pub(in crate::consumer) question: Question,
    /// Where the stream begins; asked for last. `None` if it is empty.
    pub(in crate::consumer) stream_first: Option<Offset>,
    /// At a gap: so many chunks had arrived behind this one when the question was asked.
    pub(in crate::consumer) waiting: usize,
    /// In silence: the end of the last chunk, if the filter selects nothing up to there.
    pub(in crate::consumer) upto: Option<Checkpoint>,
    /// The stream's end.
    pub(in crate::consumer) tail: Option<Tail>,
}

/// What is known on one connection.
pub(super) struct Passing {
    /// The next so many chunks had arrived when the stream began at this offset.
    covered: Option<(usize, Offset)>,
    /// The position, until the stream has shown that it holds it.
    unconfirmed: Option<Checkpoint>,
    look_at: Instant,
    is_looking: bool,
    seen: Option<Tail>,
    /// From the first offset up to this position the filter selects nothing, by the last look.
    proven: Option<(Offset, Checkpoint)>,
    /// What was passed over on this connection, from the first offset to before the second one.
    passed: Option<(Offset, Offset)>,
}

impl Passing {
    pub(super) fn new(position: Option<Checkpoint>, now: Instant) -> Passing {
        Passing {
            covered: None,
            unconfirmed: position,
            look_at: now + LOOK_EVERY / 3,
            is_looking: false,
            seen: None,
            proven: None,
            passed: None,
        }
    }

    /// A chunk has come. Returns where the stream began at a time after that was sent, if it is known.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Offset> {
        (self.look_at, self.seen, self.proven) = (now + LOOK_EVERY, None, None);
        let (left, first) = self.covered?;
        self.covered = (left > 1).then(|| (left - 1, first));
        Some(first)
    }

    /// Whether this chunk shows that the stream holds the position, or that was shown before.
    pub(super) fn is_confirmed_by(&mut self, first: Offset) -> bool {
        self.unconfirmed.take_if(|position| first <= position.offset);
        self.unconfirmed.is_none()
    }

    /// The chunk that holds the position is damaged, and left out: nothing will confirm it.
    pub(super) fn give_up_position(&mut self) {
        self.unconfirmed = None;
    }

    /// Whether the first chunk behind the position, which begins at `to`, was given because a reader
    /// jumped over the position.
    pub(super) fn check_jump(
        &self,
        from: Offset,
        to: Offset,
        stream_first: Option<Offset>,
    ) -> Result<(), SourceError> {
        let position = self.unconfirmed.filter(|position| position.offset.next() == from);
        position.map_or(Ok(()), |position| check_jump(position, to, stream_first))
    }

    #[cfg(test)]
    pub(super) fn unconfirmed(&self) -> Option<Checkpoint> {
        self.unconfirmed
    }

    /// The range with this offset that was passed over.
    pub(super) fn passed_with(&self, offset: Offset) -> Option<(Offset, Offset)> {
        self.passed.filter(|(from, next)| (*from..*next).contains(&offset))
    }
}

impl<W: Caller> Brain<W> {
    /// A chunk begins behind a gap, or shows nothing of the position. `first` is where the stream began
    /// after it was sent, if that is known.
    pub(super) fn on_filtered(
        &mut self,
        from: Offset,
        to: Offset,
        checked: Checked,
        first: Option<Offset>,
        now: Moment,
    ) {
        let Link::Up(up) = &mut self.link else { return };
        let is_known = up.passing.unconfirmed.is_none() && first.is_some_and(|first| first <= from);
        let is_known = is_known && up.intake.damaged().is_none();
        up.chunk = Some(checked);
        if is_known || planted!(self, TakesGapForFiltered) {
            self.note(Note::LeftByFilter { from, to });
            self.gap_explained(to);
            return self.continue_chunk(now);
        }
        (up.is_asking, up.passing.is_looking) = (true, false);
        let (position, seen) = (up.passing.unconfirmed, None);
        self.act(Action::Pass(Question { from, to: Some(to), position, seen }));
    }

    /// Asks in silence how much can be passed over, where that is due.
    pub(super) fn start_looking(&mut self, around: Surroundings, now: Moment) {
        let is_busy = !self.leaving.is_no()
            || self.restarting != Restarting::No
            || !self.batches.ready.is_empty()
            || around.waiting
            || planted!(self, NeverLooks);
        if is_busy || !self.spec.source.is_filtered() {
            return;
        }
        let Link::Up(up) = &mut self.link else { return };
        let is_due = up.passing.look_at <= now.at && !up.passing.is_looking;
        if !is_due || !up.takes_chunks() || up.intake.damaged().is_some() {
            return;
        }
        let Some(from) = up.intake.wanted() else { return };
        up.passing.is_looking = true;
        // What the stream holds now, it also held at the look that showed what is passed over next.
        let own = self.reading.own.position.map(|(_, position)| position);
        let own = own.filter(|own| own.chunk.is_some() && own.offset.next() == from);
        let own = own.filter(|_| up.passing.proven.is_some());
        let (position, seen) = (up.passing.unconfirmed.or(own), up.passing.seen);
        self.act(Action::Pass(Question { from, to: None, position, seen }));
    }

    pub(super) fn on_passed(&mut self, passed: Result<Passed, SessionError>, now: Moment) {
        let Link::Up(up) = &mut self.link else { return };
        // The two are never asked at the same time.
        let is_gap = std::mem::take(&mut up.is_asking);
        let is_look = std::mem::take(&mut up.passing.is_looking);
        up.passing.look_at = now.at + LOOK_EVERY;
        let passed = match passed {
            _ if !is_gap && !is_look => return,
            Ok(passed) => passed,
            // Nothing is passed over, and nothing is lost by that.
            Err(SessionError::Broker(error)) if is_look => {
                return self.note(Note::NotPassed(error));
            }
            Err(SessionError::Broker(error)) => return self.unlink(error, now),
            // The next connection finds out what that means.
            Err(error) => {
                let error = SourceError::given_up(error);
                return self.unlink_because(error, RestartReason::Stream, now);
            }
        };
        up.passing.unconfirmed = None;
        match passed.question.to {
            Some(to) => self.on_gap_answered(to, &passed, now),
            None => self.on_look(&passed, now),
        }
    }

    fn on_gap_answered(&mut self, to: Offset, passed: &Passed, now: Moment) {
        let from = passed.question.from;
        if from < to && !self.is_untouched(passed, to, now) {
            return;
        }
        let damaged = match &mut self.link {
            Link::Up(up) => {
                let first = passed.stream_first;
                let waiting = passed.waiting;
                up.passing.covered = first.filter(|_| waiting > 0).map(|first| (waiting, first));
                up.intake.damaged().cloned()
            }
            _ => return,
        };
        if let Some(damaged) = damaged {
            return self.give_up_damaged(from, to, damaged, now);
        }
        self.note(Note::LeftByFilter { from, to });
        self.gap_explained(to);
        self.continue_chunk(now);
    }

    fn on_look(&mut self, passed: &Passed, now: Moment) {
        // The stream holds the position.
        self.storing.resume();
        let from = passed.question.from;
        let Link::Up(up) = &mut self.link else { return };
        if up.intake.wanted() != Some(from) || !up.takes_chunks() {
            return; // A chunk has come meanwhile.
        }
        up.passing.seen = passed.tail;
        let proven = up.passing.proven.take().filter(|(at, _)| *at == from);
        up.passing.proven = passed.upto.map(|upto| (from, upto)).or(proven);
        let upto = match proven {
            Some((_, upto)) => upto,
            None => return,
        };
        let next = upto.offset.next();
        if !self.is_untouched(passed, next, now) {
            return;
        }
        self.cut(now);
        let Some(batch) = Batch::of_position(self.spec.stream.clone(), upto) else { return };
        self.line_up(batch, now);
        self.reading.own.position = Some((Origin::Session, upto));
        if let Link::Up(up) = &mut self.link {
            up.intake.passed(next);
            // What the last look shows from there on.
            let later = passed.upto.filter(|later| later.offset > upto.offset);
            up.passing.proven = later.map(|later| (next, later));
            up.passing.seen = None;
            let began = up.passing.passed_with(Offset(from.0.saturating_sub(1)));
            up.passing.passed = Some((began.map_or(from, |(began, _)| began), next));
        }
        self.note(Note::Passed { from, upto: upto.offset });
    }

    /// Whether retention took nothing between the question's offset and `to`, or a policy lets it pass:
    /// nobody can tell whether the filter would have selected any of it.
    fn is_untouched(&mut self, passed: &Passed, to: Offset, now: Moment) -> bool {
        let (from, first) = (passed.question.from, passed.stream_first);
        if first.is_some_and(|first| first <= from) || planted!(self, OverlooksRetention) {
            return true;
        }
        let end = first.map_or(to, |first| first.min(to));
        self.is_truncation_accepted(from, end, first, end.0.saturating_sub(from.0), now)
    }
}
