//! Compares a table that holds the latest row of each key with the stream. No I/O but that of [`keys`](super::keys).
//!
//! A row tells the offset of its message, so rows and messages are merged by offset. A message that has no row
//! is right if a later one has changed its key; a row is wrong if a later message has. So the last change of
//! each key is kept until the end.

use super::join::{Expected, Join, LEFT_OUT, Letters, Need, Tally, not_written, without_record};
use super::keys::{Change, KEYS_MAX, Kind, LastChanges};
use super::queues::{Pairs, Queues};
use crate::sink::audit::{Entry, Found, Keys, Pair, Span};
use crate::types::Offset;

/// Both sides, as far as they were read.
pub(super) struct Latest {
    queues: Queues,
    letters: Letters,
    keys: Box<dyn Keys>,
    span: Span,
    /// The last change of each key.
    changes: LastChanges,
    /// The key that was read last.
    key: Vec<u8>,
    /// The last row of the span.
    last_found: Option<Offset>,
    /// The last offset about which nothing is known: any key may have been changed there.
    last_unknown: Option<Offset>,
    /// Number of rows whose messages are not compared.
    apart: u64,
    pairs: Pairs,
    tally: Tally,
    trouble: Option<String>,
}

impl Latest {
    pub(super) fn new(letters: Letters, keys: Box<dyn Keys>, span: Span) -> Latest {
        Latest::with_room(letters, keys, span, KEYS_MAX)
    }

    fn with_room(letters: Letters, keys: Box<dyn Keys>, span: Span, keys_max: usize) -> Latest {
        Latest {
            queues: Queues::default(),
            letters,
            keys,
            span,
            changes: LastChanges::new(keys_max),
            key: Vec::new(),
            last_found: None,
            last_unknown: None,
            apart: 0,
            pairs: Pairs::default(),
            tally: Tally::default(),
            trouble: None,
        }
    }

    /// Takes what comes next of both sides. Rows of no message have the offset -1, so offsets have signs.
    fn step(&mut self) {
        let expected = self.queues.expected.front().map(Expected::offset);
        let found = self.queues.found.front().map(|entry| entry.offset);
        let signed = |offset: Offset| offset.0.cast_signed();
        let is_next = match (expected, found) {
            (Some(expected), Some(found)) => signed(expected) <= signed(found),
            (expected, _) => expected.is_some(),
        };
        if !is_next {
            return self.row_alone();
        }
        let has_row = expected == found
            && !matches!(self.queues.expected.front(), Some(Expected::Unknown(..)));
        match (
            self.queues.expected.pop_front(),
            has_row.then(|| self.queues.found.pop_front()).flatten(),
        ) {
            (Some(expected), Some(row)) => self.both(expected, row),
            (Some(expected), None) => self.without_row(expected),
            (None, _) => {}
        }
    }

    /// A message, and a row of its offset.
    fn both(&mut self, expected: Expected, row: Entry) {
        let at = row.offset;
        self.last_found = Some(at);
        self.tally.reached = self.tally.reached.max(Some(at));
        match expected {
            Expected::Record(entry) => {
                if self.reads(&entry.content) {
                    self.tally
                        .add_extra(at, Some("the message deletes the row of its key".to_owned()));
                    return self.note(at, Kind::Deleted);
                }
                self.note(at, Kind::Present);
                if entry.content == row.content {
                    self.tally.same += 1;
                    return;
                }
                self.pairs.add(&entry, &row.content);
            }
            Expected::Refused(_, why) => self.tally.add_extra(at, Some(not_written(&why))),
            Expected::Unwanted(_) => {
                self.tally.unwanted += 1;
                self.tally.add_extra(at, Some(LEFT_OUT.to_owned()));
            }
            Expected::Unknown(..) => {}
        }
    }

    /// A message of which there is no row.
    fn without_row(&mut self, expected: Expected) {
        match expected {
            Expected::Record(entry) if !self.has_letter(entry.offset) => {
                let at = entry.offset;
                self.tally.reached = self.tally.reached.max(Some(at));
                let kind = if self.reads(&entry.content) { Kind::Deleted } else { Kind::Absent };
                self.note(at, kind);
            }
            other => {
                if let Expected::Unknown(_, to) = other {
                    self.last_unknown = self.last_unknown.max(Some(to));
                }
                without_record(&mut self.tally, &self.letters, other);
            }
        }
    }

