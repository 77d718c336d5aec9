//! Moves the positions, in the order that the parent module gives.

use std::sync::Arc;
use std::time::Duration;

use super::super::hold::{Hold, NotAlone};
use super::super::resumption::SessionError;
use super::super::session;
use super::super::spec::Spec;
use super::super::state_file::{StateError, StateFile};
use super::Subject;
use crate::faults::{self, Point};
use crate::flow::beginning::{Beginning, Memory, Moved};
use crate::flow::resume::Start;
use crate::sink::{Sink, SinkError};
use crate::source::{
    self, Activation, Budget, Event, Handover, Link, Prefer, SourceError, Subscription,
};
use crate::types::Checkpoint;

/// How long the broker may take to make this process the active one. It does so at once if no other is active.
const ACTIVE_MAX: Duration = Duration::from_secs(10);

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
    /// The sink cannot be opened or moved.
    #[error("the sink: {0}")]
    Sink(#[from] SinkError),
    /// The state file cannot be written.
    #[error("{0}")]
    State(#[from] StateError),
    /// The broker cannot be asked. Nothing is moved.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// It counts, and is not finished.
    #[error(
        "the move counts from now on, but it is not finished: {0}. The consumer finishes it when it next opens its \
         sink; or do the same again"
    )]
    Begun(String),
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

/// A sink that is closed when the move is over, however it ends.
struct Opened(Option<Box<dyn Sink>>);

impl Opened {
    async fn close(&mut self) {
        if let Some(mut sink) = self.0.take()
            && let Err(error) = sink.close().await
        {
            tracing::warn!(%error, "the sink could not be closed in good order");
        }
    }
}

/// Moves all positions of the consumer, so that it goes on at `to`. Refused while the consumer runs.
///
/// Not cancel-safe in the sense that a dropped future leaves the move where it was; but the move then either
/// counts or does not, as after a kill.
///
/// # Errors
/// If the consumer runs, or something cannot be read or written. The error says what is moved.
pub async fn move_to(subject: &Subject, to: Beginning) -> Result<(), MoveError> {
    let spec = Arc::clone(&subject.spec);
    let hold = blocking({
        let spec = Arc::clone(&spec);
        move || Hold::to_move(&spec)
    });
    let _hold = hold.await??;
    let link = spec.source.connect(Prefer::Replica).await?;
    let moved = async {
        let _active = become_active(&spec, &link).await?;
        move_all(subject, &*link, to).await
    };
    let moved = moved.await;
    link.close().await;
    moved
}

/// The subscription by which this process is the active one of several, and the broker's unanswered request.
type Active = (Subscription, Handover);

/// Where the broker has one of several daemons active: becomes that one, which keeps the others from going on
/// until the link is closed.
async fn become_active(spec: &Spec, link: &Arc<dyn Link>) -> Result<Option<Active>, MoveError> {
    if spec.source.activation() == Activation::AtOnce {
        return Ok(None);
    }
    let budget = Budget::new(spec.chunk_budget_bytes());
    let mut subscription = source::begin(link, Start::Next, &budget).await?;
    match tokio::time::timeout(ACTIVE_MAX, subscription.next()).await {
        Ok(Some(Event::Activation(handover))) if handover.active => {
            Ok(Some((subscription, handover)))
        }
        Ok(None) => Err(link.reason().into()),
        Ok(Some(Event::Unavailable(error))) => Err(error.into()),
        Ok(Some(Event::Activation(_) | Event::Chunk(_))) | Err(_) => Err(MoveError::OtherActive),
    }
}

async fn move_all(subject: &Subject, link: &dyn Link, to: Beginning) -> Result<(), MoveError> {
    let spec = &subject.spec;
    let over = match link.abilities().offsets {
        true => link.stored().await?,
        false => None,
    };
    let mut sink = Opened(None);
    let mut own = None;
    if subject.keeps_position {
        let mut opened = (subject.sink)().await?;
        let position = opened.position().await;
        sink = Opened(Some(opened));
        match position {
            Ok(position) => own = position,
            Err(error) => {
                sink.close().await;
                return Err(error.into());
            }
        }
    }
    let moved = Some(Moved { over, sink_is_behind: own.is_some() });
    let noted = Beginning { instead_of: own, moved, ..to };
    let kept = keep(spec, sink.0.as_deref_mut(), &noted).await;
    sink.close().await;
    let own = kept?;
    faults::reach(Point::MoveKept);
    let mirror = to.mirror().filter(|_| link.abilities().offsets);
    if let Some(mirror) = mirror.filter(|mirror| over != Some(*mirror)) {
        let failed = |error: SessionError| MoveError::Store(error.to_string());
        session::store_beginning(link, mirror).await.map_err(failed)?;
    }
    faults::reach(Point::OffsetMoved);
    write(spec, finished(&noted, own)).await.map_err(begun)
}

fn begun(error: impl Into<MoveError>) -> MoveError {
    MoveError::Begun(error.into().to_string())
}

/// Writes the move into the state file, from which on it counts, and moves the sink; returns where that is.
async fn keep(
    spec: &Spec,
    sink: Option<&mut (dyn Sink + 'static)>,
    noted: &Beginning,
) -> Result<Option<Checkpoint>, MoveError> {
    write(spec, Memory::Beginning(*noted)).await?;
    faults::reach(Point::MoveNoted);
    match sink {
        Some(sink) => move_sink(spec, sink, noted).await.map(|(own, _)| own).map_err(begun),
        None => Ok(None),
    }
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
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MoveError> {
    tokio::task::spawn_blocking(job).await.map_err(|error| MoveError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    fn at(offset: u64) -> Checkpoint {
        Checkpoint { offset: Offset(offset), chunk: None }
    }

    fn noted(to: u64) -> Beginning {
        let moved = Some(Moved { over: Some(Offset(80)), sink_is_behind: true });
        Beginning { at: Offset(to), behind: None, instead_of: Some(at(100)), moved }
    }

    #[test]
    fn only_what_was_replaced_is_moved_again() {
        let memory = |to| Some(Memory::Beginning(noted(to)));
        for own in [None, Some(at(100)), Some(at(9))] {
            assert_eq!(interrupted(own, memory(10)), Some(noted(10)), "{own:?}");
        }
        // The sink has gone on since.
        assert_eq!(interrupted(Some(at(101)), memory(10)), None);
        for own in [None, Some(at(9))] {
            assert_eq!(interrupted(own, Some(Memory::Beginning(settled(&noted(10))))), None);
            assert_eq!(interrupted(own, Some(finished(&noted(10), own))), None);
        }
        assert_eq!(interrupted(None, None), None);
    }

    /// Whatever the sink reaches after the move, it is never taken for what the move replaced.
    #[test]
    fn what_was_replaced_may_be_reached_again() {
        for to in [0, 10] {
            let begins = [Memory::Beginning(settled(&noted(to))), finished(&noted(to), None)];
            for beginning in begins.into_iter().filter_map(|memory| memory.beginning()) {
                assert!(!beginning.replaces(&at(100)) && !beginning.is_new_history());
            }
        }
        assert_eq!(finished(&noted(10), Some(at(9))), Memory::Position(at(9)));
        // The broker's offset cannot be moved there, or is.
        let over = |to| finished(&noted(to), None).beginning().unwrap().moved.is_some();
        assert!(over(0) && !over(10));
    }
}
