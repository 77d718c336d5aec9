//! Observes one stream repeatedly, for all consumers that read it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::super::spec::Spec;
use super::super::status::Status;
use super::{WatchedReference, Who, lock};
use crate::flow::backoff::Backoff;
use crate::flow::lag::Tail;
use crate::flow::resume::Start;
use crate::flow::watched::Ends;
use crate::source::lookout::{StreamLookout, StreamView};
use crate::source::{ErrorKind, SourceError};
use crate::telemetry::State;
use crate::types::{Offset, Reference, StreamName, Timestamp};
use crate::wire::chunk::ProbedChunk;

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

/// The consumers that read one stream, and the references of others on it.
#[derive(Default)]
pub(super) struct Watchers {
    consumers: Mutex<Vec<Watcher>>,
    references: Mutex<Vec<Arc<WatchedReference>>>,
}

#[derive(Clone)]
struct Watcher {
    spec: Arc<Spec>,
    status: Arc<Status>,
}

impl Watchers {
    pub(super) fn add(&self, spec: &Arc<Spec>, status: &Arc<Status>) {
        lock(&self.consumers).push(Watcher { spec: Arc::clone(spec), status: Arc::clone(status) });
    }

    pub(super) fn add_reference(&self, reference: &Arc<WatchedReference>) {
        lock(&self.references).push(Arc::clone(reference));
    }

    /// Removes one; returns true if it was the last.
    pub(super) fn remove(&self, who: &Who) -> bool {
        match who {
            Who::Consumer(status) => {
                lock(&self.consumers).retain(|watcher| !Arc::ptr_eq(&watcher.status, status));
            }
            Who::Reference(reference) => {
                lock(&self.references).retain(|other| !Arc::ptr_eq(other, reference));
            }
        }
        lock(&self.consumers).is_empty() && lock(&self.references).is_empty()
    }

    fn all(&self) -> Vec<Watcher> {
        lock(&self.consumers).clone()
    }

    fn references(&self) -> Vec<Arc<WatchedReference>> {
        lock(&self.references).clone()
    }
}

/// A question beyond the first offset and the end of the stream.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Question {
    /// Time at which the first message from this offset on was written, if there is one.
    Written(Offset),
    /// The offset stored under this reference.
    Stored(Reference),
    /// The same for a reference of others; and when the first message after it was written, if it is not
    /// `known` and not the end.
    Others(Reference),
    /// The last message, while the stream's end is this.
    End(Tail),
}

enum Answer {
    Written(Offset, Written),
    Stored(Reference, Option<Offset>),
    Others(Reference, Option<Offset>, Option<Written>),
    End(Tail, Option<Offset>),
}

/// When the first message from an offset on was written.
#[derive(Clone, Copy)]
enum Written {
    At(Timestamp),
    /// There is none: the stream's last message is before it.
    Nothing,
    /// No message came in time, and not the stream's last one either. So it looks where there is none, and
    /// also where the broker is slow.
    Silence,
}

impl Written {
    /// `None` if silence counts for nothing.
    fn proven(self) -> Option<Option<Timestamp>> {
        match self {
            Written::At(time) => Some(Some(time)),
            Written::Nothing => Some(None),
            Written::Silence => None,
        }
    }

    fn time(self) -> Option<Timestamp> {
        self.proven().flatten()
    }
}

type Asking = BoxFuture<'static, (Question, Result<Answer, SourceError>)>;

