//! Gives a consumer another reference: its position goes with it.
//!
//! The broker, the state file and the sink know a consumer by its reference. Renaming it is a move of the
//! new reference to where the old one stands, with two differences: what the sink keeps gets the new name,
//! where the sink can do that in one step; and the old reference is closed by the same decision, so that no
//! consumer goes on under it.
//!
//! | killed after | what counts | what completes it |
//! |---|---|---|
//! | looking, or the pledges | the old reference | |
//! | 1. the decision: the old state file names the new reference, and the new one has the position and names the old one | the new reference; the old one is refused | the next start under the new one, or another rename |
//! | 2. the sink has the new name, and the list of dead letters is copied | the same | the same |
//! | 3. the new state file names the old reference no more | the same | as any move of a position, from its step 1 on |
//!
//! The broker keeps the old reference's offset: it cannot be deleted.

use std::sync::Arc;

use futures_util::future::join_all;

use super::super::dead_letter_index;
use super::super::spec::Spec;
use super::super::state_file::{Renamed, StateFile};
use super::super::stood_by;
use super::moving::{
    Held, Opened, begun, blocking, complete, decide, interrupted, stored_on, undecided,
};
use super::{MoveError, Next, Seen, Subject, Target, Unmoved, plan};
use crate::faults::{self, Point};
use crate::flow::beginning::{Beginning, Memory, Moved};
use crate::flow::resume::Start;
use crate::sink::SinkError;
use crate::sink::factory::{Former, Renaming};
use crate::source::Prefer;
use crate::types::{Checkpoint, ChunkId, Offset, Reference};

/// One stream of a consumer under its old and its new reference.
pub struct Rename {
    /// Under the old one.
    pub old: Subject,
    /// Under the new one.
    pub new: Subject,
}

/// What is to be done for a stream.
enum Step {
    /// The old reference never had a position there: only the sink may know of it.
    Nothing,
    /// It was decided before, and may not be complete.
    Decided,
    /// To be renamed, and to go on here.
    Begin(Beginning),
}

/// A rename that can be made.
pub struct Renames(Vec<(Rename, Step)>);

/// What a rename does on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// There was no position.
    HasNone,
    /// It was renamed before.
    IsRenamed,
    /// It goes on here.
    GoesOnAt(Offset),
}

impl Renames {
    /// Looks at everything. Changes nothing, and needs no lock.
    ///
    /// # Errors
    /// If something cannot be read, or the new reference has a position already. The text says what to do.
    pub async fn plan(renames: Vec<Rename>) -> anyhow::Result<Renames> {
        let mut planned = Vec::new();
        for rename in renames {
            let key = rename.old.spec.key();
            let step = step_of(&rename).await;
            let step = step.map_err(|error| anyhow::anyhow!("{key}: {error:#}"))?;
            planned.push((rename, step));
        }
        Ok(Renames(planned))
    }

    /// What it does on each stream.
    pub fn outlook(&self) -> impl Iterator<Item = (&Rename, Outlook)> {
        self.0.iter().map(|(rename, step)| {
            let outlook = match step {
                Step::Nothing => Outlook::HasNone,
                Step::Decided => Outlook::IsRenamed,
                Step::Begin(beginning) => Outlook::GoesOnAt(beginning.at),
            };
            (rename, outlook)
        })
    }

    /// Renames all, or none. `prepare` writes what else is kept under the new reference, when everything is
    /// locked and nothing decided.
    ///
    /// # Errors
    /// Those that are not renamed. Either none is, or all are ([`MoveError::counts`]), and are completed later.
    pub async fn carry_out(
        self,
        prepare: impl FnOnce() -> Result<(), MoveError>,
    ) -> Result<(), Vec<Unmoved>> {
        // All at once: as the active one of several daemons, this process has 40 s.
        let locking = self.0.into_iter().map(|(rename, _)| async {
            let key = rename.old.spec.key();
            Locked::of(rename).await.map_err(|error| Unmoved { key, error })
        });
        let (mut locked, mut refused) = (Vec::new(), None);
        for one in join_all(locking).await {
            match one {
                Ok(one) => locked.push(one),
                Err(why) => drop(refused.get_or_insert(why)),
            }
        }
        if let Some(why) = refused {
            close(locked).await;
            return Err(vec![why]);
        }
        if let Err(why) = decide_all(&locked, prepare).await {
            close(locked).await;
            return Err(why);
        }
        let mut unmoved = Vec::new();
        // First those that no state file speaks of: only the same command completes them.
        locked.sort_by_key(|one| !matches!(one.step, Step::Nothing));
        for one in &locked {
            if let Err(error) = one.complete().await {
                unmoved.push(Unmoved { key: one.rename.old.spec.key(), error });
            }
        }
        close(locked).await;
        if unmoved.is_empty() { Ok(()) } else { Err(unmoved) }
    }
}

