//! The protocol: how objects are committed, and how an owner loses the right to create any.
//!
//! See the [module](super) for the proof, and `simulation.rs` for the search through the
//! interleavings of two owners and crashes. Commits of several objects are in [`several`]; what they have
//! staged is removed in [`sweeping`].

mod several;
mod sweeping;

use std::sync::Arc;

use bytes::Bytes;

use self::several::{ATTEMPTS_BEFORE_ADVICE, Creating};
use self::sweeping::Leftovers;
use super::commit::{Commit, Object};
use super::layout::{Layout, holds_no_records};
use super::state::{Claim, Owner, State};
use super::store::{Created, Store, Swapped, Version};
use crate::faults::{self, Point};
use crate::sink::SinkError;
use crate::types::{Checkpoint, Reference, StreamName};

/// Number of attempts of a step that lost a race. Each loss means that something else advanced, so
/// a few are enough.
const ATTEMPTS_MAX: u32 = 5;

/// Names and keys of an archive.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
    /// Folder of the objects.
    pub(super) table: String,
    /// Key of the checkpoint.
    pub(super) checkpoint: String,
    /// Key for testing the store.
    pub(super) probe: String,
    /// Folder of what is staged.
    pub(super) staged: String,
    /// With `partition_by`: the names of its parts.
    pub(super) partition_by: Option<Vec<String>>,
}

/// Result of a claim. Both are final: the object is created once, with either content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The object exists and counts.
    Landed,
    /// An object without records has its key, and it can never be created.
    Void,
}

/// Content under a claimed key.
enum Found {
    Nothing,
    Settled(Fate),
}

/// An archive of this owner, until another one takes over.
pub(super) struct Committer {
    store: Arc<dyn Store>,
    names: Names,
    layout: Layout,
    owner: Owner,
    state: State,
    version: Version,
    /// Result of the state's claim; `None` if unknown.
    fate: Option<Fate>,
    /// The objects of the state's claim, if they are several.
    creating: Creating,
    /// What is staged and not removed yet.
    leftovers: Leftovers,
}

impl Committer {
    /// Takes over the archive from any earlier owner, and determines the result of the last claim. Several objects
    /// that were claimed are not created yet, but count: see [`Committer::is_unfinished`].
    pub(super) async fn take_over(
        store: Arc<dyn Store>,
        names: Names,
        layout: Layout,
    ) -> Result<Committer, SinkError> {
        let owner = Owner::new();
        for _ in 0..ATTEMPTS_MAX {
            let (state, from) = match read(&*store, &names).await? {
                Some((mut state, version)) => {
                    let columns = layout.columns();
                    state.check_columns(&columns, &store.place(&names.checkpoint))?;
                    check_folders(&*store, &names, &state).await?;
                    if let Some(claim) = state.claim.as_ref().filter(|claim| claim.staged.is_none())
                        && store.digest(&claim.key).await?.is_none()
                    {
                        // An empty object may come in its place, with the columns of now.
                        state.note_columns(&columns);
                    }
                    (state.taken_over_by(owner.clone(), names.partition_by.clone()), Some(version))
                }
                None => {
                    try_out(&*store, &names).await?;
                    let (stream, reference) = (names.stream.clone(), names.reference.clone());
                    let parts = names.partition_by.clone();
                    (State::begin(stream, reference, owner.clone(), parts), None)
                }
            };
            let swapped = store.swap(&names.checkpoint, from.as_ref(), state.encode()?).await?;
            let version = match swapped {
                Swapped::Moved(version) => Some(version),
                // Perhaps by this very swap, whose first answer was lost.
                Swapped::Lost => read(&*store, &names)
                    .await?
                    .and_then(|(found, version)| (found == state).then_some(version)),
            };
            if let Some(version) = version {
                let leftovers = Leftovers::of(from.is_some());
                let mut committer = Committer {
                    store,
                    names,
                    layout,
                    owner,
                    state,
                    version,
                    fate: None,
                    creating: Creating::default(),
                    leftovers,
                };
                match committer.state.claim.clone() {
                    Some(Claim { staged: None, .. }) => committer.advance(|_| {}).await?,
                    Some(claim) => committer.check_staged(&claim).await?,
                    None => {}
                }
                return Ok(committer);
            }
        }
        Err(SinkError::transient(format!(
            "could not take over {}: other processes were faster {ATTEMPTS_MAX} times. Does the same \
             consumer run more than once?",
            store.place(&names.checkpoint)
        )))
    }

