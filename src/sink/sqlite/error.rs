//! What a failure of SQLite means: whether to try again, and what an operator can do.

use std::path::Path;

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};

use crate::files;
use crate::sink::SinkError;

/// Failures after which trying again is useless until an operator acts, and what to do. All others end by
/// themselves, or when an operator acts, and are tried again.
const FATAL: &[(ErrorCode, &str)] = &[
    (ErrorCode::ReadOnly, WRITABLE),
    (ErrorCode::PermissionDenied, WRITABLE),
    (ErrorCode::AuthorizationForStatementDenied, WRITABLE),
    (
        ErrorCode::DatabaseCorrupt,
        "The file is damaged. Restore it from a backup together with its -wal file, or save what can be \
         saved with `sqlite3 FILE .recover`; the consumer continues after the position in the restored \
         file.",
    ),
    (
        ErrorCode::NotADatabase,
        "The file holds something else, or is encrypted: move it away, or set another `path`.",
    ),
    (ErrorCode::NoLargeFileSupport, "The file system cannot do this: set a `path` on another one."),
    (
        ErrorCode::ConstraintViolation,
        "A constraint that is checked at the end of a transaction forbids the batch: change the table.",
    ),
    // SQLITE_ERROR: the statement does not fit the database.
    (ErrorCode::Unknown, "The table was changed since the start: repair it, and restart."),
    (ErrorCode::ApiMisuse, INTERNAL),
    (ErrorCode::InternalMalfunction, INTERNAL),
    (ErrorCode::ParameterOutOfRange, INTERNAL),
    (ErrorCode::NotFound, INTERNAL),
];

const WRITABLE: &str = "Let the user that rillway runs as write to the file and to its folder: SQLite \
                        keeps files ending in -wal and -shm beside it.";
const INTERNAL: &str = "This is an internal error; please report it.";

/// What to do about failures that are tried again.
const TRANSIENT: &[(ErrorCode, &str)] = &[
    (
        ErrorCode::DatabaseBusy,
        "Another program is writing to it, or holds a transaction open. The batch is tried again until \
         the database is free.",
    ),
    (ErrorCode::DatabaseLocked, "The batch is tried again until the table is free."),
    (ErrorCode::DiskFull, "Free some space there; the batch is tried again until it fits."),
    (
        ErrorCode::SystemIoFailure,
        "See the kernel's log: the disk may be failing, or a quota or a limit of the file's size is \
         reached. The batch is tried again.",
    ),
];

/// The error for `action` ("write to", …) on the database at `path` that failed with `error`.
pub(super) fn failed(action: &str, path: &Path, error: &rusqlite::Error) -> SinkError {
    let code = error.sqlite_error_code();
    if code == Some(ErrorCode::CannotOpen) {
        return cannot_open(action, path, error);
    }
    let hint = |table: &'static [(ErrorCode, &'static str)]| {
        table.iter().find(|(c, _)| Some(*c) == code).map(|(_, hint)| *hint)
    };
    let what = format!("could not {action} {}: {}", path.display(), words(error));
    match hint(FATAL) {
        Some(WRITABLE) => SinkError::Fatal(format!("{what}{}. {WRITABLE}", lacking(path))),
        Some(hint) => SinkError::Fatal(format!("{what}. {hint}")),
        // An error that is not SQLite's is one of this module.
        None if code.is_none() => SinkError::Fatal(format!("{what}. {INTERNAL}")),
        None => SinkError::transient(format!(
            "{what}. {}",
            hint(TRANSIENT).unwrap_or("The batch is tried again.")
        )),
    }
}

/// SQLite does not say why it could not open a file. The file is not opened here to find out: closing it
/// would release the locks that other connections of this process have on it (see POSIX, fcntl).
fn cannot_open(action: &str, path: &Path, error: &rusqlite::Error) -> SinkError {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = format!("could not {action} {}: {}", path.display(), words(error));
    if path.is_dir() {
        return SinkError::Fatal(format!("{what}. It is a folder: set `path` to a file."));
    }
    let denied = |path: &Path, wanted: Access| {
        matches!(
            access(path, wanted),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM | rustix::io::Errno::ROFS)
        )
    };
    if denied(path, Access::READ_OK | Access::WRITE_OK) || denied(folder, Access::WRITE_OK) {
        return SinkError::Fatal(format!("{what}{}. {WRITABLE}", lacking(path)));
    }
    let hint = if path.exists() {
        "It is tried again."
    } else if folder.is_dir() {
        "The file is not there: bring it back, or set `create = true` and restart. It is tried \
         again."
    } else {
        "The folder is not there: was it removed, or its file system unmounted? It is tried again."
    };
    SinkError::transient(format!("{what}. {hint}"))
}

/// Which right on the database or its folder is missing, after a colon; empty if none is.
fn lacking(path: &Path) -> String {
    files::lacking_to_write(path).map_or_else(String::new, |what| format!(": {what}"))
}

/// SQLite's own text with its error number, by which its documentation can be searched.
pub(super) fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, Some(text)) => {
            format!("{text} (SQLite error {})", code.extended_code)
        }
        other => other.to_string(),
    }
}

/// Whether a row was refused for its content: without it, the others can be written.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

/// SQLITE_ERROR: everything without a number of its own. When a statement is prepared: it does not fit
/// the database. When it runs: an expression in it has failed.
pub(super) fn is_unspecific(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// Adds what was tried, and on what, to the result of a SQLite operation.
pub(super) trait Tried<T> {
    /// See [`failed`].
    fn tried(self, action: &str, path: &Path) -> Result<T, SinkError>;
}

impl<T> Tried<T> for rusqlite::Result<T> {
    fn tried(self, action: &str, path: &Path) -> Result<T, SinkError> {
        self.map_err(|error| failed(action, path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn failures_are_classified_by_table() {
        let cases = [
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_BUSY_SNAPSHOT, false),
            (ffi::SQLITE_LOCKED, false),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_IOERR_WRITE, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_NOMEM, false),
            (ffi::SQLITE_PROTOCOL, false),
            (ffi::SQLITE_READONLY, true),
            (ffi::SQLITE_PERM, true),
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_CORRUPT_INDEX, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_ERROR, true),
            (ffi::SQLITE_MISUSE, true),
        ];
        // Where everything is allowed: the error names no missing right.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        for (code, fatal) in cases {
            let error =
                rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("so it is".into()));
            let error = failed("write to", &path, &error);
            assert_eq!(matches!(error, SinkError::Fatal(_)), fatal, "{code}: {error}");
            let text = error.to_string();
            let shown = path.display();
            let begin = format!("could not write to {shown}: so it is (SQLite error {code}). ");
            assert!(text.starts_with(&begin) && text.len() > begin.len(), "{text}");
        }
    }
}
