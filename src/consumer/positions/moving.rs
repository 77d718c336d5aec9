//! Moves the positions, in the order that the parent module gives.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::hold::{Hold, NotAlone};
use super::super::pledges::{self, Pledges};
use super::super::resumption::SessionError;
use super::super::session;
use super::super::spec::Spec;
use super::super::state_file::{Renamed, StateError, StateFile};
use super::Subject;
use crate::faults::{self, Point};
use crate::flow::beginning::{Beginning, Memory, Moved};
use crate::flow::resume::Start;
use crate::sink::{Sink, SinkError};
use crate::source::{
    self, Activation, Budget, Event, Handover, Link, Prefer, SourceError, Subscription,
};
use crate::types::{Checkpoint, ConsumerKey, Offset};

/// How long the broker may take to make this process the active one. It does so at once if no other is active.
const ACTIVE_MAX: Duration = Duration::from_secs(10);

/// How long this process may have been the active one when the move is decided. The broker's request stays
/// unanswered meanwhile, and after 60 s the broker closes the connection and chooses another one.
const ACTIVE_FOR_MAX: Duration = Duration::from_secs(40);

/// Why the positions were not all moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A consumer has the reference. Nothing is moved.
    #[error(transparent)]
    InUse(#[from] NotAlone),
    /// The broker has another daemon active. Nothing is moved.
    #[error(
        "another daemon is the active consumer of this reference (single_active): pause the consumer there, or stop \
         all of its daemons, and try again"
    )]
    OtherActive,
    /// The broker would choose another daemon before everything is moved. Nothing is moved.
    #[error(
        "it took more than {} s to look at everything, and the broker is about to make another daemon the active \
         consumer (single_active): try again", ACTIVE_FOR_MAX.as_secs()
    )]
    TooLate,
    /// The sink cannot be opened. Nothing is moved.
    #[error("the sink: {0}")]
    Sink(#[from] SinkError),
    /// The state file cannot be read or written. Nothing is moved.
    #[error("{0}")]
    State(#[from] StateError),
    /// The broker cannot be asked. Nothing is moved.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The reference cannot be renamed. Nothing is.
    #[error("{0}")]
    NotRenamed(String),
    /// It counts, and is not finished.
    #[error(
        "the move counts from now on, but it is not finished: {0}. The consumer finishes it when it next opens its \
         sink; or do the same again"
    )]
    Begun(String),
    /// It counts, but what the sink has of a stream without a position still has the former name.
    #[error(
        "it is renamed, but what is kept of this stream, which has no position, still has the former name: {0}. Do the same again \
         before the consumer starts"
    )]
    SinkUnnamed(SinkError),
    /// All is moved but the broker's offset.
    #[error(
        "the state file and the sink are moved, and the consumer goes on from there; but the offset on the broker is \
         not: {0}. Do the same again, or leave it to the consumer's first commit"
    )]
    Store(String),
    /// A fault of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a stream of a consumer was not moved, or is not moved to the end.
#[derive(Debug)]
pub struct Unmoved {
    /// The consumer and its stream.
    pub key: ConsumerKey,
    /// The reason.
    pub error: MoveError,
}

impl fmt::Display for Unmoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}

impl MoveError {
    /// True if the move counts all the same, and is completed later.
    pub fn counts(&self) -> bool {
        matches!(self, MoveError::Begun(_) | MoveError::SinkUnnamed(_) | MoveError::Store(_))
    }
}

/// A sink that is closed when the move is over, however it ends.
pub(super) struct Opened(Option<Box<dyn Sink>>);

impl Opened {
    /// Opens the sink, and reads its position.
    pub(super) async fn of(subject: &Subject) -> Result<(Opened, Option<Checkpoint>), SinkError> {
        if !subject.keeps_position {
            return Ok((Opened(None), None));
        }
        let mut sink = (subject.sink)().await?;
        let position = sink.position().await;
        let mut opened = Opened(Some(sink));
        match position {
            Ok(own) => Ok((opened, own)),
            Err(error) => {
                opened.close().await;
                Err(error)
            }
        }
    }

    pub(super) async fn close_now(mut self) {
        self.close().await;
    }

