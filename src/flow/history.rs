//! The recent rate of a consumer, and its last hour as points of a chart.
//!
//! Bounded: a few counts, and [`POINTS_MAX`] points of 20 bytes. Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lag::Lag;
use crate::types::Timestamp;

/// Time between two counts.
pub const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Time that the rate is taken over.
pub const RATE_OVER: Duration = Duration::from_secs(10);

/// Shortest time that a rate can be taken over.
const RATE_OVER_MIN: Duration = Duration::from_millis(900);

/// Time between two points.
pub const POINT_EVERY: Duration = Duration::from_secs(30);

/// Most points: an hour.
pub const POINTS_MAX: usize = 120;

/// Messages and bytes received since the consumer was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Messages and bytes received per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Messages per second.
    pub messages: f64,
    /// Bytes per second.
    pub bytes: f64,
}

/// Values at one time; of a value that was not known then, `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistoryPoint {
    /// Time of the lag, and end of the time of the rate.
    pub at: Timestamp,
    /// Messages that were not durable.
    pub lag_messages: Option<f32>,
    /// Age in seconds of the oldest of them.
    pub lag_seconds: Option<f32>,
    /// Messages received per second since the point before.
    pub messages: Option<f32>,
    /// Bytes received per second since the point before.
    pub bytes: Option<f32>,
}

/// A point as it is kept: a value that is not known is NaN.
#[derive(Clone, Copy)]
struct Packed {
    /// Seconds since 1970.
    at: u32,
    values: [f32; 4],
}

/// When points are due: for all consumers at the same times, so that those of several partitions can be added up.
#[derive(Debug, Default)]
pub struct Cadence {
    last: Option<Instant>,
}

impl Cadence {
    /// True if a point is due for all of them: at the first call, and then every [`POINT_EVERY`].
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= POINT_EVERY);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

/// Recent counts and points of one consumer.
#[derive(Default)]
pub struct History {
    /// The counts of the last [`RATE_OVER`], and the one before those.
    recent: VecDeque<(Instant, Counts)>,
    /// The counts at the last point.
    at_point: Option<(Instant, Counts)>,
    points: VecDeque<Packed>,
}

impl History {
    /// Notes the counts, every [`COUNT_EVERY`] or so.
    pub fn count(&mut self, counts: Counts, now: Instant) {
        while self.recent.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, counts));
    }

    /// Adds a point.
    pub fn add(&mut self, counts: Counts, lag: Option<Lag>, now: Instant, wall: Timestamp) {
        let rate = self.at_point.and_then(|(at, before)| rate(before, counts, now - at));
        self.at_point = Some((now, counts));
        if self.points.len() >= POINTS_MAX {
            self.points.pop_front();
        }
        let at = u32::try_from(wall.0 / 1000).unwrap_or(if wall.0 < 0 { 0 } else { u32::MAX });
        #[allow(clippy::cast_possible_truncation)]
        let packed = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        #[allow(clippy::cast_precision_loss)]
        let lag_messages = lag.map(|lag| lag.messages as f64);
        let values = [
            packed(lag_messages),
            packed(lag.map(|lag| lag.seconds)),
            packed(rate.map(|rate| rate.messages)),
            packed(rate.map(|rate| rate.bytes)),
        ];
        self.points.push_back(Packed { at, values });
    }

    /// The rate over the last [`RATE_OVER`] or so; `None` while too little is known.
    pub fn rate(&self, counts: Counts, now: Instant) -> Option<Rate> {
        let (at, before) = self.recent.front()?;
        rate(*before, counts, now.saturating_duration_since(*at))
    }

    /// The points, the oldest first.
    pub fn points(&self) -> impl Iterator<Item = HistoryPoint> {
        let known = |value: f32| Some(value).filter(|value| value.is_finite());
        self.points.iter().map(
            move |Packed { at, values: [lag_messages, lag_seconds, messages, bytes] }| {
                HistoryPoint {
                    at: Timestamp(i64::from(*at) * 1000),
                    lag_messages: known(*lag_messages),
                    lag_seconds: known(*lag_seconds),
                    messages: known(*messages),
                    bytes: known(*bytes),
                }
            },
        )
    }
}

