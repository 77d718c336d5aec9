//! State files of several references that change together, or not at all.
//!
//! A state file changes by one atomic write. Several of them change in two steps: first the new content of each
//! is written beside it, as a *pledge*; then one file, the *decision*, is written. From that write on every
//! pledge counts, whoever reads; before it, none does. A pledge is then put in the place of its state file, by
//! whoever holds the reference next, and the decision goes with the last of them.
//!
//! | killed after | what counts |
//! |---|---|
//! | some, or all, pledges | the state files. Whoever holds a reference next removes its pledge |
//! | the decision | the pledges |
//! | some state files are replaced | the same |
//!
//! Several processes may do this at the same time, each with other references, and others may read meanwhile:
//! - a state file is replaced before its pledge is removed, and the decision goes after the last pledge. So a pledge
//!   without a decision either never counted, or its content stands in the state file already;
//! - whoever reads looks at the pledge first, then at the decision, and at the state file last.
//!
//! Only one process at a time may settle one reference: a second one would restore a content that the first one
//! has already replaced.
//!
//! Knows nothing of what the content means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, NEXT};

#[cfg(test)]
mod interleavings;

#[cfg(test)]
use interleavings::step;

/// Extension of a pledge, in place of the state file's: of the same length or shorter.
const EXTENSION: &str = "move";

/// Beginning of a decision's name, which `@` keeps apart from all names made of a reference and a stream.
const DECISION: &str = "@decided-";

/// Content of a pledge.
#[derive(Serialize, Deserialize)]
struct Pledge {
    /// Name of the decision's file.
    decision: String,
    /// Content of the state file, once it is decided.
    content: Box<serde_json::value::RawValue>,
}

/// Content of a decision.
#[derive(Serialize, Deserialize)]
struct Decision {
    /// Names of the pledges that count.
    pledges: Vec<String>,
}

/// New contents of several state files, which are not decided yet.
pub(super) struct Pledges {
    folder: PathBuf,
    decision: String,
    names: Vec<String>,
}

impl Pledges {
    /// Writes the new content of each of these state files, which are in one folder, beside it.
    ///
    /// # Errors
    /// If one cannot be written; then none counts.
    pub(super) fn write(folder: &Path, contents: &[(PathBuf, Vec<u8>)]) -> io::Result<Pledges> {
        let decision = format!("{DECISION}{:016x}", fastrand::u64(..));
        let mut pledges = Pledges { folder: folder.to_owned(), decision, names: Vec::new() };
        for (state_file, content) in contents {
            if let Err(error) = pledges.add(state_file, content) {
                pledges.withdraw();
                return Err(error);
            }
        }
        Ok(pledges)
    }

    fn add(&mut self, state_file: &Path, content: &[u8]) -> io::Result<()> {
        let content = serde_json::from_slice(content)?;
        let pledge = Pledge { decision: self.decision.clone(), content };
        let path = pledge_of(state_file);
        self.names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let next = path.with_extension(format!("{EXTENSION}{NEXT}"));
        step(&path);
        files::replace(&path, &next, &serde_json::to_vec_pretty(&pledge)?).map(drop)
    }

    /// Has all of them count.
    ///
    /// # Errors
    /// If the decision cannot be written; then none counts, unless it is there all the same.
    pub(super) fn decide(self) -> io::Result<()> {
        let path = self.folder.join(&self.decision);
        let next = self.folder.join(format!("{}{NEXT}", self.decision));
        let decision = Decision { pledges: self.names.clone() };
        step(&path);
        let written = serde_json::to_vec_pretty(&decision)
            .map_err(io::Error::from)
            .and_then(|text| files::replace(&path, &next, &text).map(drop));
        // After a failed sync of the folder it may be there: then it counts.
        if written.is_err() && matches!(path.try_exists(), Ok(false)) {
            self.withdraw();
        }
        written
    }

    /// Removes them. What stays counts for nothing, and is removed by whoever holds the reference next.
    fn withdraw(&self) {
        for name in &self.names {
            fs::remove_file(self.folder.join(name)).unwrap_or_default();
        }
    }
}

/// Content that is pledged for this state file, and decided; `None` if there is none.
///
/// # Errors
/// If a file cannot be read, or is damaged.
pub(super) fn decided(state_file: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(pledge) = read::<Pledge>(&pledge_of(state_file))? else { return Ok(None) };
    let is_decided = exists(&decision_of(state_file, &pledge))?;
    Ok(is_decided.then(|| pledge.content.get().as_bytes().to_vec()))
}

/// Whether something is pledged for this state file, decided or not.
///
/// # Errors
/// If that cannot be told.
pub(super) fn is_pledged(state_file: &Path) -> io::Result<bool> {
    exists(&pledge_of(state_file))
}