    async fn close(&mut self) {
        if let Some(mut sink) = self.0.take()
            && let Err(error) = sink.close().await
        {
            tracing::warn!(%error, "the sink could not be closed in good order");
        }
    }
}

/// A reference that is held alone, and its connection: nobody else goes on with it before this is dropped.
pub(super) struct Held {
    _hold: Hold,
    pub(super) link: Arc<dyn Link>,
    active: Option<Active>,
}

/// The subscription by which this process is the active one of several, and the broker's unanswered request.
struct Active {
    _subscription: Subscription,
    _handover: Handover,
    since: Instant,
}

impl Held {
    /// Locks the reference, puts what was decided for its state file in its place, and connects. Where the
    /// broker has one of several daemons active, this becomes that one.
    pub(super) async fn of(spec: &Arc<Spec>) -> Result<Held, MoveError> {
        let held = Arc::clone(spec);
        let hold = blocking(move || {
            let hold = Hold::to_move(&held)?;
            StateFile::of(&held).settle()?;
            Ok::<_, MoveError>(hold)
        });
        let hold = hold.await??;
        let link = spec.source.connect(Prefer::Replica).await?;
        match become_active(spec, &link).await {
            Ok(active) => Ok(Held { _hold: hold, link, active }),
            Err(error) => {
                link.close().await;
                Err(error)
            }
        }
    }

    /// Refuses if the broker is about to choose another daemon.
    pub(super) fn check(&self) -> Result<(), MoveError> {
        match &self.active {
            Some(active) if active.since.elapsed() > ACTIVE_FOR_MAX => Err(MoveError::TooLate),
            _ => Ok(()),
        }
    }
}

/// The offset that the broker holds.
pub(super) async fn stored_on(link: &dyn Link) -> Result<Option<Offset>, SourceError> {
    match link.abilities().offsets {
        true => link.stored().await,
        false => Ok(None),
    }
}

/// Becomes the active one of several daemons, which keeps the others from going on until the link is closed.
/// `None` where nobody chooses one.
async fn become_active(spec: &Spec, link: &Arc<dyn Link>) -> Result<Option<Active>, MoveError> {
    if spec.source.activation() == Activation::AtOnce {
        return Ok(None);
    }
    let budget = Budget::new(spec.chunk_budget_bytes());
    let mut subscription = source::begin(link, Start::Next, &budget).await?;
    match tokio::time::timeout(ACTIVE_MAX, subscription.next()).await {
        Ok(Some(Event::Activation(handover))) if handover.active => Ok(Some(Active {
            _subscription: subscription,
            _handover: handover,
            since: Instant::now(),
        })),
        Ok(None) => Err(link.reason().into()),
        Ok(Some(Event::Unavailable(error))) => Err(error.into()),
        Ok(Some(Event::Activation(_) | Event::Chunk(_))) | Err(_) => Err(MoveError::OtherActive),
    }
}

/// Moves that can all be made: everything is locked and was looked at, and nothing is moved.
///
/// Dropped, or given up, nothing is.
pub struct Ready(Vec<One>);

struct One {
    subject: Subject,
    held: Held,
    sink: Opened,
    noted: Beginning,
}

impl One {
    async fn prepare((subject, to): (Subject, Beginning)) -> Result<One, Unmoved> {
        let key = subject.spec.key();
        let preparing = async {
            let held = Held::of(&subject.spec).await?;
            let link = Arc::clone(&held.link);
            let file = StateFile::of(&subject.spec);
            // It was looked up before it was locked, and another command may have renamed it since.
            blocking(move || file.read_to_move()).await??;
            let over = stored_on(&*link).await?;
            let (sink, own) = Opened::of(&subject).await?;
            let moved = Some(Moved { over, sink_is_behind: own.is_some() });
            let noted = Beginning { instead_of: own, moved, ..to };
            Ok((held, sink, noted))
        };
        match preparing.await {
            Ok((held, sink, noted)) => Ok(One { subject, held, sink, noted }),
            Err(error) => Err(Unmoved { key, error }),
        }
    }

    async fn close(mut self) {
        self.sink.close().await;
        self.held.link.close().await;
    }

    /// Moves everything that follows the state file, which counts.
    async fn complete(self) -> Result<(), Unmoved> {
        let One { subject, held, sink, noted } = self;
        let link = Arc::clone(&held.link);
        let completed = complete(&subject, &*link, sink, &noted).await;
        held.link.close().await;
        completed.map_err(|error| Unmoved { key: subject.spec.key(), error })
    }
}

