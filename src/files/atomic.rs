//! Files that are replaced all at once: written under another name, synced, renamed, and the folder synced.
//!
//! Everything in the crate that replaces a file goes this way, but for two that must differ:
//! - the `file` sink's position, whose steps go through its `Storage`, so that a test can stop after each;
//! - the `object` sink's checkpoint in a folder, which is renamed while a lock is held, and whose folder is
//!   synced after the lock is released: a sync may take long. An object that is new is linked and not renamed,
//!   so that it never replaces another.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::folders::{make_folder, sync_folder};

/// Replaces a small file atomically and durably; creates its folder if it is missing. The bytes are
/// first written to `next`. Returns the file, open for writing after them.
pub(crate) fn replace(path: &Path, next: &Path, mut bytes: &[u8]) -> io::Result<File> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    let file = write_synced(next, &mut bytes)?;
    rename(next, path)?;
    Ok(file)
}

/// Writes a file and syncs it; its name is not durable yet. Where that fails, nothing is left of it.
pub(crate) fn write_synced(path: &Path, bytes: &mut dyn Read) -> io::Result<File> {
    let mut file = File::create(path)?;
    match io::copy(bytes, &mut file).and_then(|_| file.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            discard(path);
            Err(error)
        }
    }
}

/// Gives a synced file another name durably, and replaces what had that name. Where the rename fails, the
/// file is removed. Where the sync of the folder fails, the file has its name, perhaps not durably: the
/// caller writes it anew, as a second sync would prove nothing.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).inspect_err(|_| discard(from))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// A file that cannot be removed does no harm: the next attempt overwrites it.
fn discard(path: &Path) {
    fs::remove_file(path).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, and then fails.
    struct Breaks(&'static [u8]);

    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::other("no more")),
                count => Ok(count),
            }
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_can_be_written_behind() {
        use io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("a/b"), dir.path().join("a/b.next"));
        replace(&path, &next, b"old").unwrap();
        let mut file = replace(&path, &next, b"new").unwrap();
        file.write_all(b", and more").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new, and more");
        assert_eq!(names(&dir.path().join("a")), ["b"]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(write_synced(&path, &mut Breaks(b"half")).is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_rename_that_fails_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("a"), dir.path().join("a.next"));
        // A folder that is not empty is not replaced by a file.
        fs::create_dir_all(path.join("within")).unwrap();
        assert!(replace(&path, &next, b"new").is_err());
        assert!(path.join("within").is_dir());
        assert_eq!(names(dir.path()), ["a"]);
    }
}
