//! How far behind a consumer is: in messages, in seconds, and how much retention may still drop.
//!
//! `lag = end − position` is an upper bound, since the broker's tracking chunks take offsets too:
//! storing an offset on an idle stream moves the end past the position for ever. [`Watch`] keeps what
//! was seen of the end, and finds out which offsets are no messages:
//! - the broker sends what there is to a subscription with credit. So what an earlier look saw, and
//!   what did not come within [`SETTLE`], is the broker's own;
//! - a consumer without such a subscription has its next offset asked for ([`Watch::question`]).
//!
//! `seconds` is the age of the oldest message that is not durable: by its chunk's timestamp where the
//! chunk is known, else by the looks between which it appeared. Both are moments, not
//! ages, so the figure grows by itself while nobody can look. A consumer that had caught up when the
//! stream was last seen is at 0 only as long as that is fresh; then it counts from that look, since
//! nobody knows what has come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::types::{Offset, Timestamp};

/// How long nothing may come, with credit there, before an end past the position is taken for the
/// broker's own chunks.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How much later than planned a look may be before a caught-up consumer is no longer taken for one.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The same while a subscription with credit is open: it would bring what there is.
const LATE_WITH_CREDIT_MAX: Duration = Duration::from_secs(3);

/// How old the last look of a caught-up consumer may be once one has failed.
const BLIND_MAX: Duration = Duration::from_secs(2);

/// So many looks are kept: the oldest one that matters, and the newest.
const LOOKS_MAX: usize = 64;

/// How often in a row an offset is asked for in vain before it is taken for the broker's own.
const VAIN_MAX: u32 = 2;

/// What the broker tells of the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The stream holds no record.
    Empty,
    /// The last committed offset, exactly (4.3 and later; or a chunk read at the end).
    Offset(Offset),
    /// The id of the last committed chunk: its first offset (3.11 to 4.2).
    Chunk(Offset),
}

/// A chunk that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its first offset.
    pub first: Offset,
    /// How many records it holds.
    pub records: u32,
    /// When it was written.
    pub timestamp: Timestamp,
}

/// What is known of a consumer at one instant.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The last durable offset; before there is one, the offset before the first wanted.
    /// `None` stands for "before offset 0".
    pub position: Option<Offset>,
    /// The last offset received.
    pub received: Option<Offset>,
    /// The last chunk received.
    pub last_chunk: Option<Seen>,
    /// When the oldest chunk that was received and is not durable was written.
    pub oldest: Option<Timestamp>,
    /// Whether anything received is not durable yet, taken up or not.
    pub holding: bool,
    /// Whether new messages came within the last moment: then more of a backlog may be on its way.
    pub flowing: bool,
    /// Since when nothing came on a subscription that has credit, and that has brought a chunk
    /// before. `None` where there is no such subscription.
    pub quiet_since: Option<Instant>,
}

impl View {
    /// The last offset that is known to the consumer, durable or not.
    fn known(&self) -> Option<Offset> {
        self.position.max(self.received)
    }

    fn all_durable(&self) -> bool {
        self.oldest.is_none() && self.received <= self.position
    }
}

/// How far behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Messages not yet durable, at the most.
    pub messages: u64,
    /// The age of the oldest one; 0 where there is none.
    pub seconds: f64,
}

/// One look at the stream's end.
#[derive(Clone, Copy, Debug)]
struct Look {
    tail: Tail,
    at: Instant,
    wall: Timestamp,
}

/// The first message that waits, and when it was written.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    position: Option<Offset>,
    written: Timestamp,
}

/// What was seen of the end of one consumer's stream.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Oldest first. The front one is the last that saw nothing new, if there is such a one.
    looks: VecDeque<Look>,
    /// How long after the last look the next one is due.
    every: Duration,
    /// Whether the last attempt to look failed.
    blind: bool,
    /// When the broker last answered or sent anything.
    heard: Option<Timestamp>,
    /// No message lies between what is known to the consumer and this offset.
    clear_to: Option<Offset>,
    waiting: Option<Waiting>,
    /// How often in a row the offset after this position was asked for in vain.
    vain: Option<(Option<Offset>, u32)>,
}