    /// The position; `None` before the first object.
    pub(super) fn position(&self) -> Option<Checkpoint> {
        match (&self.state.claim, self.fate) {
            (Some(claim), Some(Fate::Landed)) => Some(claim.checkpoint),
            // Never void: what is staged counts since its claim.
            (Some(claim), None) if claim.staged.is_some() => Some(claim.checkpoint),
            _ => self.state.checkpoint,
        }
    }

    /// Whether several objects are claimed that may not exist yet. The next step creates them, whatever it
    /// is; [`Committer::settle`] does nothing else.
    pub(super) fn is_unfinished(&self) -> bool {
        self.fate.is_none() && self.state.claim.as_ref().is_some_and(|claim| claim.staged.is_some())
    }

    /// Whether [`Committer::settle`] has something to do for an earlier process.
    pub(super) fn has_work_of_others(&self) -> bool {
        self.is_unfinished() || self.leftovers.are_unknown()
    }

    /// Creates the objects, so that they count. Called again after a transient error, it continues.
    pub(super) async fn commit(&mut self, commit: &Commit) -> Result<(), SinkError> {
        match (&commit.packed, commit.objects.as_slice()) {
            (None, [object]) => self.commit_one(object, commit.checkpoint).await,
            (Some(packed), [_, _, ..]) => self.commit_several(commit, packed).await,
            _ => Err(SinkError::Fatal("internal error: a commit of no objects".to_owned())),
        }
    }

    async fn commit_one(
        &mut self,
        object: &Object,
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        let is_claimed = |state: &State| {
            state.claim.as_ref().is_some_and(|claim| {
                claim.staged.is_none()
                    && claim.digest() == object.digest
                    && claim.first_offset == object.first_offset
            })
        };
        if !is_claimed(&self.state) {
            let (table, columns) = (self.names.table.clone(), self.layout.columns());
            let claim = |state: &mut State| {
                state.note_columns(&columns);
                state.claim = Some(Claim {
                    key: object.key(&table, state.sequence),
                    bytes: object.digest.bytes,
                    crc: object.digest.crc,
                    first_offset: object.first_offset,
                    last_offset: object.last_offset,
                    records: object.records,
                    checkpoint,
                    staged: None,
                });
            };
            self.advance(claim).await?;
        }
        faults::reach(Point::Written);
        let Some(claim) = self.state.claim.clone() else {
            return Err(SinkError::Fatal("internal error: a claim is gone".to_owned()));
        };
        if self.fate.is_none() {
            let started = std::time::Instant::now();
            let is_late = self.creating.attempt(self.state.sequence) >= ATTEMPTS_BEFORE_ADVICE;
            let advised = |error| if is_late { self.with_advice(error) } else { error };
            let created = self.store.create(&claim.key, object.bytes.clone()).await;
            self.fate = Some(match created.map_err(advised)? {
                Created::Made => {
                    // A folder of `partition_by` holds what messages hold.
                    let is_plain = self.names.partition_by.is_none();
                    let place = if is_plain { &claim.key } else { &self.names.table };
                    tracing::info!(
                        object = self.store.place(place),
                        records = claim.records,
                        bytes = claim.bytes,
                        first_offset = claim.first_offset.0,
                        last_offset = claim.last_offset.0,
                        took_ms = started.elapsed().as_millis(),
                        "object written"
                    );
                    Fate::Landed
                }
                Created::Exists => match self.found(&claim).await? {
                    Found::Settled(fate) => fate,
                    Found::Nothing => {
                        return Err(SinkError::transient(format!(
                            "{} could not be created, but does not exist either",
                            self.store.place(&claim.key)
                        )));
                    }
                },
            });
        }
        match self.fate {
            Some(Fate::Landed) => {
                faults::reach(Point::Flushed);
                Ok(())
            }
            // Only a later owner does that.
            _ => Err(match read(&*self.store, &self.names).await? {
                Some((state, _)) if state.owner.id != self.owner.id => self.lost_to(&state),
                _ => SinkError::Fatal(format!(
                    "{} was made void, but no other process owns the archive. Someone created objects \
                     there by hand. Restart this consumer: it resumes from the existing objects.",
                    self.store.place(&claim.key)
                )),
            }),
        }
    }

