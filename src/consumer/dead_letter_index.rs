//! The offsets of a consumer's dead letters, in a small file in `state_dir`: the proof that a
//! record which is found bad again already has its dead letter.
//!
//! An offset is on disk *before* its dead letter is written. So a line proves a dead letter only if
//! the position of their sink is at or above it: [`DeadLetterIndex::open`] drops the others. Each
//! of the rest has its dead letter: they are written in order, in pieces, each piece after the
//! previous position, and the sink's position moves with them.
//!
//! Lines are only appended to the file; for one that a crash cut off, no dead letter was written
//! yet. A line that is not a number is ignored: an unproved record halts the consumer, and nothing
//! is lost. The file is rewritten when it is opened, and when it has grown. Then offsets at or
//! below the consumer's stored offset, which are not read again, are dropped, except the last
//! [`KEPT`]: the stored offset may be set back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::spec::Spec;
use super::state_file::{self, StateFile};
use crate::files::{self, NEXT};
use crate::types::Offset;

/// Number of offsets that are kept although they are not needed.
const KEPT: usize = 10_000;

/// The file, and its content.
#[derive(Debug)]
pub(super) struct DeadLetterIndex {
    path: PathBuf,
    remembered: StateFile,
    known: BTreeSet<Offset>,
    file: Option<File>,
    /// Number of lines added since the last rewrite.
    added: usize,
}

impl DeadLetterIndex {
    /// Reads the entries of earlier runs up to `found`, the position of the dead letters' sink.
    pub(super) fn open(spec: &Spec, found: Option<Offset>) -> io::Result<DeadLetterIndex> {
        let remembered = StateFile::of(spec);
        let path = state_file::file_of(spec, "dead-letters", NEXT);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let known = known(&text, found);
        Ok(DeadLetterIndex { path, remembered, known, file: None, added: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// True if the record at this offset has its dead letter.
    pub(super) fn knows(&self, offset: Offset) -> bool {
        self.known.contains(&offset)
    }

    /// The stream was re-created: offsets mean other records.
    pub(super) fn restart(&mut self) {
        self.known.clear();
        self.file = None; // It is written again before the next letter.
    }

    /// Stores these offsets on disk. Their dead letters are written next.
    pub(super) fn add(&mut self, offsets: &[Offset]) -> io::Result<()> {
        self.known.extend(offsets);
        // After a failure the file may end in half a line: then it is rewritten too.
        let mut file = match self.file.take().filter(|_| self.added < KEPT) {
            None => self.rewritten()?,
            Some(mut file) => {
                let lines = lines(offsets);
                file.write_all(lines.as_bytes())?;
                file
            }
        };
        file.flush()?;
        file.sync_data()?;
        self.added += offsets.len();
        self.file = Some(file);
        Ok(())
    }

    fn rewritten(&mut self) -> io::Result<File> {
        // Unreadable: then no entry is known to be unnecessary.
        let stored = self.remembered.read().ok().flatten();
        let stored =
            stored.and_then(|memory| memory.position()).map(|checkpoint| checkpoint.offset);
        while self.known.len() > KEPT && self.known.first().copied() <= stored {
            self.known.pop_first();
        }
        let next = self.path.with_extension(format!("dead-letters{NEXT}"));
        let lines = lines(&self.known);
        let file = files::replace(&self.path, &next, lines.as_bytes())?;
        self.added = 0;
        Ok(file)
    }
}

/// Copies the list of one reference to another one's; nothing, if there is none.
///
/// # Errors
/// If it cannot be read or written.
pub(super) fn copy(from: &Spec, to: &Spec) -> io::Result<()> {
    let path = |spec| state_file::file_of(spec, "dead-letters", NEXT);
    match fs::read(path(from)) {
        Ok(text) => {
            let next = path(to).with_extension(format!("dead-letters{NEXT}"));
            files::replace(&path(to), &next, &text).map(drop)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The offsets in a file's complete lines, up to `found`.
fn known(text: &[u8], found: Option<Offset>) -> BTreeSet<Offset> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    text.get(..whole)
        .unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok()?.trim().parse().ok().map(Offset))
        .filter(|offset| found.is_some_and(|found| *offset <= found))
        .collect()
}

fn lines<'a>(offsets: impl IntoIterator<Item = &'a Offset>) -> String {
    offsets.into_iter().map(|offset| format!("{offset}\n")).collect()
}

/// Fuzz target: reads the bytes as a dead-letter index. A cut-off file must not contain more than
/// the whole one, nothing beyond the sink's position, and must be rewritten unchanged.
pub(super) fn fuzz(data: &[u8]) {
    let all = known(data, Some(Offset(u64::MAX)));
    let cut = data.get(..data.len() / 2).unwrap_or_default();
    assert!(known(cut, Some(Offset(u64::MAX))).is_subset(&all));
    assert!(known(data, None).is_empty());
    assert_eq!(known(lines(&all).as_bytes(), Some(Offset(u64::MAX))), all);
    if let Some(middle) = all.iter().nth(all.len() / 2) {
        let expected: BTreeSet<_> = all.range(..=*middle).copied().collect();
        assert_eq!(known(data, Some(*middle)), expected);
    }
}
