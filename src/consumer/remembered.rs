//! The small file in which a reference's last stored position is remembered.
//!
//! It tells "never stored anything" from "the broker evicted what was stored", and it knows the
//! identity of the position's chunk. It is never a place to resume from by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::files;
use crate::types::{Checkpoint, Reference, StreamName, Timestamp};

const UNSAFE_IN_NAMES: &AsciiSet = &CONTROLS.add(b'/').add(b'\\').add(b'%').add(b'@').add(b':');

/// The file could not be used.
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
    checkpoint: Checkpoint,
    written: Timestamp,
}

/// One reference's file.
#[derive(Clone, Debug)]
pub struct Remembered {
    stream: StreamName,
    reference: Reference,
    path: PathBuf,
}

impl Remembered {
    /// The file of this consumer, which may not be there yet.
    pub fn of(spec: &Spec) -> Remembered {
        let part = |text: &str| utf8_percent_encode(text, UNSAFE_IN_NAMES).to_string();
        let name = format!("{}@{}.json", part(spec.reference.as_str()), part(spec.stream.as_str()));
        Remembered {
            stream: spec.stream.clone(),
            reference: spec.reference.clone(),
            path: spec.state_dir.join(name),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it remembers; `None` where there is no file.
    pub fn read(&self) -> Result<Option<Checkpoint>, StateError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(format!("cannot be read: {error}"))),
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| {
            self.error(format!("is damaged ({error}). If the broker still holds this reference's offset it can be deleted; otherwise deleting it starts the reference anew at its configured start"))
        })?;
        if content.stream != self.stream || content.reference != self.reference {
            return Err(self.error(format!(
                "is of reference {:?} on stream {:?}",
                content.reference, content.stream
            )));
        }
        Ok(Some(content.checkpoint))
    }

    /// Replaces what it remembers, all or nothing.
    pub fn write(&self, checkpoint: Checkpoint) -> Result<(), StateError> {
        let content = Content {
            stream: self.stream.clone(),
            reference: self.reference.clone(),
            checkpoint,
            written: Timestamp::now(),
        };
        let text = serde_json::to_vec_pretty(&content).map_err(|e| self.error(e.to_string()))?;
        self.replace(&text).map_err(|error| self.error(format!("cannot be written: {error}")))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        files::replace(&self.path, &self.path.with_extension("json.next"), text).map(drop)
    }

    fn error(&self, what: String) -> StateError {
        StateError { path: self.path.clone(), what }
    }
}
