//! How far behind a consumer is: in messages, in seconds, and how much retention may still drop.
//!
//! `lag = end − position` is an upper bound, since the broker's tracking chunks take offsets too:
//! storing an offset on an idle stream moves the end past the position, and it stays there.
//! [`Watch`] keeps the observations of the end, and finds out which offsets are not messages:
//! - a subscription with credit receives everything there is. An offset that an earlier observation
//!   saw, and that did not arrive within [`SETTLE`], belongs to the broker;
//! - for a consumer without such a subscription, the broker is asked for the consumer's next offset
//!   ([`Watch::question`]).
//!
//! `seconds` is the age of the oldest message that is not durable: by its chunk's timestamp if the
//! chunk is known, else by the two observations between which it appeared. Both are points in time,
//! so the age grows by itself while the broker cannot be reached. A consumer that had caught up at
//! the last observation reports 0 only while that observation is fresh. After that, the time since
//! the observation is reported, because new messages may have been published.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::types::{Offset, Timestamp};

/// Time without a delivery, with credit outstanding, after which an end past the position is
/// attributed to the broker's own chunks.
pub const SETTLE: Duration = Duration::from_secs(1);

/// Most that an observation may be late before a caught-up consumer no longer counts as caught up.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The same while a subscription with credit is open, which would deliver anything new.
const LATE_WITH_CREDIT_MAX: Duration = Duration::from_secs(3);

/// Greatest age of a caught-up consumer's last successful observation, once one has failed.
const BLIND_MAX: Duration = Duration::from_secs(2);

/// Number of observations kept: the oldest one that matters, and the newest.
const LOOKS_MAX: usize = 64;

/// Number of times in a row that an offset is asked for without result before it is attributed to
/// the broker's own chunks.
const VAIN_MAX: u32 = 2;

/// The broker's report of the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tail {
    /// The stream holds no record.
    Empty,
    /// The last committed offset, exactly (4.3 and later; or a chunk read at the end).
    Offset(Offset),
    /// The id of the last committed chunk: its first offset (3.11 to 4.2).
    Chunk(Offset),
}

impl Tail {
    /// The last offset, or a lower bound of it; `None` if the stream holds no record.
    pub fn at_least(self) -> Option<Offset> {
        match self {
            Tail::Empty => None,
            Tail::Offset(last) | Tail::Chunk(last) => Some(last),
        }
    }
}

/// A chunk that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenChunk {
    /// Its first offset.
    pub first: Offset,
    /// Number of records in it.
    pub records: u32,
    /// Time at which it was written.
    pub timestamp: Timestamp,
}

/// State of a consumer at one point in time.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The last durable offset; before there is one, the offset before the first wanted. `None`
    /// means "before offset 0".
    pub position: Option<Offset>,
    /// The last offset received.
    pub received: Option<Offset>,
    /// The last chunk received.
    pub last_chunk: Option<SeenChunk>,
    /// Time at which the oldest chunk that was received and is not durable was written.
    pub oldest: Option<Timestamp>,
    /// True if anything received is not durable yet.
    pub holding: bool,
    /// True if messages arrived a moment ago: more of a backlog may follow.
    pub flowing: bool,
    /// Time since which nothing has arrived on a subscription that has credit and has delivered
    /// before. `None` if there is no such subscription.
    pub quiet_since: Option<Instant>,
}

impl View {
    /// The last offset that the consumer has received or made durable.
    fn known(&self) -> Option<Offset> {
        self.position.max(self.received)
    }

    fn all_durable(&self) -> bool {
        self.oldest.is_none() && self.received <= self.position
    }
}

/// Lag of a consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Upper bound on the messages that are not durable yet.
    pub messages: u64,
    /// Age of the oldest of them in seconds; 0 if there is none.
    pub seconds: f64,
}

/// One observation of the stream's end.
#[derive(Clone, Copy, Debug)]
struct Look {
    tail: Tail,
    at: Instant,
    wall: Timestamp,
}

/// The first message that is not durable, and the time at which it was written.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    position: Option<Offset>,
    written: Timestamp,
}

