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
//! A key below the staging folder begins with the epoch of its owner, and is used once. Once an owner has
//! settled the claim that it found, no claim refers to a key of an earlier epoch, nor ever will, because
//! earlier owners can claim nothing. These are the keys that it removes, and its own ones.

use futures_util::future::try_join_all;

use super::{Claim, Commit, Committer, Created, Fate, Object, Point, SinkError, faults, read};
use crate::sink::object::commit::{Packed, unpack};
use crate::sink::object::state::Staged;
use crate::sink::object::store::Digest;

/// Most of what others staged that one start removes.
const REMOVED_MAX: usize = 1000;

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
    pub(super) async fn finish(&self, claim: &Claim, staged: Staged) -> Result<Fate, SinkError> {
        let place = self.store.place(&claim.key);
        let lost = |what: String| {
            SinkError::Fatal(format!(
                "{place} {what}. It holds {} objects with the records of offsets {} to {}, of which not all may \
                 exist in the table. Restore it (from a backup, or a former version in the bucket), and restart \
                 this consumer. If that is impossible, make sure that no other process of this consumer \
                 exists (a frozen one would create the objects again), move the objects whose names end in -{}, \
                 before the extension, away, remove `claim` from {} (set it to null), and restart: these records \
                 are then written again.",
                staged.objects,
                claim.first_offset,
                claim.last_offset,
                staged.number,
                self.store.place(&self.names.checkpoint),
            ))
        };
        let Some(bytes) = self.store.read_whole(&claim.key).await? else {
            // A later owner may have finished, and removed it.
            return Err(match read(&*self.store, &self.names).await? {
                Some((state, _)) if state.owner.id != self.owner.id => self.lost_to(&state),
                _ => lost("is gone".to_owned()),
            });
        };
        if Digest::of(&bytes) != claim.digest() {
            return Err(lost("is damaged: it has another checksum than the claim".to_owned()));
        }
        let objects = unpack(&bytes).map_err(|why| lost(format!("is damaged: {why}")))?;
        self.create_all(&objects, staged.number).await?;
        tracing::info!(
            archive = self.store.place(&self.names.table),
            objects = staged.objects,
            first_offset = claim.first_offset.0,
            last_offset = claim.last_offset.0,
            "finished the commit of an earlier process"
        );
        Ok(Fate::Landed)
    }

    /// Writes all objects as one, outside of the table, and returns its key.
    async fn stage(&mut self, packed: &Packed) -> Result<String, SinkError> {
        let (epoch, sequence) = (self.state.epoch, self.state.sequence);
        let key = format!("{}/{epoch:020}-{}-{sequence}", self.names.staged, self.owner.id);
        if !self.staged.contains(&key) {
            self.staged.push(key.clone());
        }
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

    async fn create_all(&self, objects: &[Object], number: u64) -> Result<(), SinkError> {
        for some in objects.chunks(self.store.operations_max().max(1)) {
            try_join_all(some.iter().map(|object| self.create(object, number))).await?;
        }
        Ok(())
    }

    async fn create(&self, object: &Object, number: u64) -> Result<(), SinkError> {
        faults::reach(Point::Written);
        let key = object.key(&self.names.table, number);
        if self.store.create(&key, object.bytes.clone()).await? == Created::Made {
            return Ok(());
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

    /// Removes what this owner has staged and no claim refers to any more.
    pub(super) async fn remove_what_is_done(&mut self) {
        let claimed = self.state.claim.as_ref().map(|claim| claim.key.clone());
        for key in std::mem::take(&mut self.staged) {
            if Some(&key) == claimed.as_ref() {
                self.staged.push(key);
            } else {
                self.remove(&key).await;
            }
        }
    }

    /// Removes what earlier owners have staged. The claim that this owner has found is settled.
    pub(super) async fn remove_what_others_staged(&mut self) {
        let keys = match self.store.list(&self.names.staged).await {
            Ok(keys) => keys,
            Err(error) => return self.has_left(&self.names.staged.clone(), &error),
        };
        let mut left = REMOVED_MAX;
        for key in keys {
            // The sink is being opened: what is left is for the next start.
            if self.has_left_some || left == 0 {
                return;
            }
            left -= 1;
            let epoch = key.rsplit('/').next().and_then(|name| name.split('-').next());
            let epoch = epoch.and_then(|epoch| epoch.parse::<u64>().ok());
            if epoch.is_some_and(|epoch| epoch < self.state.epoch) {
                self.remove(&key).await;
            }
        }
    }

    async fn remove(&mut self, key: &str) {
        if let Err(error) = self.store.remove(key).await {
            self.has_left(key, &error);
        }
    }

    /// It takes space and does no harm, and the next start tries again.
    fn has_left(&mut self, key: &str, error: &SinkError) {
        if !std::mem::replace(&mut self.has_left_some, true) {
            tracing::warn!(
                key = self.store.place(key),
                %error,
                "what was staged for a commit could not be removed, and takes space until the next start. Allow \
                 deletions below that folder (on S3 s3:DeleteObject); nothing else is ever deleted"
            );
        }
    }
}
