//! A small file that one run of a command at a time holds and rewrites.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use crate::files;

/// A locked file. Dropping it releases the lock.
pub(super) struct Locked {
    path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Makes its folder, and locks it. `who` runs already if another process holds it: "another replay of
    /// this consumer".
    pub(super) fn open(path: PathBuf, who: &str) -> Result<Locked, Failure> {
        let failed = |what: &dyn fmt::Display| failure(&path, what);
        let locked = path.with_extension("lock");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.map_or(Ok(()), files::make_folder).and_then(|()| File::create(&locked));
        let lock = made.map_err(|error| {
            let what = files::unwritten(&locked, &error);
            failed(&format!(
                "cannot be written: {what}. The user who replays must be allowed to write there"
            ))
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(Locked { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(failed(&format!("{who} is running"))),
            Err(fs::TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The content; `None` if there is none yet.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, Failure> {
        read(&self.path)
    }

    /// Replaces the content atomically.
    pub(super) fn write(&self, content: &[u8]) -> Result<(), Failure> {
        files::replace(&self.path, &self.next(), content)
            .map(drop)
            .map_err(|error| failure(&self.path, &format_args!("cannot be written: {error}")))
    }

    fn next(&self) -> PathBuf {
        self.path.with_extension("json.next")
    }

    /// Removes it, and the lock.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let gone = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failure(path, &format_args!("cannot be removed: {error}")))
            }
            _ => Ok(()),
        };
        // What a process that died was about to rename is left too.
        gone(&self.next())?;
        gone(&self.path)?;
        gone(&self.path.with_extension("lock"))
    }

    /// An error about the file.
    pub(super) fn error(&self, what: impl fmt::Display) -> Failure {
        failure(&self.path, &what)
    }
}

/// The content of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure(path, &error)),
    }
}

fn failure(path: &Path, what: &dyn fmt::Display) -> Failure {
    Failure::Unavailable(format!("{}: {what}", path.display()))
}
