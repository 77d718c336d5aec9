//! The connection: how it is opened, and whether the file behind it is still the one with the name.
//!
//! SQLite writes on into a file that was removed or replaced, and nobody would ever read that. So
//! the files are looked at before each batch and after its commit, and a batch counts only where the
//! names still lead to the files that it went into.
//!
//! Must not do: open the database's files itself, for whatever purpose. Closing them would end the
//! POSIX locks that every connection of this process has on them.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::sink::SinkError;

use super::error::{Tried, transient};

/// How long to wait for another writer to end its transaction before the attempt is given up.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What the connection may keep of the database in memory. A larger transaction goes to the -wal
/// file early, which costs nothing here: its pages are written once.
pub const CACHE_BYTES: u64 = 8 << 20;

/// Pages of a database that is made here: fewer of them for rows of some hundred bytes.
const PAGE_BYTES: u32 = 8192;

/// What a large transaction may leave of the -wal file.
const WAL_KEEP_BYTES: u32 = 64 << 20;

/// An open database.
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// The -wal file, which stands beside the file itself, not beside a link to it.
    wal: PathBuf,
    files: Option<Files>,
}

/// Device and inode of each file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Files {
    database: (u64, u64),
    wal: (u64, u64),
}

impl Database {
    /// Opens the file, which is made where `create` says so.
    pub(super) fn open(path: &Path, create: bool) -> Result<Database, SinkError> {
        if create {
            make_folder(path)?;
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let connection = Connection::open_with_flags(path, flags).tried("open", path)?;
        connection.busy_timeout(BUSY_WAIT).tried("open", path)?;
        set_up(&connection, path).tried("set up", path)??;
        let wal = connection.path().map_or_else(|| path.to_owned(), PathBuf::from);
        let mut wal = wal.into_os_string();
        wal.push("-wal");
        Ok(Database { connection, path: path.to_owned(), wal: wal.into(), files: None })
    }

    /// Opens it to read only, and changes nothing. `None` where there is no such file.
    pub(super) fn look(path: &Path) -> Result<Option<Connection>, SinkError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).tried("open", path)?;
        connection.busy_timeout(BUSY_WAIT).tried("open", path)?;
        Ok(Some(connection))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers the files, or fails where they are no longer those that were remembered. To be
    /// called once a transaction was committed, when all files exist.
    pub(super) fn check_files(&mut self) -> Result<(), SinkError> {
        let now = Files { database: identity(&self.path)?, wal: identity(&self.wal)? };
        match self.files {
            Some(then) if then != now => Err(transient(format!(
                "{} or its -wal file was replaced while it was in use: what is written now would not \
                 be found in it. The batch is tried again in the new one, where that holds the same \
                 position",
                self.path.display()
            ))),
            _ => {
                self.files = Some(now);
                Ok(())
            }
        }
    }
}

fn identity(path: &Path) -> Result<(u64, u64), SinkError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino())),
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::NotFound => {
                    "It was removed, or unmounted, while it was in use. Bring it back, together with \
                     its -wal file, and the batch is tried again; or start again, and the consumer \
                     goes on after the offset that is stored on the broker"
                }
                _ => "The batch is tried again",
            };
            Err(transient(format!("could not look at {}: {error}. {hint}", path.display())))
        }
    }
}

/// Why `FULL`: with `NORMAL`, a commit in WAL mode syncs nothing. It would survive `kill -9`, but a
/// power loss would take the last batches back, after the broker was told that they are durable and
/// may have dropped them.
fn set_up(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), SinkError>> {
    // Has an effect on an empty database only.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Ok(Err(SinkError::Fatal(format!(
            "{} cannot have a write-ahead log (its journal mode stays {mode:?}): the file system has \
             no shared memory, as those of networks. Set a `path` on a local disk.",
            path.display()
        ))));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    // Where fsync does not reach the medium (macOS), the one that does; elsewhere nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "cache_size", -((CACHE_BYTES >> 10).cast_signed()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEEP_BYTES, |_| Ok(()))?;
    Ok(Ok(()))
}

/// Makes the folder where it is missing, durably. The file's own name is made durable by SQLite,
/// which syncs the folder with the first commit.
fn make_folder(path: &Path) -> Result<(), SinkError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    let failed = |error: std::io::Error| {
        let what = format!("could not create the folder {}: {error}", folder.display());
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::ReadOnlyFilesystem => {
                SinkError::Fatal(format!("{what}. Make it, or set another `path`."))
            }
            _ => transient(what),
        }
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let absolute = std::path::absolute(folder).map_err(failed)?;
    for (level, above) in absolute.ancestors().enumerate() {
        // What lies further up was there before, and need not be ours to open.
        let synced = File::open(above).and_then(|handle| handle.sync_all());
        if level == 0 {
            synced.map_err(failed)?;
        }
    }
    Ok(())
}
