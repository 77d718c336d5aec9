//! Makes batches of chunks, and decides what a gap means.

use super::linking::Link;
use super::{Action, Asked, Brain, Caller, Moment, Note, Outcome};
use crate::consumer::intake::{Checked, Examined, Step, last_of};
use crate::consumer::spec::OnBad;
use crate::flow::batch::Part;
use crate::flow::continuity::{GapKind, classify};
use crate::flow::lag::SeenChunk;
use crate::flow::resume::{OnLost, Origin};
use crate::source::{Delivery, Prefer, SourceError};
use crate::telemetry::{LostReason, RestartReason};
use crate::types::{Checkpoint, Offset};
use crate::wire::chunk::ChunkError;

impl<W: Caller> Brain<W> {
    pub(super) fn on_delivered(&mut self, delivery: Delivery, now: Moment) {
        // While another instance is active, that one reads what still arrives here.
        let Link::Up(up) = &mut self.link else { return };
        let (is_filtered, began) = (self.spec.source.is_filtered(), up.passing.arrived(now.at));
        let bytes = delivery.chunk.len() as u64;
        let examined = up.intake.examine(delivery, now.wall);
        let origin = up.origin;
        self.note(Note::Received { bytes });
        match examined {
            Examined::Gap { from, to, checked } if is_filtered => {
                self.on_filtered(from, to, checked, began, now);
            }
            Examined::Good(checked) if is_filtered && !self.is_confirmed_by(&checked) => {
                let first = checked.header().first_offset;
                self.on_filtered(first, first, checked, began, now);
            }
            Examined::Good(checked) => {
                self.is_confirmed_by(&checked);
                self.storing.resume();
                if planted!(self, NotesPositionEarly) {
                    let at = Checkpoint { offset: last_of(checked.header()), chunk: None };
                    self.reading.own.position = Some((Origin::Session, at));
                }
                if let Link::Up(up) = &mut self.link {
                    up.chunk = Some(checked);
                }
                self.continue_chunk(now);
            }
            Examined::Gap { to, checked, .. } if planted!(self, IgnoresGap) => {
                self.gap_explained(to);
                if let Link::Up(up) = &mut self.link {
                    up.chunk = Some(checked);
                }
                self.continue_chunk(now);
            }
            Examined::Gap { from, to, checked } => {
                if let Link::Up(up) = &mut self.link {
                    (up.chunk, up.is_asking) = (Some(checked), true);
                }
                self.act(Action::Ask { from, to });
            }
            Examined::Lost(lost) => {
                if self.leader_says(&lost.to_string(), now) {
                    self.on_lost(lost, origin, now);
                }
            }
            Examined::Unreadable { error, at_position } => {
                self.on_unreadable(error, at_position, now);
            }
            Examined::Backwards { first, reached } => self.on_backwards(first, reached, now),
            Examined::Begins => self.begin_now(now),
            Examined::TooEarly(last) => self.note(Note::TooEarly(last)),
        }
    }

    /// Whether this chunk shows that the stream holds the position, or that was shown before.
    fn is_confirmed_by(&mut self, checked: &Checked) -> bool {
        let first = checked.header().first_offset;
        match &mut self.link {
            Link::Up(up) => up.passing.is_confirmed_by(first),
            _ => false,
        }
    }

    /// The first chunk after a beginning has arrived: its position is looked up, and the beginning is
    /// stored.
    fn begin_now(&mut self, now: Moment) {
        self.note(Note::FirstMessage);
        self.link = Link::Down { until: now.at };
        self.act(Action::Disconnect);
        self.lose_activity(now);
    }

    pub(super) fn on_asked(&mut self, asked: Result<Asked, SourceError>, now: Moment) {
        match &mut self.link {
            Link::Up(up) if up.is_asking => up.is_asking = false,
            _ => return, // Nothing is read any more.
        }
        let Asked { from, to, bounds, there, is_blind, again } = match asked {
            Ok(asked) => asked,
            Err(error) => return self.unlink(error, now),
        };
        let stream_first = bounds.and_then(|bounds| bounds.first);
        if is_blind {
            if self.is_blind_gap_accepted(from, to, stream_first, now) {
                self.gap_explained(to);
                self.continue_chunk(now);
            }
            return;
        }
        if there.is_none() {
            // The chunk behind the gap has arrived, so a missing answer proves nothing.
            let what = format!("no chunk arrived for offset {from} when it was requested");
            return self.unlink_because(SourceError::given_up(what), RestartReason::Reread, now);
        }
        let end = bounds.and_then(|bounds| bounds.tail.at_least());
        if end.is_some_and(|end| end < to) {
            // The delivered chunks are committed in the stream, so it is the header of this chunk that is
            // wrong.
            return self.on_undelivered(from, to, now);
        }
        if let Some(damaged) = self.damaged_before(to, there) {
            if there != Some(to) && again != Some(to) {
                return self.on_undelivered(from, to, now);
            }
            return self.give_up_damaged(from, to, damaged, now);
        }
        match classify(from, to, stream_first, there) {
            GapKind::Undelivered => return self.on_undelivered(from, to, now),
            GapKind::Internal => {
                if let Link::Up(up) = &self.link
                    && let Err(error) = up.passing.check_jump(from, to, stream_first)
                {
                    return self.unlink(error, now);
                }
                self.note(Note::GapOfChunks { from, to });
            }
            GapKind::Truncated { records } => {
                if !self.is_truncation_accepted(from, to, stream_first, records, now) {
                    return;
                }
            }
        }
        self.gap_explained(to);
        self.continue_chunk(now);
    }

