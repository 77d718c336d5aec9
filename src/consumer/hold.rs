//! The lock of a reference in `state_dir`: a second process with the same reference waits.
//!
//! Only for sinks that cannot exclude a second writer themselves (`stdout`, `http`, `metrics`,
//! `null`). The others have their own rule, and with most of them the last one to start may write:
//! a lock here would reverse that, and a frozen process would keep its successor waiting. The lock
//! is for a reference and not for the folder, because several daemons with different consumers may
//! share the default folder.
//!
//! It is an `flock`, which the kernel releases when the process ends, however it ends. The file is
//! never removed, and contains the pid for the error message of a second process. If nothing can be
//! locked in the folder (read-only, or a network file system without locks), the consumer runs
//! anyway: that is logged, and a second daemon is noticed only by the broker's higher offset.

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
    "reference {reference:?} of stream {stream:?} is in use by {holder}, which holds the lock {}. Two \
     daemons on one reference would each deliver every message, so this one waits: stop the other \
     one, or give this consumer another `reference`",
    path.display()
)]
pub struct HoldError {
    reference: Reference,
    stream: StreamName,
    holder: String,
    path: PathBuf,
}

impl Hold {
    /// Locks this reference.
    ///
    /// # Errors
    /// If another process, or another consumer of this one, holds the lock.
    pub fn take(spec: &Spec) -> Result<Hold, HoldError> {
        let path = state_file::file_of(spec, "lock", "");
        match lock(&path) {
            Ok(file) => Ok(Hold { _file: Some(file) }),
            Err(Refused::Held(holder)) => Err(HoldError {
                reference: spec.reference.clone(),
                stream: spec.stream.clone(),
                holder,
                path,
            }),
            Err(Refused::Failed(error)) => {
                tracing::warn!(consumer = %spec.name, path = %path.display(), %error, "the reference could not be locked: a second daemon with the same reference will not be detected");
                Ok(Hold { _file: None })
            }
        }
    }
}

enum Refused {
    Held(String),
    Failed(io::Error),
}

fn lock(path: &Path) -> Result<File, Refused> {
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    };
    let mut file = open().map_err(Refused::Failed)?;
    match file.try_lock() {
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
