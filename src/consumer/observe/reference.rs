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

    pub(super) fn failed(&self, error: &SourceError) {
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
        let is_known = match watched.standing() {
            Standing::Unknown => None,
            Standing::Stored => Some(1),
            Standing::Nothing | Standing::Evicted => Some(0),
        };
        metrics.stored_offset.show_count(offset(watched.stored()));
        metrics.offset_known.show_count(is_known);
        metrics.lag_messages.show_count(lag.map(|lag| lag.messages));
        metrics.lag_seconds.show(lag.map(|lag| lag.seconds));
        metrics.headroom_messages.show(watched.headroom().map(|headroom| headroom as f64));
        metrics.stream_first_offset.show_count(offset(watched.first()));
        metrics.stream_last_offset.show_count(offset(watched.end()));
        let heard = watched.last_heard().map(|heard| Timestamp(0).seconds_until(heard));
        metrics.last_contact.show(heard);
    }
}

impl Drop for WatchedReference {
    fn drop(&mut self) {
        self.metrics.hide();
    }
}

impl Seen {
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
