//! The state file, which stores a reference's last stored position.
//!
//! It distinguishes "never stored anything" from "the broker evicted the stored offset", and holds
//! the identity of the position's chunk. A consumer does not resume from it, with one exception:
//! until something is durable, it holds the first offset of the reference.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::files;
use crate::flow::beginning::Memory;
use crate::types::file_name::of_two;
use crate::types::{Reference, StreamName, Timestamp};

/// Suffix of the file's name while it is rewritten.
pub(super) const NEXT: &str = ".next";

/// The file of this reference with this extension; the name leaves room for `suffix`.
pub(super) fn file_of(spec: &Spec, extension: &str, suffix: &str) -> PathBuf {
    let (reference, stream) = (spec.reference.as_str(), spec.stream.as_str());
    spec.state_dir.join(of_two(reference, stream, extension, suffix))
}

/// Removes everything that is remembered of a reference that is not used again.
///
/// # Errors
/// If a file cannot be removed.
pub fn forget(spec: &Spec) -> io::Result<()> {
    for extension in ["json", "dead-letters"] {
        let path = file_of(spec, extension, NEXT);
        // What a process that died was about to rename is left too.
        for path in [path.with_extension(format!("{extension}{NEXT}")), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The state file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("state file {}: {what}", path.display())]
pub struct StateError {
    path: PathBuf,
    what: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    stream: StreamName,
    reference: Reference,
    #[serde(flatten)]
    memory: Memory,
    written: Timestamp,
}

/// The state file of one reference.
#[derive(Clone, Debug)]
pub struct StateFile {
    stream: StreamName,
    reference: Reference,
    path: PathBuf,
    /// False if nothing is read or written: see [`Spec::keeps_state`].
    is_kept: bool,
}

impl StateFile {
    /// The file of this consumer, which may not exist yet.
    pub fn of(spec: &Spec) -> StateFile {
        StateFile {
            stream: spec.stream.clone(),
            reference: spec.reference.clone(),
            path: file_of(spec, "json", NEXT),
            is_kept: spec.keeps_state,
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored content; `None` if there is no file.
    pub fn read(&self) -> Result<Option<Memory>, StateError> {
        if !self.is_kept {
            return Ok(None);
        }
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let what = files::unread(&self.path, &error);
                return Err(self.error(format!("cannot be read: {what}")));
            }
        };
        self.parse(&text).map(Some)
    }

    fn parse(&self, text: &[u8]) -> Result<Memory, StateError> {
        let content: Content = serde_json::from_slice(text).map_err(|error| {
            self.error(format!("is damaged ({error}). If the broker still holds this reference's offset, the file can be deleted; otherwise deleting it makes the reference begin at its configured start again"))
        })?;
        if content.stream != self.stream || content.reference != self.reference {
            return Err(self.error(format!(
                "belongs to reference {:?} on stream {:?}",
                content.reference, content.stream
            )));
        }
        Ok(content.memory)
    }

    /// Replaces the content atomically.
    pub fn write(&self, memory: Memory) -> Result<(), StateError> {
        if !self.is_kept {
            return Ok(());
        }
        let text = self.text(memory)?;
        self.replace(&text).map_err(|error| {
            let what = files::unwritten(&self.path, &error);
            self.error(format!("cannot be written: {what}. Free space in this folder, or allow the user that Rillway runs as to write there, or set another `state_dir`"))
        })
    }

    fn text(&self, memory: Memory) -> Result<Vec<u8>, StateError> {
        let content = Content {
            stream: self.stream.clone(),
            reference: self.reference.clone(),
            memory,
            written: Timestamp::now(),
        };
        serde_json::to_vec_pretty(&content).map_err(|error| self.error(error.to_string()))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let next = self.path.with_extension(format!("json{NEXT}"));
        files::replace(&self.path, &next, text).map(drop)
    }

    fn error(&self, what: String) -> StateError {
        StateError { path: self.path.clone(), what }
    }
}

/// Fuzz target: reads the bytes as a state file of reference `r` on stream `s`. Content that can be
/// read must be written and read back unchanged.
pub(super) fn fuzz(data: &[u8]) {
    let file = StateFile {
        stream: StreamName::from("s"),
        reference: Reference::from("r"),
        path: PathBuf::from("state"),
        is_kept: true,
    };
    match file.parse(data) {
        Ok(memory) => {
            let again = file.text(memory).and_then(|text| file.parse(&text));
            assert!(again.as_ref().is_ok_and(|again| *again == memory), "{memory:?}: {again:?}");
        }
        Err(error) => assert!(error.to_string().starts_with("state file state: ")),
    }
}

#[cfg(test)]
mod tests;
