//! Commits of several objects, one for each folder: staged as one, claimed, and then created.
//!
//! Nobody can make several objects appear at once, and readers take each as soon as it exists. So the commit
//! must not depend on the process that makes it:
//! 1. *stage*: all objects are written as one, outside of the table;
//! 2. *claim*: the checkpoint names what is staged, and the position after it. From here on the commit counts;
//! 3. *create*: each object is created, if it does not exist;
//! 4. *settle*: the checkpoint takes over the position, and what was staged is removed.
//!
//! Whoever takes over after a claim does 3 and 4 from what is staged. The keys and the bytes are the same, so it
//! does not matter who creates which object, or whether an old owner wakes up meanwhile. Nothing is taken
//! from the stream or from the configuration.
//!
//! That may take long, and an opening must not: so it comes with the first step after it. The position
//! counts what is staged before, because nobody can undo the claim. Each attempt does only what is left: an
//! object that is known to exist is not asked for again, and any other one is looked for before it is sent.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::{Claim, Commit, Committer, Created, Fate, Object, Point, SinkError, faults, read};
use crate::sink::object::commit::{Packed, unpack};
use crate::sink::object::state::Staged;
use crate::sink::object::store::Digest;

/// Number of attempts after which an error says what to do if the store never takes the object.
pub(super) const ATTEMPTS_BEFORE_ADVICE: u32 = 4;

/// What is known of the objects of a claim.
#[derive(Default)]
pub(super) struct Creating {
    /// Number of the claim; 0 for none.
    number: u64,
    /// The objects, if an earlier process has claimed them: they are read once.
    found: Vec<Object>,
    /// Places of those that exist.
    there: HashSet<usize>,
    attempts: u32,
}

impl Creating {
    fn of(&mut self, number: u64) -> &mut Creating {
        if self.number != number {
            *self = Creating { number, ..Creating::default() };
        }
        self
    }

    /// Counts an attempt for this claim, and tells how many there were before.
    pub(super) fn attempt(&mut self, number: u64) -> u32 {
        let attempts = &mut self.of(number).attempts;
        *attempts = attempts.saturating_add(1);
        *attempts - 1
    }
}

impl Committer {
    pub(super) async fn commit_several(
        &mut self,
        commit: &Commit,
        packed: &Packed,
    ) -> Result<(), SinkError> {
        let is_claimed = self.state.claim.as_ref().is_some_and(|claim| {
            claim.staged.is_some()
                && claim.digest() == packed.digest
                && claim.checkpoint == commit.checkpoint
        });
        if !is_claimed {
            let key = self.stage(packed).await?;
            faults::reach(Point::Written);
            let columns = self.layout.columns();
            let objects = commit.objects.len() as u64;
            let (first_offset, last_offset) = (commit.first_offset(), commit.last_offset());
            self.advance(|state| {
                state.note_columns(&columns);
                state.claim = Some(Claim {
                    key: key.clone(),
                    bytes: packed.digest.bytes,
                    crc: packed.digest.crc,
                    first_offset,
                    last_offset,
                    records: commit.records(),
                    checkpoint: commit.checkpoint,
                    staged: Some(Staged { objects, number: state.sequence }),
                });
            })
            .await?;
        }
        let staged = self.state.claim.as_ref().and_then(|claim| claim.staged);
        let Some(staged) = staged else {
            return Err(SinkError::Fatal("internal error: a claim is gone".to_owned()));
        };
        if self.fate.is_none() {
            let started = std::time::Instant::now();
            self.create_all(&commit.objects, staged.number).await?;
            self.fate = Some(Fate::Landed);
            tracing::info!(
                archive = self.store.place(&self.names.table),
                objects = staged.objects,
                records = commit.records(),
                bytes = packed.digest.bytes,
                first_offset = commit.first_offset().0,
                last_offset = commit.last_offset().0,
                took_ms = started.elapsed().as_millis(),
                "objects written"
            );
        }
        faults::reach(Point::Flushed);
        Ok(())
    }

