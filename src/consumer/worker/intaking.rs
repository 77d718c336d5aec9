//! The worker's intake: events of the subscription, chunk by chunk, into batches.

use std::time::Instant;

use super::super::intake::{Checked, Examined, Step};
use super::super::spec::OnBad;
use super::link::{Asked, Link};
use super::{CHUNKS_PER_TURN_MAX, Outcome, Worker};
use crate::broker::{BrokerError, Delivery, Event, Prefer};
use crate::flow::batch::Part;
use crate::flow::continuity::{GapKind, classify};
use crate::flow::lag::Seen;
use crate::flow::resume::{OnLost, Origin};
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
                Some(Event::Unavailable(code)) => {
                    self.unlink(BrokerError::StreamUnavailable {
                        stream: self.spec.stream.clone(),
                        detail: format!("the broker ended the subscription: {code}"),
                    });
                    return;
                }
                None => {
                    if let Link::Up(up) = &self.link {
                        let reason = up.subscription.connection().reason();
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
            self.commit.resume();
        }
        match examined {
            Examined::Good(checked) => {
                up.chunk = Some(checked);
                self.continue_chunk(now);
            }
            Examined::Gap { from, to, checked } => self.ask_about_gap(from, to, checked),
            Examined::Lost(lost) => {
                if self.leader_says(&lost.to_string()) {
                    self.on_lost(lost);
                }
            }
            Examined::Unreadable { error, header } => self.on_unreadable(&error, header),
            Examined::Nothing => {}
        }
    }

    pub(super) fn on_asked(&mut self, asked: Result<Asked, BrokerError>) {
        let Asked { from, to, bounds, there } = match asked {
            Ok(asked) => asked,
            Err(error) => return self.unlink(error),
        };
        if there.is_none() {
            // The chunk behind the gap is there, so an answer that did not come says nothing.
            let what = format!("no chunk came for offset {from} when it was asked for");
            return self.unlink_because(BrokerError::Lost(what.into()), RestartReason::Reread);
        }
        match classify(from, to, bounds.first, there) {
            GapKind::Undelivered => return self.on_undelivered(from, to),
            GapKind::Internal => {
                tracing::debug!(consumer = %self.spec.name, from = from.0, to = to.0, "a gap of the broker's own chunks");
            }
            GapKind::Truncated { records } => {
                let what = format!(
                    "retention of stream {:?} overtook this consumer: offsets {from} to {} were dropped before they were read (up to {records} messages; the stream now starts at {})",
                    self.spec.stream.as_str(),
                    to.0 - 1,
                    bounds.first.unwrap_or(to)
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

    /// The stream holds records that did not come: read on from the gap, on a new connection.
    fn on_undelivered(&mut self, from: Offset, to: Offset) {
        let what = format!(
            "stream {:?} holds messages between offsets {from} and {} that were not delivered",
            self.spec.stream.as_str(),
            to.0 - 1
        );
        let times = self.count_unreadable(from);
        if times < READS_MAX {
            let again = format!("{what}; asking for them again ({times} of {READS_MAX})");
            self.unlink_because(BrokerError::Lost(again.into()), RestartReason::Reread);
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
        self.own.plan = None;
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
        let last = header.next_offset().prev().unwrap_or(Offset(0));
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
    fn on_unreadable(&mut self, error: &ChunkError, header: Option<ChunkHeader>) {
        let wanted = match &self.link {
            Link::Up(up) => up.intake.wanted().unwrap_or(Offset(0)),
            _ => return,
        };
        if header.is_some_and(|h| h.next_offset() <= wanted) {
            // The first chunk of a subscription holds the position. All of it was read before, so
            // nothing of it is missed; if its header is wrong too, the next chunk shows a gap.
            tracing::warn!(consumer = %self.spec.name, %error, "a chunk that was read before is damaged now");
            return;
        }
        let at = header.map_or(Offset(u64::MAX), |h| h.first_offset);
        let times = self.count_unreadable(at);
        if times < READS_MAX {
            let again = format!("{error}; asking for it again ({times} of {READS_MAX})");
            return self.unlink_because(BrokerError::Lost(again.into()), RestartReason::Reread);
        }
        let stream = self.spec.stream.as_str();
        match (self.spec.on_bad, header) {
            (OnBad::Skip, Some(header)) => {
                let reason = match error {
                    ChunkError::CrcMismatch { .. } => LostReason::Crc,
                    _ => LostReason::Undecodable,
                };
                // Some of it may have been read before.
                let first = header.first_offset.max(wanted);
                let records = u32::try_from(header.next_offset().0 - first.0).unwrap_or(u32::MAX);
                tracing::error!(consumer = %self.spec.name, stream, first_offset = first.0, records, %error, "a chunk cannot be read; left out as on_bad_message says");
                if wanted > Offset(0) && first > wanted {
                    // Whether the broker's own chunks stood there cannot be asked any more.
                    self.count_lost(LostReason::Gap, first.0 - wanted.0);
                }
                if let Link::Up(up) = &mut self.link {
                    up.intake.pass_over(first, records);
                }
                self.leave_out(first, records, reason);
            }
            // There is no message that could be a dead letter.
            (OnBad::Halt | OnBad::DeadLetter, _) | (OnBad::Skip, None) => {
                let what = format!(
                    "stream {stream:?} has a chunk that cannot be read, {READS_MAX} times in a row: {error}. If another replica holds it whole, restart; to leave it out, set on_bad_message = \"skip\""
                );
                self.end(Outcome::Halted(what));
            }
        }
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
                self.leave_out(first, records, reason);
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
    fn leave_out(&mut self, first: Offset, records: u32, reason: LostReason) {
        self.count_lost(reason, u64::from(records));
        let Some(last) = records.checked_sub(1).map(|n| Offset(first.0 + u64::from(n))) else {
            return;
        };
        self.flush();
        let checkpoint = Checkpoint { offset: last, chunk: None };
        self.own.position = Some((Origin::Session, checkpoint));
        self.own.plan = None;
        match self.ledger.open(checkpoint, 0, Timestamp::now()) {
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