#[allow(clippy::cast_precision_loss)]
fn rate(before: Counts, now: Counts, over: Duration) -> Option<Rate> {
    let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / over.as_secs_f64();
    (over >= RATE_OVER_MIN).then(|| Rate {
        messages: per_second(before.messages, now.messages),
        bytes: per_second(before.bytes, now.bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(messages: u64) -> Counts {
        Counts { messages, bytes: messages * 100 }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(history.rate(counts(5), start), None);
        history.count(counts(0), start);
        assert_eq!(history.rate(counts(5), at(0.1)), None, "too short to say");
        assert_eq!(history.rate(counts(50), at(1.0)).map(|rate| rate.messages), Some(50.0));
        // 100 per second for a minute, then nothing.
        for tick in 1..=30_u64 {
            history.count(counts(tick * 200), at(tick as f64 * 2.0));
        }
        let rate = history.rate(counts(6000), at(60.0)).unwrap();
        assert_eq!((rate.messages, rate.bytes), (100.0, 10_000.0));
        assert!(history.recent.len() <= 7, "{} counts", history.recent.len());
        for tick in 31..=36_u64 {
            history.count(counts(6000), at(tick as f64 * 2.0));
        }
        assert_eq!(history.rate(counts(6000), at(73.0)).unwrap().messages, 0.0);
    }

    #[test]
    fn an_hour_is_kept_and_what_was_not_known_is_not_0() {
        let (mut history, start) = (History::default(), Instant::now());
        let (mut pace, mut due, mut added) = (Cadence::default(), Vec::new(), 0);
        for tick in 0..=1900_u32 {
            let (now, now_counts) = (start + tick * COUNT_EVERY, counts(u64::from(tick) * 20));
            history.count(now_counts, now);
            if pace.is_due(now) {
                due.push(tick);
                let known = added % 2 == 1;
                let lag = known.then_some(Lag { messages: added, seconds: 0.5 });
                let wall = Timestamp(1_700_000_000_000 + i64::from(tick) * 2000);
                history.add(now_counts, lag, now, wall);
                added += 1;
            }
        }
        assert_eq!(due[..4], [0, 15, 30, 45]);
        let points: Vec<HistoryPoint> = history.points().collect();
        assert_eq!((points.len(), added), (POINTS_MAX, 127));
        let (first, last) = (points[0], points[POINTS_MAX - 1]);
        assert_eq!(last.at.0 - first.at.0, 119 * 30_000);
        assert_eq!((last.lag_messages, last.messages), (None, Some(10.0)));
        assert_eq!((first.lag_messages, first.lag_seconds), (Some(7.0), Some(0.5)));
        assert_eq!(std::mem::size_of::<Packed>(), 20);
        // The first point of all has no rate: nothing is known of the time before it.
        let mut fresh = History::default();
        fresh.add(counts(5), None, start, Timestamp(0));
        assert_eq!(fresh.points().next().unwrap().messages, None);
    }

    #[test]
    fn a_history_that_begins_later_has_its_points_at_the_times_of_the_others() {
        let (mut pace, start) = (Cadence::default(), Instant::now());
        let (mut old, mut new) = (History::default(), History::default());
        for tick in 0..60_u32 {
            let (now, wall) = (start + tick * COUNT_EVERY, Timestamp(i64::from(tick) * 2000));
            if pace.is_due(now) {
                old.add(counts(0), None, now, wall);
                // Added 10 s after the others.
                if tick >= 5 {
                    new.add(counts(0), None, now, wall);
                }
            }
        }
        let times =
            |history: &History| history.points().map(|point| point.at.0).collect::<Vec<_>>();
        assert_eq!(times(&old), [0, 30_000, 60_000, 90_000]);
        assert_eq!(times(&new), times(&old)[1..]);
    }
}
