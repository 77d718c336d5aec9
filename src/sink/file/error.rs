//! Classifies failed file operations: retry or not, and what an operator can do.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::files;
use crate::sink::SinkError;

/// Failures for which a retry is useless before an operator acts, with what to do. All others are
/// retried: they may end by themselves.
const FATAL: &[(Errno, &str)] = &[
    (Errno::ACCESS, "Allow the user that Rillway runs as to read and write there."),
    (Errno::PERM, "Allow the user that Rillway runs as to read and write there."),
    (Errno::ROFS, "Mount the file system for writing (it may have failed: see the kernel's log)."),
    (Errno::NOTDIR, "A part of the path is a file: move it away, or set another `dir`."),
    (Errno::ISDIR, "A folder has the name of a file: move it away."),
    (Errno::NAMETOOLONG, "Set a shorter `dir`."),
    (Errno::LOOP, "The path has a loop of symbolic links: remove it, or set another `dir`."),
    (Errno::INVAL, "The file system does not accept this: set a `dir` on another one."),
    (Errno::OPNOTSUPP, "The file system cannot do this: set a `dir` on another one."),
    (Errno::NOSYS, "The file system cannot do this: set a `dir` on another one."),
    (Errno::NOLCK, "The file system has no file locks: set a `dir` on another one."),
    (Errno::FBIG, "The file is as large as files may be: set `rotate_bytes` below that limit."),
];

/// Advice for failures that are retried.
const TRANSIENT: &[(Errno, &str)] = &[
    (Errno::NOSPC, "Free some space there; the batch is retried until it fits."),
    (Errno::DQUOT, "Raise the quota or free some space; the batch is retried until it fits."),
    (Errno::IO, "See the kernel's log: the disk may be failing. The batch is retried."),
    (Errno::NOENT, "It was removed, or unmounted: restore it. The batch is retried."),
    (Errno::MFILE, "Raise the limit of open files (LimitNOFILE=, ulimit -n)."),
    (Errno::NFILE, "The system is out of open files."),
];

/// The error for `action` ("append to", …) on `path` that failed with `error`.
pub(super) fn failed(action: &str, path: &Path, error: &io::Error) -> SinkError {
    let errno = Errno::from_io_error(error);
    let hint = |table: &'static [(Errno, &'static str)]| {
        table.iter().find(|(e, _)| Some(*e) == errno).map(|(_, hint)| *hint)
    };
    let what = format!("could not {action} {}: {}", path.display(), files::unwritten(path, error));
    match hint(FATAL) {
        Some(hint) => SinkError::Fatal(format!("{what}. {hint}")),
        None => {
            let hint = hint(TRANSIENT).unwrap_or("The batch is retried.");
            SinkError::transient(format!("{what}. {hint}"))
        }
    }
}

/// Adds the action and the path to the error of a file operation.
pub(super) trait Tried<T> {
    /// See [`failed`].
    fn tried(self, action: &str, path: impl FnOnce() -> std::path::PathBuf)
    -> Result<T, SinkError>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(
        self,
        action: &str,
        path: impl FnOnce() -> std::path::PathBuf,
    ) -> Result<T, SinkError> {
        self.map_err(|error| failed(action, &path(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_classified_by_table() {
        let cases = [
            (Errno::NOSPC, false),
            (Errno::DQUOT, false),
            (Errno::IO, false),
            (Errno::NOENT, false),
            (Errno::STALE, false),
            (Errno::MFILE, false),
            (Errno::EXIST, false),
            (Errno::ACCESS, true),
            (Errno::PERM, true),
            (Errno::ROFS, true),
            (Errno::NOTDIR, true),
            (Errno::FBIG, true),
        ];
        for (errno, fatal) in cases {
            let error = failed("append to", Path::new("/data/x"), &io::Error::from(errno));
            assert_eq!(matches!(error, SinkError::Fatal(_)), fatal, "{errno:?}: {error}");
            let text = error.to_string();
            assert!(text.starts_with("could not append to /data/x: "), "{text}");
            assert!(text.contains("os error"), "{text}");
        }
    }
}
