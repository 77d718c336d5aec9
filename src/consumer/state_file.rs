//! The state file, which stores a reference's last stored position.
//!
//! It distinguishes "never stored anything" from "the broker evicted the stored offset", and holds
//! the identity of the position's chunk. A consumer does not resume from it, with one exception:
//! until something is durable, it holds the first offset of the reference.
//!
//! What is pledged for it and decided ([`pledges`]) counts in its place. Of a reference that was renamed, it
//! tells what it is called now, so that no consumer goes on under the former name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pledges;
use super::spec::Spec;
use crate::files::{self, NEXT};
use crate::flow::beginning::Memory;
use crate::types::file_name::of_two;
use crate::types::{Reference, StreamName, Timestamp};

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
    /// The part of a rename that this reference has.
    #[serde(flatten)]
    renamed: Renamed,
    written: Timestamp,
}

/// The part that a reference has in a rename.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renamed {
    /// The former name, until what the sink keeps has this one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renamed_from: Option<Reference>,
    /// The name that it has now. No consumer goes on under this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renamed_to: Option<Reference>,
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
    ///
    /// # Errors
    /// If it cannot be read; or if the reference was renamed.
    pub fn read(&self) -> Result<Option<Memory>, StateError> {
        match self.read_all()? {
            Some((_, Renamed { renamed_to: Some(to), .. })) => Err(self.is_renamed(&to)),
            Some((memory, _)) => Ok(Some(memory)),
            None => Ok(None),
        }
    }

    /// The same, for what is not to happen amid a rename.
    ///
    /// # Errors
    /// As [`read`](Self::read); or if the rename to this reference is not complete.
    pub(super) fn read_to_move(&self) -> Result<Option<Memory>, StateError> {
        match self.read_all()? {
            Some((_, Renamed { renamed_from: Some(from), .. })) => Err(self.error(format!(
                "says that the rename of reference {:?} to {:?} was interrupted: it is completed when the consumer \
                 starts, or by the same `rillway offsets rename`",
                from.as_str(),
                self.reference.as_str()
            ))),
            _ => self.read(),
        }
    }

    /// The same, with the part of a rename that it has.
    pub(super) fn read_all(&self) -> Result<Option<(Memory, Renamed)>, StateError> {
        if !self.is_kept {
            return Ok(None);
        }
        let decided = pledges::decided(&self.path);
        if let Some(text) = decided.map_err(|error| self.unread(&error))? {
            return self.parse(&text).map(Some);
        }
        match fs::read(&self.path) {
            Ok(text) => self.parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unread(&error)),
        }
    }

    fn unread(&self, error: &io::Error) -> StateError {
        self.error(format!("cannot be read: {}", files::unread(&self.path, error)))
    }

    /// The reference has another name now.
    pub(super) fn is_renamed(&self, to: &Reference) -> StateError {
        let (from, to) = (self.reference.as_str(), to.as_str());
        self.error(format!(
            "reference {from:?} was renamed to {to:?}: set reference = {to:?} (or that name) for this consumer. If \
             {from:?} is to be another consumer from now on, delete this file; it then goes on where the offset that \
             the broker still holds for {from:?} says, or with its sink's position"
        ))
    }

    fn parse(&self, text: &[u8]) -> Result<(Memory, Renamed), StateError> {
        let content: Content = serde_json::from_slice(text).map_err(|error| {
            self.error(format!("is damaged ({error}). If the broker still holds this reference's offset, the file can be deleted; otherwise deleting it makes the reference begin at its configured start again"))
        })?;
        if content.stream != self.stream || content.reference != self.reference {
            return Err(self.error(format!(
                "belongs to reference {:?} on stream {:?}",
                content.reference, content.stream
            )));
        }
        Ok((content.memory, content.renamed))
    }

    /// Whether an interrupted move or rename has left something to complete.
    ///
    /// # Errors
    /// If that cannot be read.
    pub(super) fn is_unsettled(&self) -> Result<bool, StateError> {
        if !self.is_kept {
            return Ok(false);
        }
        // In this order: another process may replace the state file, and then remove the pledge.
        if pledges::is_pledged(&self.path).map_err(|error| self.unread(&error))? {
            return Ok(true);
        }
        Ok(self.read_all()?.is_some_and(|(_, renamed)| renamed.renamed_from.is_some()))
    }

    /// Puts in its place what is pledged and decided, and removes what is not decided. For the one that holds
    /// the reference, and one at a time.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn settle(&self) -> Result<(), StateError> {
        if !self.is_kept {
            return Ok(());
        }
        pledges::settle(&self.path, |text| self.replace(text)).map_err(|error| {
            let what = files::unwritten(&self.path, &error);
            self.error(format!("what was decided for it cannot be put in its place: {what}"))
        })
    }

    /// Replaces the content atomically.
    pub fn write(&self, memory: Memory) -> Result<(), StateError> {
        self.write_all(memory, Renamed::default())
    }

    /// The same, with the part of a rename that it has.
    pub(super) fn write_all(&self, memory: Memory, renamed: Renamed) -> Result<(), StateError> {
        if !self.is_kept {
            return Ok(());
        }
        let text = self.text(memory, renamed)?;
        self.replace(&text).map_err(|error| self.unwritten(&error))
    }

    pub(super) fn unwritten(&self, error: &io::Error) -> StateError {
        let what = files::unwritten(&self.path, error);
        self.error(format!("cannot be written: {what}. Free space in this folder, or allow the user that Rillway runs as to write there, or set another `state_dir`"))
    }

    /// The content of the file for this.
    pub(super) fn text(&self, memory: Memory, renamed: Renamed) -> Result<Vec<u8>, StateError> {
        let content = Content {
            stream: self.stream.clone(),
            reference: self.reference.clone(),
            memory,
            renamed,
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
        Ok(read) => {
            let again = file.text(read.0, read.1.clone()).and_then(|text| file.parse(&text));
            assert!(again.as_ref().is_ok_and(|again| *again == read), "{read:?}: {again:?}");
        }
        Err(error) => assert!(error.to_string().starts_with("state file state: ")),
    }
}

#[cfg(test)]
mod tests;