    /// Finishes a commit that was claimed.
    pub(super) async fn finish(
        &mut self,
        claim: &Claim,
        staged: Staged,
    ) -> Result<Fate, SinkError> {
        let started = std::time::Instant::now();
        if self.creating.of(staged.number).found.is_empty() {
            let found = self.read_staged(claim, staged).await?;
            self.creating.of(staged.number).found = found;
        }
        let objects = self.creating.found.clone();
        self.create_all(&objects, staged.number).await?;
        tracing::info!(
            archive = self.store.place(&self.names.table),
            objects = staged.objects,
            first_offset = claim.first_offset.0,
            last_offset = claim.last_offset.0,
            took_ms = started.elapsed().as_millis(),
            "finished the commit of an earlier process"
        );
        Ok(Fate::Landed)
    }

    /// Checks that what is claimed is staged.
    pub(super) async fn check_staged(&self, claim: &Claim) -> Result<(), SinkError> {
        match claim.staged {
            Some(staged) if !self.store.exists(&claim.key).await? => {
                Err(self.is_gone(claim, staged).await?)
            }
            _ => Ok(()),
        }
    }

    async fn read_staged(&self, claim: &Claim, staged: Staged) -> Result<Vec<Object>, SinkError> {
        let Some(bytes) = self.store.read_whole(&claim.key).await? else {
            return Err(self.is_gone(claim, staged).await?);
        };
        let damaged = |why| self.lost(claim, staged, &format!("is damaged: {why}"));
        if Digest::of(&bytes) != claim.digest() {
            return Err(damaged("it has another checksum than the claim".to_owned()));
        }
        unpack(&bytes).map_err(damaged)
    }

    /// The error for a claim without what was staged.
    async fn is_gone(&self, claim: &Claim, staged: Staged) -> Result<SinkError, SinkError> {
        Ok(match read(&*self.store, &self.names).await? {
            // A later owner may have finished, and removed it.
            Some((state, _)) if state.owner.id != self.owner.id => self.lost_to(&state),
            _ => self.lost(claim, staged, "is gone"),
        })
    }

    fn lost(&self, claim: &Claim, staged: Staged, what: &str) -> SinkError {
        SinkError::Fatal(format!(
            "{} {what}. It holds {} objects with the records of offsets {} to {}, of which not all may exist in the \
             table. Restore it (from a backup, or a former version in the bucket), and restart this consumer. If that \
             is impossible, {}: these records are then written again.",
            self.store.place(&claim.key),
            staged.objects,
            claim.first_offset,
            claim.last_offset,
            self.way_out(staged.number, "and restart"),
        ))
    }

    /// How an operator undoes a claim of several objects.
    fn way_out(&self, number: u64, then: &str) -> String {
        let first = self.state.claim.as_ref().map_or(0, |claim| claim.first_offset.0);
        // Without a position of its own, the sink would take the one that the broker has stored by now.
        let position = match self.state.checkpoint {
            Some(_) => String::new(),
            None => format!(
                "move this consumer back, because it had no position before (rillway offsets set CONSUMER --to \
                 offset:{first}), "
            ),
        };
        format!(
            "make sure that no other process of this consumer exists (a frozen one would create the objects again), \
             move the objects whose names end in -{number}, before the extension, away, remove `claim` from {} (set \
             it to null), {position}{then}",
            self.store.place(&self.names.checkpoint),
        )
    }

    /// The same for the claim of one object, which most likely does not exist.
    pub(super) fn with_advice(&self, error: SinkError) -> SinkError {
        if self.names.partition_by.is_none() {
            return error;
        }
        let advice = format!(
            "If this goes on because the store never takes an object of this name, its messages have to go into \
             another folder, by another source in `partition_by` or by `map`: stop this consumer, make sure that no \
             other process of it exists, move the object of the key in `claim` of {checkpoint} away if there is one \
             (it may have arrived all the same), remove that `claim` (set it to null), and restart with it",
            checkpoint = self.store.place(&self.names.checkpoint)
        );
        match error {
            SinkError::Fatal(what) => SinkError::Fatal(format!("{what} {advice}")),
            SinkError::Transient { what, retry_after } => {
                SinkError::Transient { what: format!("{what}. {advice}"), retry_after }
            }
            other @ SinkError::Poison(_) => other,
        }
    }