/// Observations of the end of one consumer's stream.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Oldest first. The front one is the last that saw nothing new, if there is one.
    looks: VecDeque<Look>,
    /// Time from one observation to the next.
    every: Duration,
    /// True if the last attempt to observe the end failed.
    blind: bool,
    /// Time at which the broker last answered or sent anything.
    heard: Option<Timestamp>,
    /// There is no message between the last known offset and this one.
    clear_to: Option<Offset>,
    /// That is known only of what lies above this offset: the position was moved to before it.
    clear_from: Option<Offset>,
    waiting: Option<Waiting>,
    /// Number of times in a row that the offset after this position was asked for without result, and the
    /// end as it was at the last time.
    vain: Option<(Option<Offset>, u32, Option<Offset>)>,
}

impl Watch {
    /// Records an observation of the stream's end; the next one is due after `every`.
    pub fn looked(&mut self, tail: Tail, at: Instant, wall: Timestamp, every: Duration) {
        if last_of(tail, None) < self.clear_to {
            // The stream is shorter now, or another node has less of it.
            self.clear_to = None;
        }
        self.looks.push_back(Look { tail, at, wall });
        if self.looks.len() > LOOKS_MAX {
            // An age is counted from between the first two observations.
            self.looks.remove(2);
        }
        self.every = every;
        self.blind = false;
        self.heard(wall);
    }

    /// Records a failed attempt.
    pub fn failed(&mut self) {
        self.blind = true;
    }

    /// Records that the broker answered or sent something.
    pub fn heard(&mut self, wall: Timestamp) {
        self.heard = self.heard.max(Some(wall));
    }

    /// Time at which the broker last answered or sent something.
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Time of the last successful observation.
    pub fn last_look(&self) -> Option<Timestamp> {
        self.looks.back().map(|look| look.wall)
    }

    /// Notes that the position is another one from now on than in this view. What was found out about the offsets
    /// behind that one stays true.
    pub fn moved(&mut self, before: &View) {
        self.clear_from = self.clear_from.max(before.known());
        (self.waiting, self.vain) = (None, None);
    }

    /// Notes that there is no message from what is known up to there.
    fn cleared(&mut self, view: &View, to: Option<Offset>) {
        if to.is_none() {
            return;
        }
        if view.known() < self.clear_from {
            (self.clear_from, self.clear_to) = (view.known(), to);
        } else {
            self.clear_to = self.clear_to.max(to);
        }
    }

    /// Updates the conclusions from the consumer's state. Called whenever that has changed.
    pub fn note(&mut self, view: &View) {
        if let Some(written) = view.oldest {
            self.waiting = Some(Waiting { position: view.position, written });
        }
        if let (Some(quiet), Some(newest)) = (view.quiet_since, self.looks.back())
            && view.all_durable()
            && !view.holding
            && newest.at >= quiet + SETTLE
        {
            let settled = self.looks.iter().rev().find(|look| newest.at >= look.at + SETTLE);
            let settled = settled.and_then(|look| last_of(look.tail, view.last_chunk));
            self.cleared(view, settled);
        }
        let clear = self.clear(view);
        while self.looks.get(1).is_some_and(|next| last_of(next.tail, view.last_chunk) <= clear) {
            self.looks.pop_front();
        }
    }

    /// The first offset that is not durable, if the broker has to be asked when it was written, or
    /// whether it is a message at all.
    pub fn question(&self, view: &View) -> Option<Offset> {
        let comes_by_itself = view.quiet_since.is_some() && view.all_durable();
        let known = view.oldest.is_some() || self.waiting_at(view.position).is_some();
        let behind = !self.has_caught_up(view);
        (behind && !known && !comes_by_itself)
            .then(|| view.position.map_or(Offset(0), Offset::next))
    }

    /// Records the answer to [`Watch::question`]: the time at which the chunk with the first
    /// message after the position was written; `None` if no message came.
    pub fn answered(&mut self, view: &View, written: Option<Timestamp>, wall: Timestamp) {
        self.heard(wall);
        let position = view.position;
        if let Some(written) = written {
            self.waiting = Some(Waiting { position, written });
            self.vain = None;
            return;
        }
        let before = self.vain.filter(|(at, ..)| *at == position);
        let (times, seen) =
            before.map_or((1, None), |(_, times, seen)| (times.saturating_add(1), seen));
        self.vain = Some((position, times, self.end(view)));
        if times >= VAIN_MAX && view.all_durable() {
            // What was observed before this question; the rest may have been published since.
            self.cleared(view, seen);
        }
    }

