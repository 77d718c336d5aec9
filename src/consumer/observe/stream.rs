//! Observes one stream repeatedly, for all consumers that read it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::super::spec::Spec;
use super::super::status::Status;
use super::lock;
use crate::flow::backoff::Backoff;
use crate::flow::resume::Start;
use crate::source::SourceError;
use crate::source::stream::{StreamLookout, StreamView};
use crate::telemetry::State;
use crate::types::{Offset, Reference, StreamName, Timestamp};

/// Interval of observations if the broker reports statistics.
const EVERY: Duration = Duration::from_secs(1);

/// Interval if chunks have to be read instead (before 3.11).
const EVERY_BY_READING: Duration = Duration::from_secs(5);

/// Shortest wait after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Most simultaneous questions of single consumers, each of which may read a chunk.
const QUESTIONS_MAX: usize = 16;

/// The consumers that read one stream.
#[derive(Default)]
pub(super) struct Watchers(Mutex<Vec<Watcher>>);

#[derive(Clone)]
struct Watcher {
    spec: Arc<Spec>,
    status: Arc<Status>,
}

impl Watchers {
    pub(super) fn add(&self, spec: &Arc<Spec>, status: &Arc<Status>) {
        lock(&self.0).push(Watcher { spec: Arc::clone(spec), status: Arc::clone(status) });
    }

    /// Removes one consumer; returns true if it was the last.
    pub(super) fn remove(&self, status: &Arc<Status>) -> bool {
        let mut all = lock(&self.0);
        all.retain(|watcher| !Arc::ptr_eq(&watcher.status, status));
        all.is_empty()
    }

    fn all(&self) -> Vec<Watcher> {
        lock(&self.0).clone()
    }
}

/// A question beyond the first offset and the end of the stream.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Question {
    /// Time at which the first message from this offset on was written, if there is one.
    Written(Offset),
    /// The offset stored under this reference.
    Stored(Reference),
}

enum Answer {
    Written(Offset, Option<Timestamp>),
    Stored(Reference, Option<Offset>),
}

type Asking = BoxFuture<'static, (Question, Result<Answer, SourceError>)>;

/// The task of one stream. Nothing of the stream is kept in the lookout once this is gone.
pub(super) struct Looking {
    lookout: Arc<StreamLookout>,
    stream: StreamName,
    watchers: Arc<Watchers>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.lookout.forget(&self.stream);
    }
}

impl Looking {
    pub(super) fn new(
        lookout: &Arc<StreamLookout>,
        stream: &StreamName,
        watchers: &Arc<Watchers>,
    ) -> Looking {
        let (lookout, watchers) = (Arc::clone(lookout), Arc::clone(watchers));
        Looking { lookout, stream: stream.clone(), watchers }
    }

    /// Observes indefinitely; ends when its task is dropped.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let error = self.until_it_fails(&mut backoff).await;
            let is_an_answer = error.is_an_answer();
            let wait = backoff.next(fastrand::f64());
            for Watcher { spec, status } in self.watchers.all() {
                status.update(|facts| {
                    facts.watch.failed();
                    if is_an_answer {
                        facts.watch.heard(Timestamp::now());
                    }
                });
                tracing::debug!(consumer = %spec.name, stream = %spec.stream, %error, wait_ms = wait.as_millis(), "cannot observe the stream's end");
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn until_it_fails(&self, backoff: &mut Backoff) -> SourceError {
        let view = match self.lookout.member(&self.stream).await {
            Ok(view) => view,
            Err(error) => return error,
        };
        let error = match self.look_on(&view, backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        self.lookout.failed(&self.stream, &error);
        error
    }

    async fn look_on(
        &self,
        view: &StreamView,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, SourceError> {
        // Reading takes longer: a stream counts as empty if no chunk arrives for a while.
        let (every, within) = match view.is_cheap() {
            true => (EVERY, EVERY),
            false => (EVERY_BY_READING, EVERY_BY_READING * 2),
        };
        let mut asked = HashSet::new();
        let mut asking: FuturesUnordered<Asking> = FuturesUnordered::new();
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    self.look(view, within).await?;
                    backoff.reset();
                    for question in self.questions() {
                        if asking.len() < QUESTIONS_MAX && asked.insert(question.clone()) {
                            asking.push(self.ask(view, question));
                        }
                    }
                    next = tokio::time::Instant::now() + every;
                }
                Some((question, answer)) = asking.next() => {
                    asked.remove(&question);
                    // A failed question is asked again after the next observation, and does not end
                    // the others.
                    if let Ok(answer) = answer {
                        self.take(answer);
                    }
                }
                error = view.ended() => return Err(error),
            }
        }
    }

    /// Observes once; the next observation is due `within` this time.
    async fn look(&self, view: &StreamView, within: Duration) -> Result<(), SourceError> {
        let bounds = view.bounds().await?;
        for watcher in self.watchers.all() {
            watcher.status.update(|facts| {
                facts.bounds = Some(bounds);
                facts.watch.looked(bounds.tail, Instant::now(), Timestamp::now(), within);
            });
        }
        Ok(())
    }

    /// Questions of the consumers beyond that.
    fn questions(&self) -> impl Iterator<Item = Question> {
        self.watchers.all().into_iter().filter_map(|Watcher { spec, status }| {
            let facts = status.facts();
            match facts.positioned {
                true => facts.watch.question(&facts.view()).map(Question::Written),
                // A sink that cannot be opened, or is not to be opened, does not report its position.
                // Until it does, the stored offset is used, which is never beyond it.
                false => matches!(
                    facts.state,
                    State::Backoff | State::Halted | State::Paused | State::Stopped
                )
                .then(|| Question::Stored(spec.reference.clone())),
            }
        })
    }

    fn ask(&self, view: &StreamView, question: Question) -> Asking {
        let view = view.clone();
        Box::pin(async move {
            let answer = match &question {
                Question::Written(from) => {
                    let chunk = view.chunk_at(Start::Offset(*from)).await;
                    chunk.map(|chunk| {
                        let chunk = chunk.filter(|c| c.next_offset() > *from);
                        Answer::Written(*from, chunk.map(|c| c.header.timestamp))
                    })
                }
                // Without an answer it stays unknown, and is asked again at the next observation.
                Question::Stored(reference) => {
                    let stored = view.stored(reference).await;
                    Ok(Answer::Stored(reference.clone(), stored.unwrap_or(None)))
                }
            };
            (question, answer)
        })
    }

    fn take(&self, answer: Answer) {
        for Watcher { spec, status } in self.watchers.all() {
            match &answer {
                Answer::Written(from, written) => status.update(|facts| {
                    let view = facts.view();
                    if facts.positioned && view.position.map_or(Offset(0), Offset::next) == *from {
                        facts.watch.answered(&view, *written, Timestamp::now());
                    }
                }),
                Answer::Stored(reference, stored) if *reference == spec.reference => {
                    status.update(|facts| {
                        if let (false, Some(stored)) = (facts.positioned, stored) {
                            facts.position = Some(*stored);
                            facts.positioned = true;
                            facts.stored = Some(*stored);
                        }
                    });
                }
                Answer::Stored(..) => {}
            }
        }
    }
}
