//! What the protocol asks of a place that keeps objects, whatever the place is.
//!
//! Three primitives carry everything: an object is created only where none is, the checkpoint is
//! replaced only where it is still the one that was read, and both are durable once they are answered.
//! [`local`](super::local) has them for a folder, [`remote`](super::remote) for object stores.
//!
//! An error says nothing of what happened at the other end: the operation may have taken effect, or may
//! do so later. The protocol finds out by looking.

use async_trait::async_trait;
use bytes::Bytes;

use crate::sink::SinkError;

/// A place that keeps objects.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// The object's place in words, for messages.
    fn place(&self, key: &str) -> String;

    /// Creates an object where there is none, whole or not at all.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError>;

    /// Size and checksum of an object; `None` where there is none.
    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError>;

    /// Has an object that was found survive a power loss, whatever became of the call that created it.
    async fn keep(&self, key: &str) -> Result<(), SinkError>;

    /// An object of at most [`READ_BYTES_MAX`] bytes, and what tells this version of it from others.
    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError>;

    /// Replaces the version `from` of an object; `None`: creates it where there is none.
    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError>;

    /// True if there is any object whose key begins with `folder` and a slash.
    async fn any_below(&self, folder: &str) -> Result<bool, SinkError>;

    /// True if there is any object whose key begins with `above`, a slash, `name` and a slash. The
    /// store is never sent `name`, which may be longer than it takes.
    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError>;
}

/// The largest object that is read as a whole: checkpoints, and objects that hold no records.
pub(super) const READ_BYTES_MAX: u64 = 1 << 20;

/// What came of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there, by this call.
    Made,
    /// There was one; it is as it was.
    Exists,
}

/// What came of [`Store::swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// It is there; this is its version.
    Moved(Version),
    /// Another version is there, which stays.
    Lost,
}

/// What tells one version of an object from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// As the store names it.
    Named {
        /// Its entity tag.
        e_tag: Option<String>,
        /// Its number or generation.
        version: Option<String>,
    },
    /// The bytes themselves. No two checkpoints are the same.
    Bytes(Bytes),
}

/// By what an object is recognised.
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

/// A failure that may pass.
pub(super) fn transient(what: String) -> SinkError {
    SinkError::Transient { what, retry_after: None }
}