impl Watch {
    /// Takes a look at the stream's end; the next one is due after `every`.
    pub fn looked(&mut self, tail: Tail, at: Instant, wall: Timestamp, every: Duration) {
        if last_of(tail, None) < self.clear_to {
            // The stream is a shorter one now, or another node has less of it.
            self.clear_to = None;
        }
        self.looks.push_back(Look { tail, at, wall });
        if self.looks.len() > LOOKS_MAX {
            // An age is counted from between the first two.
            self.looks.remove(2);
        }
        self.every = every;
        self.blind = false;
        self.heard(wall);
    }

    /// An attempt to look failed.
    pub fn failed(&mut self) {
        self.blind = true;
    }

    /// The broker answered, or sent something.
    pub fn heard(&mut self, wall: Timestamp) {
        self.heard = self.heard.max(Some(wall));
    }

    /// When the broker last answered or sent something.
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// When the stream's end was last seen.
    pub fn last_look(&self) -> Option<Timestamp> {
        self.looks.back().map(|look| look.wall)
    }

    /// Draws conclusions from how the consumer is now. Called whenever that has changed.
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
            self.clear_to = self.clear_to.max(settled);
        }
        let clear = self.clear(view);
        while self.looks.get(1).is_some_and(|next| last_of(next.tail, view.last_chunk) <= clear) {
            self.looks.pop_front();
        }
    }

    /// The first offset that waits, where somebody has to ask when it was written, or whether it is
    /// a message at all.
    pub fn question(&self, view: &View) -> Option<Offset> {
        let comes_by_itself = view.quiet_since.is_some() && view.all_durable();
        let known = view.oldest.is_some() || self.waiting_at(view.position).is_some();
        let behind = !self.has_caught_up(view);
        (behind && !known && !comes_by_itself)
            .then(|| view.position.map_or(Offset(0), Offset::next))
    }

    /// The answer to [`Watch::question`]: when the chunk with the first message after the position
    /// was written; `None` where no message came.
    pub fn answered(&mut self, view: &View, written: Option<Timestamp>, wall: Timestamp) {
        self.heard(wall);
        let position = view.position;
        if let Some(written) = written {
            self.waiting = Some(Waiting { position, written });
            self.vain = None;
            return;
        }
        let before = self.vain.filter(|(at, _)| *at == position).map_or(0, |(_, times)| times);
        self.vain = Some((position, before + 1));
        if before + 1 >= VAIN_MAX && view.all_durable() {
            self.clear_to = self.clear_to.max(self.end(view));
            self.vain = None;
        }
    }

    /// How far behind the consumer is; `None` before the first look.
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

    /// The last offset up to which every message is known to the consumer.
    fn clear(&self, view: &View) -> Option<Offset> {
        view.known().max(self.clear_to)
    }

    fn has_caught_up(&self, view: &View) -> bool {
        view.all_durable() && self.end(view) <= self.clear(view)
    }

    fn waiting_at(&self, position: Option<Offset>) -> Option<Timestamp> {
        self.waiting.filter(|waiting| waiting.position == position).map(|waiting| waiting.written)
    }

    /// About when the first offset was written that is not known to the consumer: between the last
    /// look that did not see it and the next, and after the last chunk that came. `None` where it may
    /// as well be the broker's own.
    fn appeared(&self, view: &View) -> Option<Timestamp> {
        let clear = self.clear(view);
        let saw_nothing = |look: &Look| last_of(look.tail, view.last_chunk) <= clear;
        let last = self.looks.iter().rposition(saw_nothing);
        let between = last.and_then(|index| {
            let before = self.looks.get(index)?.wall;
            let after = self.looks.get(index + 1).map_or(before, |look| look.wall);
            let gap = Duration::try_from_secs_f64(before.seconds_until(after)).ok()?;
            // After a longer one, such as an outage, the worst is assumed.
            let half = if gap <= self.every * 2 { gap.as_millis() / 2 } else { 0 };
            Some(Timestamp(before.0.saturating_add(i64::try_from(half).ok()?)))
        });
        let last_chunk = view.last_chunk.map(|chunk| chunk.timestamp);
        match between {
            Some(between) => Some(between).max(last_chunk),
            None => last_chunk.filter(|_| view.flowing),
        }
    }

    /// For how long nobody knows whether the consumer is still caught up.
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

fn last_of(tail: Tail, last_chunk: Option<Seen>) -> Option<Offset> {
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

/// How many offsets lie between the position and the first one retained: how much may still be
/// truncated before something is lost. Negative: so much is lost already.
pub fn headroom(position: Option<Offset>, first: Offset) -> i64 {
    let next = position.map_or(0, |p| i128::from(p.0) + 1);
    i64::try_from(next - i128::from(first.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
