//! Detects loops that are stuck.
//!
//! Each long-lived loop holds a [`Pulse`] and touches it once per iteration. A loop that is silent
//! for longer than it declared is stuck. systemd's watchdog and `/livez` use the same registry, so
//! they always agree.
//!
//! Invariants: a dropped pulse (its loop ended, or panicked) is no longer checked; the supervisor
//! handles consumers that are down. A loop that may wait for an hour (for a sink) must not hold a
//! pulse; the loop beside it that serves the socket does.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync::lock;
use crate::types::ConsumerKey;

/// The registry of loops; clones share it.
#[derive(Clone)]
pub struct Heartbeats {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Instant,
    beats: Mutex<Vec<Arc<Beat>>>,
}

struct Beat {
    name: String,
    /// Addition to the name if several loops have the same one.
    detail: String,
    allowed_silence: Duration,
    /// Milliseconds from the registry's origin to the last touch.
    touched_ms: AtomicU64,
}

/// A loop that has been silent for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Name of the loop.
    pub name: String,
    /// Time since its last touch.
    pub silence: Duration,
    /// Longest time that it declared.
    pub allowed_silence: Duration,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stuck { name, silence, allowed_silence } = self;
        write!(
            f,
            "the loop \"{name}\" made no progress for {:.1} s (allowed: {:.1} s)",
            silence.as_secs_f64(),
            allowed_silence.as_secs_f64()
        )
    }
}

impl Default for Heartbeats {
    fn default() -> Self {
        Heartbeats::new()
    }
}

impl Heartbeats {
    /// An empty registry.
    pub fn new() -> Heartbeats {
        Heartbeats {
            shared: Arc::new(Shared { origin: Instant::now(), beats: Mutex::new(Vec::new()) }),
        }
    }

    /// A pulse for the loop of this name, touched now. A loop that waits in a `select!` needs a
    /// tick well below `allowed_silence`.
    pub fn register(&self, name: impl Into<String>, allowed_silence: Duration) -> Pulse {
        self.add(name.into(), String::new(), allowed_silence)
    }

    /// A pulse for the loop of this consumer. The stream is named if the consumer has several.
    pub fn register_consumer(&self, key: &ConsumerKey, allowed_silence: Duration) -> Pulse {
        let detail = format!(" on stream {}", key.stream);
        self.add(format!("consumer {}", key.consumer), detail, allowed_silence)
    }

    fn add(&self, name: String, detail: String, allowed_silence: Duration) -> Pulse {
        let touched_ms = AtomicU64::new(0);
        let beat = Arc::new(Beat { name, detail, allowed_silence, touched_ms });
        let pulse = Pulse { beat: Arc::clone(&beat), shared: Arc::clone(&self.shared) };
        pulse.touch();
        self.shared.beats().push(beat);
        pulse
    }

    /// The loops that have been silent for longer than allowed at `now`.
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let now_ms = self.shared.since_origin(now);
        let mut stuck = Vec::new();
        let beats = self.shared.beats();
        for beat in beats.iter() {
            let silent_ms = now_ms.saturating_sub(beat.touched_ms.load(Ordering::Relaxed));
            let silence = Duration::from_millis(silent_ms);
            if silence > beat.allowed_silence {
                let same = beats.iter().filter(|other| other.name == beat.name).count();
                let detail = if same > 1 { beat.detail.as_str() } else { "" };
                stuck.push(Stuck {
                    name: format!("{}{detail}", beat.name),
                    silence,
                    allowed_silence: beat.allowed_silence,
                });
            }
        }
        stuck
    }

    /// `Ok` while every loop makes progress, else a sentence that names the stuck ones: the answer
    /// of `/livez`.
    pub fn check(&self, now: Instant) -> Result<(), String> {
        let stuck: Vec<String> = self.stuck(now).iter().map(Stuck::to_string).collect();
        if stuck.is_empty() { Ok(()) } else { Err(stuck.join("; ")) }
    }
}

