//! The file operations that the log uses, so that a test can stop after each one.
//!
//! Implemented by [`super::disk::Disk`], and in tests by a model that may lose or tear unsynced
//! data. A storage is one stream's folder: names are names in that folder.

use std::io;
use std::path::PathBuf;

/// One stream's folder.
pub(super) trait Storage {
    /// An open file. It stays the same file when its name is removed.
    type File;

    /// Path of `name`, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Checks that this process still holds the folder's lock; cheap, called before each batch.
    fn check_held(&mut self) -> io::Result<()>;

    /// Locks the folder again if the lock was lost; never creates the folder.
    fn hold_again(&mut self) -> Result<(), crate::sink::SinkError>;

    /// The files in the folder, in any order.
    fn list(&mut self) -> io::Result<Vec<Entry>>;

    /// Opens an existing file for reading and writing.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;

    /// Creates a file that does not exist. Its name is durable after [`Storage::sync_dir`].
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// Current state of the file.
    fn stat(&mut self, file: &Self::File) -> io::Result<Stat>;

    /// The whole file; at most `bytes_max` bytes are needed.
    fn read(&mut self, file: &Self::File, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// Writes all of `bytes` at `at`. Durable after [`Storage::sync`].
    fn write_at(&mut self, file: &Self::File, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Sets the file's length to `bytes` and makes that durable before it returns, even if the file
    /// seems to have that length already.
    fn cut(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Makes everything written to the file durable.
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;

    /// Makes the folder's names durable.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Renames a file; replaces an existing one.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A name in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name.
    pub(super) name: String,
    /// The file's length.
    pub(super) bytes: u64,
}

/// State of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Length in bytes.
    pub(super) bytes: u64,
    /// True if it still has a name. Data written to a file without a name is lost.
    pub(super) linked: bool,
}