    /// Continues behind a gap that the broker has explained. Also confirms the position, if the chunk
    /// before the gap was the first one.
    pub(super) fn gap_explained(&mut self, to: Offset) {
        self.storing.resume();
        if let Link::Up(up) = &mut self.link {
            up.intake.explained(to);
        }
    }

    /// Decides about messages that retention dropped before they were read. The leader has to confirm it
    /// first, and then the policy decides.
    pub(super) fn is_truncation_accepted(
        &mut self,
        from: Offset,
        to: Offset,
        stream_first: Option<Offset>,
        records: u64,
        now: Moment,
    ) -> bool {
        let what = format!(
            "retention of stream {:?} overtook this consumer: offsets {from} to {} were dropped before they were read (up to {records} messages; the stream now starts at {})",
            self.spec.stream.as_str(),
            to.0 - 1,
            stream_first.unwrap_or(to)
        );
        if !self.leader_says(&what, now) {
            return false;
        }
        if self.spec.on_lost == OnLost::Halt {
            let what = format!("{what}. Set on_offset_lost to continue all the same");
            self.end(Outcome::Halted(what), now);
            return false;
        }
        self.note(Note::Truncated { what, records });
        true
    }

    /// Decides about a gap on a source that does not show chunks. If the stream still begins below the
    /// gap, retention dropped nothing of it. Then the gap holds messages that this transport does not
    /// deliver, or the broker's own records. They look the same, so the gap counts as a loss.
    fn is_blind_gap_accepted(
        &mut self,
        from: Offset,
        to: Offset,
        stream_first: Option<Offset>,
        now: Moment,
    ) -> bool {
        let records = to.0 - from.0;
        if stream_first.is_none_or(|first| first > from) {
            return self.is_truncation_accepted(from, to, stream_first, records, now);
        }
        let what = format!(
            "stream {:?}: offsets {from} to {} were not delivered over AMQP 0.9.1. Either they are messages in compressed batches, which it cannot deliver, or offsets that consumers of the stream protocol stored, which are harmless; nothing tells which",
            self.spec.stream.as_str(),
            to.0 - 1,
        );
        if self.spec.on_lost == OnLost::Halt {
            let what = format!(
                "{what}. Read it by the stream protocol (rabbitmq-stream://), or set on_offset_lost to continue all the same"
            );
            self.end(Outcome::Halted(what), now);
            return false;
        }
        self.note(Note::Truncated { what, records });
        true
    }

    /// Continues with the chunk at hand, as far as there is room.
    pub(super) fn continue_chunk(&mut self, now: Moment) {
        let limit = self.spec.inflate_budget_bytes();
        loop {
            let Link::Up(up) = &mut self.link else { return };
            if up.is_asking {
                return;
            }
            let Some(checked) = &mut up.chunk else { return };
            match up.intake.step(checked, &self.batches.inflated, limit) {
                Step::Records(part) => self.accept(part, now),
                Step::Unreadable { first, records, error } => {
                    self.on_bad_batch(first, records, error, now);
                }
                Step::NeedsRoom => {
                    // There is room again once the sink has finished its batches.
                    return self.cut(now);
                }
                Step::Done => {
                    let done = up.chunk.take();
                    return self.chunk_taken(done);
                }
            }
        }
    }

    fn accept(&mut self, part: Part, now: Moment) {
        self.note(Note::Accepted { records: part.block.count() });
        let checkpoint = part.checkpoint();
        self.reading.own.position = Some((Origin::Session, checkpoint));
        self.reading.own.prefer = Prefer::Replica;
        let mut full = Vec::new();
        self.batches.cutter.push(part, now.at, |batch| full.push(batch));
        for batch in full {
            self.line_up(batch, now);
        }
    }

    fn chunk_taken(&mut self, checked: Option<Checked>) {
        let Some(checked) = checked else { return };
        let header = checked.header();
        let next = header.next_offset();
        self.reading.unreadable.forget(|at| at < next);
        // The chunk that holds the position may end right before the first wanted offset.
        self.reading.position_unreadable.forget(|at| at <= next);
        let seen = SeenChunk {
            first: header.first_offset,
            records: header.records,
            timestamp: header.timestamp,
        };
        self.note(Note::Taken { seen, last: last_of(header) });
    }

    fn on_bad_batch(&mut self, first: Offset, records: u32, error: ChunkError, now: Moment) {
        let reason = match error {
            ChunkError::OverLimit { .. } => LostReason::OverLimit,
            _ => LostReason::Undecodable,
        };
        match self.spec.on_bad {
            OnBad::Skip => {
                self.note(Note::BatchLeftOut { first, records, reason, error });
                self.pass_over(first, records.into(), now);
            }
            OnBad::Halt | OnBad::DeadLetter => {
                let hint = match error {
                    ChunkError::OverLimit { .. } => {
                        "raise `memory`, half of which is for what is inflated"
                    }
                    _ => "to leave it out, set on_bad_message = \"skip\"",
                };
                let what = format!(
                    "stream {:?}: {error} (offsets {first} to {}); {hint}",
                    self.spec.stream.as_str(),
                    first.0 + u64::from(records) - 1
                );
                self.end(Outcome::Halted(what), now);
            }
        }
    }

    /// Moves the position past records that a policy left out.
    pub(super) fn pass_over(&mut self, first: Offset, records: u64, now: Moment) {
        let Some(last) = records.checked_sub(1).map(|n| Offset(first.0.saturating_add(n))) else {
            return;
        };
        self.cut(now);
        let checkpoint = Checkpoint { offset: last, chunk: None };
        self.reading.own.position = Some((Origin::Session, checkpoint));
        match self.storing.open(checkpoint, 0, now.wall) {
            Ok(ticket) => self.settle(ticket, now),
            Err(error) => self.internal_error(&error, now),
        }
    }
}