/// Puts what is decided in the place of the state file, by `replace`, and removes what is not. Called by the one
/// that holds the reference, and by one at a time.
///
/// # Errors
/// If a file cannot be read, written or removed. Then it can be repeated.
pub(super) fn settle(
    state_file: &Path,
    replace: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let path = pledge_of(state_file);
    let Some(pledge) = read::<Pledge>(&path)? else { return Ok(()) };
    let decision = decision_of(state_file, &pledge);
    if exists(&decision)? {
        replace(pledge.content.get().as_bytes())?;
    }
    remove(&path)?;
    // The last one. Two at a time may both find that; one of them is faster.
    let Some(Decision { pledges }) = read(&decision)? else { return Ok(()) };
    let folder = state_file.parent().unwrap_or(Path::new(""));
    let is_open = |name: &String| match read::<Pledge>(&folder.join(name)) {
        // A later move may have pledged another content since.
        Ok(other) => other.is_some_and(|other| other.decision == pledge.decision),
        // Where that cannot be told, it counts: without its decision it would not.
        Err(_) => true,
    };
    if pledges.iter().any(is_open) {
        return Ok(());
    }
    remove(&decision)
}

fn pledge_of(state_file: &Path) -> PathBuf {
    state_file.with_extension(EXTENSION)
}

fn decision_of(state_file: &Path, pledge: &Pledge) -> PathBuf {
    // A name, whatever is in the file.
    let name = Path::new(&pledge.decision).file_name().unwrap_or_default();
    state_file.with_file_name(name)
}

/// The beginning of a step on this file: a test lets another process go on here.
#[cfg(not(test))]
fn step(_: &Path) {}

fn exists(path: &Path) -> io::Result<bool> {
    step(path);
    path.try_exists()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    step(path);
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    step(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two state files, `a.json` and `b.json`, with the content `"old"`.
    fn folder() -> (tempfile::TempDir, [PathBuf; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(format!("{name}.json")));
        files.iter().for_each(|file| fs::write(file, "\"old\"").unwrap());
        (folder, files)
    }

    /// What counts for a state file.
    fn counts(file: &Path) -> String {
        let decided = decided(file).unwrap();
        String::from_utf8(decided.unwrap_or_else(|| fs::read(file).unwrap())).unwrap()
    }

    fn pledged(folder: &Path, files: &[PathBuf; 2]) -> Pledges {
        let contents = files.each_ref().map(|file| (file.clone(), b"\"new\"".to_vec()));
        Pledges::write(folder, &contents).unwrap()
    }

    fn settled(file: &Path) {
        settle(file, |content| fs::write(file, content)).unwrap();
    }

    fn left(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn all_count_from_the_decision_on_and_none_before() {
        let (folder, files) = folder();
        let pledges = pledged(folder.path(), &files);
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"old\"", "\"old\""]);
        pledges.decide().unwrap();
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"new\"", "\"new\""]);
        settled(&files[0]);
        // As far as a killed process has come: the decision is still needed.
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"new\"", "\"new\""]);
        assert_eq!(left(folder.path()), 4);
        settled(&files[1]);
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"new\"", "\"new\""]);
        assert_eq!(left(folder.path()), 2, "nothing else is left");
        settled(&files[0]);
        assert_eq!(counts(&files[0]), "\"new\"");
    }

    #[test]
    fn what_was_not_decided_is_removed() {
        let (folder, files) = folder();
        drop(pledged(folder.path(), &files));
        settled(&files[0]);
        // A later decision is not theirs.
        let others = [(files[0].clone(), b"\"other\"".to_vec())];
        Pledges::write(folder.path(), &others).unwrap().decide().unwrap();
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"other\"", "\"old\""]);
        files.iter().for_each(|file| settled(file));
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"other\"", "\"old\""]);
        assert_eq!(left(folder.path()), 2);
    }

    #[test]
    fn a_decision_goes_although_a_later_one_is_about_the_same_file() {
        let (folder, files) = folder();
        pledged(folder.path(), &files).decide().unwrap();
        settled(&files[1]);
        let later = [(files[1].clone(), b"\"later\"".to_vec())];
        Pledges::write(folder.path(), &later).unwrap().decide().unwrap();
        files.iter().for_each(|file| settled(file));
        assert_eq!(files.each_ref().map(|file| counts(file)), ["\"new\"", "\"later\""]);
        assert_eq!(left(folder.path()), 2, "nothing else is left");
    }

    #[test]
    fn one_that_cannot_be_written_takes_all_back() {
        let (folder, files) = folder();
        fs::create_dir(pledge_of(&files[1])).unwrap();
        let contents = files.each_ref().map(|file| (file.clone(), b"\"new\"".to_vec()));
        assert!(Pledges::write(folder.path(), &contents).is_err());
        assert!(!pledge_of(&files[0]).exists());
        assert_eq!(counts(&files[0]), "\"old\"");
    }
}
