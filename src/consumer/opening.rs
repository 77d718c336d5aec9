//! Opens what a consumer writes to: the lock of its reference, its sink and that of its dead letters;
//! and reads where they stand. This happens when the consumer becomes active, and not before: opening a
//! sink deposes its former owner.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::brain::Outcome;
use super::concluding;
use super::dead_letter_index::DeadLetterIndex;
use super::dead_letters::DeadLetters;
use super::hold::Hold;
use super::positions;
use super::spec::Spec;
use super::state_file::{Renamed, StateError, StateFile};
use crate::flow::beginning::Memory;
use crate::sink::factory::{Renaming, SinkFactory};
use crate::sink::{Sink, SinkError};
use crate::sync::lock;
use crate::types::{Checkpoint, Offset};

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
    /// The lock of the reference; `None` without one.
    pub hold: Option<HoldSlot>,
    /// Gives what the sinks keep another reference; `None` where nothing is kept.
    pub renaming: Option<Renaming>,
    /// True for a sink that keeps a second process out by itself: then the lock is shared, and only tells
    /// that the consumer runs.
    pub shares_hold: bool,
}

/// The opened sink, and its position.
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
        let operation = spec.operations().open_sink();
        let mut tasks = JoinSet::new();
        tasks.spawn(open_all(spec, resources).in_current_span());
        let opened = match tasks.join_next().await {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => Err(panicked(&error)),
            None => Err(Outcome::Failed("internal error: no task".to_owned())),
        };
        match &opened {
            Ok(opened) => operation.sink(opened.sink.kind()),
            Err(outcome) => concluding::by_outcome(operation, outcome),
        }
        opened
    })
}

fn panicked(error: &JoinError) -> Outcome {
    Outcome::Panicked(format!("internal error: {error}"))
}

async fn open_all(spec: Arc<Spec>, resources: Resources) -> Result<OpenSinks, Outcome> {
    if let Some(slot) = &resources.hold {
        take_hold(&spec, slot, resources.shares_hold).await?;
    }
    settle(&spec, &resources).await?;
    let mut sink = (resources.sink)().await.map_err(outcome_of)?;
    match open_rest(&spec, &resources, &mut *sink).await {
        Ok((letters, position, remembered)) => {
            Ok(OpenSinks { sink, letters, position, remembered })
        }
        Err(outcome) => {
            close(&mut *sink, "sink").await;
            Err(outcome)
        }
    }
}

/// Closes what was opened, where the rest could not be.
async fn close(sink: &mut dyn Sink, which: &str) {
    if let Err(error) = sink.close().await {
        tracing::warn!(%error, "the {which} could not be closed in good order");
    }
}

type Rest = (Option<DeadLetters>, Option<Checkpoint>, Option<Memory>);

async fn open_rest(
    spec: &Arc<Spec>,
    resources: &Resources,
    sink: &mut dyn Sink,
) -> Result<Rest, Outcome> {
    let position = position_of(sink, "sink").await?;
    let remembered = read_state_file(spec).await?;
    let (position, remembered) = complete_move(spec, sink, position, remembered).await?;
    // The last one: nothing can fail behind it, and leave it open.
    let letters = match &resources.dead_letters {
        None => None,
        Some(open) => Some(open_letters(spec, open).await?),
    };
    Ok((letters, position, remembered))
}

/// Puts in its place what was decided for the state file, and completes a rename, before the sink is opened
/// under its name.
///
/// A second process that shares the reference is kept out meanwhile. Both would read what is to be completed; the
/// faster one goes on, and the other one would then write over what it has stored.
async fn settle(spec: &Arc<Spec>, resources: &Resources) -> Result<(), Outcome> {
    let Some(renaming) = &resources.renaming else { return Ok(()) };
    let (file, of, is_shared) = (StateFile::of(spec), Arc::clone(spec), resources.shares_hold);
    let settling = move || {
        let is_unsettled =
            || file.is_unsettled().map_err(|error| Outcome::Failed(error.to_string()));
        let alone = match is_shared && is_unsettled()? {
            true => Some(Hold::to_complete(&of).map_err(|e| Outcome::Locked(e.to_string()))?),
            false => None,
        };
        file.settle().map_err(|error| Outcome::Failed(error.to_string()))?;
        let read = file.read_all().map_err(|error| Outcome::Halted(error.to_string()))?;
        match read {
            Some((_, Renamed { renamed_to: Some(to), .. })) => {
                Err(Outcome::Halted(file.is_renamed(&to).to_string()))
            }
            Some((memory, Renamed { renamed_from: Some(from), .. })) => {
                Ok(Some((from, memory, alone)))
            }
            _ => Ok(None),
        }
    };
    let settled = tokio::task::spawn_blocking(settling).await;
    let settled = settled.map_err(|error| panicked(&error))?;
    let Some((from, memory, _alone)) = settled? else { return Ok(()) };
    let completed = positions::complete_rename(spec, renaming, &from, memory).await;
    let told =
        |error| with_prefix(&format!("the rename of reference {from:?} is not complete: "), error);
    completed.map_err(|error| told(outcome_of(error)))?;
    tracing::info!(consumer = %spec.name, stream = %spec.stream, %from, to = %spec.reference, "the rename of the reference is completed");
    Ok(())
}

