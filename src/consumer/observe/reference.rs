//! A reference that another program owns, as others see it: written by the observer of its stream, read by
//! the admin server.

use std::sync::Mutex;

use crate::flow::watched::{Standing, Watched};
use crate::source::{ErrorKind, SourceError};
use crate::sync::lock;
use crate::telemetry::WatchMetrics;
use crate::types::{Offset, Reference, StreamName, Timestamp};

/// A reference on one stream.
pub struct WatchedReference {
    /// The stream.
    pub stream: StreamName,
    /// Name under which its owner stores offsets.
    pub reference: Reference,
    metrics: WatchMetrics,
    inner: Mutex<Seen>,
}

/// What is known of it.
#[derive(Clone, Default)]
pub struct Seen {
    /// By the broker's answers.
    pub watched: Watched,
    /// Why the stream cannot be observed; `None` if it can.
    failure: Option<String>,
    /// Why the stored offset is not told; `None` if it is.
    refusal: Option<String>,
}

impl WatchedReference {
    /// One of which nothing is known yet.
    pub fn new(reference: &Reference, stream: &StreamName) -> WatchedReference {
        WatchedReference {
            stream: stream.clone(),
            reference: reference.clone(),
            metrics: WatchMetrics::new(reference, stream),
            inner: Mutex::default(),
        }
    }

    /// A copy of what is known.
    pub fn seen(&self) -> Seen {
        lock(&self.inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Watched)) {
        let mut seen = lock(&self.inner);
        seen.failure = None;
        change(&mut seen.watched);
    }

    pub(super) fn answered(&self, stored: Option<Offset>, written: Option<Option<Timestamp>>) {
        let mut seen = lock(&self.inner);
        seen.refusal = None;
        seen.watched.answered(stored, written, Timestamp::now());
    }

    pub(super) fn refused(&self, error: &SourceError) {
        lock(&self.inner).refusal = Some(error.to_string());
    }

    /// Records that the stream cannot be observed.
    pub fn failed(&self, error: &SourceError) {
        let mut seen = lock(&self.inner);
        let heard = error.is_an_answer().then(Timestamp::now);
        seen.watched.failed(error.kind() == ErrorKind::Missing, heard);
        seen.failure = Some(error.to_string());
    }

    /// The last offset stored, and the end of the stream.
    pub(super) fn known(&self) -> (Option<Offset>, Option<Offset>) {
        let seen = lock(&self.inner);
        (seen.watched.stored(), seen.watched.end())
    }

    pub(super) fn question(&self) -> Option<Offset> {
        lock(&self.inner).watched.question()
    }

    /// Updates every gauge, all from one snapshot.
    pub fn refresh_gauges(&self) {
        let (seen, now) = (self.seen(), Timestamp::now());
        let (watched, metrics) = (&seen.watched, &self.metrics);
        let offset = |offset: Option<Offset>| offset.map(|offset| offset.0);
        let lag = watched.lag(now);
        metrics.stored_offset.show_count(offset(watched.stored()));
        metrics.offset_known.show_count(seen.is_known());
        metrics.lag_messages.show_count(lag.map(|lag| lag.messages));
        metrics.lag_seconds.show(lag.map(|lag| lag.seconds));
        metrics.headroom_messages.show(watched.headroom().map(|headroom| headroom as f64));
        metrics.stream_first_offset.show_count(offset(watched.first()));
        metrics.stream_last_offset.show_count(offset(watched.end()));
        let heard = watched.last_heard().map(|heard| Timestamp(0).seconds_until(heard));
        metrics.last_contact.show(heard);
    }
}

impl WatchedReference {
    /// Shows no value any more, until they are updated again.
    pub fn hide_gauges(&self) {
        self.metrics.hide();
    }
}

impl Drop for WatchedReference {
    fn drop(&mut self) {
        self.hide_gauges();
    }
}

impl Seen {
    /// 1 if the broker holds an offset of it, 0 if not; `None` if the broker has not said yet. A stream that
    /// is missing or refused is an answer: there is nothing to wait for.
    fn is_known(&self) -> Option<u64> {
        let is_refused = self.failure.is_some() || self.refusal.is_some();
        match self.watched.standing() {
            Standing::Unknown if is_refused => self.watched.last_heard().map(|_| 0),
            Standing::Unknown => None,
            Standing::Stored => Some(1),
            Standing::Nothing | Standing::Evicted => Some(0),
        }
    }

    /// Why there is no lag, or what is worth knowing about it; `None` if all is known.
    pub fn problem(&self) -> Option<String> {
        if let Some(failure) = self.failure.as_ref().or(self.refusal.as_ref()) {
            return Some(failure.clone());
        }
        let words = match self.watched.standing() {
            Standing::Stored => return None,
            Standing::Unknown => "not asked yet",
            Standing::Nothing => {
                "the broker holds no offset of this reference on this stream: its owner has stored none yet, or keeps it elsewhere, or has another name"
            }
            Standing::Evicted => {
                "retention has passed the last offset that its owner stored, and the broker has dropped it: its owner loses messages, or has stopped"
            }
        };
        Some(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: ErrorKind) -> Seen {
        let watched = WatchedReference::new(&Reference::from("r"), &StreamName::from("s"));
        assert_eq!(watched.seen().is_known(), None, "not asked yet");
        watched.failed(&SourceError::new(kind, "x"));
        watched.seen()
    }

    /// Of the two, an alert is raised about the first, and the second is up to another alert.
    #[test]
    fn a_missing_stream_is_an_answer_and_a_broker_that_is_away_is_none() {
        for kind in [ErrorKind::Missing, ErrorKind::Refused] {
            assert_eq!(failed(kind).is_known(), Some(0));
        }
        assert_eq!(failed(ErrorKind::Connection).is_known(), None);
    }
}