    /// Stores the position in the checkpoint, so that it no longer depends on the last object.
    pub(super) async fn settle(&mut self) -> Result<(), SinkError> {
        if self.state.claim.is_some() {
            self.advance(|_| {}).await?;
        }
        self.remove_what_others_staged().await;
        Ok(())
    }

    /// Moves the position over offsets without records.
    pub(super) async fn pass_over(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        self.advance(|state| state.checkpoint = Some(checkpoint)).await?;
        self.remove_what_others_staged().await;
        Ok(())
    }

    /// Moves the position, or forgets it: what comes may be in the archive already, or mean other records.
    pub(super) async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<(), SinkError> {
        let history = self.state.history.saturating_add(1);
        self.advance(|state| {
            state.history = history;
            state.checkpoint = to;
        })
        .await
    }

    /// Replaces the state by the next one: first the last claim is folded into the position, then
    /// `change` is applied.
    async fn advance(
        &mut self,
        change: impl Fn(&mut State) + Send + Sync,
    ) -> Result<(), SinkError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut next = self.state.clone();
            next.sequence += 1;
            if let Some(claim) = next.claim.take() {
                let fate = match self.fate {
                    Some(fate) => fate,
                    None => self.decide(&claim).await?,
                };
                self.fate = Some(fate);
                if fate == Fate::Landed {
                    next.checkpoint = Some(claim.checkpoint);
                }
            }
            change(&mut next);
            let next = next.in_its_layout();
            let from = Some(&self.version);
            let swapped = self.store.swap(&self.names.checkpoint, from, next.encode()?).await?;
            let (found, version) = match swapped {
                Swapped::Moved(version) => (next.clone(), version),
                Swapped::Lost => match read(&*self.store, &self.names).await? {
                    Some(found) => found,
                    None => {
                        return Err(SinkError::Fatal(format!(
                            "{} was deleted. Restore it, or move all objects of \
                             this stream away; then restart this consumer.",
                            self.store.place(&self.names.checkpoint)
                        )));
                    }
                },
            };
            if found.owner.id != self.owner.id {
                return Err(self.lost_to(&found));
            }
            // Otherwise an earlier swap of ours, whose answer was lost, took effect late.
            let done = found == next;
            if found != self.state {
                self.fate = None;
            }
            (self.state, self.version) = (found, version);
            if done {
                self.remove_what_is_done().await;
                return Ok(());
            }
        }
        Err(SinkError::transient(format!(
            "{} was changed by others {ATTEMPTS_MAX} times",
            self.store.place(&self.names.checkpoint)
        )))
    }

    /// Determines the result of a claim; if it has none yet, makes the claim void. Several objects that are
    /// staged are created.
    async fn decide(&mut self, claim: &Claim) -> Result<Fate, SinkError> {
        if let Some(staged) = claim.staged {
            return self.finish(claim, staged).await;
        }
        for _ in 0..ATTEMPTS_MAX {
            if let Found::Settled(fate) = self.found(claim).await? {
                return Ok(fate);
            }
            let void = self.layout.void(&claim.key)?;
            let created = self.store.create(&claim.key, void).await;
            if created.map_err(|error| self.with_advice(error))? == Created::Made {
                return Ok(Fate::Void);
            }
        }
        let place = self.store.place(&claim.key);
        Err(SinkError::transient(format!("{place} can neither be created nor found")))
    }

    /// Content under a claimed key, durable from now on.
    async fn found(&self, claim: &Claim) -> Result<Found, SinkError> {
        let found = found(&*self.store, claim).await?;
        if let Found::Settled(_) = found {
            self.store.keep(&claim.key).await?;
        }
        Ok(found)
    }

    fn lost_to(&self, found: &State) -> SinkError {
        SinkError::Fatal(format!(
            "another process (id {}, since {}) has taken over {} (epoch {}; this one was \
             epoch {}). The batches held here were not written. Run only one of them.",
            found.owner.process,
            super::layout::rfc3339(found.owner.since),
            self.store.place(&self.names.checkpoint),
            found.epoch,
            self.state.epoch,
        ))
    }
}

/// Which position [`look`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upto {
    /// That at which a start would continue: what is staged and claimed counts.
    Claimed,
    /// That up to which all objects exist.
    Created,
}

