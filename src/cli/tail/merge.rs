//! Merges the messages of several streams by the time at which they were written. Pure: time is an
//! argument.
//!
//! Each stream keeps its own order. Of the next messages of all streams the oldest is passed on, and for
//! a stream that has none ready the others wait: until it has one or, if the streams go on for ever, for
//! at most [`WAIT_MAX`]. So a message that comes later than that stands behind younger ones.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::flow::batch::Batch;
use crate::types::{Offset, Timestamp};
use crate::wire::block::Record;

/// Longest time that the others wait for a stream that has nothing ready.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(250);

/// The streams that are merged.
pub(super) struct Merge {
    lanes: Vec<Lane>,
    /// The last time that is wanted; `None` for any.
    until: Option<Timestamp>,
}

struct Lane {
    waiting: VecDeque<Item>,
    /// The last offset that is wanted; `None` for any.
    upto: Option<Offset>,
    is_done: bool,
    /// The last offset that was passed on, or left out.
    passed: Option<Offset>,
    /// Since when it has had nothing ready.
    empty_since: Instant,
}

struct Item {
    batch: Arc<Batch>,
    /// First offset that was not passed on yet.
    from: Offset,
    _slot: Option<OwnedSemaphorePermit>,
}

/// Why no more messages are taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    /// For now: what was taken has to be printed first.
    ForNow,
    /// For good.
    ForGood,
}

/// Result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Messages were passed on, or left out.
    Moved,
    /// Nothing can be passed on before something arrives, or this time has come.
    Waits(Option<Instant>),
    /// Every stream has come to its end.
    Done,
    /// The caller wanted no more.
    Stopped,
}

impl Merge {
    /// Streams with these last offsets; `None` for one that goes on.
    pub(super) fn new(
        upto: impl IntoIterator<Item = Option<Offset>>,
        until: Option<Timestamp>,
        now: Instant,
    ) -> Merge {
        let lane = |upto| Lane {
            waiting: VecDeque::new(),
            upto,
            is_done: false,
            passed: None,
            empty_since: now,
        };
        Merge { lanes: upto.into_iter().map(lane).collect(), until }
    }

    /// True if every stream has an end, and is waited for until it has come there.
    fn is_strict(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_done || lane.upto.is_some())
    }

    /// Nothing more of this stream is wanted.
    pub(super) fn end(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.is_done = true;
            lane.waiting.clear();
        }
    }

    /// The end of this stream is known now; what was passed on counts.
    pub(super) fn end_at(&mut self, lane: usize, upto: Offset) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.upto = Some(lane.upto.map_or(upto, |known| known.min(upto)));
            lane.is_done |= lane.passed >= lane.upto;
        }
    }

    /// Takes a batch of a stream, which follows the one before it.
    pub(super) fn add(
        &mut self,
        lane: usize,
        batch: Arc<Batch>,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        if let Some(lane) = self.lanes.get_mut(lane).filter(|lane| !lane.is_done) {
            let from = batch.first_offset();
            lane.waiting.push_back(Item { batch, from, _slot: slot });
        }
    }

    /// Passes on messages of the stream whose turn it is, as far as nothing older waits elsewhere.
    pub(super) fn step(
        &mut self,
        now: Instant,
        mut take: impl FnMut(usize, Record<'_>) -> ControlFlow<Enough>,
    ) -> Step {
        if self.lanes.iter().all(|lane| lane.is_done) {
            return Step::Done;
        }
        let heads: Vec<Option<Timestamp>> = self.lanes.iter().map(Lane::head).collect();
        let oldest = |but: Option<usize>| {
            let heads = heads.iter().enumerate().filter(|(nth, _)| Some(*nth) != but);
            heads.filter_map(|(nth, head)| Some(((*head)?, nth))).min()
        };
        let Some((_, nth)) = oldest(None) else { return Step::Waits(None) };
        // Where there is only one, nothing is waited for.
        let missing = self.lanes.iter().filter(|lane| !lane.is_done && lane.waiting.is_empty());
        let due = missing.map(|lane| lane.empty_since + WAIT_MAX);
        if self.is_strict() {
            if due.count() > 0 {
                return Step::Waits(None);
            }
        } else if let Some(due) = due.filter(|due| *due > now).max() {
            return Step::Waits(Some(due));
        }
        let bound = oldest(Some(nth));
        let until = self.until;
        match self.lanes.get_mut(nth) {
            Some(lane) => lane.pass(nth, bound, until, now, &mut take),
            None => Step::Done,
        }
    }
}

impl Lane {
    /// Time of its next message, or of the next batch if none is left of that.
    fn head(&self) -> Option<Timestamp> {
        let item = self.waiting.front()?;
        let next = item.batch.records_from(item.from).next().map(|record| record.timestamp);
        Some(next.unwrap_or(item.batch.oldest()))
    }

    /// Passes on what is older than the next message of the others.
    fn pass(
        &mut self,
        nth: usize,
        bound: Option<(Timestamp, usize)>,
        until: Option<Timestamp>,
        now: Instant,
        take: &mut impl FnMut(usize, Record<'_>) -> ControlFlow<Enough>,
    ) -> Step {
        let Some(item) = self.waiting.front_mut() else { return Step::Moved };
        let batch = Arc::clone(&item.batch);
        for record in batch.records_from(item.from) {
            let is_behind = self.upto.is_some_and(|upto| record.offset > upto)
                || until.is_some_and(|until| record.timestamp > until);
            if is_behind {
                self.is_done = true;
                self.waiting.clear();
                return Step::Moved;
            }
            if bound.is_some_and(|bound| (record.timestamp, nth) > bound) {
                item.from = record.offset;
                return Step::Moved;
            }
            match take(nth, record) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Enough::ForGood) => return Step::Stopped,
                ControlFlow::Break(Enough::ForNow) => {
                    item.from = record.offset.next();
                    return Step::Moved;
                }
            }
        }
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.empty_since = now;
        }
        self.passed = Some(batch.last_offset());
        if self.upto.is_some() && self.passed >= self.upto {
            self.is_done = true;
            self.waiting.clear();
        }
        Step::Moved
    }
}

#[cfg(test)]
mod tests;
