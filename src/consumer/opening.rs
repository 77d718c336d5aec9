//! Opens what a consumer writes to: the lock of its reference, its sink and that of its dead letters;
//! and reads where they stand. This happens when the consumer becomes active, and not before: opening a
//! sink deposes its former owner.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::brain::Outcome;
use super::dead_letters::DeadLetters;
use super::hold::Hold;
use super::spec::Spec;
use super::state_file::StateFile;
use crate::flow::beginning::Memory;
use crate::sink::factory::SinkFactory;
use crate::sink::{Sink, SinkError};
use crate::sync::lock;
use crate::types::Checkpoint;

/// The lock of a reference, once it is taken. It outlives a run that failed, so that no other process
/// gets in between.
pub type HoldSlot = Arc<Mutex<Option<Hold>>>;

/// How a consumer opens what it writes to.
#[derive(Clone)]
pub struct Resources {
    /// Opens the sink.
    pub sink: SinkFactory,
    /// Opens the sink of the dead letters, where the policy wants one.
    pub dead_letters: Option<SinkFactory>,
    /// The lock of the reference; `None` for a sink that keeps a second process out by itself.
    pub hold: Option<HoldSlot>,
}

/// What was opened, and where it stands.
pub(super) struct OpenSinks {
    pub(super) sink: Box<dyn Sink>,
    pub(super) letters: Option<DeadLetters>,
    /// The sink's position.
    pub(super) position: Option<Checkpoint>,
    /// The state file's content.
    pub(super) remembered: Option<Memory>,
}

/// Opens everything, in a task of its own: a panic ends only that, and a caller that drops the future
/// ends it too.
pub(super) fn open(
    spec: Arc<Spec>,
    resources: Resources,
) -> BoxFuture<'static, Result<OpenSinks, Outcome>> {
    Box::pin(async move {
        let mut tasks = JoinSet::new();
        tasks.spawn(open_all(spec, resources).in_current_span());
        match tasks.join_next().await {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => Err(panicked(&error)),
            None => Err(Outcome::Failed("internal error: no task".to_owned())),
        }
    })
}

fn panicked(error: &JoinError) -> Outcome {
    Outcome::Panicked(format!("internal error: {error}"))
}

async fn open_all(spec: Arc<Spec>, resources: Resources) -> Result<OpenSinks, Outcome> {
    if let Some(slot) = &resources.hold {
        take_hold(&spec, slot).await?;
    }
    let mut sink = (resources.sink)().await.map_err(outcome_of)?;
    match open_rest(&spec, &resources, &mut *sink).await {
        Ok((letters, position, remembered)) => {
            Ok(OpenSinks { sink, letters, position, remembered })
        }
        Err(outcome) => {
            if let Err(error) = sink.close().await {
                tracing::warn!(%error, "the sink could not be closed in good order");
            }
            Err(outcome)
        }
    }
}

type Rest = (Option<DeadLetters>, Option<Checkpoint>, Option<Memory>);

async fn open_rest(
    spec: &Arc<Spec>,
    resources: &Resources,
    sink: &mut dyn Sink,
) -> Result<Rest, Outcome> {
    let letters = match &resources.dead_letters {
        None => None,
        Some(open) => {
            let told = |error| with_prefix("dead letters: ", outcome_of(error));
            let mut letters = open().await.map_err(told)?;
            let position = position_of(&mut *letters, "dead letters").await?;
            Some(letters_of(letters, spec, position).await?)
        }
    };
    let position = position_of(sink, "sink").await?;
    let remembered = read_state_file(spec).await?;
    Ok((letters, position, remembered))
}

/// Takes hold of the reference, unless a run before has it still.
async fn take_hold(spec: &Arc<Spec>, slot: &HoldSlot) -> Result<(), Outcome> {
    if lock(slot).is_some() {
        return Ok(());
    }
    let spec = Arc::clone(spec);
    // A disk that hangs delays this consumer only.
    match tokio::task::spawn_blocking(move || Hold::take(&spec)).await {
        Ok(Ok(hold)) => *lock(slot) = Some(hold),
        Ok(Err(error)) => return Err(Outcome::Locked(error.to_string())),
        Err(error) => return Err(panicked(&error)),
    }
    Ok(())
}

async fn letters_of(
    letters: Box<dyn Sink>,
    spec: &Arc<Spec>,
    position: Option<Checkpoint>,
) -> Result<DeadLetters, Outcome> {
    let (spec, at) = (Arc::clone(spec), position.map(|checkpoint| checkpoint.offset));
    let failed = |what: String| format!("reading which dead letters there are: {what}");
    match tokio::task::spawn_blocking(move || DeadLetters::new(letters, spec, at)).await {
        Ok(Ok(letters)) => Ok(letters),
        Ok(Err(error)) => Err(Outcome::Halted(failed(error.to_string()))),
        Err(error) => Err(Outcome::Failed(failed(error.to_string()))),
    }
}

async fn read_state_file(spec: &Spec) -> Result<Option<Memory>, Outcome> {
    let file = StateFile::of(spec);
    let read = move || {
        let memory = file.read().map_err(|error| Outcome::Halted(error.to_string()))?;
        if let Some(beginning @ Memory::Beginning(_)) = memory {
            // A process that died before it had synced the file may have left it in memory alone.
            file.write(beginning).map_err(|error| Outcome::Failed(error.to_string()))?;
        }
        Ok(memory)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(memory) => memory,
        Err(error) => Err(Outcome::Failed(format!("reading the state file: {error}"))),
    }
}

async fn position_of(sink: &mut dyn Sink, which: &str) -> Result<Option<Checkpoint>, Outcome> {
    let told = |error| with_prefix(&format!("the {which}'s position: "), outcome_of(error));
    sink.position().await.map_err(told)
}

fn outcome_of(error: SinkError) -> Outcome {
    match error {
        SinkError::Transient { .. } => Outcome::Failed(error.to_string()),
        SinkError::Poison(_) | SinkError::Fatal(_) => Outcome::Halted(error.to_string()),
    }
}

fn with_prefix(prefix: &str, outcome: Outcome) -> Outcome {
    let told = |reason| format!("{prefix}{reason}");
    match outcome {
        Outcome::Drained => Outcome::Drained,
        Outcome::Halted(reason) => Outcome::Halted(told(reason)),
        Outcome::Failed(reason) => Outcome::Failed(told(reason)),
        Outcome::Locked(reason) => Outcome::Locked(told(reason)),
        Outcome::Panicked(reason) => Outcome::Panicked(told(reason)),
    }
}