/// Completes a move of the position that was interrupted.
async fn complete_move(
    spec: &Spec,
    sink: &mut dyn Sink,
    position: Option<Checkpoint>,
    remembered: Option<Memory>,
) -> Result<(Option<Checkpoint>, Option<Memory>), Outcome> {
    let told = |error| with_prefix("a move of the position is not complete: ", error);
    match positions::interrupted(position, remembered) {
        None => Ok((position, remembered)),
        Some(beginning) => {
            let moved = positions::move_sink(spec, sink, &beginning).await;
            let (position, memory) = moved.map_err(|error| told(outcome_of(error)))?;
            Ok((position, Some(memory)))
        }
    }
}

async fn open_letters(spec: &Arc<Spec>, open: &SinkFactory) -> Result<DeadLetters, Outcome> {
    let told = |error| with_prefix("dead letters: ", outcome_of(error));
    let mut sink = open().await.map_err(told)?;
    let index = match position_of(&mut *sink, "dead letters").await {
        Ok(position) => index_of(spec, position).await,
        Err(outcome) => Err(outcome),
    };
    match index {
        Ok((index, at)) => Ok(DeadLetters::new(sink, Arc::clone(spec), at, index)),
        Err(outcome) => {
            close(&mut *sink, "dead letters' sink").await;
            Err(outcome)
        }
    }
}

/// Takes hold of the reference, unless a run before has it still.
async fn take_hold(spec: &Arc<Spec>, slot: &HoldSlot, shares: bool) -> Result<(), Outcome> {
    if lock(slot).is_some() {
        return Ok(());
    }
    let spec = Arc::clone(spec);
    // A disk that hangs delays this consumer only.
    let take = move || if shares { Hold::share(&spec) } else { Hold::take(&spec) };
    match tokio::task::spawn_blocking(take).await {
        Ok(Ok(hold)) => *lock(slot) = Some(hold),
        Ok(Err(error)) => return Err(Outcome::Locked(error.to_string())),
        Err(error) => return Err(panicked(&error)),
    }
    Ok(())
}

/// The index of the dead letters that the sink holds up to this position.
async fn index_of(
    spec: &Arc<Spec>,
    position: Option<Checkpoint>,
) -> Result<(DeadLetterIndex, Option<Offset>), Outcome> {
    let (spec, at) = (Arc::clone(spec), position.map(|checkpoint| checkpoint.offset));
    let failed = |what: String| format!("reading which dead letters there are: {what}");
    match tokio::task::spawn_blocking(move || DeadLetterIndex::open(&spec, at)).await {
        Ok(Ok(index)) => Ok((index, at)),
        Ok(Err(error)) => Err(Outcome::Halted(failed(error.to_string()))),
        Err(error) => Err(Outcome::Failed(failed(error.to_string()))),
    }
}

/// Reads the state file, and writes a beginning once more. Only for the one that holds the reference.
async fn read_state_file(spec: &Spec) -> Result<Option<Memory>, Outcome> {
    let file = StateFile::of(spec);
    let read = move || {
        let halted = |error: StateError| Outcome::Halted(error.to_string());
        let memory = file.read().map_err(halted)?;
        if let Some((beginning @ Memory::Beginning(_), renamed)) =
            file.read_all().map_err(halted)?
        {
            // A process that died before it had synced the file may have left it in memory alone.
            file.write_all(beginning, renamed)
                .map_err(|error| Outcome::Failed(error.to_string()))?;
        }
        Ok(memory)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(memory) => memory,
        Err(error) => Err(Outcome::Failed(format!("reading the state file: {error}"))),
    }
}

