//! The partitions of a super stream that a consumer has seen, in a file in `state_dir`.
//!
//! The file distinguishes partitions that existed when the consumer first started, and begin at `start`,
//! from those that were added later, and begin at their first message: everything in those was published
//! after the consumer began. It is written before such a partition is read, so that a crash in between
//! changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, NEXT};
use crate::types::file_name::of_two;
use crate::types::{Reference, StreamName};

/// Extension of the file.
const EXTENSION: &str = "partitions";

/// Error of the file.
#[derive(Debug, thiserror::Error)]
#[error("list of partitions {}: {what}", path.display())]
pub struct RosterError {
    path: PathBuf,
    what: String,
}

/// The partitions that were seen.
#[derive(Clone, Debug)]
pub struct Roster {
    path: PathBuf,
    content: Content,
    /// True if a file existed before: then every other partition was added later.
    has_begun: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    super_stream: StreamName,
    reference: Reference,
    partitions: BTreeMap<StreamName, Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// True if it was added after the consumer had begun.
    late: bool,
}

impl Roster {
    /// Reads the file, which may not exist yet.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to another reference or super stream.
    pub fn read(
        state_dir: &Path,
        reference: &Reference,
        super_stream: &StreamName,
    ) -> Result<Roster, RosterError> {
        let name = of_two(reference.as_str(), super_stream.as_str(), EXTENSION, NEXT);
        let path = state_dir.join(name);
        let failed = |what: String| RosterError { path: path.clone(), what };
        let content = Content {
            super_stream: super_stream.clone(),
            reference: reference.clone(),
            partitions: BTreeMap::new(),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Roster { path, content, has_begun: false });
            }
            Err(error) => {
                let what = files::unread(&path, &error);
                return Err(failed(format!("cannot be read: {what}")));
            }
        };
        let found: Content = serde_json::from_slice(&text).map_err(|error| {
            failed(format!("is damaged ({error}). Delete it: partitions without a position then begin at the configured start"))
        })?;
        if found.super_stream != content.super_stream || found.reference != content.reference {
            let (other, of) = (found.reference, found.super_stream);
            return Err(failed(format!("belongs to reference {other:?} on super stream {of:?}")));
        }
        Ok(Roster { path, content: found, has_begun: true })
    }

    /// Writes the list of this reference as that of another one, with these partitions only; nothing, if there is
    /// none. Blocks.
    ///
    /// Any other one, which may come back, has its position under this reference alone: by the other one's list it
    /// is late, and is read from its first message.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn copy_to(
        &self,
        state_dir: &Path,
        reference: &Reference,
        only: &[StreamName],
    ) -> Result<(), RosterError> {
        if !self.has_begun {
            return Ok(());
        }
        let mut content = Content { reference: reference.clone(), ..self.content.clone() };
        content.partitions.retain(|partition, _| only.contains(partition));
        let super_stream = content.super_stream.as_str();
        let path = state_dir.join(of_two(reference.as_str(), super_stream, EXTENSION, NEXT));
        // What is there is older: this reference was renamed before.
        Roster { path, content, has_begun: false }.add(&[])
    }

    /// True if any partition was ever seen.
    pub fn has_any(&self) -> bool {
        !self.content.partitions.is_empty()
    }

    /// True if this partition was added after the consumer had begun.
    pub fn is_late(&self, partition: &StreamName) -> bool {
        let seen = self.content.partitions.get(partition);
        seen.map_or(self.has_begun, |seen| seen.late)
    }

    /// Adds these partitions, and writes the file if any of them is new. Blocks.
    ///
    /// # Errors
    /// If it cannot be written; then nothing has changed.
    pub fn add(&mut self, partitions: &[StreamName]) -> Result<(), RosterError> {
        let mut content = self.content.clone();
        for partition in partitions {
            let late = self.is_late(partition);
            content.partitions.insert(partition.clone(), Seen { late });
        }
        if self.has_begun && content.partitions.len() == self.content.partitions.len() {
            return Ok(());
        }
        let failed = |what: String| RosterError { path: self.path.clone(), what };
        let text = serde_json::to_vec_pretty(&content).map_err(|e| failed(e.to_string()))?;
        // Daemons that share the folder may write at the same time, each under a name of its own.
        let mark = format!(".{:04x}", fastrand::u16(..));
        debug_assert_eq!(mark.len(), NEXT.len(), "room was left for that");
        let next = self.path.with_extension(format!("{EXTENSION}{mark}"));
        files::replace(&self.path, &next, &text).map_err(|error| {
            let what = files::unwritten(&self.path, &error);
            failed(format!("cannot be written: {what}. Free space in this folder, or allow the user that Rillway runs as to write there, or set another `state_dir`"))
        })?;
        (self.content, self.has_begun) = (content, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path) -> Roster {
        Roster::read(folder, &"r".into(), &"orders".into()).unwrap()
    }

    #[test]
    fn only_partitions_added_later_are_late_and_stay_late() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, third] = ["orders-0", "orders-1", "orders-2"].map(StreamName::from);
        let mut roster = read(folder.path());
        assert!(!roster.is_late(&first));
        roster.add(&[first.clone(), second.clone()]).unwrap();
        assert!(!roster.is_late(&second) && roster.is_late(&third));
        roster.add(std::slice::from_ref(&third)).unwrap();
        let again = read(folder.path());
        let late = [&first, &second, &third].map(|partition| again.is_late(partition));
        assert_eq!(late, [false, false, true]);
        assert!(again.is_late(&"orders-3".into()));
    }

    /// What was not renamed with it has no position under the other reference.
    #[test]
    fn another_reference_has_the_list_of_what_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, third] = ["orders-0", "orders-1", "orders-2"].map(StreamName::from);
        let mut roster = read(folder.path());
        roster.copy_to(folder.path(), &"s".into(), std::slice::from_ref(&first)).unwrap();
        let other = || Roster::read(folder.path(), &"s".into(), &"orders".into()).unwrap();
        assert!(!other().has_any() && !other().is_late(&first), "there was no list");
        roster.add(&[first.clone(), second.clone()]).unwrap();
        roster.add(std::slice::from_ref(&third)).unwrap();
        roster.copy_to(folder.path(), &"s".into(), &[first.clone(), third.clone()]).unwrap();
        let late = [&first, &second, &third].map(|partition| other().is_late(partition));
        assert_eq!(late, [false, true, true]);
        let late =
            [&first, &second, &third].map(|partition| read(folder.path()).is_late(partition));
        assert_eq!(late, [false, false, true], "its own stays");
    }

    /// As where daemons share the folder.
    #[test]
    fn writers_of_different_lists_never_mix_them() {
        let folder = tempfile::tempdir().unwrap();
        let partitions: Vec<_> =
            (0..200).map(|n| StreamName::from(format!("orders-{n}").as_str())).collect();
        std::thread::scope(|scope| {
            for count in [1, 60, 130, 200] {
                let (folder, partitions) = (folder.path(), &partitions[..count]);
                scope.spawn(move || {
                    for _ in 0..25 {
                        let mut roster = read(folder);
                        (roster.has_begun, roster.content.partitions) = Default::default();
                        roster.add(partitions).unwrap();
                    }
                });
            }
        });
        assert!(read(folder.path()).has_any());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut roster = read(folder.path());
        roster.path = folder.path().join("no").join("such");
        fs::write(folder.path().join("no"), "a file").unwrap();
        let error = roster.add(&["orders-0".into()]).unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
        assert!(!roster.is_late(&"orders-1".into()));
    }

    #[test]
    fn a_file_of_others_or_of_nonsense_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut roster = read(folder.path());
        roster.add(&["orders-0".into()]).unwrap();
        let text = fs::read_to_string(&roster.path).unwrap();
        for (content, says) in
            [(text.replace("orders\"", "bills\""), "belongs to"), ("{".to_owned(), "is damaged")]
        {
            fs::write(&roster.path, content).unwrap();
            let error = Roster::read(folder.path(), &"r".into(), &"orders".into()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
