//! The state of a replay: a small file, so that an interrupted one is continued by the same command.
//!
//! It holds the range as offsets, which a time or `end` would not give a second time, and the suffix of
//! everything that is named after this replay. It is on disk before the sink is opened, and removed when
//! the replay is complete: the same command then begins a new one. Each part that is done is marked before
//! anything else of it is forgotten, so that it is not done again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::exit::Failure;
use crate::cli::locked::Locked;
use crate::files::NEXT;
use crate::types::file_name::of_two;
use crate::types::{ConsumerName, Offset, Reference, StreamName, Timestamp};

/// A replay, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    consumer: ConsumerName,
    /// The stream, or the super stream of which all partitions are replayed.
    stream: StreamName,
    reference: Reference,
    /// The range and the sink, as they were asked for.
    replays: String,
    /// When it began.
    begun: Timestamp,
    /// Tells it apart from another one that began at the same time.
    number: u32,
    /// The range in each stream.
    pub(super) parts: Vec<Part>,
}

/// The range in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) stream: StreamName,
    /// First offset.
    pub(super) from: Offset,
    /// Last offset.
    pub(super) upto: Offset,
    /// Messages of the range that retention had deleted when it began, or may have.
    pub(super) missing: Option<String>,
    /// All of it is durable. What the sink or the reader's state tells of it is not asked any more.
    pub(super) is_done: bool,
}

impl Kept {
    /// Suffix of everything that is named after this replay.
    pub(super) fn suffix(&self) -> String {
        Reference::range_suffix(self.begun, self.number)
    }
}

/// What is replayed.
#[derive(Clone, Debug)]
pub(super) struct What {
    pub(super) consumer: ConsumerName,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
    pub(super) replays: String,
}

impl What {
    /// A new replay of these parts.
    pub(super) fn begin(&self, parts: Vec<Part>) -> Kept {
        Kept {
            consumer: self.consumer.clone(),
            stream: self.stream.clone(),
            reference: self.reference.clone(),
            replays: self.replays.clone(),
            begun: Timestamp::now(),
            number: fastrand::u32(..1_000_000),
            parts,
        }
    }

    /// The file in this folder.
    fn default_path(&self, state_dir: &Path) -> PathBuf {
        // Another range of the same consumer is another replay.
        let crc = crc32fast::hash(self.replays.as_bytes());
        let extension = format!("{crc:08x}-range.json");
        state_dir.join(of_two(self.consumer.as_str(), self.stream.as_str(), &extension, NEXT))
    }
}

/// The state file, locked.
pub(super) struct StateFile(Locked);

impl StateFile {
    /// Opens, locks and reads the file.
    ///
    /// # Errors
    /// If it is in use, cannot be read or written, or belongs to another replay.
    pub(super) fn open(
        named: Option<&Path>,
        state_dir: &Path,
        what: &What,
    ) -> Result<(StateFile, Option<Kept>), Failure> {
        let path = named.map_or_else(|| what.default_path(state_dir), Path::to_owned);
        let file = Locked::open(path, "the same replay")?;
        let Some(text) = file.read()? else { return Ok((StateFile(file), None)) };
        let kept: Kept = serde_json::from_slice(&text)
            .map_err(|error| file.error(format!("not the state of a replay: {error}")))?;
        let fits = kept.consumer == what.consumer
            && kept.stream == what.stream
            && kept.reference == what.reference
            && kept.replays == what.replays;
        match fits {
            true => Ok((StateFile(file), Some(kept))),
            false => Err(Failure::Usage(format!(
                "{} is the state of another replay, of consumer {:?} on stream {:?}, {}: give that command \
                 again to continue it, or another --state",
                file.path().display(),
                kept.consumer,
                kept.stream,
                kept.replays
            ))),
        }
    }

    /// The folder of the file, for the reader's own state.
    pub(super) fn folder(&self) -> PathBuf {
        let folder = self.0.path().parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    }

    /// Writes the state of a replay.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(kept).map_err(|error| self.0.error(error))?;
        self.0.write(&text)
    }

    /// The replay is complete.
    pub(super) fn remove(self) -> Result<(), Failure> {
        self.0.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(replays: &str) -> What {
        What {
            consumer: "c".into(),
            stream: "s".into(),
            reference: "r".into(),
            replays: replays.to_owned(),
        }
    }

    fn part(from: u64, upto: u64) -> Part {
        let (from, upto) = (Offset(from), Offset(upto));
        Part { stream: "s".into(), from, upto, missing: None, is_done: false }
    }

    #[test]
    fn the_same_command_finds_its_range_again_and_another_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let hour = what("the last hour");
        let (file, none) = StateFile::open(None, dir.path(), &hour).unwrap();
        assert_eq!(none, None);
        let kept = hour.begin(vec![part(3, 9)]);
        file.write(&kept).unwrap();
        assert!(StateFile::open(None, dir.path(), &hour).is_err(), "two at once");
        let (_other, none) = StateFile::open(None, dir.path(), &what("all")).unwrap();
        assert_eq!(none, None);
        drop(file);
        let (file, found) = StateFile::open(None, dir.path(), &hour).unwrap();
        assert_eq!(found, Some(kept));
        file.remove().unwrap();
        assert_eq!(StateFile::open(None, dir.path(), &hour).unwrap().1, None);
    }

    #[test]
    fn a_named_file_of_another_replay_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.json");
        let (file, _) = StateFile::open(Some(&path), dir.path(), &what("all")).unwrap();
        file.write(&what("all").begin(vec![part(0, 1)])).unwrap();
        assert_eq!(file.folder(), dir.path());
        drop(file);
        let refused = StateFile::open(Some(&path), dir.path(), &what("half")).err().unwrap();
        assert!(refused.to_string().contains("the state of another replay"), "{refused}");
        std::fs::write(&path, "{}").unwrap();
        let refused = StateFile::open(Some(&path), dir.path(), &what("all")).err().unwrap();
        assert!(refused.to_string().contains("not the state of a replay"), "{refused}");
    }
}
