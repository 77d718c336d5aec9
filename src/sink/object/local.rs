//! Objects as files in a local folder.
//!
//! Invariants: a file gets its name only after its bytes are on disk, and its content never changes
//! afterwards. The checkpoint is replaced by rename, under a lock, after checking that it is still
//! the version that was read. Files in progress are in `_rillway/tmp`.
//!
//! An existing name may be in the page cache only: the sync of its folder failed, or never came.
//! Another sync would prove nothing ([`files`]). So an existing file is relied on only after it was
//! written again: the checkpoint by the next swap, an object by [`Store::keep`].
//!
//! A hard link gives a file its name: unlike a rename, it never replaces another. File systems
//! without hard links (FAT, some network shares) are refused with a clear error.
//!
//! It runs on its own thread, because a disk may hang.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::FlockOperation;

use super::store::{Created, Digest, READ_BYTES_MAX, Store, Swapped, Version};
use crate::files::{self, sync_folder};
use crate::sink::SinkError;
use crate::sink::thread::SinkThread;

/// Folder in which files are written before they get their names.
const TMP: &str = "_rillway/tmp";

/// Age from which a file there was left behind by a process that died.
const TMP_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Time after which an operation counts as hanging.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// A folder.
pub(super) struct Local {
    root: PathBuf,
    worker: SinkThread<Folder>,
}

impl Local {
    /// Opens the folder, which need not exist.
    pub(super) async fn open(root: PathBuf) -> Result<Local, SinkError> {
        let folder = Folder { root: root.clone(), written: 0, id: fastrand::u64(..) };
        match SinkThread::start("rillway-object", move || Ok::<_, SinkError>(folder)).await {
            Ok(worker) => Ok(Local { worker: worker?, root }),
            Err(error) => Err(error.during(&writing_to(&root))),
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        what: &'static str,
        key: &str,
        job: impl FnOnce(&mut Folder, &Path) -> io::Result<R> + Send + 'static,
    ) -> Result<R, SinkError> {
        let path = self.root.join(key);
        let asked = self.worker.run(move |folder| job(folder, &path));
        let path = || self.root.join(key);
        match tokio::time::timeout(OPERATION_MAX, asked).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(error))) => Err(failed(what, &path(), &error)),
            Ok(Err(error)) => Err(error.during(&writing_to(&path()))),
            Err(_) => Err(SinkError::transient(format!(
                "could not {what} {}: no answer within {OPERATION_MAX:?}",
                path().display()
            ))),
        }
    }
}

#[async_trait]
impl Store for Local {
    fn place(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }

    /// It has one thread.
    fn operations_max(&self) -> usize {
        1
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError> {
        self.run("create", key, move |folder, path| folder.create(path, &bytes)).await
    }

    async fn exists(&self, key: &str) -> Result<bool, SinkError> {
        self.run("look for", key, |_, path| path.try_exists()).await
    }

    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError> {
        self.run("read", key, |_, path| digest(path)).await
    }

    async fn keep(&self, key: &str) -> Result<(), SinkError> {
        self.run("make durable", key, Folder::keep).await
    }

    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError> {
        let bytes = self.run("read", key, |_, path| read(path)).await?;
        Ok(bytes.map(|bytes| (bytes.clone(), Version::Bytes(bytes))))
    }

    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError> {
        let from = match from {
            None => None,
            Some(Version::Bytes(bytes)) => Some(bytes.clone()),
            Some(Version::Named { .. }) => return Ok(Swapped::Lost),
        };
        self.run("replace", key, move |folder, path| folder.swap(path, from.as_ref(), bytes)).await
    }

    async fn remove(&self, key: &str) -> Result<(), SinkError> {
        self.run("remove", key, |_, path| match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    async fn any_below(&self, folder: &str) -> Result<bool, SinkError> {
        self.run("look into", folder, |_, path| any_file(path)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, SinkError> {
        let key = folder.to_owned();
        self.run("look into", folder, move |_, path| {
            let mut found = Vec::new();
            all_files(path, &key, &mut found)?;
            Ok(found)
        })
        .await
    }

    async fn read_whole(&self, key: &str) -> Result<Option<Bytes>, SinkError> {
        self.run("read", key, |_, path| match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError> {
        let name = name.to_owned();
        self.run("look into", above, move |_, path| match any_file(&path.join(name)) {
            // No file system can have a folder of this name.
            Err(error) if error.kind() == ErrorKind::InvalidFilename => Ok(false),
            found => found,
        })
        .await
    }
}

struct Folder {
    root: PathBuf,
    written: u64,
    id: u64,
}

impl Folder {
    fn create(&mut self, path: &Path, bytes: &[u8]) -> io::Result<Created> {
        let tmp = self.write(bytes)?;
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let linked = files::make_folder(&folder).and_then(|()| std::fs::hard_link(&tmp, path));
        let removed = std::fs::remove_file(&tmp);
        match linked {
            Ok(()) => {
                sync_folder(&folder)?;
                removed.map(|()| Created::Made)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    fn swap(&mut self, path: &Path, from: Option<&Bytes>, bytes: Bytes) -> io::Result<Swapped> {
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        files::make_folder(&folder)?;
        // Synced before locking: a process that is frozen while it holds the lock keeps its
        // successor waiting, and the sync takes time.
        let tmp = self.write(&bytes)?;
        let replaced = replace(&tmp, path, from, &bytes);
        if !matches!(replaced, Ok(true)) {
            std::fs::remove_file(&tmp).unwrap_or_default();
        }
        if !replaced? {
            return Ok(Swapped::Lost);
        }
        // The next process that replaces it, before this, syncs the folder too.
        sync_folder(&folder)?;
        Ok(Swapped::Moved(Version::Bytes(bytes)))
    }

    /// Gives an object's name to a copy of it that is on disk.
    fn keep(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let tmp = self.write_from(&mut file)?;
        files::rename(&tmp, path)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<PathBuf> {
        self.write_from(&mut bytes)
    }

    /// Writes the bytes to disk, under a temporary name.
    fn write_from(&mut self, bytes: &mut dyn Read) -> io::Result<PathBuf> {
        let folder = self.root.join(TMP);
        files::make_folder(&folder)?;
        if self.written == 0 {
            tidy(&folder);
        }
        self.written += 1;
        let path = folder.join(format!("{:016x}-{}", self.id, self.written));
        files::write_synced(&path, bytes)?;
        Ok(path)
    }
}

/// Removes files that are no longer needed. A file that cannot be removed does no harm.
fn tidy(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TMP_AGE_MAX)) {
            std::fs::remove_file(entry.path()).unwrap_or_default();
        }
    }
}

fn digest(path: &Path) -> io::Result<Option<Digest>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let (mut bytes, mut hasher) = (0, crc32fast::Hasher::new());
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Some(Digest { bytes, crc: hasher.finalize() })),
            Ok(count) => {
                bytes += count as u64;
                hasher.update(&piece[..count]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Bytes>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes.into()))
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn any_file(folder: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || any_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of all files below a folder, whose own key is `at`.
fn all_files(folder: &Path, at: &str, into: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let key = format!("{at}/{name}");
        match entry.file_type()?.is_dir() {
            true => all_files(&entry.path(), &key, into)?,
            false => into.push(key),
        }
    }
    Ok(())
}

/// Gives the file its name, if that still belongs to this version. Returns false if not.
///
/// If the content is already `bytes`, an earlier call of ours gave it the name, but its sync
/// failed.
fn replace(tmp: &Path, path: &Path, from: Option<&Bytes>, bytes: &Bytes) -> io::Result<bool> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.with_extension("lock"))?;
    // Held for two quick steps; a process that is frozen between them is reported.
    if let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        return Err(match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::new(
                ErrorKind::WouldBlock,
                "another process is replacing it at this moment",
            ),
            other => other.into(),
        });
    }
    let found = read(path)?;
    if found.as_ref() != from && found.as_ref() != Some(bytes) {
        return Ok(false);
    }
    std::fs::rename(tmp, path)?;
    Ok(true)
}

fn writing_to(path: &Path) -> String {
    format!("could not write to {}", path.display())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> SinkError {
    let what = format!("could not {what} {}: {}", path.display(), files::unwritten(path, error));
    match error.kind() {
        ErrorKind::PermissionDenied => {
            SinkError::Fatal(format!("{what}. Allow the user that Rillway runs as to write there."))
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            SinkError::Fatal(what)
        }
        ErrorKind::Unsupported => SinkError::Fatal(format!(
            "{what}. The archive requires a file system with hard links and locks."
        )),
        _ => SinkError::transient(what),
    }
}