impl Ready {
    /// Locks the consumers' references and looks at everything, so that all of them can be moved. Each is to
    /// go on at its beginning.
    ///
    /// # Errors
    /// If one of them runs, or something cannot be read. Nothing is moved.
    pub async fn prepare(moves: Vec<(Subject, Beginning)>) -> Result<Ready, Unmoved> {
        let (mut ready, mut refused) = (Vec::new(), None);
        for prepared in join_all(moves.into_iter().map(One::prepare)).await {
            match prepared {
                Ok(one) => ready.push(one),
                Err(why) => drop(refused.get_or_insert(why)),
            }
        }
        match refused {
            None => Ok(Ready(ready)),
            Some(why) => {
                Ready(ready).give_up().await;
                Err(why)
            }
        }
    }

    /// Moves nothing.
    pub async fn give_up(self) {
        join_all(self.0.into_iter().map(One::close)).await;
    }

    /// Makes all the moves: one write decides, and the rest follows.
    ///
    /// Not cancel-safe in the sense that a dropped future leaves the moves where they were; but they then all
    /// count, or none does, as after a kill.
    ///
    /// # Errors
    /// Those that are not made. Either none counts, or all do ([`MoveError::counts`]), and are completed later.
    pub async fn carry_out(self) -> Result<(), Vec<Unmoved>> {
        let keys: Vec<ConsumerKey> = self.0.iter().map(|one| one.subject.spec.key()).collect();
        let decided = match self.contents() {
            Ok(contents) => decide(contents).await,
            Err(why) => Err(why),
        };
        if let Err(why) = decided {
            self.give_up().await;
            return Err(undecided(keys, why));
        }
        let completed = join_all(self.0.into_iter().map(One::complete)).await;
        let unmoved: Vec<Unmoved> = completed.into_iter().filter_map(Result::err).collect();
        if unmoved.is_empty() { Ok(()) } else { Err(unmoved) }
    }

    /// What the state files are to hold.
    fn contents(&self) -> Result<Vec<(StateFile, Memory, Renamed)>, MoveError> {
        let content = |one: &One| {
            one.held.check()?;
            let file = StateFile::of(&one.subject.spec);
            Ok((file, Memory::Beginning(one.noted), Renamed::default()))
        };
        self.0.iter().map(content).collect()
    }
}

/// Tells of each that it counts and is not finished, if that is so; else of the first that nothing was moved.
pub(super) fn undecided(keys: Vec<ConsumerKey>, error: MoveError) -> Vec<Unmoved> {
    match error {
        MoveError::Begun(why) => {
            let of = |key| Unmoved { key, error: MoveError::Begun(why.clone()) };
            keys.into_iter().map(of).collect()
        }
        error => keys
            .into_iter()
            .take(1)
            .zip([error])
            .map(|(key, error)| Unmoved { key, error })
            .collect(),
    }
}

/// Writes all these state files: from here on all of them count. Before, or after an error that does not say
/// that it counts, none does.
pub(super) async fn decide(contents: Vec<(StateFile, Memory, Renamed)>) -> Result<(), MoveError> {
    if let [(file, memory, renamed)] = contents.as_slice() {
        let (file, memory, renamed) = (file.clone(), *memory, renamed.clone());
        return blocking(move || {
            let written = file.write_all(memory, renamed.clone());
            // The folder's sync may have failed after the write.
            let is_there = || file.read_all().is_ok_and(|now| now == Some((memory, renamed)));
            match written {
                Err(error) if is_there() => Err(begun(error)),
                written => Ok(written?),
            }
        })
        .await?;
    }
    let deciding = move || -> Result<(), MoveError> {
        let Some((first, ..)) = contents.first() else { return Ok(()) };
        let folder = first.path().parent().unwrap_or(Path::new("")).to_owned();
        let mut texts = Vec::new();
        for (file, memory, renamed) in &contents {
            texts.push((file.path().to_owned(), file.text(*memory, renamed.clone())?));
        }
        let unwritten = |error: io::Error| first.unwritten(&error);
        let pledges = Pledges::write(&folder, &texts).map_err(unwritten)?;
        faults::reach(Point::MovesPledged);
        if let Err(error) = pledges.decide() {
            // Where that cannot be told, it may count, and must not be told not to.
            let decided = pledges::decided(first.path());
            let counts = decided.map_or(true, |decided| decided.is_some());
            let error = unwritten(error);
            return Err(if counts { begun(error) } else { error.into() });
        }
        faults::reach(Point::MovesDecided);
        for (file, ..) in &contents {
            file.settle().map_err(begun)?;
        }
        faults::reach(Point::MovesSettled);
        Ok(())
    };
    blocking(deciding).await?
}

