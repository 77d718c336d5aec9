//! The connection: how it is opened, and whether the name still leads to the file that it has open.
//!
//! SQLite continues to write into a file that was removed or replaced, and nobody would ever read that.
//! So the files are compared before each batch and after its commit: a batch counts only if the names
//! still lead to the files that it was written into.
//!
//! Must not do: open the database's files itself, for any purpose. Closing them would release the POSIX
//! locks that all connections of this process have on them.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use crate::files;
use crate::sink::SinkError;

use super::error::Tried;

/// How long to wait for another writer's transaction before the attempt is given up.
const BUSY_WAIT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });

/// Cache of the connection. A larger transaction goes to the -wal file early, which costs nothing here:
/// its pages are written only once.
const CACHE_BYTES: u64 = 8 << 20;

/// Page size of a database that is created here: larger than the default, for rows of some hundred bytes.
const PAGE_BYTES: u32 = 8192;

/// Size to which the -wal file is truncated after a large transaction.
const WAL_KEEP_BYTES: u32 = 64 << 20;

/// An open database.
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// The -wal file, which is beside the file itself, not beside a link to it.
    wal: PathBuf,
}

/// Identity of the files that the names lead to, by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    database: (u64, u64),
    wal: (u64, u64),
}

impl Database {
    /// Opens the file; creates it if `create` says so.
    pub(super) fn open(path: &Path, create: bool) -> Result<Database, SinkError> {
        is_file(path)?;
        if create {
            make_folder(path)?;
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let connection =
            Connection::open_with_flags(as_written(path), flags).tried("open", path)?;
        connection.busy_timeout(BUSY_WAIT).tried("open", path)?;
        set_up(&connection, path).tried("set up", path)??;
        let wal = log_of(connection.path().map_or_else(|| path.to_owned(), PathBuf::from));
        Ok(Database { connection, path: path.to_owned(), wal })
    }

    /// Opens the same files again, and no others that replaced them.
    pub(super) fn open_again(path: &Path, files: Files) -> Result<Database, SinkError> {
        same(path, identity(path)?, files.database)?;
        Database::open(path, false)
    }

    /// Opens the file read-only, changes nothing, and creates no file beside it. `None` if there is no
    /// such file.
    pub(super) fn look(path: &Path) -> Result<Option<Connection>, SinkError> {
        is_file(path)?;
        if !path.exists() {
            return Ok(None);
        }
        // A database that is not in use has no log. Without `immutable`, SQLite would create a log to
        // read it, and could not remove it.
        let closed = !is_in_use(path);
        let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = if closed {
            flags |= OpenFlags::SQLITE_OPEN_URI;
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let bytes = absolute.as_os_str().as_encoded_bytes();
            let encoded = percent_encode(bytes, NON_ALPHANUMERIC);
            Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags)
        } else {
            Connection::open_with_flags(as_written(path), flags)
        };
        let connection = opened.tried("open", path)?;
        connection.busy_timeout(BUSY_WAIT).tried("open", path)?;
        Ok(Some(connection))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files as they are now. Only after a committed transaction: then all of them exist.
    pub(super) fn files(&self) -> Result<Files, SinkError> {
        Ok(Files { database: identity(&self.path)?, wal: identity(&self.wal)? })
    }

    /// Fails if the names no longer lead to these files.
    pub(super) fn check(&self, files: Files) -> Result<(), SinkError> {
        let now = self.files()?;
        same(&self.path, now.database, files.database)?;
        if now.wal == files.wal {
            return Ok(());
        }
        Err(SinkError::transient(format!(
            "{} was replaced while it was in use: what is written now would not be found in it. The \
             batch is tried again",
            self.wal.display()
        )))
    }
}

/// SQLite would use the remaining log for the new file, and mix the two.
fn same(path: &Path, now: (u64, u64), then: (u64, u64)) -> Result<(), SinkError> {
    if now == then {
        return Ok(());
    }
    Err(SinkError::Fatal(format!(
        "{0} was replaced by another file while it was in use, and nothing is written to the new one. Remove \
         {0}-wal and {0}-shm, which belong to the former file, and restart: the consumer continues \
         after the position in the new file",
        path.display()
    )))
}

/// The path for SQLite, which is built to take a name that begins with `file:` for a URI, whatever the
/// flags say (`SQLITE_USE_URI`): the parameters of one could turn off locks.
fn as_written(path: &Path) -> PathBuf {
    if path.is_relative() { Path::new(".").join(path) } else { path.to_owned() }
}

/// SQLite opens a folder, too, and then reports a disk error.
fn is_file(path: &Path) -> Result<(), SinkError> {
    let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() { "a folder" } else { "no regular file" };
    Err(SinkError::Fatal(format!(
        "could not open {} as a SQLite database: it is {kind}. Set `path` to a file{}",
        path.display(),
        if found.is_dir() { ", such as one in this folder" } else { "" }
    )))
}

/// Whether the database could be written, or created if it is missing, as far as the file rights tell.
pub(super) fn could_write(path: &Path, create: bool) -> Result<(), SinkError> {
    is_file(path)?;
    let folder = folder_of(path);
    if path.exists() {
        return may_be_written(path);
    }
    if !create {
        return Err(SinkError::transient(format!(
            "there is no database {}, and `create` is false: bring it, or let `create` be true",
            path.display()
        )));
    }
    files::could_write_in(folder).map_err(|what| {
        SinkError::Fatal(format!(
            "the database {} cannot be made: {what}. Set another `path`, or let the user that rillway \
             runs as write there",
            path.display()
        ))
    })
}

fn may_be_written(path: &Path) -> Result<(), SinkError> {
    let may = access(path, Access::READ_OK | Access::WRITE_OK)
        .and_then(|()| access(folder_of(path), Access::WRITE_OK | Access::EXEC_OK));
    may.map_err(|error| {
        let what = files::lacking_to_write(path).unwrap_or_else(|| error.to_string());
        SinkError::Fatal(format!(
            "could not write to {}: {what}. Let the user that rillway runs as write to the database \
             and to its folder, in which SQLite keeps files ending in -wal and -shm",
            path.display()
        ))
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn log_of(path: PathBuf) -> PathBuf {
    let mut path = path.into_os_string();
    path.push("-wal");
    path.into()
}

/// True if a process has the database open, or left its log behind.
pub(super) fn is_in_use(path: &Path) -> bool {
    std::fs::canonicalize(path).map_or(true, |path| log_of(path).exists())
}

fn identity(path: &Path) -> Result<(u64, u64), SinkError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino())),
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::NotFound => {
                    "It was removed, or unmounted, while it was in use. Bring it back, together with \
                     its -wal file, and the batch is tried again; or restart, and the consumer \
                     continues after the offset that is stored on the broker"
                }
                _ => "The batch is tried again",
            };
            Err(SinkError::transient(format!(
                "could not look at {}: {error}. {hint}",
                path.display()
            )))
        }
    }
}

/// Why `FULL`: with `NORMAL`, a commit in WAL mode syncs nothing. It would survive `kill -9`, but a power
/// loss would take the last batches back. The broker may have dropped them by then, because they were
/// reported as durable.
fn set_up(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), SinkError>> {
    // Only has an effect on an empty database.
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
    // Syncs to the disk itself where fsync does not (macOS); no effect elsewhere.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "cache_size", -((CACHE_BYTES >> 10).cast_signed()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEEP_BYTES, |_| Ok(()))?;
    Ok(Ok(()))
}

/// Creates a missing folder durably. SQLite makes the file's own name durable: it syncs the folder with
/// the first commit.
fn make_folder(path: &Path) -> Result<(), SinkError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let failed = |error: std::io::Error| {
        let error_in_words = files::unwritten(folder, &error);
        let what = format!("could not create the folder {}: {error_in_words}", folder.display());
        match error.kind() {
            ErrorKind::AlreadyExists
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::ReadOnlyFilesystem => {
                SinkError::Fatal(format!("{what}. Make it, or set another `path`."))
            }
            _ => SinkError::transient(what),
        }
    };
    files::make_folder(folder).map_err(failed)
}
