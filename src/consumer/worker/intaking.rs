//! The worker's intake: events of the subscription, chunk by chunk, into batches.

use std::time::Instant;

use super::super::intake::{Checked, Damaged, Examined, Step, last_of};
use super::super::spec::OnBad;
use super::link::{Asked, Link};
use super::{CHUNKS_PER_TURN_MAX, Outcome, Worker};
use crate::flow::batch::Part;
use crate::flow::continuity::{GapKind, classify};
use crate::flow::lag::{Seen, Tail};
use crate::flow::resume::{OnLost, Origin};
use crate::source::{Delivery, Event, Prefer, SourceError};
use crate::telemetry::{LostReason, RestartReason};
use crate::types::{Checkpoint, Offset, Timestamp};
use crate::wire::chunk::{ChunkError, ChunkHeader};

/// How often in a row something is read in vain before a policy decides.
const READS_MAX: u32 = 3;

impl Worker {
    pub(super) fn on_event(&mut self, event: Option<Event>) {
        let now = Instant::now();
        let mut event = event;
        for taken in 1.. {
            match event {
                Some(Event::Chunk(delivery)) => self.on_chunk(delivery, now),
                Some(Event::Unavailable(why)) => return self.unlink(why),
                // No subscription of ours asks to be a single active consumer.
                Some(Event::Activation(turn)) => turn.answer(None),
                None => {
                    if let Link::Up(up) = &self.link {
                        let reason = up.subscription.link().reason();
                        self.unlink(reason);
                    }
                    return;
                }
            }
            let full = !self.ready.is_empty() || taken >= CHUNKS_PER_TURN_MAX;
            if full || self.ending.is_some() || self.is_restarting() {
                return;
            }
            let Link::Up(up) = &mut self.link else { return };
            if up.chunk.is_some() {
                return;
            }
            // What is taken here must be used: there is no way back.
            match up.try_next() {
                Some(next) => event = Some(next),
                None => return,
            }
        }
    }

    fn on_chunk(&mut self, delivery: Delivery, now: Instant) {
        let metrics = &self.status.metrics;
        metrics.received_chunks.increment(1);
        metrics.received_bytes.increment(delivery.chunk.len() as u64);
        let Link::Up(up) = &mut self.link else { return };
        trace_chunk(&delivery);
        let examined = up.intake.examine(delivery);
        if matches!(examined, Examined::Good(_) | Examined::Gap { .. }) {
            self.storing.resume();
        }
        match examined {
            Examined::Good(checked) => {
                up.chunk = Some(checked);
                self.continue_chunk(now);
            }
            Examined::Gap { from, to, checked } => self.ask_about_gap(from, to, checked),
            Examined::Lost(lost) => {
                let of = up.origin;
                if self.leader_says(&lost.to_string()) {
                    self.on_lost(lost, of);
                }
            }
            Examined::Unreadable { error, at_position } => self.on_unreadable(error, at_position),
            Examined::Backwards { first, reached } => self.on_backwards(first, reached),
            Examined::Begins => self.begin_now(),
            Examined::TooEarly(last) => self.status.update(|facts| {
                facts.position = Some(last);
                facts.received = Some(last);
                facts.quiet_since = Some(now);
            }),
        }
    }

    pub(super) fn on_asked(&mut self, asked: Result<Asked, SourceError>) {
        let Asked { from, to, bounds, there, again } = match asked {
            Ok(asked) => asked,
            Err(error) => return self.unlink(error),
        };
        if there.is_none() {
            // The chunk behind the gap is there, so an answer that did not come says nothing.
            let what = format!("no chunk came for offset {from} when it was asked for");
            return self.unlink_because(SourceError::given_up(what), RestartReason::Reread);
        }
        let stream_first = bounds.and_then(|bounds| bounds.first);
        let is_beyond_the_end = match bounds.map_or(Tail::Empty, |bounds| bounds.tail) {
            Tail::Offset(last) | Tail::Chunk(last) => last < to,
            Tail::Empty => false,
        };
        if is_beyond_the_end {
            // What was delivered is committed, so the header of the chunk is wrong.
            return self.on_undelivered(from, to);
        }
        if let Some(damaged) = self.damaged_before(to, there) {
            if there != Some(to) && again != Some(to) {
                return self.on_undelivered(from, to);
            }
            return self.give_up(from, to, damaged);
        }
        match classify(from, to, stream_first, there) {
            GapKind::Undelivered => return self.on_undelivered(from, to),
            GapKind::Internal => {
                tracing::debug!(consumer = %self.spec.name, from = from.0, to = to.0, "a gap of the broker's own chunks");
            }
            GapKind::Truncated { records } => {
                let what = format!(
                    "retention of stream {:?} overtook this consumer: offsets {from} to {} were dropped before they were read (up to {records} messages; the stream now starts at {})",
                    self.spec.stream.as_str(),
                    to.0 - 1,
                    stream_first.unwrap_or(to)
                );
                if !self.leader_says(&what) {
                    return;
                }
                if self.spec.on_lost == OnLost::Halt {
                    return self.end(Outcome::Halted(format!(
                        "{what}. Set on_offset_lost to go on all the same"
                    )));
                }
                tracing::error!(consumer = %self.spec.name, "{what}; going on as on_offset_lost says");
                self.count_lost(LostReason::Retention, records);
            }
        }
        if let Link::Up(up) = &mut self.link {
            up.intake.explained(to);
        }
        self.continue_chunk(Instant::now());
    }

