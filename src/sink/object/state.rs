//! The checkpoint object: the archive's owner, its position, and the object that is being written.
//!
//! Readable JSON on several lines. No two states of one archive are the same, because the sequence only
//! grows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::layout::PARTITION_COLUMNS;
use super::store::{Digest, READ_BYTES_MAX};
use crate::sink::SinkError;
use crate::types::{Checkpoint, Offset, Reference, StreamName, Timestamp};

/// Layout of an archive by date and hour.
const LAYOUT: u32 = 1;

/// Layout of an archive with `partition_by`, which earlier versions do not know.
const LAYOUT_PARTITIONED: u32 = 2;

/// Names of the folders without `partition_by`.
const BY_HOUR: [&str; 2] = PARTITION_COLUMNS;

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
    /// What its owner may create next: one object, or those of one commit.
    pub(super) claim: Option<Claim>,
    /// With `partition_by`: the names of its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_by: Option<Vec<String>>,
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

/// An object that may be created under one key, with only this content; or several, which are staged under
/// this key.
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
    /// With several objects: what is staged under the key, which exists then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) staged: Option<Staged>,
}

/// Several objects that are staged as one, and then created. Nothing can undo that any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged {
    /// How many they are.
    pub(super) objects: u64,
    /// The number of the claim, which is a part of their keys.
    pub(super) number: u64,
}

impl Claim {
    pub(super) fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, crc: self.crc }
    }
}

impl State {
    /// The state of a new archive.
    pub(super) fn begin(
        stream: StreamName,
        reference: Reference,
        owner: Owner,
        partition_by: Option<Vec<String>>,
    ) -> State {
        let state = State {
            layout: LAYOUT,
            stream,
            reference,
            sequence: 1,
            epoch: 1,
            history: 1,
            owner,
            checkpoint: None,
            claim: None,
            partition_by,
            columns: BTreeMap::new(),
            latest: None,
        };
        state.in_its_layout()
    }

    /// The oldest layout that can tell all of it.
    pub(super) fn in_its_layout(mut self) -> State {
        let is_staged = self.claim.as_ref().is_some_and(|claim| claim.staged.is_some());
        let is_new = self.partition_by.is_some() || is_staged;
        self.layout = if is_new { LAYOUT_PARTITIONED } else { LAYOUT };
        self
    }

    /// Whether folders of these names can be beside those that exist: readers take the names for columns.
    pub(super) fn has_folders_of(&self, partition_by: Option<&[String]>) -> bool {
        let (then, now) = (names_of(self.partition_by.as_deref()), names_of(partition_by));
        then.eq(now)
    }

    /// The error for folders of other names.
    pub(super) fn other_folders(&self, partition_by: Option<&[String]>, place: &str) -> SinkError {
        let shown = |parts: Option<&[String]>| names_of(parts).collect::<Vec<_>>().join(", ");
        let remedy = match &self.claim {
            None => "Take the former `partition_by` back, begin".to_owned(),
            // Whatever is moved away: its objects would be created again.
            Some(claim) => format!(
                "A commit is not finished (offsets {} to {}): first start this consumer with the former \
                 `partition_by`, which finishes it, and stop it. Then begin",
                claim.first_offset, claim.last_offset
            ),
        };
        SinkError::Fatal(format!(
            "the archive of {place} has folders by {}, and the configuration says {}: no reader could read both \
             as one table. {remedy} another archive with another `url`, or move all objects of this stream away.",
            shown(self.partition_by.as_deref()),
            shown(partition_by),
        ))
    }

    /// Checks that objects with these columns fit those that exist.
    ///
    /// # Errors
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

    /// The same archive with another owner, which has folders of these names.
    pub(super) fn taken_over_by(
        mut self,
        owner: Owner,
        partition_by: Option<Vec<String>>,
    ) -> State {
        // Saturating: a checkpoint that another program wrote may hold any number.
        self.sequence = self.sequence.saturating_add(1);
        self.epoch = self.epoch.saturating_add(1);
        self.owner = owner;
        self.partition_by = partition_by;
        self.in_its_layout()
    }

    /// The same archive with another reference, taken from its owner.
    pub(super) fn renamed(self, reference: Reference) -> State {
        let folders = self.partition_by.clone();
        State { reference, ..self.taken_over_by(Owner::new(), folders) }
    }

