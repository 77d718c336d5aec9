//! The few file operations that the log is built from, so that a test can stop after each one.
//!
//! Implemented by [`super::disk::Disk`] for real, and in tests by a model that may lose or tear
//! whatever was not synced. A storage is one stream's folder: names are names in that folder.

use std::io;
use std::path::PathBuf;

/// One stream's folder.
pub(super) trait Storage {
    /// An open file. It goes on meaning the same file when the name is taken away.
    type File;

    /// Where `name` is, for messages to people.
    fn path(&self, name: &str) -> PathBuf;

    /// Whether the folder is still held by us alone; cheap, asked before each batch.
    fn check_held(&mut self) -> io::Result<()>;

    /// Takes hold of the folder again, where it was lost; never creates the folder.
    fn hold_again(&mut self) -> Result<(), crate::sink::SinkError>;

    /// The files in the folder, in no order.
    fn list(&mut self) -> io::Result<Vec<Entry>>;

    /// Opens a file that exists, to read and write.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;

    /// Creates a file that does not exist. Its name is durable after [`Storage::sync_dir`].
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// What the file is now.
    fn stat(&mut self, file: &Self::File) -> io::Result<Stat>;

    /// The whole file, of which at most `bytes_max` bytes are wanted.
    fn read(&mut self, file: &Self::File, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// Writes all of `bytes` at `at`. Durable after [`Storage::sync`].
    fn write_at(&mut self, file: &Self::File, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Sets the file's length to `bytes` and makes that durable before it returns, whatever length
    /// the file seems to have.
    fn cut(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Makes what was written to the file durable.
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;

    /// Makes the folder's names durable.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Gives a file another name; replaces what had that name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away.
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

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its length.
    pub(super) bytes: u64,
    /// True if it still has a name. What is written to a file without one is lost.
    pub(super) linked: bool,
}
