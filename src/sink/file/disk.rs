//! The real file system, and the lock on a stream's folder.
//!
//! The lock is an `flock` on `rillway.lock`, which the kernel releases when the process ends,
//! however it ends. The file is never removed, and contains the owner's pid for the error message
//! of a second process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files;
use crate::sink::SinkError;

use super::error::Tried;
use super::storage::{Entry, Stat, Storage};

const LOCK_NAME: &str = "rillway.lock";

/// Time to wait for a lock held by this same process: a sink that was dropped during a write
/// releases it after that write.
const OWN_HOLD_WAIT: Duration = Duration::from_secs(2);
const OWN_HOLD_RETRY: Duration = Duration::from_millis(20);

/// A stream's folder on disk, locked by this process.
pub(super) struct Disk {
    folder: PathBuf,
    handle: File,
    lock: File,
}

impl Disk {
    /// Creates the folder durably if it is missing, and locks it.
    pub(super) fn open(dir: &Path, folder: &str) -> Result<Disk, SinkError> {
        let folder = dir.join(folder);
        files::make_folder(&folder).tried("create the folder", || folder.clone())?;
        let lock = take_hold(&folder)?;
        let handle = File::open(&folder).tried("open", || folder.clone())?;
        Ok(Disk { folder, handle, lock })
    }
}

fn take_hold(folder: &Path) -> Result<File, SinkError> {
    let path = folder.join(LOCK_NAME);
    let deadline = Instant::now() + OWN_HOLD_WAIT;
    loop {
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .tried("open", || path.clone())?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_named(&lock, &path) => {
                let note = || -> io::Result<()> {
                    lock.set_len(0)?;
                    lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
                };
                // The pid is only for the error message; a full disk must not prevent the start.
                if let Err(error) = note() {
                    tracing::debug!(%error, path = %path.display(), "could not note the pid");
                }
                return Ok(lock);
            }
            // The file was removed between opening and locking: once more.
            Ok(()) if Instant::now() < deadline => {}
            Ok(()) | Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid: Option<u32> = match (&mut lock).take(32).read_to_string(&mut text) {
                    Ok(_) => text.trim().parse().ok(),
                    Err(_) => None,
                };
                if pid == Some(std::process::id()) && Instant::now() < deadline {
                    std::thread::sleep(OWN_HOLD_RETRY);
                    continue;
                }
                let holder = match pid {
                    Some(pid) if pid == std::process::id() => {
                        format!("another consumer of this process (pid {pid})")
                    }
                    Some(pid) => format!("the process with pid {pid}"),
                    None => "another process".to_owned(),
                };
                // Transient: the owner may be about to end (a rolling restart).
                let what = format!(
                    "{} is in use by {holder}, which holds the lock on {LOCK_NAME} there. Two writers \
                     would mix their records, so nothing is written: stop the other one, or give \
                     this consumer another `dir`",
                    folder.display(),
                );
                return Err(SinkError::transient(what));
            }
            Err(errno) => return Err(io::Error::from(errno)).tried("lock", || path.clone()),
        }
    }
}

/// True if `path` still refers to this file.
fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Storage for Disk {
    type File = File;

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.folder.clone() } else { self.folder.join(name) }
    }

    fn check_held(&mut self) -> io::Result<()> {
        if self.lock.metadata()?.nlink() > 0 { Ok(()) } else { Err(Errno::NOENT.into()) }
    }

    fn hold_again(&mut self) -> Result<(), SinkError> {
        if !is_named(&self.lock, &self.folder.join(LOCK_NAME)) {
            self.lock = take_hold(&self.folder)?;
        }
        self.handle = File::open(&self.folder).tried("open", || self.folder.clone())?;
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A name that is not UTF-8 is not a file of this sink.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, bytes: entry.metadata()?.len() });
            }
        }
        Ok(entries)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.folder.join(name))
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.folder.join(name);
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn stat(&mut self, file: &File) -> io::Result<Stat> {
        let found = file.metadata()?;
        Ok(Stat { bytes: found.len(), linked: found.nlink() > 0 })
    }

    fn read(&mut self, file: &File, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&mut self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn cut(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }
}
