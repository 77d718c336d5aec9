//! Which consumers are paused: whole ones, with the partitions that appear later, or single streams.
//!
//! Kept apart from the plans: a pause outlives a changed plan, and partitions that come and go.

use std::collections::{HashMap, HashSet};

use crate::types::{ConsumerKey, ConsumerName, StreamName};

/// The pauses of all consumers.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashMap<ConsumerName, Pause>);

/// The pause of one consumer.
#[derive(Debug, Default)]
struct Pause {
    /// True if all of its streams are paused, also those that appear later.
    whole: bool,
    /// Streams of which the opposite is true.
    except: HashSet<StreamName>,
}

impl Pauses {
    /// Pauses or resumes all streams of a consumer, those that appear later included.
    pub(super) fn set_all(&mut self, consumer: &ConsumerName, paused: bool) {
        match paused {
            true => {
                let whole = Pause { whole: true, except: HashSet::new() };
                self.0.insert(consumer.clone(), whole);
            }
            false => drop(self.0.remove(consumer)),
        }
    }

    /// Pauses or resumes one stream of a consumer.
    pub(super) fn set(&mut self, key: &ConsumerKey, paused: bool) {
        let pause = self.0.entry(key.consumer.clone()).or_default();
        match paused == pause.whole {
            true => drop(pause.except.remove(&key.stream)),
            false => drop(pause.except.insert(key.stream.clone())),
        }
        if !pause.whole && pause.except.is_empty() {
            self.0.remove(&key.consumer);
        }
    }

    /// Whether this stream of the consumer is paused.
    pub(super) fn has(&self, key: &ConsumerKey) -> bool {
        let pause = self.0.get(&key.consumer);
        pause.is_some_and(|pause| pause.whole != pause.except.contains(&key.stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stream: &str) -> ConsumerKey {
        ConsumerKey { consumer: "c".into(), stream: stream.into() }
    }

    #[test]
    fn whole_consumers_and_single_streams() {
        let mut pauses = Pauses::default();
        let consumer: ConsumerName = "c".into();
        let shown = |pauses: &Pauses| {
            ["a", "b", "later"].map(|stream| if pauses.has(&key(stream)) { 'p' } else { '-' })
        };
        assert_eq!(shown(&pauses), ['-', '-', '-']);
        pauses.set(&key("a"), true);
        assert_eq!(shown(&pauses), ['p', '-', '-']);
        pauses.set_all(&consumer, true);
        assert_eq!(shown(&pauses), ['p', 'p', 'p']);
        pauses.set(&key("b"), false);
        assert_eq!(shown(&pauses), ['p', '-', 'p'], "the rest stays paused, also what comes later");
        pauses.set(&key("b"), true);
        assert_eq!(shown(&pauses), ['p', 'p', 'p']);
        pauses.set(&key("a"), false);
        pauses.set_all(&consumer, true);
        assert_eq!(shown(&pauses), ['p', 'p', 'p'], "all means all");
        pauses.set(&key("a"), false);
        pauses.set_all(&consumer, false);
        assert_eq!((shown(&pauses), pauses.0.len()), (['-', '-', '-'], 0));
        pauses.set(&key("a"), true);
        pauses.set(&key("a"), false);
        assert_eq!((shown(&pauses), pauses.0.len()), (['-', '-', '-'], 0));
        assert!(!pauses.has(&ConsumerKey { consumer: "d".into(), stream: "a".into() }));
    }
}
