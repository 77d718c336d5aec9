//! What earlier replays of a consumer's dead letters have settled: a small file in `state_dir`.
//!
//! A *round* is a replay that came to its end, or will. Each has a reference of its own, under which
//! the sink keeps how far it got; so an interrupted one goes on, and what was still bad can be tried
//! again in the next. The file holds a lock for as long as a replay runs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::exit::Failure;
use crate::types::{ConsumerName, Offset, Reference, StreamName};

/// What is known of earlier rounds, and of the one under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rounds {
    stream: String,
    reference: String,
    /// The number of the round under way.
    pub(super) round: u32,
    /// Earlier rounds have settled the letters up to this one,
    pub(super) upto: Option<Offset>,
    /// but for these, which were still bad.
    pub(super) pending: BTreeSet<Offset>,
    /// Those that were still bad in this round so far.
    pub(super) bad: BTreeSet<Offset>,
}

impl Rounds {
    /// Whether this letter is for the round under way.
    pub(super) fn wants(&self, offset: Offset) -> bool {
        self.upto.is_none_or(|upto| offset > upto) || self.pending.contains(&offset)
    }

    /// The round after this one, which got as far as `last`.
    pub(super) fn next(&self, last: Option<Offset>) -> Rounds {
        Rounds {
            round: self.round + 1,
            upto: self.upto.max(last),
            pending: self.bad.clone(),
            bad: BTreeSet::new(),
            ..self.clone()
        }
    }
}

/// The file, locked.
pub(super) struct Progress {
    path: PathBuf,
    _lock: File,
}

impl Progress {
    /// Takes hold of the file of this consumer, and reads it.
    pub(super) fn open(
        state_dir: &Path,
        consumer: &ConsumerName,
        stream: &StreamName,
        reference: &Reference,
    ) -> Result<(Progress, Rounds), Failure> {
        let path = state_dir.join(format!("{consumer}.replay.json"));
        let failed = |what: &dyn std::fmt::Display| {
            Failure::Unavailable(format!("{}: {what}", path.display()))
        };
        fs::create_dir_all(state_dir).map_err(|error| failed(&error))?;
        let lock = File::create(path.with_extension("lock")).map_err(|error| failed(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(failed(&"another replay of this consumer is running"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let fresh = Rounds {
            stream: stream.to_string(),
            reference: reference.to_string(),
            ..Rounds::default()
        };
        let rounds = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(&error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh.clone(),
            Err(error) => return Err(failed(&error)),
        };
        if (&rounds.stream, &rounds.reference) != (&fresh.stream, &fresh.reference) {
            let (stream, reference) = (&rounds.stream, &rounds.reference);
            return Err(failed(&format!(
                "it is of stream {stream:?} and reference {reference:?}; if they are gone for good, \
                 delete it"
            )));
        }
        Ok((Progress { path, _lock: lock }, rounds))
    }

    /// Replaces what it holds, all or nothing.
    pub(super) fn write(&self, rounds: &Rounds) -> Result<(), Failure> {
        self.replace(rounds).map_err(|error| {
            Failure::Unavailable(format!("{} cannot be written: {error}", self.path.display()))
        })
    }

    fn replace(&self, rounds: &Rounds) -> io::Result<()> {
        let next = self.path.with_extension("json.next");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec_pretty(rounds)?)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, reference: &str) -> Result<(Progress, Rounds), Failure> {
        Progress::open(dir, &"c".into(), &"s".into(), &reference.into())
    }

    #[test]
    fn a_round_takes_what_is_new_and_what_was_still_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut rounds) = open(dir.path(), "r").unwrap();
        assert!(rounds.wants(Offset(0)) && rounds.round == 0);
        rounds.bad.extend([Offset(3), Offset(5)]);
        progress.write(&rounds.next(Some(Offset(9)))).unwrap();
        assert!(open(dir.path(), "r").is_err(), "two at once");
        drop(progress);
        let (_progress, next) = open(dir.path(), "r").unwrap();
        assert_eq!(next.round, 1);
        let wanted: Vec<u64> = (0..12).filter(|o| next.wants(Offset(*o))).collect();
        assert_eq!(wanted, [3, 5, 10, 11]);
    }

    #[test]
    fn the_file_of_another_reference_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, rounds) = open(dir.path(), "r").unwrap();
        progress.write(&rounds).unwrap();
        drop(progress);
        assert!(open(dir.path(), "other").is_err());
    }
}
