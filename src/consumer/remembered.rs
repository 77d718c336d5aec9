//! The small file in which a reference's last stored position is remembered.
//!
//! It tells "never stored anything" from "the broker evicted what was stored", and it knows the
//! identity of the position's chunk. It is never a place to resume from by itself, but for one case:
//! until something is durable, it keeps the offset with which the reference began.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::files;
use crate::flow::beginning::Memory;
use crate::types::file_name::{FILE_NAME_BYTES_MAX, fitted};
use crate::types::{Reference, StreamName, Timestamp};

const UNSAFE_IN_NAMES: &AsciiSet = &CONTROLS.add(b'/').add(b'\\').add(b'%').add(b'@').add(b':');

/// What a file's name is followed by while it is written anew.
pub(super) const NEXT: &str = ".next";

/// The file of this reference with this extension, which leaves room for `suffix` behind it.
pub(super) fn file_of(spec: &Spec, extension: &str, suffix: &str) -> PathBuf {
    let name = file_name(&spec.reference, &spec.stream, extension, suffix);
    spec.state_dir.join(name)
}

fn file_name(reference: &Reference, stream: &StreamName, extension: &str, suffix: &str) -> String {
    let part = |text: &str| utf8_percent_encode(text, UNSAFE_IN_NAMES).to_string();
    // Neither part holds an `@` of its own, so no two consumers have one name.
    let whole = format!("{}@{}", part(reference.as_str()), part(stream.as_str()));
    let bytes_max = FILE_NAME_BYTES_MAX - 1 - extension.len() - suffix.len();
    format!("{}.{extension}", fitted(whole.clone(), &whole, bytes_max))
}

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
    memory: Memory,
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
        Remembered {
            stream: spec.stream.clone(),
            reference: spec.reference.clone(),
            path: file_of(spec, "json", NEXT),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it remembers; `None` where there is no file.
    pub fn read(&self) -> Result<Option<Memory>, StateError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(format!("cannot be read: {error}"))),
        };
        self.parse(&text).map(Some)
    }

    fn parse(&self, text: &[u8]) -> Result<Memory, StateError> {
        let content: Content = serde_json::from_slice(text).map_err(|error| {
            self.error(format!("is damaged ({error}). If the broker still holds this reference's offset it can be deleted; otherwise deleting it starts the reference anew at its configured start"))
        })?;
        if content.stream != self.stream || content.reference != self.reference {
            return Err(self.error(format!(
                "is of reference {:?} on stream {:?}",
                content.reference, content.stream
            )));
        }
        Ok(content.memory)
    }

    /// Replaces what it remembers, all or nothing.
    pub fn write(&self, memory: Memory) -> Result<(), StateError> {
        let text = self.text(memory)?;
        self.replace(&text).map_err(|error| self.error(format!("cannot be written: {error}")))
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

/// Takes the bytes for a state file of reference `r` on stream `s`: what is read can be written, and is
/// read as the same again.
pub(super) fn fuzz(data: &[u8]) {
    let file = Remembered {
        stream: StreamName::from("s"),
        reference: Reference::from("r"),
        path: PathBuf::from("state"),
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The extensions that there are, each with what may follow it.
    const FILES: [(&str, &str); 3] = [("json", NEXT), ("dead-letters", NEXT), ("lock", "")];

    fn names_of(reference: &str, stream: &str) -> Vec<String> {
        let (reference, stream) = (Reference::from(reference), StreamName::from(stream));
        let name = |(extension, suffix)| file_name(&reference, &stream, extension, suffix);
        FILES.map(name).to_vec()
    }

    fn check(names: &[String]) {
        for (name, (_, suffix)) in names.iter().zip(FILES) {
            assert!(name.len() + suffix.len() <= FILE_NAME_BYTES_MAX, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{name}");
            assert!(!name.contains(['/', '\\', '\0']), "{name}");
        }
    }

    #[test]
    fn names_that_fit_are_as_they_always_were() {
        for (reference, stream, stem) in [
            ("archiver", "events", "archiver@events"),
            ("a/b", "..", "a%2Fb@.."),
            ("a@b:c", "100%\\", "a%40b%3Ac@100%25%5C"),
            ("a b~c", "\u{1}\0\u{3042}", "a b~c@%01%00%E3%81%82"),
        ] {
            let extensions = FILES.map(|(extension, _)| format!("{stem}.{extension}"));
            assert_eq!(names_of(reference, stream), extensions);
        }
        // The longest that could be written before: `.json.next` and `.dead-letters.next` fitted.
        let of = |bytes: usize| names_of("r", &"s".repeat(bytes - 2));
        let whole =
            |bytes: usize, extension: &str| format!("r@{}.{extension}", "s".repeat(bytes - 2));
        assert_eq!(of(245)[0], whole(245, "json"));
        assert_eq!(of(237)[1], whole(237, "dead-letters"));
        assert_ne!(of(246)[0], whole(246, "json"));
        assert_ne!(of(238)[1], whole(238, "dead-letters"));
    }

    #[test]
    fn no_two_consumers_share_a_file() {
        let mut parts = vec![".".to_owned(), "..".to_owned(), ".x".to_owned(), "a/b".to_owned()];
        for last in ["", "a", "b", "/", "\0", "\u{3042}"] {
            for start in ["x".repeat(230), "\u{3042}".repeat(38), "\u{3042}".repeat(80)] {
                parts.push(format!("{start}{last}"));
            }
        }
        let mut seen = HashSet::new();
        for reference in &parts {
            for stream in &parts {
                let names = names_of(reference, stream);
                check(&names);
                for name in names {
                    assert!(seen.insert(name), "{reference:?} {stream:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_file_is_one_component_that_fits(a in ".{1,255}", b in ".{1,255}", c in ".{1,255}") {
            let (first, second) = (names_of(&a, &b), names_of(&a, &c));
            check(&first);
            prop_assert_eq!(first[0] == second[0], b == c);
        }
    }
}