async fn position_of(sink: &mut dyn Sink, which: &str) -> Result<Option<Checkpoint>, Outcome> {
    let told = |error| with_prefix(&format!("the position of the {which}: "), outcome_of(error));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::consumer::spec::testing;
    use crate::flow::batch::Batch;
    use crate::sink::Durability;
    use crate::sink::factory::{opens, renames};
    use crate::types::Guarantee;

    /// A sink that counts how often it is closed. `fails`: its position cannot be read.
    struct Counted {
        closed: Arc<AtomicU64>,
        fails: bool,
    }

    #[async_trait]
    impl Sink for Counted {
        fn kind(&self) -> &'static str {
            "counted"
        }

        fn guarantee(&self) -> Guarantee {
            Guarantee::AtLeastOnce
        }

        async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
            match self.fails {
                true => Err(SinkError::Fatal("no position".to_owned())),
                false => Ok(None),
            }
        }

        async fn write(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
            Ok(Durability::Durable)
        }

        async fn close(&mut self) -> Result<(), SinkError> {
            self.closed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    /// Two daemons whose sinks keep each other out share a reference that was renamed. While one has the sink renamed,
    /// the other one waits: it would write what it has read over what the first one has stored since.
    #[tokio::test]
    async fn a_rename_is_completed_by_one_at_a_time() {
        let state = tempfile::tempdir().unwrap();
        let spec = Arc::new(testing::spec(state.path()));
        let position =
            |offset| Memory::Position(Checkpoint { offset: Offset(offset), chunk: None });
        let file = StateFile::of(&spec);
        let from = Renamed { renamed_from: Some("former".into()), ..Renamed::default() };
        file.write_all(position(5), from).unwrap();
        let (entered, mut has_entered) = mpsc::channel(8);
        let (go, going) = watch::channel(false);
        let renaming = renames(move |_| {
            let (entered, mut going) = (entered.clone(), going.clone());
            async move {
                entered.send(()).await.unwrap();
                going.wait_for(|go| *go).await.unwrap();
                Ok(())
            }
        });
        let resources = || Resources {
            sink: factory(&Arc::default(), false),
            dead_letters: None,
            hold: Some(HoldSlot::default()),
            renaming: Some(Arc::clone(&renaming)),
            shares_hold: true,
        };
        let first = tokio::spawn(open(Arc::clone(&spec), resources()));
        has_entered.recv().await.unwrap();
        let second = tokio::spawn(open(Arc::clone(&spec), resources()));
        let refused = tokio::select! {
            second = second => match second.unwrap() {
                Err(Outcome::Locked(why)) => why,
                _ => panic!("the second one neither waits nor goes on"),
            },
            _ = has_entered.recv() => panic!("both complete the rename"),
        };
        assert!(refused.contains("completes a move or a rename"), "{refused}");
        go.send_replace(true);
        assert_eq!(first.await.unwrap().ok().unwrap().remembered, Some(position(5)));
        // It goes on, and then the other one tries again.
        file.write(position(9)).unwrap();
        let opened = open(Arc::clone(&spec), resources()).await.ok().unwrap();
        assert_eq!(opened.remembered, Some(position(9)));
        assert!(has_entered.try_recv().is_err(), "nothing was left to rename");
    }

    fn factory(closed: &Arc<AtomicU64>, fails: bool) -> SinkFactory {
        let closed = Arc::clone(closed);
        opens(move || {
            let closed = Arc::clone(&closed);
            async move { Ok(Counted { closed, fails }) }
        })
    }

    /// Whatever cannot be opened or read, what was opened before is closed, once each.
    #[tokio::test]
    async fn after_any_failure_everything_opened_is_closed() {
        let state = tempfile::tempdir().unwrap();
        let spec = Arc::new(testing::spec(state.path()));
        let index = state.path().join("r@events.dead-letters");
        for (fails, expected, says) in [
            ("nothing", (0, 0), ""),
            ("position", (1, 0), "the position of the sink: no position"),
            ("state file", (1, 0), "state file"),
            ("letters' position", (1, 1), "the position of the dead letters: no position"),
            ("index", (1, 1), "which dead letters there are"),
        ] {
            let (sink, letters): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
            let resources = Resources {
                sink: factory(&sink, fails == "position"),
                dead_letters: Some(factory(&letters, fails == "letters' position")),
                hold: None,
                renaming: None,
                shares_hold: false,
            };
            let taken = match fails {
                "state file" => StateFile::of(&spec).path().to_owned(),
                "index" => index.clone(),
                _ => state.path().join("unused"),
            };
            std::fs::create_dir(&taken).unwrap();
            match open(Arc::clone(&spec), resources).await {
                Ok(_) => assert_eq!(fails, "nothing"),
                Err(Outcome::Halted(why) | Outcome::Failed(why)) => {
                    assert!(!says.is_empty() && why.contains(says), "{fails}: {why}");
                }
                Err(other) => panic!("{fails}: {other:?}"),
            }
            std::fs::remove_dir(&taken).unwrap();
            let closed = (sink.load(Ordering::Relaxed), letters.load(Ordering::Relaxed));
            assert_eq!(closed, expected, "{fails}");
        }
    }
}
