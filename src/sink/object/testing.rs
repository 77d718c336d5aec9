//! A store whose operations a test delays or fails.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::store::{Created, Digest, Store, Swapped, Version};
use crate::sink::SinkError;

/// The fault that a test injects into every operation of a store.
pub(super) trait Interference: Send + Sync {
    /// Runs the operation, or not, and returns its result, or an error in its place.
    fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> impl Future<Output = Result<R, SinkError>> + Send;

    /// Takes note of an operation before it begins, or prevents it.
    fn begins(&self, _what: &str, _key: &str) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A store with interference.
pub(super) struct Disturbed<I> {
    pub(super) inner: Arc<dyn Store>,
    pub(super) interference: I,
}

#[async_trait]
impl<I: Interference> Store for Disturbed<I> {
    fn place(&self, key: &str) -> String {
        self.inner.place(key)
    }

    fn operations_max(&self) -> usize {
        self.inner.operations_max()
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError> {
        self.interference.begins("create", key)?;
        self.interference.around(self.inner.create(key, bytes)).await
    }

    async fn exists(&self, key: &str) -> Result<bool, SinkError> {
        self.interference.begins("exists", key)?;
        self.interference.around(self.inner.exists(key)).await
    }

    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError> {
        self.interference.begins("digest", key)?;
        self.interference.around(self.inner.digest(key)).await
    }

    async fn keep(&self, key: &str) -> Result<(), SinkError> {
        self.interference.begins("keep", key)?;
        self.interference.around(self.inner.keep(key)).await
    }

    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError> {
        self.interference.begins("read", key)?;
        self.interference.around(self.inner.read(key)).await
    }

    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError> {
        self.interference.begins("swap", key)?;
        self.interference.around(self.inner.swap(key, from, bytes)).await
    }

    async fn remove(&self, key: &str) -> Result<(), SinkError> {
        self.interference.begins("remove", key)?;
        self.interference.around(self.inner.remove(key)).await
    }

    async fn any_below(&self, folder: &str) -> Result<bool, SinkError> {
        self.interference.begins("any_below", folder)?;
        self.interference.around(self.inner.any_below(folder)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, SinkError> {
        self.interference.begins("list", folder)?;
        self.interference.around(self.inner.list(folder)).await
    }

    async fn read_whole(&self, key: &str) -> Result<Option<Bytes>, SinkError> {
        self.interference.begins("read_whole", key)?;
        self.interference.around(self.inner.read_whole(key)).await
    }

    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError> {
        self.interference.begins("has_folder", above)?;
        self.interference.around(self.inner.has_folder(above, name)).await
    }
}
