//! How far behind a consumer is: in messages, in seconds, and how much retention may still drop.
//!
//! `lag = max(0, tail − position)` is an upper bound, since the broker's tracking chunks take
//! offsets too: storing an offset on an idle stream moves the tail past the position for ever. So
//! where everything received is durable, credit is there, and nothing came for [`SETTLE`] although
//! the tail is past the position, the consumer *is* caught up and the lag is 0.

use std::time::{Duration, Instant};

use crate::types::{Offset, Timestamp};

/// How long nothing may come, with credit there, before a tail past the position is taken for the
/// broker's own chunks.
pub const SETTLE: Duration = Duration::from_secs(2);

/// The same before anything was received at all: the first chunk may take longer.
pub const SETTLE_FIRST: Duration = Duration::from_secs(15);

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

/// What is known of a consumer at one instant.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The last durable offset; before there is one, the offset before the first wanted.
    /// `None` stands for "before offset 0".
    pub position: Option<Offset>,
    /// The last chunk received: its first offset and number of records.
    pub last_chunk: Option<(Offset, u32)>,
    /// The last offset received.
    pub received: Option<Offset>,
    /// Whether the broker may send (a subscription with credit left).
    pub credit: bool,
    /// When the last chunk came, or the subscription began.
    pub quiet_since: Option<Instant>,
    /// When the oldest chunk that is not durable was written, where it is known.
    pub oldest: Option<Timestamp>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Messages not yet durable, at the most.
    pub messages: u64,
    /// The age of the oldest one; 0 where there is none.
    pub seconds: f64,
}

/// Follows one consumer's lag from one look at the stream to the next.
#[derive(Debug, Default)]
pub struct Watch {
    tail: Option<(Tail, Instant)>,
    caught_up: Option<Timestamp>,
}

impl Watch {
    /// Takes a look at the stream's end, made at `now`/`wall`, and says how far behind `view` is.
    pub fn look(&mut self, view: &View, tail: Tail, now: Instant, wall: Timestamp) -> Lag {
        let moved = match self.tail {
            Some((known, since)) if known == tail => since,
            _ => now,
        };
        self.tail = Some((tail, moved));

        let messages = if quiet(view, moved, now) { 0 } else { behind(view, tail) };
        if messages == 0 {
            self.caught_up = Some(wall);
            return Lag { messages: 0, seconds: 0.0 };
        }
        // A chunk that has not come yet was written after the consumer was last caught up.
        let oldest = view.oldest.or(self.caught_up);
        Lag { messages, seconds: oldest.map_or(0.0, |oldest| oldest.seconds_until(wall)) }
    }
}

fn quiet(view: &View, tail_moved: Instant, now: Instant) -> bool {
    let all_durable = view.received.is_none_or(|r| view.position.is_some_and(|p| p >= r));
    let since = view.quiet_since.map(|quiet| quiet.max(tail_moved));
    let settle = if view.received.is_some() { SETTLE } else { SETTLE_FIRST };
    all_durable && view.credit && since.is_some_and(|since| now >= since + settle)
}

fn behind(view: &View, tail: Tail) -> u64 {
    let last = match tail {
        Tail::Empty => return 0,
        Tail::Offset(last) => last,
        Tail::Chunk(id) => match view.last_chunk {
            Some((first, records)) if first == id => {
                Offset(id.0 + u64::from(records.saturating_sub(1)))
            }
            _ => id,
        },
    };
    let last = view.received.map_or(last, |received| received.max(last));
    match view.position {
        Some(position) => last.0.saturating_sub(position.0),
        None => last.0.saturating_add(1),
    }
}

/// How many offsets lie between the position and the first one retained: how much may still be
/// truncated before something is lost. Negative: so much is lost already.
pub fn headroom(position: Option<Offset>, first: Offset) -> i64 {
    let next = position.map_or(0, |p| i128::from(p.0) + 1);
    i64::try_from(next - i128::from(first.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(position: Option<u64>) -> View {
        View {
            position: position.map(Offset),
            last_chunk: None,
            received: position.map(Offset),
            credit: true,
            quiet_since: None,
            oldest: None,
        }
    }

    fn messages(view: &View, tail: Tail) -> u64 {
        Watch::default().look(view, tail, Instant::now(), Timestamp(0)).messages
    }

    #[test]
    fn the_difference_to_the_tail() {
        assert_eq!(messages(&view(Some(10)), Tail::Offset(Offset(10))), 0);
        assert_eq!(messages(&view(Some(10)), Tail::Offset(Offset(25))), 15);
        assert_eq!(messages(&view(None), Tail::Offset(Offset(24))), 25);
        assert_eq!(messages(&view(None), Tail::Empty), 0);
        assert_eq!(messages(&view(Some(30)), Tail::Offset(Offset(25))), 0, "never negative");
    }

    #[test]
    fn a_chunk_id_is_exact_for_a_chunk_received_and_a_lower_bound_otherwise() {
        let seen = View { last_chunk: Some((Offset(100), 50)), ..view(Some(120)) };
        assert_eq!(messages(&seen, Tail::Chunk(Offset(100))), 29);
        assert_eq!(messages(&seen, Tail::Chunk(Offset(200))), 80);
        let buffered = View { received: Some(Offset(149)), ..seen };
        assert_eq!(messages(&buffered, Tail::Chunk(Offset(50))), 29, "a stale tail");
    }

    #[test]
    fn tracking_chunks_on_an_idle_stream_are_no_lag() {
        let t0 = Instant::now();
        let mut watch = Watch::default();
        let view = View { quiet_since: Some(t0), ..view(Some(10)) };
        let tail = Tail::Offset(Offset(11));
        assert_eq!(watch.look(&view, tail, t0, Timestamp(0)).messages, 1);
        let later = t0 + SETTLE;
        assert_eq!(watch.look(&view, tail, later, Timestamp(0)).messages, 0);
        // Without credit, or with something not durable, the same silence proves nothing.
        let stuck = View { credit: false, ..view };
        assert_eq!(watch.look(&stuck, tail, later, Timestamp(0)).messages, 1);
        let held = View { received: Some(Offset(11)), ..view };
        assert_eq!(watch.look(&held, tail, later, Timestamp(0)).messages, 1);
        // A tail that just moved may be a record under way.
        let moved = Tail::Offset(Offset(12));
        assert_eq!(watch.look(&view, moved, later, Timestamp(0)).messages, 2);
    }

    #[test]
    fn seconds_are_the_age_of_the_oldest_and_never_negative() {
        let now = Instant::now();
        let mut watch = Watch::default();
        let held = View { oldest: Some(Timestamp(1_000)), ..view(Some(1)) };
        let tail = Tail::Offset(Offset(9));
        assert_eq!(watch.look(&held, tail, now, Timestamp(3_500)).seconds, 2.5);
        assert_eq!(watch.look(&held, tail, now, Timestamp(500)).seconds, 0.0);
        // Caught up at 4 s; a chunk that has not come yet cannot be older than that.
        watch.look(&view(Some(9)), tail, now, Timestamp(4_000));
        let coming = Tail::Offset(Offset(10));
        assert_eq!(watch.look(&view(Some(9)), coming, now, Timestamp(5_000)).seconds, 1.0);
    }

    #[test]
    fn headroom_counts_down_to_loss() {
        assert_eq!(headroom(Some(Offset(99)), Offset(0)), 100);
        assert_eq!(headroom(Some(Offset(99)), Offset(100)), 0);
        assert_eq!(headroom(Some(Offset(99)), Offset(150)), -50);
        assert_eq!(headroom(None, Offset(0)), 0);
    }
}
