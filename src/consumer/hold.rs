//! The lock of a reference in `state_dir`: a second process with the same reference waits, and nobody moves
//! the position of a consumer that runs.
//!
//! Sinks that cannot exclude a second writer themselves (`stdout`, `http`, `metrics`, `null`) hold it
//! alone. The others have their own rule, and with most of them the last one to start may write: a lock of
//! one would reverse that, and a frozen process would keep its successor waiting. Their consumers share it,
//! so that it tells only that one of them runs. Whoever moves the position ([`positions`](super::positions))
//! holds it alone. The lock is for a reference and not for the folder, because several daemons with
//! different consumers may share the default folder.
//!
//! One process at a time completes an interrupted move or rename, also where consumers share the reference's
//! lock: completing takes a second lock ([`Hold::to_complete`]).
//!
//! It is an `flock`, which the kernel releases when the process ends, however it ends. The file is
//! never removed, and contains the pid for the error message of a second process. If nothing can be
//! locked in the folder (read-only, or a network file system without locks), the consumer runs
//! anyway: that is logged, and a second daemon is noticed only by the broker's higher offset. A position is
//! not moved without the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::spec::Spec;
use super::state_file;
use crate::types::{Reference, StreamName};

/// The lock; dropping it releases it.
#[derive(Debug)]
pub struct Hold {
    _file: Option<File>,
}

/// The reference is in use.
#[derive(Debug, thiserror::Error)]
#[error(
    "reference {reference:?} of stream {stream:?} is in use by {holder}, which holds the lock {}. {advice}",
    path.display()
)]
pub struct HoldError {
    reference: Reference,
    stream: StreamName,
    holder: String,
    path: PathBuf,
    advice: &'static str,
}

const TWO_DAEMONS: &str = "Two daemons on one reference would each deliver every message, so this one waits: stop \
     the other one, or give this consumer another `reference`";
const MOVING: &str = "It moves the position of this consumer, which waits until that is done";
const COMPLETING: &str =
    "It completes a move or a rename that was interrupted, and this one waits until that is done";
const RUNNING: &str = "The position of a consumer that runs is moved by the daemon itself, with `rillway seek`; or \
     pause the consumer, or stop the daemon, and try again";

/// Extension of the file that is locked for a reference.
const LOCK: &str = "lock";

/// Extension of the file that is locked while a move or a rename is completed.
const LOCK_TO_COMPLETE: &str = "completing";

/// How a reference is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Alone,
    Shared,
}

/// Why the position cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// A consumer has it.
    #[error(transparent)]
    InUse(#[from] HoldError),
    /// Nothing can be locked.
    #[error(
        "{path} cannot be locked: {error}. Run this as the user that Rillway runs as, where its `state_dir` is"
    )]
    Failed {
        /// The lock's file.
        path: String,
        /// The system's error.
        error: io::Error,
    },
}

impl Hold {
    /// Locks this reference for one consumer alone.
    ///
    /// # Errors
    /// If another process, or another consumer of this one, holds the lock.
    pub fn take(spec: &Spec) -> Result<Hold, HoldError> {
        Hold::locked(spec, LOCK, Mode::Alone, TWO_DAEMONS)
    }

    /// Shows that a consumer runs whose sink keeps out a second one by itself.
    ///
    /// # Errors
    /// If its position is being moved.
    pub fn share(spec: &Spec) -> Result<Hold, HoldError> {
        Hold::locked(spec, LOCK, Mode::Shared, MOVING)
    }

    /// Keeps out other consumers that share this reference, while this one completes what an interrupted move or
    /// rename has left.
    ///
    /// # Errors
    /// If another one does that.
    pub(super) fn to_complete(spec: &Spec) -> Result<Hold, HoldError> {
        Hold::locked(spec, LOCK_TO_COMPLETE, Mode::Alone, COMPLETING)
    }

    /// Locks this reference to move its position.
    ///
    /// # Errors
    /// If a consumer runs, or nothing can be locked.
    pub fn to_move(spec: &Spec) -> Result<Hold, NotAlone> {
        let path = state_file::file_of(spec, LOCK, "");
        match lock(&path, Mode::Alone) {
            Ok(file) => Ok(Hold { _file: Some(file) }),
            Err(Refused::Held(holder)) => Err(in_use(spec, holder, path, RUNNING).into()),
            Err(Refused::Failed(error)) => {
                Err(NotAlone::Failed { path: path.display().to_string(), error })
            }
        }
    }

    fn locked(
        spec: &Spec,
        extension: &str,
        mode: Mode,
        advice: &'static str,
    ) -> Result<Hold, HoldError> {
        let path = state_file::file_of(spec, extension, "");
        match lock(&path, mode) {
            Ok(file) => Ok(Hold { _file: Some(file) }),
            Err(Refused::Held(holder)) => Err(in_use(spec, holder, path, advice)),
            Err(Refused::Failed(error)) if mode == Mode::Shared => {
                tracing::debug!(path = %path.display(), %error, "the reference could not be locked: `rillway offsets set` cannot tell that this consumer runs");
                Ok(Hold { _file: None })
            }
            Err(Refused::Failed(error)) if extension == LOCK_TO_COMPLETE => {
                tracing::warn!(consumer = %spec.name, path = %path.display(), %error, "an interrupted move or rename is completed without a lock: start no second daemon with the same reference until this one runs");
                Ok(Hold { _file: None })
            }
            Err(Refused::Failed(error)) => {
                tracing::warn!(consumer = %spec.name, path = %path.display(), %error, "the reference could not be locked: a second daemon with the same reference will not be detected");
                Ok(Hold { _file: None })
            }
        }
    }
}

fn in_use(spec: &Spec, holder: String, path: PathBuf, advice: &'static str) -> HoldError {
    let (reference, stream) = (spec.reference.clone(), spec.stream.clone());
    HoldError { reference, stream, holder, path, advice }
}

enum Refused {
    Held(String),
    Failed(io::Error),
}

fn lock(path: &Path, mode: Mode) -> Result<File, Refused> {
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    };
    let mut file = open().map_err(Refused::Failed)?;
    let locked = match mode {
        Mode::Alone => file.try_lock(),
        Mode::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => {
            let note = file.set_len(0);
            let note = note.and_then(|()| {
                file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
            });
            // The pid is only for the error message; a full disk must not prevent the start.
            if let Err(error) = note {
                tracing::debug!(%error, path = %path.display(), "could not note the pid");
            }
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(Refused::Failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = (&mut file).take(32).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
            Err(Refused::Held(match pid {
                Some(pid) if pid == std::process::id() => {
                    format!("another consumer of this process (pid {pid})")
                }
                Some(pid) => format!("the process with pid {pid}"),
                None => "another process".to_owned(),
            }))
        }
    }
}
