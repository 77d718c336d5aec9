//! `--watch-config`: reloads the configuration when its file has changed.
//!
//! The file is read again and again, and compared by its content: that sees an edit in place, a rename over
//! it, and Kubernetes' exchange of a symbolic link above it, and needs no support by the file system.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reload::Reloader;
use crate::config;

/// Time between two looks. A change is acted on when two in a row have seen the same content, so that a file
/// is not read while it is being written.
const EVERY: Duration = Duration::from_secs(1);

/// Reloads whenever the file has changed; runs until it is dropped.
pub(super) async fn watch(reloader: Arc<Reloader>) -> Infallible {
    // Refused content is not tried again before it changes.
    let mut known = reloader.config().sha256.clone();
    let mut changed = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let seen = look(reloader.path()).await.filter(|seen| *seen != known);
        match (seen, changed.take()) {
            (Some(seen), Some(before)) if seen == before => {
                known = seen;
                // It logs its result.
                drop(reloader.reload("--watch-config", Duration::ZERO).await);
            }
            (seen, _) => changed = seen,
        }
    }
}

/// Hash of the file's content; `None` while there is no such file.
async fn look(path: PathBuf) -> Option<String> {
    let read = tokio::task::spawn_blocking(move || std::fs::read(path).ok());
    read.await.ok().flatten().map(|bytes| config::sha256(&bytes))
}
