//! The protocol's interface to an object store.
//!
//! Three primitives are enough: an object is created only if there is none; the checkpoint is
//! replaced only if it is still the version that was read; and both are durable once they have
//! returned. [`local`](super::local) implements them for a folder, [`remote`](super::remote) for
//! object stores.
//!
//! An error does not tell what happened at the other end: the operation may have taken effect, or
//! may still do so. The protocol finds out by reading.

use async_trait::async_trait;
use bytes::Bytes;

use crate::sink::SinkError;

/// A store of objects.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// Location of the object, for messages.
    fn place(&self, key: &str) -> String;

    /// Most operations that may run at the same time.
    fn operations_max(&self) -> usize;

    /// Creates an object atomically if there is none.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError>;

    /// True if there is such an object. Does not read it.
    async fn exists(&self, key: &str) -> Result<bool, SinkError>;

    /// Size and checksum of an object; `None` if there is none.
    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError>;

    /// Makes an existing object durable, whatever the result of the call that created it.
    async fn keep(&self, key: &str) -> Result<(), SinkError>;

    /// A small object, with the identity of its version; `None` if there is none. Of one that is longer than
    /// [`READ_BYTES_MAX`], the beginning, which is longer than that too.
    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError>;

    /// Replaces the version `from` of an object; with `None`, creates it if there is none.
    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError>;

    /// Removes an object; no error if there is none.
    async fn remove(&self, key: &str) -> Result<(), SinkError>;

    /// True if there is any object whose key begins with `folder` and a slash.
    async fn any_below(&self, folder: &str) -> Result<bool, SinkError>;

    /// All objects whose keys begin with `folder` and a slash.
    async fn list(&self, folder: &str) -> Result<Vec<String>, SinkError>;

    /// A whole object of any size; `None` if there is none.
    async fn read_whole(&self, key: &str) -> Result<Option<Bytes>, SinkError>;

    /// True if there is any object whose key begins with `above`, a slash, `name` and a slash.
    /// `name` is not sent to the store, which may not accept its length.
    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError>;
}

/// Largest object that [`Store::read`] is for: checkpoints, and objects without records.
pub(super) const READ_BYTES_MAX: u64 = 1 << 20;

/// Result of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// This call created the object.
    Made,
    /// There was one; it is unchanged.
    Exists,
}

/// Result of [`Store::swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// Replaced; this is the new version.
    Moved(Version),
    /// There is another version, which stays.
    Lost,
}

/// Identity of a version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The store's own identifiers. A folder has none.
    #[cfg_attr(not(feature = "object-stores"), allow(dead_code))]
    Named {
        /// Entity tag.
        e_tag: Option<String>,
        /// Number or generation.
        version: Option<String>,
    },
    /// The content itself. No two checkpoints are the same.
    Bytes(Bytes),
}

/// Size and checksum, by which an object is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Digest {
        Digest { bytes: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }
}