/// The position, read only.
pub(super) async fn look(
    store: &dyn Store,
    names: &Names,
    layout: &Layout,
    upto: Upto,
) -> Result<Option<Checkpoint>, SinkError> {
    let mut before = None;
    loop {
        let Some((state, _)) = read(store, names).await? else { return Ok(None) };
        state.check_columns(&layout.columns(), &store.place(&names.checkpoint))?;
        check_folders(store, names, &state).await?;
        let Some(claim) = state.claim.clone() else { return Ok(state.checkpoint) };
        let counts = match claim.staged {
            Some(_) => upto == Upto::Claimed && store.exists(&claim.key).await?,
            None => matches!(found(store, &claim).await?, Found::Settled(Fate::Landed)),
        };
        if counts {
            return Ok(Some(claim.checkpoint));
        }
        // Its owner may have settled it meanwhile, and removed what was staged.
        let is_staged = upto == Upto::Claimed && claim.staged.is_some();
        if !is_staged || before.as_ref() == Some(&state) {
            return Ok(state.checkpoint);
        }
        before = Some(state);
    }
}

/// Checks that the folders have the names of those that exist, if any object does.
async fn check_folders(store: &dyn Store, names: &Names, state: &State) -> Result<(), SinkError> {
    let now = names.partition_by.as_deref();
    if state.has_folders_of(now)
        || (state.claim.is_none() && !store.any_below(&names.table).await?)
    {
        return Ok(());
    }
    Err(state.other_folders(now, &store.place(&names.checkpoint)))
}

async fn read(store: &dyn Store, names: &Names) -> Result<Option<(State, Version)>, SinkError> {
    let Some((bytes, version)) = store.read(&names.checkpoint).await? else { return Ok(None) };
    let place = store.place(&names.checkpoint);
    let state = State::decode(&bytes, &place, (&names.stream, &names.reference))?;
    Ok(Some((state, version)))
}

async fn found(store: &dyn Store, claim: &Claim) -> Result<Found, SinkError> {
    let Some(digest) = store.digest(&claim.key).await? else { return Ok(Found::Nothing) };
    if digest == claim.digest() {
        return Ok(Found::Settled(Fate::Landed));
    }
    let small = digest.bytes <= super::store::READ_BYTES_MAX;
    if small
        && let Some((bytes, _)) = store.read(&claim.key).await?
        && holds_no_records(&claim.key, bytes)
    {
        return Ok(Found::Settled(Fate::Void));
    }
    Err(SinkError::Fatal(format!(
        "{} is not the object that rillway claimed ({} bytes with checksum {:08x}, not {} bytes \
         with {:08x}), and it contains records. Find out what wrote it, move it away, and restart this \
         consumer.",
        store.place(&claim.key),
        digest.bytes,
        digest.crc,
        claim.bytes,
        claim.crc
    )))
}

/// Tests the store before a new archive: there must be no objects without a checkpoint, and
/// conditional writes must work.
async fn try_out(store: &dyn Store, names: &Names) -> Result<(), SinkError> {
    // A faster process may have created it meanwhile.
    if store.any_below(&names.table).await? && store.read(&names.checkpoint).await?.is_none() {
        return Err(SinkError::Fatal(format!(
            "there are objects below {}, but no checkpoint {}: their last offset is unknown. \
             Restore the checkpoint, move the objects away, or give another `url`.",
            store.place(&names.table),
            store.place(&names.checkpoint)
        )));
    }
    let broken = |what: &str| {
        SinkError::Fatal(format!(
            "{} {what}. Without that, exactly-once is impossible. Use a store \
             with conditional writes (If-None-Match and If-Match on PUT).",
            store.place(&names.probe)
        ))
    };
    store.create(&names.probe, Bytes::from_static(b"1")).await?;
    if store.create(&names.probe, Bytes::from_static(b"2")).await? != Created::Exists {
        return Err(broken("was created twice: the store ignores If-None-Match"));
    }
    let Some((bytes, first)) = store.read(&names.probe).await? else {
        return Err(broken("was created, but does not exist"));
    };
    if &*bytes == b"2" {
        return Err(broken("was overwritten: the store ignores If-None-Match"));
    }
    let other = Bytes::from(format!("{:016x}", fastrand::u64(..)));
    match store.swap(&names.probe, Some(&first), other).await? {
        // Another process tests it as well.
        Swapped::Lost => return Ok(()),
        Swapped::Moved(_) => {}
    }
    match store.swap(&names.probe, Some(&first), Bytes::from_static(b"1")).await? {
        Swapped::Lost => Ok(()),
        Swapped::Moved(_) => {
            Err(broken("was replaced by a stale version: the store ignores If-Match"))
        }
    }
}