    /// Lag of the consumer; `None` before the first observation.
    pub fn lag(&self, view: &View, wall: Timestamp) -> Option<Lag> {
        self.looks.back()?;
        if self.has_caught_up(view) {
            return Some(Lag { messages: 0, seconds: self.seconds_unseen(view, wall) });
        }
        let after = |offset: Option<Offset>| offset.map_or(0, |offset| offset.0.saturating_add(1));
        let done = if view.all_durable() { self.clear(view) } else { view.position };
        let messages = after(self.end(view)).saturating_sub(after(done));
        let oldest = view.oldest.or_else(|| self.waiting_at(view.position));
        let oldest = oldest.or_else(|| self.appeared(view));
        let seconds = oldest.map_or(0.0, |oldest| oldest.seconds_until(wall));
        Some(Lag { messages, seconds })
    }

    /// The last offset that the stream is known to hold.
    pub fn end(&self, view: &View) -> Option<Offset> {
        view.known().max(self.looks.back().and_then(|look| last_of(look.tail, view.last_chunk)))
    }

    /// The last offset up to which the consumer knows every message.
    fn clear(&self, view: &View) -> Option<Offset> {
        let known = view.known();
        known.max(self.clear_to.filter(|_| known >= self.clear_from))
    }

    fn has_caught_up(&self, view: &View) -> bool {
        view.all_durable() && self.end(view) <= self.clear(view)
    }

    fn waiting_at(&self, position: Option<Offset>) -> Option<Timestamp> {
        self.waiting.filter(|waiting| waiting.position == position).map(|waiting| waiting.written)
    }

    /// Approximate time at which the first unknown offset was written: between the last observation
    /// without it and the next one, and after the last chunk received. `None` if the offset may
    /// belong to the broker.
    fn appeared(&self, view: &View) -> Option<Timestamp> {
        let clear = self.clear(view);
        let saw_nothing = |look: &Look| last_of(look.tail, view.last_chunk) <= clear;
        let last = self.looks.iter().rposition(saw_nothing);
        let between = last.and_then(|index| {
            let before = self.looks.get(index)?.wall;
            let after = self.looks.get(index + 1).map_or(before, |look| look.wall);
            let gap = Duration::try_from_secs_f64(before.seconds_until(after)).ok()?;
            // After a longer gap, such as an outage, the worst case is assumed.
            let half = if gap <= self.every * 2 { gap.as_millis() / 2 } else { 0 };
            Some(Timestamp(before.0.saturating_add(i64::try_from(half).ok()?)))
        });
        let last_chunk = view.last_chunk.map(|chunk| chunk.timestamp);
        match between {
            Some(between) => Some(between).max(last_chunk),
            None => last_chunk.filter(|_| view.flowing),
        }
    }

    /// Seconds for which it is unknown whether the consumer is still caught up.
    fn seconds_unseen(&self, view: &View, wall: Timestamp) -> f64 {
        let looked = self.last_look();
        let (sure, unseen_max) = match view.quiet_since {
            Some(_) => (looked.max(self.heard), self.every + LATE_WITH_CREDIT_MAX),
            None if self.blind => (looked, BLIND_MAX),
            None => (looked, self.every + LATE_MAX),
        };
        let unseen = sure.map_or(0.0, |sure| sure.seconds_until(wall));
        if unseen <= unseen_max.as_secs_f64() { 0.0 } else { unseen }
    }
}

fn last_of(tail: Tail, last_chunk: Option<SeenChunk>) -> Option<Offset> {
    match tail {
        Tail::Empty => None,
        Tail::Offset(last) => Some(last),
        Tail::Chunk(id) => match last_chunk {
            Some(chunk) if chunk.first == id => {
                Some(Offset(id.0.saturating_add(u64::from(chunk.records.saturating_sub(1)))))
            }
            _ => Some(id),
        },
    }
}

/// Number of offsets between the position and the first one retained: retention can drop that many
/// before a message is lost. Negative if messages are already lost.
pub fn headroom(position: Option<Offset>, first: Offset) -> i64 {
    let next = position.map_or(0, |p| i128::from(p.0) + 1);
    i64::try_from(next - i128::from(first.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