impl Shared {
    fn beats(&self) -> MutexGuard<'_, Vec<Arc<Beat>>> {
        lock(&self.beats)
    }

    fn since_origin(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Registration of a loop. Dropping it removes the loop.
pub struct Pulse {
    beat: Arc<Beat>,
    shared: Arc<Shared>,
}

impl Pulse {
    /// Records an iteration of the loop now. Costs a clock reading and one atomic store.
    pub fn touch(&self) {
        self.touch_at(Instant::now());
    }

    /// Records an iteration of the loop at `now`.
    pub fn touch_at(&self, now: Instant) {
        self.beat.touched_ms.store(self.shared.since_origin(now), Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.beats().retain(|beat| !Arc::ptr_eq(beat, &self.beat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn only_silence_beyond_the_allowed_is_stuck() {
        let beats = Heartbeats::new();
        let start = Instant::now();
        let fast = beats.register("fast", 2 * S);
        let slow = beats.register("slow", 60 * S);
        // (seconds of the last touch of fast and slow, asked at, stuck)
        let table: &[(u32, u32, u32, &[&str])] = &[
            (0, 0, 0, &[]),
            (0, 0, 2, &[]),
            (0, 0, 3, &["fast"]),
            (2, 0, 4, &[]),
            (0, 0, 61, &["fast", "slow"]),
            (60, 0, 61, &["slow"]),
            (61, 61, 61, &[]),
            (70, 70, 61, &[]), // A touch between the clock's reading and the question.
        ];
        for (row, (f, s, at, expected)) in table.iter().enumerate() {
            fast.touch_at(start + *f * S);
            slow.touch_at(start + *s * S);
            let stuck = beats.stuck(start + *at * S);
            let names: Vec<&str> = stuck.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(&names, expected, "row {row}");
            assert_eq!(beats.check(start + *at * S).is_ok(), expected.is_empty(), "row {row}");
        }
    }

    #[test]
    fn a_dropped_pulse_is_not_asked_and_takes_no_other_with_it() {
        let beats = Heartbeats::new();
        let one = beats.register("same name", S);
        let other = beats.register("same name", S);
        let late = Instant::now() + 5 * S;
        assert_eq!(beats.stuck(late).len(), 2);
        drop(one);
        assert_eq!(beats.stuck(late).len(), 1);
        drop(other);
        assert_eq!(beats.check(late), Ok(()));
    }

    #[test]
    fn several_streams_of_one_consumer_are_told_apart() {
        let beats = Heartbeats::new();
        let key = |stream: &str| ConsumerKey { consumer: "a".into(), stream: stream.into() };
        let names = || -> Vec<String> {
            beats.stuck(Instant::now() + 5 * S).into_iter().map(|stuck| stuck.name).collect()
        };
        let _one = beats.register_consumer(&key("one"), S);
        assert_eq!(names(), ["consumer a"]);
        let two = beats.register_consumer(&key("two"), S);
        assert_eq!(names(), ["consumer a on stream one", "consumer a on stream two"]);
        drop(two);
        assert_eq!(names(), ["consumer a"]);
    }

    #[test]
    fn a_panic_drops_the_pulse() {
        let beats = Heartbeats::new();
        let inner = beats.clone();
        let thread = std::thread::spawn(move || {
            let _pulse = inner.register("doomed", S);
            panic!("as the test wants");
        });
        assert!(thread.join().is_err());
        assert_eq!(beats.stuck(Instant::now() + 9 * S), []);
    }

    #[test]
    fn the_sentence_names_the_loop_and_both_times() {
        let beats = Heartbeats::new();
        let start = Instant::now();
        let pulse = beats.register("consumer archiver", 2 * S);
        pulse.touch_at(start);
        let text = beats.check(start + 10 * S).unwrap_err();
        assert!(text.contains("consumer archiver") && text.contains("allowed: 2.0 s"), "{text}");
    }
}