    /// A row at whose offset there is no message to compare it with.
    fn row_alone(&mut self) {
        let Some(row) = self.queues.found.pop_front() else { return };
        let at = row.offset;
        if !self.span.holds(at) || self.tally.unknown.has(at) {
            self.apart += 1;
            self.reads(&row.content);
            return self.note(at, Kind::Apart);
        }
        match self.last_found == Some(at) && !self.tally.extra.has(at) {
            true => self.tally.double(at),
            false => self.tally.add_extra(at, None),
        }
        self.last_found = Some(at);
    }

    fn has_letter(&self, at: Offset) -> bool {
        matches!(&self.letters, Letters::At(letters) if letters.has(at))
    }

    /// Reads the key; `true` if it has no row any more.
    fn reads(&mut self, content: &[u8]) -> bool {
        self.key.clear();
        self.keys.read(content, &mut self.key)
    }

    /// Notes the change of the key that was read last.
    fn note(&mut self, at: Offset, kind: Kind) {
        let Latest { changes, key, tally, .. } = self;
        let noted =
            changes.note(key, Change { at, kind }, &mut |old, new| replaced(tally, old, new));
        self.fail(noted);
    }

    /// In the order of offsets, so that those of one range come together: there is room for a limited number of ranges.
    fn end(&mut self) -> rusqlite::Result<()> {
        let Latest { changes, tally, last_unknown, .. } = self;
        changes.end(&mut |old, new| replaced(tally, old, new))?;
        changes.each_of(Kind::Absent, |at| match *last_unknown > Some(at) {
            true => tally.unknown.add(at),
            false => tally.missing.add(at),
        })?;
        changes.each_of(Kind::Deleted, |_| tally.superseded += 1)
    }

    fn fail(&mut self, done: rusqlite::Result<()>) {
        if let Err(error) = done {
            let what = format!(
                "there is no room to compare so many keys: their last changes are kept in a temporary file, and \
                 that failed ({error}). Set TMPDIR to a folder with more room"
            );
            self.trouble.get_or_insert(what);
        }
    }
}

/// A later change of a key has followed another one.
fn replaced(tally: &mut Tally, old: Change, new: Change) {
    let what = if new.kind == Kind::Deleted { "deleted" } else { "replaced" };
    match old.kind {
        Kind::Absent | Kind::Deleted => tally.superseded += 1,
        // A row that may be replaced by every message: its stream was read anew.
        Kind::Apart if old.at.0.cast_signed() < 0 => tally.add_unreadable(format!(
            "a row with the offset -1 is there, and the message at offset {} has {what} it",
            new.at
        )),
        Kind::Present | Kind::Apart => {
            let why = format!("the message at offset {} has {what} it", new.at);
            tally.add_extra(old.at, Some(why));
        }
    }
}

impl Join for Latest {
    fn expect(&mut self, more: Option<Vec<Expected>>) {
        self.queues.expect(more);
    }

    fn find(&mut self, more: Option<Vec<Found>>) {
        self.queues.find(more, &mut self.tally);
    }

    fn take_pairs(&mut self) -> Vec<Pair> {
        self.pairs.take()
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    fn notes(&mut self) -> Vec<String> {
        let apart = (self.apart > 0).then(|| {
            format!(
                "{} rows are of messages before or behind these offsets, or of an earlier incarnation of the \
                 stream: only whether a later message has changed their key was compared",
                self.apart
            )
        });
        apart.into_iter().collect()
    }

    fn run(&mut self) -> Need {
        loop {
            if self.trouble.is_some() {
                return Need::Nothing;
            }
            if self.pairs.are_enough() {
                return Need::Judging;
            }
            if let Some(need) = self.queues.need(1) {
                return need;
            }
            match (self.queues.expected.is_empty(), self.queues.found.is_empty()) {
                (true, true) if !self.pairs.is_empty() => return Need::Judging,
                (true, true) => {
                    let ended = self.end();
                    self.fail(ended);
                    return Need::Nothing;
                }
                _ => self.step(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