    /// What to do about a name that the store never takes: it holds what messages hold.
    fn advice(&self, number: u64) -> String {
        format!(
            "If the store never takes an object of this name, its messages have to go into another folder, by \
             another source in `partition_by` or by `map`: stop this consumer, {}",
            self.way_out(number, "and restart with it")
        )
    }

    /// Writes all objects as one, outside of the table, and returns its key.
    async fn stage(&mut self, packed: &Packed) -> Result<String, SinkError> {
        let (epoch, sequence) = (self.state.epoch, self.state.sequence);
        let key = format!("{}/{epoch:020}-{}-{sequence}", self.names.staged, self.owner.id);
        self.leftovers.note(&key);
        match self.store.create(&key, packed.bytes.clone()).await? {
            Created::Made => return Ok(key),
            // An earlier attempt, whose answer was lost.
            Created::Exists => {}
        }
        match self.store.digest(&key).await? {
            Some(digest) if digest == packed.digest => {
                self.store.keep(&key).await?;
                Ok(key)
            }
            Some(_) => Err(SinkError::Fatal(format!(
                "{} is not what rillway has staged there. Find out what writes below {}, and restart this \
                 consumer.",
                self.store.place(&key),
                self.store.place(&self.names.staged)
            ))),
            None => Err(SinkError::transient(format!(
                "{} could not be created, but does not exist either",
                self.store.place(&key)
            ))),
        }
    }

    /// Creates those objects of a claim that are not known to exist.
    async fn create_all(&mut self, objects: &[Object], number: u64) -> Result<(), SinkError> {
        let before = self.creating.attempt(number);
        let creating = &self.creating;
        // The first attempt of their own process finds none; another one would send for nothing what exists.
        let looks = before > 0 || !creating.found.is_empty();
        let left: Vec<(usize, &Object)> =
            objects.iter().enumerate().filter(|(nth, _)| !creating.there.contains(nth)).collect();
        for some in left.chunks(self.store.operations_max().max(1)) {
            // All of them, also after an error of one: what was sent is not sent again.
            let made = join_all(some.iter().map(|(_, object)| self.create(object, number, looks)));
            let mut failed = None;
            for ((nth, _), made) in some.iter().zip(made.await) {
                match made {
                    Ok(()) => drop(self.creating.of(number).there.insert(*nth)),
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
            match failed {
                None => {}
                Some(SinkError::Transient { what, retry_after })
                    if before >= ATTEMPTS_BEFORE_ADVICE =>
                {
                    let what = format!("{what}. {}", self.advice(number));
                    return Err(SinkError::Transient { what, retry_after });
                }
                Some(error) => return Err(error),
            }
        }
        self.creating = Creating::default();
        Ok(())
    }

    /// Creates an object, if it does not exist. `looks`: it is looked for before it is sent.
    async fn create(&self, object: &Object, number: u64, looks: bool) -> Result<(), SinkError> {
        faults::reach(Point::Written);
        let key = object.key(&self.names.table, number);
        let is_there = looks && self.store.exists(&key).await?;
        let created = match is_there {
            true => Ok(Created::Exists),
            false => self.store.create(&key, object.bytes.clone()).await,
        };
        match created {
            Ok(Created::Made) => return Ok(()),
            Ok(Created::Exists) => {}
            Err(SinkError::Fatal(what)) => {
                return Err(SinkError::Fatal(format!("{what} {}", self.advice(number))));
            }
            Err(error) => return Err(error),
        }
        match self.store.digest(&key).await? {
            Some(digest) if digest == object.digest => self.store.keep(&key).await,
            Some(digest) => Err(SinkError::Fatal(format!(
                "{} is not the object that rillway claimed ({} bytes with checksum {:08x}, not {} bytes with \
                 {:08x}). Find out what wrote it, move it away, and restart this consumer.",
                self.store.place(&key),
                digest.bytes,
                digest.crc,
                object.digest.bytes,
                object.digest.crc
            ))),
            None => Err(SinkError::transient(format!(
                "{} could not be created, but does not exist either",
                self.store.place(&key)
            ))),
        }
    }
}