/// Moves everything that follows the state file, in the order that the parent module gives.
pub(super) async fn complete(
    subject: &Subject,
    link: &dyn Link,
    mut sink: Opened,
    noted: &Beginning,
) -> Result<(), MoveError> {
    let spec = &subject.spec;
    faults::reach(Point::MoveNoted);
    let moved = match sink.0.as_deref_mut() {
        Some(sink) => move_sink(spec, sink, noted).await.map(|(own, _)| own),
        None => Ok(None),
    };
    sink.close().await;
    let own = moved.map_err(begun)?;
    faults::reach(Point::MoveKept);
    let over = noted.moved.and_then(|moved| moved.over);
    let mirror = noted.mirror().filter(|_| link.abilities().offsets);
    if let Some(mirror) = mirror.filter(|mirror| over != Some(*mirror)) {
        let failed = |error: SessionError| MoveError::Store(error.to_string());
        session::store_beginning(link, mirror).await.map_err(failed)?;
    }
    faults::reach(Point::OffsetMoved);
    write(spec, finished(noted, own)).await.map_err(begun)
}

pub(super) fn begun(error: impl Into<MoveError>) -> MoveError {
    MoveError::Begun(error.into().to_string())
}

/// The move that the state file names, if the sink's position has not been moved, or the state file does not
/// say so. `own` is the sink's position.
pub(in crate::consumer) fn interrupted(
    own: Option<Checkpoint>,
    memory: Option<Memory>,
) -> Option<Beginning> {
    let beginning = memory?.beginning()?;
    let is_open = beginning.moved.is_some_and(|moved| moved.sink_is_behind);
    // A higher one was reached since, by a version that did not know of moves.
    let counts = own.is_none_or(|own| beginning.replaces(&own));
    (is_open && counts).then_some(beginning)
}

/// Moves the sink's position as the state file says, and then the state file: what the move replaced in the
/// sink may be reached again.
pub(in crate::consumer) async fn move_sink(
    spec: &Spec,
    sink: &mut dyn Sink,
    noted: &Beginning,
) -> Result<(Option<Checkpoint>, Memory), SinkError> {
    let to = noted.checkpoint();
    let own = sink.move_to(to).await?;
    faults::reach(Point::SinkMoved);
    let memory = Memory::Beginning(settled(noted));
    write(spec, memory).await.map_err(|error| SinkError::transient(error.to_string()))?;
    Ok((own, memory))
}

/// Content of the state file once the sink is moved.
fn settled(noted: &Beginning) -> Beginning {
    let moved = noted.moved.map(|moved| Moved { sink_is_behind: false, ..moved });
    Beginning { instead_of: None, moved, ..*noted }
}

/// Content of the state file once all is moved, and the sink is at `own`.
fn finished(noted: &Beginning, own: Option<Checkpoint>) -> Memory {
    match (own, noted.checkpoint()) {
        // The sink alone decides from here on.
        (Some(own), Some(to)) if own.offset == to.offset => Memory::Position(to),
        // What the broker holds could not be moved, and does not count.
        (_, None) if noted.moved.is_some_and(|moved| moved.over.is_some()) => {
            Memory::Beginning(settled(noted))
        }
        _ => Memory::Beginning(Beginning { instead_of: None, moved: None, ..*noted }),
    }
}

async fn write(spec: &Spec, memory: Memory) -> Result<(), MoveError> {
    let file = StateFile::of(spec);
    Ok(blocking(move || file.write(memory)).await??)
}

/// A disk that hangs holds up nothing else.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MoveError> {
    tokio::task::spawn_blocking(job).await.map_err(|error| MoveError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests;