/// The task of one stream. Nothing of the stream is kept in the lookout once this is gone.
pub(super) struct Looking {
    lookout: Arc<StreamLookout>,
    stream: StreamName,
    watchers: Arc<Watchers>,
    ends: Mutex<Ends>,
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
        Looking { lookout, stream: stream.clone(), watchers, ends: Mutex::default() }
    }

    /// Observes indefinitely; ends when its task is dropped.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let error = self.until_it_fails(&mut backoff).await;
            let is_an_answer = error.is_an_answer();
            let wait = backoff.next(fastrand::f64());
            *lock(&self.ends) = Ends::default();
            for Watcher { spec, status } in self.watchers.all() {
                status.update(|facts| {
                    facts.watch.failed();
                    if is_an_answer {
                        facts.watch.heard(Timestamp::now());
                    }
                });
                tracing::debug!(consumer = %spec.name, stream = %spec.stream, %error, wait_ms = wait.as_millis(), "cannot observe the stream's end");
            }
            for reference in self.watchers.references() {
                reference.failed(&error);
                tracing::debug!(reference = %reference.reference, stream = %reference.stream, %error, wait_ms = wait.as_millis(), "cannot observe the stream's end");
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
        // Those that wait, and those under way.
        let mut asked = HashSet::new();
        let mut waiting = VecDeque::new();
        let mut asking: FuturesUnordered<Asking> = FuturesUnordered::new();
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let unclear = self.look(view, within).await?;
                    backoff.reset();
                    for question in self.questions().chain(unclear) {
                        if asked.insert(question.clone()) {
                            waiting.push_back(question);
                        }
                    }
                    next = tokio::time::Instant::now() + every;
                }
                Some((question, answer)) = asking.next() => {
                    asked.remove(&question);
                    // A failed question is asked again after the next observation, and does not end
                    // the others.
                    match answer {
                        Ok(answer) => self.take(answer),
                        Err(error) => self.not_told(&question, &error),
                    }
                }
                error = view.ended() => return Err(error),
            }
            while asking.len() < QUESTIONS_MAX
                && let Some(question) = waiting.pop_front()
            {
                asking.push(self.ask(view, question));
            }
        }
    }

    /// Observes once; the next observation is due `within` this time. Returns what is to be asked to know
    /// the end better.
    async fn look(
        &self,
        view: &StreamView,
        within: Duration,
    ) -> Result<Option<Question>, SourceError> {
        let bounds = view.bounds().await?;
        let references = self.watchers.references();
        let (tail, is_unclear) = match view.is_cheap() && !references.is_empty() {
            true => lock(&self.ends).looked(bounds.tail),
            // The last message was read.
            false => (bounds.tail, false),
        };
        for reference in references {
            let (at, wall) = (Instant::now(), Timestamp::now());
            reference.update(|watched| watched.looked(bounds.first, tail, at, wall, within));
        }
        for watcher in self.watchers.all() {
            watcher.status.update(|facts| {
                facts.bounds = Some(bounds);
                facts.watch.looked(bounds.tail, Instant::now(), Timestamp::now(), within);
            });
        }
        Ok(is_unclear.then_some(Question::End(bounds.tail)))
    }

    /// Questions of the consumers and about the references beyond that.
    fn questions(&self) -> impl Iterator<Item = Question> {
        let of_references = self.watchers.references().into_iter().flat_map(|reference| {
            let written = reference.question().map(Question::Written);
            [Some(Question::Others(reference.reference.clone())), written].into_iter().flatten()
        });
        let of_consumers =
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
            });
        of_consumers.chain(of_references)
    }

    /// The last offset known to be stored under a reference of others, and the end of the stream.
    fn known(&self, of: &Question) -> (Option<Offset>, Option<Offset>) {
        let Question::Others(name) = of else { return (None, None) };
        let references = self.watchers.references();
        let named = references.iter().find(|reference| reference.reference == *name);
        named.map_or((None, None), |reference| reference.known())
    }

    fn ask(&self, view: &StreamView, question: Question) -> Asking {
        let (view, known) = (view.clone(), self.known(&question));
        Box::pin(async move {
            let answer = match &question {
                Question::Written(from) => {
                    let written = written_at(&view, *from).await;
                    written.map(|written| Answer::Written(*from, written))
                }
                Question::Others(reference) => match view.stored(reference).await {
                    // A failure is not "nothing stored".
                    Err(error) => Err(error),
                    Ok(stored) => {
                        let written = match stored {
                            Some(offset) if known.0 != stored && known.1 > stored => {
                                written_at(&view, offset.next()).await.ok()
                            }
                            _ => None,
                        };
                        Ok(Answer::Others(reference.clone(), stored, written))
                    }
                },
                Question::End(tail) => match view.chunk_at(Start::Last).await {
                    Err(error) => Err(error),
                    Ok(Some(chunk)) if !chunk.sound => {
                        // How many messages a damaged chunk has is not known.
                        Ok(Answer::End(*tail, tail.at_least()))
                    }
                    Ok(chunk) => Ok(Answer::End(*tail, chunk.and_then(|c| c.next_offset().prev()))),
                },
                // Without an answer it stays unknown, and is asked again at the next observation.
                Question::Stored(reference) => {
                    let stored = view.stored(reference).await;
                    Ok(Answer::Stored(reference.clone(), stored.unwrap_or(None)))
                }
            };
            (question, answer)
        })
    }

    fn not_told(&self, question: &Question, error: &SourceError) {
        let Question::Others(name) = question else { return };
        let references = self.watchers.references().into_iter();
        references.filter(|r| r.reference == *name).for_each(|r| r.refused(error));
    }

    fn take(&self, answer: Answer) {
        if let Answer::End(tail, last) = answer {
            return lock(&self.ends).resolve(tail, last);
        }
        for reference in self.watchers.references() {
            match &answer {
                Answer::Written(from, written) => {
                    // Its owner may be stuck: it must not seem to have caught up because the broker is slow.
                    let Some(written) = written.proven() else { continue };
                    reference.update(|watched| watched.written(*from, written, Timestamp::now()));
                }
                Answer::Others(name, stored, written) if *name == reference.reference => {
                    reference.answered(*stored, written.and_then(Written::proven));
                }
                Answer::Others(..) | Answer::Stored(..) | Answer::End(..) => {}
            }
        }
        for Watcher { spec, status } in self.watchers.all() {
            match &answer {
                Answer::Written(from, written) => status.update(|facts| {
                    let view = facts.view();
                    if facts.positioned && view.position.map_or(Offset(0), Offset::next) == *from {
                        facts.watch.answered(&view, written.time(), Timestamp::now());
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
                Answer::Stored(..) | Answer::Others(..) | Answer::End(..) => {}
            }
        }
    }
}

/// When the first message from this offset on was written.
///
/// # Errors
/// If it cannot be asked, or if there is one that did not come.
async fn written_at(view: &StreamView, from: Offset) -> Result<Written, SourceError> {
    let is_wanted = |chunk: &ProbedChunk| chunk.next_offset() > from;
    if let Some(chunk) = view.chunk_at(Start::Offset(from)).await?.filter(is_wanted) {
        return Ok(Written::At(chunk.header.timestamp));
    }
    match view.chunk_at(Start::Last).await? {
        None => Ok(Written::Silence),
        Some(last) if is_wanted(&last) || !last.sound => {
            let what = format!("the message at offset {from} did not arrive in time");
            Err(SourceError::new(ErrorKind::Unavailable, what))
        }
        Some(_) => Ok(Written::Nothing),
    }
}