    /// Its bytes, no more than can be read again.
    pub(super) fn encode(&self) -> Result<Bytes, SinkError> {
        let encoded = serde_json::to_vec_pretty(self).map_err(|error| {
            SinkError::Fatal(format!("internal error: a checkpoint cannot be written: {error}"))
        })?;
        if encoded.len() as u64 > READ_BYTES_MAX {
            return Err(SinkError::Fatal(format!(
                "the checkpoint of stream {:?} would be {} bytes long, and at most {READ_BYTES_MAX} are read \
                 again, so it stays as it is. It lists {} columns that the objects have or had: begin another \
                 archive with another `url`, or use fewer columns.",
                self.stream,
                encoded.len(),
                self.columns.len()
            )));
        }
        Ok(Bytes::from(encoded))
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
        if bytes.len() as u64 > READ_BYTES_MAX {
            return Err(damaged(format!("it is longer than {READ_BYTES_MAX} bytes")));
        }
        let Layout { layout } =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if layout != LAYOUT && layout != LAYOUT_PARTITIONED {
            return Err(SinkError::Fatal(format!(
                "{place} was written by a newer rillway (layout {layout}, this one knows up to \
                 {LAYOUT_PARTITIONED}). Run the newer one."
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

/// The names of the folders, from the outer one to the inner one.
fn names_of(partition_by: Option<&[String]>) -> impl Iterator<Item = &str> {
    let by_hour = partition_by.is_none().then_some(BY_HOUR);
    let named = partition_by.unwrap_or_default().iter().map(String::as_str);
    by_hour.into_iter().flatten().chain(named)
}

/// Parses a checkpoint.
#[doc(hidden)]
pub fn fuzz_state(data: &[u8]) {
    super::commit::fuzz_packed(data);
    let (stream, reference) = (StreamName::from("s"), Reference::from("r"));
    if let Ok(state) = State::decode(data, "it", (&stream, &reference)) {
        let taken = state.taken_over_by(Owner::new(), Some(vec!["region".to_owned()]));
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
        let mut state = State::begin("s".into(), "r".into(), Owner::new(), None);
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

    /// Whatever is written can be read again.
    #[test]
    fn a_checkpoint_that_is_too_long_is_never_written() {
        let mut state = State::begin("s".into(), "r".into(), Owner::new(), None);
        let name = |nth: usize| format!("{nth:0100}");
        let mut written = state.encode().unwrap();
        for nth in 0.. {
            let names: Vec<String> = (nth * 100..(nth + 1) * 100).map(name).collect();
            state.note_columns(&columns(&names.iter().map(String::as_str).collect::<Vec<_>>()));
            match state.encode() {
                Ok(bytes) => written = bytes,
                Err(error) => {
                    assert!(error.to_string().contains("another archive"), "{error}");
                    break;
                }
            }
            assert!(nth < 200, "never too long");
        }
        assert!(written.len() > 900_000, "{}", written.len());
        State::decode(&written, "it", (&"s".into(), &"r".into())).unwrap();
        // One of an earlier version, of which a store hands out the beginning.
        let cut = vec![b' '; usize::try_from(READ_BYTES_MAX).unwrap() + 1];
        let told = State::decode(&cut, "it", (&"s".into(), &"r".into())).unwrap_err().to_string();
        assert!(told.contains("longer than 1048576 bytes"), "{told}");
    }

    #[test]
    fn folders_are_the_same_by_their_names() {
        let by =
            |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let of = |names| State::begin("s".into(), "r".into(), Owner::new(), names);
        assert!(of(None).has_folders_of(None));
        assert!(of(None).has_folders_of(by(&["date", "hour"]).as_deref()));
        assert!(of(by(&["date", "hour"])).has_folders_of(None));
        assert!(!of(None).has_folders_of(by(&["hour", "date"]).as_deref()));
        assert!(!of(by(&["region"])).has_folders_of(None));
        assert!(!of(by(&["region"])).has_folders_of(by(&["region", "date"]).as_deref()));
        let told = of(by(&["region"])).other_folders(None, "it").to_string();
        assert!(
            told.contains("folders by region, and the configuration says date, hour"),
            "{told}"
        );
        // An earlier version reads what it knows, and refuses what it does not.
        assert_eq!((of(None).layout, of(by(&["date", "hour"])).layout), (1, 2));
    }
}