    /// A chunk begins below the end of the one before it: the header of one of them is damaged, and
    /// nothing tells which. Nothing is dropped as if it had been read.
    fn on_backwards(&mut self, first: Offset, reached: Offset) {
        let what = format!(
            "stream {:?} gave a chunk at offset {first} after one that ends before {reached}: the header of one of them is damaged",
            self.spec.stream.as_str()
        );
        let times = self.count_unreadable(reached);
        if times < READS_MAX {
            let again = format!("{what}; asking for them again ({times} of {READS_MAX})");
            self.unlink_because(SourceError::given_up(again), RestartReason::Reread);
        } else {
            self.end(Outcome::Halted(format!("{what}, {READS_MAX} times in a row. Messages from there on may have been written under wrong offsets. If another replica holds the chunks whole, restart")));
        }
    }

    /// The stream holds records that did not come: read on from the gap, on a new connection.
    fn on_undelivered(&mut self, from: Offset, to: Offset) {
        let what = format!(
            "stream {:?} holds messages between offsets {from} and {} that were not delivered, or the header of the chunk at {to} is damaged",
            self.spec.stream.as_str(),
            to.0 - 1
        );
        let times = self.count_unreadable(from);
        if times < READS_MAX {
            let again = format!("{what}; asking for them again ({times} of {READS_MAX})");
            self.unlink_because(SourceError::given_up(again), RestartReason::Reread);
        } else {
            let times = READS_MAX;
            self.end(Outcome::Halted(format!("{what}, {times} times in a row: this is a fault of the broker or of rillway; please report it with the broker's version")));
        }
    }

    /// How often in a row something at this offset could not be read, this time included.
    fn count_unreadable(&mut self, at: Offset) -> u32 {
        let times = match self.unreadable {
            Some((offset, times)) if offset == at => times + 1,
            _ => 1,
        };
        self.unreadable = Some((at, times));
        times
    }

    /// Goes on with the chunk under way, as far as there is room.
    pub(super) fn continue_chunk(&mut self, now: Instant) {
        let limit = self.spec.inflate_budget_bytes();
        loop {
            let Link::Up(up) = &mut self.link else { return };
            if up.is_asking() || self.ending.is_some() {
                return;
            }
            let Some(checked) = &mut up.chunk else { return };
            match up.intake.step(checked, &self.inflated, limit) {
                Step::Records(part) => self.accept(part, now),
                Step::Unreadable { first, records, error } => {
                    self.on_bad_batch(first, records, &error);
                }
                Step::NeedsRoom => {
                    // The room comes back when the sink is done with what it has.
                    self.flush();
                    return;
                }
                Step::Done => {
                    let done = up.chunk.take();
                    self.chunk_taken(done, now);
                    return;
                }
            }
        }
    }

    fn accept(&mut self, part: Part, now: Instant) {
        self.status.metrics.received_messages.increment(u64::from(part.block.count()));
        let checkpoint = Checkpoint { offset: part.block.last_offset(), chunk: Some(part.chunk) };
        self.own.position = Some((Origin::Session, checkpoint));
        self.own.prefer = Prefer::Replica;
        let mut full = Vec::new();
        self.cutter.push(part, now, |batch| full.push(batch));
        for batch in full {
            self.cut(batch);
        }
    }

    fn chunk_taken(&mut self, checked: Option<Checked>, now: Instant) {
        let Some(checked) = checked else { return };
        let header = *checked.header();
        if self.unreadable.is_some_and(|(at, _)| header.next_offset() > at) {
            self.unreadable = None;
        }
        let last = last_of(&header);
        self.status.update(|facts| {
            facts.news = Some(last) > facts.received.max(facts.position);
            facts.received = facts.received.max(Some(last));
            facts.last_chunk = Some(Seen {
                first: header.first_offset,
                records: header.records,
                timestamp: header.timestamp,
            });
            facts.quiet_since = Some(now);
            facts.delivered = true;
            facts.watch.heard(Timestamp::now());
        });
    }

    /// A whole chunk cannot be read: ask for it again, then do as the policy says.
    fn on_unreadable(&mut self, error: ChunkError, at_position: bool) {
        let Link::Up(up) = &mut self.link else { return };
        // What it says of its own offsets is not believed: it is the one that was to come next.
        let wanted = up.intake.wanted().unwrap_or(Offset(0));
        if up.intake.damaged().is_some() {
            return; // It is left out together with the one before it.
        }
        if at_position {
            tracing::warn!(consumer = %self.spec.name, %error, "the chunk that holds the position is damaged now; the next one will show whether anything of it was not read before");
            return up.intake.leave_out(error, true);
        }
        if !self.is_given_up(wanted, &error) {
            return;
        }
        tracing::error!(consumer = %self.spec.name, stream = %self.spec.stream, wanted = wanted.0, %error, "a chunk cannot be read; it is left out as on_bad_message says, once the next one shows how far it reached");
        if let Link::Up(up) = &mut self.link {
            up.intake.leave_out(error, false);
        }
    }

