//! The real file system, and the hold on a stream's folder.
//!
//! The hold is an `flock` on `rillway.lock`, which the kernel lets go of when the process ends,
//! however it ends. The file is never removed, and holds the holder's pid for the message to the
//! one who comes second.

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

/// How long to wait for a hold that this very process has: a sink that was dropped in mid-write
/// lets go once that write is through.
const OWN_HOLD_WAIT: Duration = Duration::from_secs(2);
const OWN_HOLD_RETRY: Duration = Duration::from_millis(20);

/// A stream's folder on disk, held by us alone.
pub(super) struct Disk {
    folder: PathBuf,
    handle: File,
    lock: File,
}

impl Disk {
    /// Creates the folder where it is missing, durably, and takes hold of it.
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
                // The pid is for people; a full disk must not keep us from starting.
                if let Err(error) = note() {
                    tracing::debug!(%error, path = %path.display(), "could not note the pid");
                }
                return Ok(lock);
            }
            // It was removed between our opening and our locking it: once more.
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
                // Transient: whoever holds it may be about to end (a rolling restart).
                let what = format!(
                    "{} is in use by {holder}, which holds a lock on {LOCK_NAME} there. Two writers \
                     would mix their records, so nothing is written: stop the other one, or give \
                     this consumer another `dir`",
                    folder.display(),
                );
                return Err(SinkError::Transient { what, retry_after: None });
            }
            Err(errno) => return Err(io::Error::from(errno)).tried("lock", || path.clone()),
        }
    }
}

/// True if `path` still names this file.
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
            // A name that is no text is none of ours.
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
