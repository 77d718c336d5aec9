//! Removes what was staged for a commit, once no claim refers to it any more.
//!
//! A key below the staging folder begins with the epoch of its owner, and is used once. Once an owner has
//! settled the claim that it found, no claim refers to a key of an earlier epoch, nor ever will, because
//! earlier owners can claim nothing. These are the keys that it removes, and its own ones.
//!
//! What is left takes space and does no harm, so a failure of this is none of the sink. It never delays an
//! opening, and a commit only by a few requests.

use std::time::Duration;

use super::{Committer, SinkError};

/// Most of what others staged that one start removes.
const OTHERS_MAX: usize = 1000;

/// Most of these that are removed at a time.
const AT_ONCE: usize = 50;

/// Time limit of one removal: a hand-over must not wait for a store that hangs there.
const REMOVE_MAX: Duration = Duration::from_secs(5);

/// Most keys of its own that an owner keeps to try again; what is forgotten is for the next start.
const OWN_MAX: usize = 100;

/// Keys of what is staged and not removed yet.
pub(super) struct Leftovers {
    /// Those of this owner.
    own: Vec<String>,
    /// Those of earlier owners; `None` before they were listed.
    others: Option<Vec<String>>,
    /// True once something could not be removed.
    has_warned: bool,
}

impl Leftovers {
    /// Of a new archive, or of one that had other owners.
    pub(super) fn of(had_others: bool) -> Leftovers {
        let others = if had_others { None } else { Some(Vec::new()) };
        Leftovers { own: Vec::new(), others, has_warned: false }
    }

    /// Whether nobody has looked for those of others yet.
    pub(super) fn are_unknown(&self) -> bool {
        self.others.is_none()
    }

    /// Notes what this owner is about to stage.
    pub(super) fn note(&mut self, key: &str) {
        if !self.own.iter().any(|own| own == key) {
            self.own.push(key.to_owned());
        }
    }
}

impl Committer {
    /// Removes what this owner has staged and no claim refers to any more. What cannot be removed is tried again
    /// the next time.
    pub(super) async fn remove_what_is_done(&mut self) {
        let claimed = self.state.claim.as_ref().map(|claim| claim.key.clone());
        let own = std::mem::take(&mut self.leftovers.own);
        let (kept, mut done): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|key| Some(key) == claimed.as_ref());
        self.remove_some(&mut done).await;
        done.truncate(OWN_MAX);
        self.leftovers.own = done;
        self.leftovers.own.extend(kept);
    }

    /// Removes some of what earlier owners have staged, unless the claim that this owner has found is not settled
    /// yet.
    pub(super) async fn remove_what_others_staged(&mut self) {
        if self.state.claim.is_some() {
            return;
        }
        let mut others = match self.leftovers.others.take() {
            Some(others) => others,
            None => match self.store.list(&self.names.staged).await {
                Ok(keys) => {
                    let earlier = keys.into_iter().filter(|key| self.is_of_an_earlier_owner(key));
                    earlier.take(OTHERS_MAX).collect()
                }
                Err(error) => {
                    self.warn(&self.names.staged.clone(), &error);
                    Vec::new()
                }
            },
        };
        self.remove_some(&mut others).await;
        self.leftovers.others = Some(others);
    }

    fn is_of_an_earlier_owner(&self, key: &str) -> bool {
        let epoch = key.rsplit('/').next().and_then(|name| name.split('-').next());
        let epoch = epoch.and_then(|epoch| epoch.parse::<u64>().ok());
        epoch.is_some_and(|epoch| epoch < self.state.epoch)
    }

    /// Removes the last ones of these, up to the first that cannot be removed: the others would not be either.
    async fn remove_some(&mut self, keys: &mut Vec<String>) {
        for _ in 0..AT_ONCE {
            let Some(key) = keys.pop() else { return };
            let removing = tokio::time::timeout(REMOVE_MAX, self.store.remove(&key));
            let late = || Err(SinkError::transient("no answer in time"));
            if let Err(error) = removing.await.unwrap_or_else(|_| late()) {
                self.warn(&key, &error);
                keys.push(key);
                return;
            }
        }
    }

    fn warn(&mut self, key: &str, error: &SinkError) {
        if !std::mem::replace(&mut self.leftovers.has_warned, true) {
            tracing::warn!(
                key = self.store.place(key),
                %error,
                "what was staged for a commit could not be removed, and takes space. It is tried again with later \
                 commits and at the next start. Allow deletions below that folder (on S3 s3:DeleteObject); nothing \
                 else is ever deleted (this is told once)"
            );
        }
    }
}