    /// Whether the chunk that holds this offset may be left out. If not, it is asked for again, or
    /// the consumer halts.
    fn is_given_up(&mut self, wanted: Offset, error: &ChunkError) -> bool {
        let times = self.count_unreadable(wanted);
        if times < READS_MAX {
            let again = format!("{error}; asking for it again ({times} of {READS_MAX})");
            self.unlink_because(SourceError::given_up(again), RestartReason::Reread);
            return false;
        }
        match self.spec.on_bad {
            OnBad::Skip => true,
            // There is no message that could be a dead letter.
            OnBad::Halt | OnBad::DeadLetter => {
                let stream = self.spec.stream.as_str();
                let what = format!(
                    "stream {stream:?} has a chunk that cannot be read, {READS_MAX} times in a row: {error}. If another replica holds it whole, restart; to leave it out, set on_bad_message = \"skip\""
                );
                self.end(Outcome::Halted(what));
                false
            }
        }
    }

    /// What was left out before the chunk at `to`, where it reaches into the gap before that: one
    /// that came for the position does so only if the broker gives it for the gap, too.
    fn damaged_before(&mut self, to: Offset, there: Option<Offset>) -> Option<Damaged> {
        let Link::Up(up) = &mut self.link else { return None };
        let damaged = up.intake.damaged()?.clone();
        if damaged.at_position && there == Some(to) {
            up.intake.take_damaged();
            return None;
        }
        Some(damaged)
    }

    /// Leaves out the offsets from `from` to `to` (not included), where a chunk could not be read.
    fn give_up(&mut self, from: Offset, to: Offset, damaged: Damaged) {
        let Damaged { error, at_position } = damaged;
        if at_position && !self.is_given_up(from, &error) {
            return;
        }
        let reason = match error {
            ChunkError::CrcMismatch { .. } => LostReason::Crc,
            _ => LostReason::Undecodable,
        };
        let records = to.0.saturating_sub(from.0);
        tracing::error!(consumer = %self.spec.name, stream = %self.spec.stream, from = from.0, to = to.0, up_to_records = records, %error, "a chunk that cannot be read was left out as on_bad_message says");
        if let Link::Up(up) = &mut self.link {
            up.intake.take_damaged();
            up.intake.explained(to);
        }
        self.leave_out(from, records, reason);
        self.continue_chunk(Instant::now());
    }

    fn on_bad_batch(&mut self, first: Offset, records: u32, error: &ChunkError) {
        let stream = self.spec.stream.as_str();
        match self.spec.on_bad {
            OnBad::Skip => {
                tracing::error!(consumer = %self.spec.name, stream, first_offset = first.0, records, %error, "a sub-entry batch cannot be read; left out as on_bad_message says");
                let reason = match error {
                    ChunkError::OverLimit { .. } => LostReason::OverLimit,
                    _ => LostReason::Undecodable,
                };
                self.leave_out(first, records.into(), reason);
            }
            OnBad::Halt | OnBad::DeadLetter => {
                let hint = match error {
                    ChunkError::OverLimit { .. } => {
                        "raise `memory`, half of which is for what is inflated"
                    }
                    _ => "to leave it out, set on_bad_message = \"skip\"",
                };
                let what = format!(
                    "stream {stream:?}: {error} (offsets {first} to {}); {hint}",
                    first.0 + u64::from(records) - 1
                );
                self.end(Outcome::Halted(what));
            }
        }
    }

    /// Counts records that a policy gave up, and lets the position pass over them.
    fn leave_out(&mut self, first: Offset, records: u64, reason: LostReason) {
        self.count_lost(reason, records);
        let Some(last) = records.checked_sub(1).map(|n| Offset(first.0.saturating_add(n))) else {
            return;
        };
        self.flush();
        let checkpoint = Checkpoint { offset: last, chunk: None };
        self.own.position = Some((Origin::Session, checkpoint));
        match self.storing.open(checkpoint, 0, Timestamp::now()) {
            Ok(ticket) => self.settle(ticket),
            Err(error) => self.end(Outcome::Failed(format!("internal error: {error}"))),
        }
    }
}

fn trace_chunk(delivery: &Delivery) {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    match ChunkHeader::parse(&delivery.chunk) {
        Ok(header) => tracing::trace!(
            first_offset = header.first_offset.0,
            records = header.records,
            epoch = header.epoch,
            written_at = %header.timestamp,
            bytes = delivery.chunk.len(),
            "chunk"
        ),
        Err(error) => tracing::trace!(%error, bytes = delivery.chunk.len(), "chunk"),
    }
}
