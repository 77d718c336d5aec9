//! Restores a stream's folder: at start-up, and after every failure.
//!
//! Rules for the files in the folder, where N is the committed offset:
//!
//! | file | action |
//! |---|---|
//! | the segment that the position names | cut to the committed length; if too short or missing:
//! fatal |
//! | another segment, empty | removed: it is left by a crash during a rotation |
//! | another segment that begins at or below N | kept: an earlier segment |
//! | another segment that begins above N, not empty | not ours: the log commits to a segment before
//! it writes to it. Renamed with a warning, never deleted |
//! | segments, but no position file | fatal |
//! | anything else | ignored |

use std::io;
use std::path::Path;

use crate::sink::SinkError;
use crate::types::{Reference, StreamName};

use super::error::{Tried, failed};
use super::position::{self, Position, State};
use super::segment;
use super::storage::{Entry, Storage};

/// Adopts the position in the folder, or creates a new one.
pub(super) fn start<S: Storage>(
    storage: &mut S,
    stream: StreamName,
    reference: Reference,
) -> Result<Position<S::File>, SinkError> {
    if let Some(position) = Position::adopt(storage)? {
        let state = position.durable().state();
        check_owner(state, &stream, &reference, &storage.path(position::NAME))?;
        return Ok(position);
    }
    let entries = storage.list().tried("list", || storage.path(""))?;
    let orphan = entries.iter().find(|e| e.bytes > 0 && segment::parse(&e.name).is_some());
    if let Some(entry) = orphan {
        return Err(SinkError::Fatal(format!(
            "{} holds segments ({}, …) but no {}: it is unknown which records are in them, and starting \
             anew could repeat them. Restore the file; or move the segments away: the consumer \
             then continues after the offset that is stored on the broker.",
            storage.path("").display(),
            entry.name,
            position::NAME,
        )));
    }
    Position::create(storage, State { stream, reference, checkpoint: None, tail: None })
}

/// Refuses the position of another reference or stream.
pub(super) fn check_owner(
    state: &State,
    stream: &StreamName,
    reference: &Reference,
    path: &Path,
) -> Result<(), SinkError> {
    if state.stream == *stream && state.reference == *reference {
        return Ok(());
    }
    Err(SinkError::Fatal(format!(
        "{} belongs to reference {:?} on stream {:?}, not to reference {reference:?} on stream \
         {stream:?}. Give each consumer a `dir` of its own; or, if the consumer was renamed, set its \
         `reference` back.",
        path.display(),
        state.reference,
        state.stream,
    )))
}

/// Brings the segments into the committed state, by the rules above; returns the tail.
pub(super) fn settle<S: Storage>(
    storage: &mut S,
    state: &State,
) -> Result<Option<S::File>, SinkError> {
    let entries = storage.list().tried("list", || storage.path(""))?;
    let tail_name = state.tail.as_ref().map(|tail| tail.segment.as_str());
    let mut renamed = Vec::new();
    for entry in &entries {
        let Some((first, _)) = segment::parse(&entry.name) else { continue };
        if Some(entry.name.as_str()) == tail_name {
            continue;
        }
        if entry.bytes == 0 {
            storage.remove(&entry.name).tried("remove", || storage.path(&entry.name))?;
        } else if state.checkpoint.is_none_or(|committed| first > committed.offset) {
            let aside = put_aside(storage, &entries, entry)?;
            renamed.push((entry.name.as_str(), aside));
        }
    }
    let file = state.tail.as_ref().map(|tail| {
        let path = storage.path(&tail.segment);
        let file = match storage.open(&tail.segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SinkError::Fatal(format!(
                    "{} is missing; {} bytes of it are committed ({}). {WHAT_TO_DO}",
                    path.display(),
                    tail.bytes,
                    reached(state),
                )));
            }
            opened => opened.tried("open", || path.clone())?,
        };
        let found = storage.stat(&file).tried("look at", || path.clone())?;
        if found.bytes < tail.bytes {
            return Err(SinkError::Fatal(format!(
                "{} has {} bytes, but {} are committed ({}): it was cut or overwritten. \
                 {WHAT_TO_DO}",
                path.display(),
                found.bytes,
                tail.bytes,
                reached(state),
            )));
        }
        if found.bytes > tail.bytes {
            tracing::info!(
                segment = %path.display(),
                bytes = found.bytes - tail.bytes,
                "removing uncommitted bytes at the end of the file; their messages are read again"
            );
        }
        storage.cut(&file, tail.bytes).tried("cut", || path.clone())?;
        Ok(file)
    });
    let file = file.transpose()?;
    if let Err(error) = storage.sync_dir() {
        // A sync that failed may have forgotten what it had to write: the next attempt renames them again,
        // before a new segment takes a name.
        for (name, aside) in renamed.iter().rev() {
            if let Err(error) = storage.rename(aside, name) {
                tracing::debug!(%name, %error, "it stays renamed");
            }
        }
        return Err(failed("sync", &storage.path(""), &error));
    }
    Ok(file)
}

const WHAT_TO_DO: &str = "Restore the whole folder from a backup; or move it away: the consumer then \
                          continues after the offset that is stored on the broker, and the records in \
                          the folder are not written again.";

fn reached(state: &State) -> String {
    match state.checkpoint {
        Some(committed) => format!("up to offset {}", committed.offset),
        None => "no offset yet".to_owned(),
    }
}

/// Renames a segment that is not ours to delete; returns its new name.
fn put_aside<S: Storage>(
    storage: &mut S,
    entries: &[Entry],
    entry: &Entry,
) -> Result<String, SinkError> {
    let taken = |name: &str| entries.iter().any(|e| e.name == name);
    let Some(aside) = (0..=entries.len())
        .map(|n| match n {
            0 => format!("{}.aside", entry.name),
            n => format!("{}.aside.{n}", entry.name),
        })
        .find(|name| !taken(name))
    else {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(failed("put aside", &storage.path(&entry.name), &error));
    };
    storage.rename(&entry.name, &aside).tried("rename", || storage.path(&entry.name))?;
    tracing::warn!(
        segment = %storage.path(&entry.name).display(),
        aside = %storage.path(&aside).display(),
        bytes = entry.bytes,
        "renamed a segment that the position does not know: it belongs to an old incarnation \
         of the stream, or an older position file was restored without its segments"
    );
    Ok(aside)
}