/// A stream of which both references are held alone.
struct Locked {
    rename: Rename,
    /// Looked up again: before, others could go on.
    step: Step,
    old: Held,
    new: Held,
}

impl Locked {
    async fn of(rename: Rename) -> Result<Locked, MoveError> {
        let old = Held::of(&rename.old.spec).await?;
        let new = match Held::of(&rename.new.spec).await {
            Ok(new) => new,
            Err(error) => {
                old.link.close().await;
                return Err(error);
            }
        };
        let step =
            step_of(&rename).await.map_err(|error| MoveError::NotRenamed(format!("{error:#}")));
        match step {
            Ok(step) => Ok(Locked { rename, step, old, new }),
            Err(error) => {
                old.link.close().await;
                new.link.close().await;
                Err(error)
            }
        }
    }

    /// The new contents of both state files.
    async fn contents(&self) -> Result<Vec<(StateFile, Memory, Renamed)>, MoveError> {
        let Step::Begin(beginning) = self.step else { return Ok(Vec::new()) };
        let Rename { old, new } = &self.rename;
        // The position that the sink will have under the new reference.
        let own = if new.renames { (old.look)().await? } else { (new.look)().await? };
        let moved =
            Some(Moved { over: stored_on(&*self.new.link).await?, sink_is_behind: own.is_some() });
        let memory = Memory::Beginning(Beginning { instead_of: own, moved, ..beginning });
        let (from, to) = (old.spec.reference.clone(), new.spec.reference.clone());
        let closed = Renamed { renamed_to: Some(to), ..Renamed::default() };
        let named = Renamed { renamed_from: Some(from), ..Renamed::default() };
        Ok(vec![
            (StateFile::of(&new.spec), memory, named),
            (StateFile::of(&old.spec), memory, closed),
        ])
    }

    async fn complete(&self) -> Result<(), MoveError> {
        let Rename { old, new } = &self.rename;
        if let Step::Nothing = self.step {
            let former = Former { reference: old.spec.reference.clone(), is_trial: false };
            (new.renaming)(former).await.map_err(MoveError::SinkUnnamed)?;
            let (from, to) = (Arc::clone(&old.spec), Arc::clone(&new.spec));
            let copied = blocking(move || stood_by::copy(&from, &to)).await?;
            return copied.map_err(|error| {
                MoveError::SinkUnnamed(SinkError::transient(format!("in `state_dir`: {error}")))
            });
        }
        let file = StateFile::of(&new.spec);
        let read = blocking(move || file.read_all()).await?.map_err(begun)?;
        let memory = match read {
            Some((memory, Renamed { renamed_from: Some(from), .. })) => {
                complete_rename(&new.spec, &new.renaming, &from, memory).await.map_err(begun)?;
                memory
            }
            None | Some((_, Renamed { renamed_to: Some(_), .. })) => return Ok(()),
            Some((memory, _)) => memory,
        };
        let (sink, own) = Opened::of(new).await.map_err(begun)?;
        match memory.beginning() {
            Some(beginning) if is_open(own, &beginning) => {
                complete(new, &*self.new.link, sink, &beginning).await
            }
            _ => {
                sink.close_now().await;
                Ok(())
            }
        }
    }
}

/// True if the sink has not gone on since the move to this beginning, which is not complete.
fn is_open(own: Option<Checkpoint>, beginning: &Beginning) -> bool {
    let has_moved = own.is_none_or(|own| own.offset < beginning.at);
    let is_amid = interrupted(own, Some(Memory::Beginning(*beginning))).is_some();
    beginning.moved.is_some() && (is_amid || has_moved)
}

async fn close(locked: Vec<Locked>) {
    for Locked { old, new, .. } in locked {
        old.link.close().await;
        new.link.close().await;
    }
}

async fn decide_all(
    locked: &[Locked],
    prepare: impl FnOnce() -> Result<(), MoveError>,
) -> Result<(), Vec<Unmoved>> {
    let of = |one: &Locked, error| vec![Unmoved { key: one.rename.old.spec.key(), error }];
    let keys = || locked.iter().map(|one| one.rename.old.spec.key()).collect();
    let mut contents = Vec::new();
    let looking = locked.iter().map(Locked::contents);
    for (one, looked) in locked.iter().zip(join_all(looking).await) {
        contents.extend(looked.map_err(|error| of(one, error))?);
    }
    if !locked.iter().all(|one| matches!(one.step, Step::Decided)) {
        prepare().map_err(|error| undecided(keys(), error))?;
    }
    if contents.is_empty() {
        return Ok(());
    }
    for one in locked {
        one.old.check().and_then(|()| one.new.check()).map_err(|error| of(one, error))?;
    }
    decide(contents).await.map_err(|error| undecided(keys(), error))
}

