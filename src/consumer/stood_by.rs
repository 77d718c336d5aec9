//! The mark of a consumer that has stood by for its stream, and may have no position: a stream that it saw
//! is not created again, also after a restart.

use std::io;
use std::path::PathBuf;

use super::resumption::{Own, SessionError};
use super::spec::Spec;
use super::state_file::file_of;
use crate::files::{self, NEXT};
use crate::source::{ErrorKind, SourceError};

/// An empty file: only that it is there counts.
fn mark_of(spec: &Spec) -> PathBuf {
    file_of(spec, "seen", NEXT)
}

/// True if the consumer has begun to read the stream, or has stood by for it. Where that cannot be found
/// out, it may have.
pub(super) async fn has_begun(spec: &Spec, own: &Own) -> bool {
    own.has_begun() || is_marked(spec).await
}

pub(super) async fn is_marked(spec: &Spec) -> bool {
    if !spec.source.creates() {
        return false;
    }
    let path = mark_of(spec);
    let found = tokio::task::spawn_blocking(move || path.try_exists()).await;
    found.map_or(true, |found| found.unwrap_or(true))
}

/// Marks one reference where another one is marked.
///
/// # Errors
/// If the mark cannot be written.
pub(super) fn copy(from: &Spec, to: &Spec) -> io::Result<()> {
    let path = mark_of(to);
    match mark_of(from).try_exists()? {
        true => files::replace(&path, &path.with_extension(format!("seen{NEXT}")), b"").map(drop),
        false => Ok(()),
    }
}

/// Notes that the stream is there.
///
/// # Errors
/// If the mark cannot be written: then this consumer would create a stream that was deleted.
pub(super) async fn mark(spec: &Spec) -> Result<(), SessionError> {
    if !spec.source.creates() || is_marked(spec).await {
        return Ok(());
    }
    let path = mark_of(spec);
    let shown = path.clone();
    let make = move || -> io::Result<()> {
        let next = path.with_extension(format!("seen{NEXT}"));
        match files::replace(&path, &next, b"") {
            // Another process that stands by with this folder was faster.
            Err(_) if path.exists() => Ok(()),
            made => made.map(drop),
        }
    };
    let made = match tokio::task::spawn_blocking(make).await {
        Ok(made) => made.map_err(|error| files::unwritten(&shown, &error)),
        Err(error) => Err(error.to_string()),
    };
    made.map_err(|what| {
        let what = format!(
            "{} cannot be written: {what}. Without it, `create` could create a stream again that was deleted",
            shown.display()
        );
        SourceError::new(ErrorKind::Refused, what).into()
    })
}
