//! Objects in an object store: S3 and compatible ones, Google Cloud Storage, Azure.
//!
//! Every request has a time limit, and is made once: the caller retries, after checking what an
//! earlier attempt did.
//!
//! | answer | meaning |
//! |---|---|
//! | 412, 409, 304 on a conditional write | there is another version: the caller reads it |
//! | 401, 403, no such bucket | at the start, a mistake in the configuration: fatal. Later, after
//! it worked: keys or policies are being changed: transient |
//! | 429, 5xx, timeout, broken connection, anything else | transient |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult,
    UpdateVersion,
};

use super::store::{Created, Digest, READ_BYTES_MAX, Store, Swapped, Version};
use crate::sink::SinkError;

/// Requests that are sent at the same time.
const OPERATIONS_MAX: usize = 8;

/// A location in an object store.
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    /// Prefix of keys in messages: the URL.
    url: String,
    /// Prefix of keys in the store.
    prefix: String,
    operation_max: Duration,
    /// True once an operation has succeeded.
    has_worked: AtomicBool,
}

impl Remote {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        url: String,
        prefix: String,
        operation_max: Duration,
    ) -> Remote {
        let url = url.trim_end_matches('/').to_owned();
        Remote { store, url, prefix, operation_max, has_worked: AtomicBool::new(false) }
    }

    fn path(&self, key: &str) -> Result<Path, SinkError> {
        let key =
            if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(&key)
            .map_err(|error| SinkError::Fatal(format!("{key:?} cannot be a key: {error}")))
    }

    /// Runs an operation within the time limit.
    async fn ask<R>(
        &self,
        what: &str,
        key: &str,
        asking: impl Future<Output = Result<R, Error>> + Send,
    ) -> Result<Result<R, Error>, SinkError> {
        match tokio::time::timeout(self.operation_max, asking).await {
            Ok(answer) => {
                if answer.is_ok() {
                    self.has_worked.store(true, Ordering::Relaxed);
                }
                Ok(answer)
            }
            Err(_) => Err(SinkError::transient(format!(
                "could not {what} {}: no answer within {:?}",
                self.place(key),
                self.operation_max
            ))),
        }
    }

    async fn put(
        &self,
        what: &str,
        key: &str,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<Result<PutResult, Error>, SinkError> {
        let path = self.path(key)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        self.ask(what, key, self.store.put_opts(&path, PutPayload::from_bytes(bytes), options))
            .await
    }

    fn failed(&self, what: &str, key: &str, error: &Error) -> SinkError {
        let what = format!("could not {what} {}: {}", self.place(key), chain(error));
        let hint = match error {
            Error::PermissionDenied { .. } => {
                ". Give these credentials the right to read, list and write there"
            }
            Error::Unauthenticated { .. } => {
                ". The credentials are missing, wrong or expired: see `options`"
            }
            Error::NotFound { .. } => ". Create the bucket, or correct the `url`",
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                return SinkError::Fatal(format!("{what}. Use a store with conditional writes."));
            }
            _ => return SinkError::transient(what),
        };
        if self.has_worked.load(Ordering::Relaxed) {
            SinkError::transient(format!("{what}{hint}"))
        } else {
            SinkError::Fatal(format!("{what}{hint}."))
        }
    }
}

#[async_trait]
impl Store for Remote {
    fn place(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    fn operations_max(&self) -> usize {
        OPERATIONS_MAX
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError> {
        match self.put("create", key, bytes, PutMode::Create).await? {
            Ok(_) => Ok(Created::Made),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.failed("create", key, &error)),
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, SinkError> {
        let path = self.path(key)?;
        match self.ask("look for", key, self.store.head(&path)).await? {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.failed("look for", key, &error)),
        }
    }

    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError> {
        let path = self.path(key)?;
        let asking = async {
            let got = self.store.get_opts(&path, GetOptions::default()).await?;
            let mut pieces = got.into_stream();
            let (mut bytes, mut hasher) = (0, crc32fast::Hasher::new());
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                bytes += piece.len() as u64;
                hasher.update(&piece);
            }
            Ok(Digest { bytes, crc: hasher.finalize() })
        };
        match self.ask("read", key, asking).await? {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    /// A store guarantees the durability of what it shows.
    async fn keep(&self, _key: &str) -> Result<(), SinkError> {
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError> {
        let path = self.path(key)?;
        let asking = async {
            let got = self.store.get_opts(&path, GetOptions::default()).await?;
            let version =
                Version::Named { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            let mut bytes = BytesMut::new();
            let mut pieces = got.into_stream();
            while let Some(piece) = pieces.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > READ_BYTES_MAX {
                    break;
                }
            }
            Ok((bytes.freeze(), version))
        };
        match self.ask("read", key, asking).await? {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError> {
        let mode = match from {
            None => PutMode::Create,
            Some(Version::Named { e_tag, version }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
            Some(Version::Bytes(_)) => return Ok(Swapped::Lost),
        };
        match self.put("replace", key, bytes, mode).await? {
            Ok(PutResult { e_tag, version, .. }) => {
                Ok(Swapped::Moved(Version::Named { e_tag, version }))
            }
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Swapped::Lost),
            Err(error) => Err(self.failed("replace", key, &error)),
        }
    }

    async fn remove(&self, key: &str) -> Result<(), SinkError> {
        let path = self.path(key)?;
        match self.ask("remove", key, self.store.delete(&path)).await? {
            Err(error) if !is_absent(&error) => Err(self.failed("remove", key, &error)),
            _ => Ok(()),
        }
    }

    async fn any_below(&self, folder: &str) -> Result<bool, SinkError> {
        let path = self.path(folder)?;
        let mut listed = self.store.list(Some(&path));
        match self.ask("list", folder, async { listed.next().await.transpose() }).await? {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(self.failed("list", folder, &error)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, SinkError> {
        let path = self.path(folder)?;
        let above =
            if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let mut listed = self.store.list(Some(&path));
        let mut keys = Vec::new();
        // The time limit is for each page of the list.
        loop {
            match self.ask("list", folder, async { listed.next().await.transpose() }).await? {
                Ok(None) => return Ok(keys),
                Ok(Some(found)) => {
                    let key = found.location.as_ref();
                    keys.push(key.strip_prefix(&*above).unwrap_or(key).to_owned());
                }
                Err(error) => return Err(self.failed("list", folder, &error)),
            }
        }
    }

    async fn read_whole(&self, key: &str) -> Result<Option<Bytes>, SinkError> {
        let path = self.path(key)?;
        let asking =
            async { self.store.get_opts(&path, GetOptions::default()).await?.bytes().await };
        match self.ask("read", key, asking).await? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError> {
        let path = self.path(above)?;
        match self.ask("list", above, self.store.list_with_delimiter(Some(&path))).await? {
            Ok(listed) => {
                let mut names = listed.common_prefixes.iter().filter_map(Path::filename);
                Ok(names.any(|found| found == name))
            }
            Err(error) => Err(self.failed("list", above, &error)),
        }
    }
}

/// True if there is no such object (and, as far as it can be seen, the bucket exists).
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !chain(error).contains("NoSuchBucket")
}

/// The error with its sources, if these add anything.
fn chain(error: &Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = error.source();
    }
    said
}
