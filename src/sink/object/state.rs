//! The checkpoint object: the archive's owner, its position, and the object that is being written.
//!
//! Readable JSON on several lines. No two states of one archive are the same, because the sequence only
//! grows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::store::Digest;
use crate::sink::SinkError;
use crate::types::{Checkpoint, Offset, Reference, StreamName, Timestamp};

const LAYOUT: u32 = 1;

/// Content of the checkpoint object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    layout: u32,
    /// The stream that the records come from.
    pub(super) stream: StreamName,
    /// The reference that reads it.
    pub(super) reference: Reference,
    /// Incremented whenever the checkpoint is replaced.
    pub(super) sequence: u64,
    /// Incremented with each owner.
    pub(super) epoch: u64,
    /// Incremented with each new incarnation of the stream.
    pub(super) history: u64,
    /// The only process that may replace it.
    pub(super) owner: Owner,
    /// Position of the reference without the claim; `None` before the first record.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The one object that its owner may create.
    pub(super) claim: Option<Claim>,
    /// The columns of all objects so far, each with the type that readers find. Missing in archives of
    /// earlier versions, and for NDJSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    columns: BTreeMap<String, String>,
    /// The columns of the last object, if it does not have all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latest: Option<BTreeSet<String>>,
}

/// A sink that took over the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Random, so that a restarted process is another owner.
    pub(super) id: String,
    /// Its process id, on an unknown host.
    pub(super) process: u32,
    /// When it took over.
    pub(super) since: Timestamp,
}

impl Owner {
    pub(super) fn new() -> Owner {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Owner { id, process: std::process::id(), since: Timestamp::now() }
    }
}

/// An object that may be created under one key, with only this content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// Never used before or after.
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) crc: u32,
    pub(super) first_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) records: u64,
    /// Position once the object exists.
    pub(super) checkpoint: Checkpoint,
}

impl Claim {
    pub(super) fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, crc: self.crc }
    }
}

impl State {
    /// The state of a new archive.
    pub(super) fn begin(stream: StreamName, reference: Reference, owner: Owner) -> State {
        State {
            layout: LAYOUT,
            stream,
            reference,
            sequence: 1,
            epoch: 1,
            history: 1,
            owner,
            checkpoint: None,
            claim: None,
            columns: BTreeMap::new(),
            latest: None,
        }
    }

    /// Checks that objects with these columns fit those that exist.
    ///
    /// If one of them had another type before: no query could read both.
    /// Where one of them had another type: one query could not read both.
    pub(super) fn check_columns(
        &self,
        columns: &BTreeMap<String, String>,
        place: &str,
    ) -> Result<(), SinkError> {
        let changed: Vec<String> = columns
            .iter()
            .filter_map(|(name, now)| {
                let then = self.columns.get(name).filter(|then| *then != now)?;
                Some(format!("{name:?} is {now} now and was {then}"))
            })
            .collect();
        if !changed.is_empty() {
            return Err(SinkError::Fatal(format!(
                "the archive of {place} has objects with columns of other types than the configuration \
                 has now: {}. No query could read both. Take the former type back, give the column \
                 another name, or begin another archive with another `url`.",
                changed.join(", ")
            )));
        }
        if self.differ_from_the_last(columns) {
            tracing::warn!(
                archive = place,
                "objects have other columns from here on than the last one: readers have to put them \
                 together by name (in DuckDB with union_by_name = true)"
            );
        }
        Ok(())
    }

    /// Whether these columns differ from those of the last object.
    fn differ_from_the_last(&self, columns: &BTreeMap<String, String>) -> bool {
        let known = !self.columns.is_empty() && !columns.is_empty();
        known
            && match &self.latest {
                Some(latest) => !latest.iter().eq(columns.keys()),
                None => !self.columns.keys().eq(columns.keys()),
            }
    }

    /// Records that objects with these columns may exist from now on. NDJSON has none.
    pub(super) fn note_columns(&mut self, columns: &BTreeMap<String, String>) {
        if columns.is_empty() {
            return;
        }
        self.columns.extend(columns.iter().map(|(name, kind)| (name.clone(), kind.clone())));
        let has_all = self.columns.len() == columns.len();
        self.latest = (!has_all).then(|| columns.keys().cloned().collect());
    }

    /// The same archive with another owner.
    pub(super) fn taken_over_by(mut self, owner: Owner) -> State {
        // Saturating: a checkpoint that another program wrote may hold any number.
        self.sequence = self.sequence.saturating_add(1);
        self.epoch = self.epoch.saturating_add(1);
        self.owner = owner;
        self
    }

    pub(super) fn encode(&self) -> Result<Bytes, SinkError> {
        let encoded = serde_json::to_vec_pretty(self);
        encoded.map(Bytes::from).map_err(|error| {
            SinkError::Fatal(format!("internal error: a checkpoint cannot be written: {error}"))
        })
    }

    /// Reads it, and checks that it is of this stream and this reference.
    pub(super) fn decode(
        bytes: &[u8],
        place: &str,
        (stream, reference): (&StreamName, &Reference),
    ) -> Result<State, SinkError> {
        #[derive(Deserialize)]
        struct Layout {
            layout: u32,
        }
        let damaged = |why: String| {
            SinkError::Fatal(format!(
                "{place} is no checkpoint of rillway ({why}). Restore it from a backup. Without it, \
                 nobody can tell how far the objects beside it go."
            ))
        };
        let Layout { layout } =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if layout != LAYOUT {
            return Err(SinkError::Fatal(format!(
                "{place} was written by a newer rillway (layout {layout}, this one knows {LAYOUT}). \
                 Run the newer one."
            )));
        }
        let state: State =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if (&state.stream, &state.reference) != (stream, reference) {
            return Err(SinkError::Fatal(format!(
                "{place} belongs to stream {:?} and reference {:?}, not to {:?} and {:?}: two \
                 references in one table would be every record twice. Give this consumer another \
                 `url`.",
                state.stream, state.reference, stream, reference
            )));
        }
        Ok(state)
    }
}

/// Parses a checkpoint.
#[doc(hidden)]
pub fn fuzz_state(data: &[u8]) {
    let (stream, reference) = (StreamName::from("s"), Reference::from("r"));
    if let Ok(state) = State::decode(data, "it", (&stream, &reference)) {
        let taken = state.taken_over_by(Owner::new());
        let again = taken.encode().and_then(|it| State::decode(&it, "it", (&stream, &reference)));
        assert!(again.is_ok_and(|again| again == taken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "text".to_owned())).collect()
    }

    #[test]
    fn other_columns_are_news_once() {
        let mut state = State::begin("s".into(), "r".into(), Owner::new());
        for (names, is_news) in [
            (&["a", "b"][..], false),
            (&["a", "b"][..], false),
            (&["a"][..], true),
            (&["a"][..], false),
            (&[][..], false),
            (&["a"][..], false),
            (&["a", "c"][..], true),
            (&["a", "b", "c"][..], true),
            (&["a", "b", "c"][..], false),
        ] {
            let columns = columns(names);
            assert_eq!(state.differ_from_the_last(&columns), is_news, "{names:?}");
            // As it is read from the checkpoint after a restart.
            state.note_columns(&columns);
            let written = state.encode().unwrap();
            state = State::decode(&written, "it", (&"s".into(), &"r".into())).unwrap();
        }
        // Written by an earlier version, which did not store the last object's columns.
        let mut json = serde_json::to_value(&state).unwrap();
        json.as_object_mut().unwrap().remove("latest");
        let state: State = serde_json::from_value(json).unwrap();
        assert!(!state.differ_from_the_last(&columns(&["a", "b", "c"])));
    }
}