/// Gives what the sinks and `state_dir` keep the new reference, and then notes that in the state file, which has
/// this content. Can be repeated.
pub(in crate::consumer) async fn complete_rename(
    spec: &Arc<Spec>,
    renaming: &Renaming,
    from: &Reference,
    memory: Memory,
) -> Result<(), SinkError> {
    renaming(Former { reference: from.clone(), is_trial: false }).await?;
    faults::reach(Point::SinkRenamed);
    let (new, old) = (Arc::clone(spec), Spec { reference: from.clone(), ..Spec::clone(spec) });
    let noting = move || -> Result<(), String> {
        let copied = dead_letter_index::copy(&old, &new).and_then(|()| stood_by::copy(&old, &new));
        copied.map_err(|error| {
            format!("what {} has of {:?}: {error}", new.state_dir.display(), old.reference.as_str())
        })?;
        StateFile::of(&new).write(memory).map_err(|error| error.to_string())
    };
    let noted = tokio::task::spawn_blocking(noting).await;
    noted.unwrap_or_else(|error| Err(error.to_string())).map_err(SinkError::transient)
}

/// What is to be done for a stream.
async fn step_of(Rename { old, new }: &Rename) -> anyhow::Result<Step> {
    let (from, to) = (old.spec.reference.as_str(), new.spec.reference.as_str());
    let files = (StateFile::of(&old.spec), StateFile::of(&new.spec));
    let (was, is) = (files.0.read_all()?, files.1.read_all()?);
    if let Some((_, Renamed { renamed_to: Some(other), .. })) = &was {
        return match &is {
            _ if other.as_str() != to => Err(files.0.is_renamed(other).into()),
            // It was renamed once more since.
            Some((_, Renamed { renamed_to: Some(next), .. })) => {
                Err(files.1.is_renamed(next).into())
            }
            _ => Ok(Step::Decided),
        };
    }
    match &is {
        None => refuse_stored(new).await?,
        // It is renamed back.
        Some((_, Renamed { renamed_to: Some(back), .. })) if back.as_str() == from => {}
        Some(_) => anyhow::bail!(
            "reference {to:?} has a position already, in {}: choose another name. To move a consumer to where another \
             one is, see `rillway offsets export` and `import`",
            files.1.path().display()
        ),
    }
    (new.renaming)(Former { reference: old.spec.reference.clone(), is_trial: true }).await?;
    let seen = super::see(old).await?;
    let has_begun = was.is_some() || seen.stored.is_some() || seen.sink.is_some();
    let at = match &seen.next {
        Next::Halt(why) => anyhow::bail!(
            "it would halt: {why}. Move it to where it may go on with `rillway offsets set`, and then rename it"
        ),
        Next::At(at, Some(_)) => *at,
        Next::From(_) | Next::At(_, None) if !has_begun => return Ok(Step::Nothing),
        // Its position is lost, or in doubt: it may go on anywhere, so the new reference is not sent there.
        Next::From(why) => anyhow::bail!(
            "where it goes on is not known now ({why}). Try again later; or start it once, or move it with `rillway \
             offsets set`, and then rename it"
        ),
        Next::At(at, None) => anyhow::bail!(
            "it has a position that does not count, and would begin at offset {at}. Start it once, or move it with \
             `rillway offsets set`, and then rename it"
        ),
    };
    let known = behind(&seen, at);
    let mut to = plan(old, Target::To(Start::Offset(at))).await?.to;
    to.behind = known.or(to.behind);
    Ok(Step::Begin(to))
}

/// Identity of the chunk before `at`, as the positions have it: it is kept, so that a re-created stream is recognised
/// under the new reference too.
fn behind(seen: &Seen, at: Offset) -> Option<ChunkId> {
    let of = |position: Checkpoint| position.chunk.filter(|_| position.offset.next() == at);
    let by_sink = seen.sink.and_then(of);
    by_sink.or_else(|| match seen.memory? {
        Memory::Position(position) => of(position),
        Memory::Beginning(beginning) => beginning.behind.filter(|_| beginning.at == at),
    })
}

/// Refuses if the broker holds an offset for the new reference, of which no state file here knows: another program
/// has it, and would go on from ours.
async fn refuse_stored(new: &Subject) -> anyhow::Result<()> {
    let link = new.spec.source.connect(Prefer::Replica).await?;
    let stored = stored_on(&*link).await;
    link.close().await;
    match stored? {
        None => Ok(()),
        Some(at) => anyhow::bail!(
            "the broker holds offset {at} for reference {:?} on this stream already, so another program has that \
             reference, or had it: choose another name",
            new.spec.reference.as_str()
        ),
    }
}
