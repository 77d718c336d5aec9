//! The position file: the committed bytes of the tail, and their last offset.
//!
//! Two slots, each in its own 4 KiB block (so that a torn sector can damage only one), written in
//! turn and in place:
//! ```text
//! rillway-position 1 CRC32 LENGTH\n      CRC and length of the part after the line break
//! {"sequence":7,"state":{…}}             JSON, readable with `cat`
//! spaces up to 4096
//! ```
//! Invariants:
//! - A slot is written only while the *other* one is known to be durable. So at least one valid
//!   slot is on disk at every moment after the file has its name.
//! - The file gets its name only after its first slot is durable.
//! - A file that was only read is not trusted: its slots, and even its name, could be in the page
//!   cache only, after a failed sync. A process that adopts it writes its state into a new file,
//!   which takes over the name.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sink::SinkError;
use crate::types::{Checkpoint, Reference, StreamName, Timestamp};

use super::error::Tried;
use super::storage::Storage;

/// Name of the file.
pub(super) const NAME: &str = "position.rillway";

/// Name of the file before its first slot is durable.
const NEW_NAME: &str = "position.rillway.new";

const SLOT_BYTES: usize = 4096;
const FILE_BYTES_MAX: usize = 2 * SLOT_BYTES;
const MAGIC: &str = "rillway-position ";
const VERSION: u32 = 1;

/// The committed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The stream that the records come from.
    pub(super) stream: StreamName,
    /// The reference that reads it.
    pub(super) reference: Reference,
    /// The reference's position; `None` before the first batch.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Segment that takes the next batch; `None` before the first batch.
    pub(super) tail: Option<Tail>,
}

/// Segment that takes the next batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// File name.
    pub(super) segment: String,
    /// Number of committed bytes.
    pub(super) bytes: u64,
    /// Time at which it was begun.
    pub(super) started: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    sequence: u64,
    state: State,
}

enum Read {
    Valid(Slot),
    Newer(u32),
    Bad,
}

fn encode(sequence: u64, state: &State) -> io::Result<Vec<u8>> {
    let slot = Slot { sequence, state: state.clone() };
    let mut json = serde_json::to_vec(&slot)?;
    json.push(b'\n');
    let crc = crc32fast::hash(&json);
    let mut bytes = format!("{MAGIC}{VERSION} {crc:08x} {:04}\n", json.len()).into_bytes();
    bytes.append(&mut json);
    if bytes.len() > SLOT_BYTES {
        return Err(io::Error::other("the names of stream and reference are too long for a slot"));
    }
    bytes.resize(SLOT_BYTES, b' ');
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Read {
    let parsed = (|| {
        let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        let mut words = std::str::from_utf8(rest.get(..end)?).ok()?.split(' ');
        let version: u32 = words.next()?.parse().ok()?;
        if version > VERSION {
            return Some(Read::Newer(version));
        }
        let crc = u32::from_str_radix(words.next()?, 16).ok()?;
        let length: usize = words.next()?.parse().ok()?;
        let json = rest.get(end + 1..)?.get(..length)?;
        if crc32fast::hash(json) != crc {
            return None;
        }
        serde_json::from_slice(json).ok().map(Read::Valid)
    })();
    parsed.unwrap_or(Read::Bad)
}

/// Fuzz target: reads the bytes as a position file, and as the JSON of a slot with a correct
/// checksum.
#[doc(hidden)]
pub fn fuzz_position(data: &[u8]) {
    drop(newest(data, Path::new("position")));
    let crc = crc32fast::hash(data);
    let head = format!("{MAGIC}{VERSION} {crc:08x} {:04}\n", data.len());
    if let Read::Valid(slot) = decode(&[head.as_bytes(), data].concat()) {
        // A state that was read can be written and read again, if it fits.
        if let Ok(bytes) = encode(slot.sequence, &slot.state) {
            assert!(matches!(decode(&bytes), Read::Valid(again) if again.state == slot.state));
        }
    }
}

/// The open position file.
pub(super) struct Position<F> {
    file: F,
    /// The durable state, and its slot.
    durable: Durable,
}

/// The slot that is known to be on disk.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    slot: usize,
    sequence: u64,
    state: State,
}

impl Durable {
    /// The committed state.
    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// The valid slot with the higher sequence, and its index.
fn newest(bytes: &[u8], path: &Path) -> Result<(usize, Slot), SinkError> {
    let mut valid: Vec<(usize, Slot)> = Vec::new();
    for (index, slot) in bytes.chunks(SLOT_BYTES).enumerate() {
        match decode(slot) {
            Read::Valid(slot) => valid.push((index, slot)),
            Read::Bad => {}
            Read::Newer(version) => {
                return Err(SinkError::Fatal(format!(
                    "{} was written by a newer rillway (layout {version}, this one supports \
                     {VERSION}). Run the newer version.",
                    path.display()
                )));
            }
        }
    }
    valid.into_iter().max_by_key(|(_, slot)| slot.sequence).ok_or_else(|| {
        SinkError::Fatal(format!(
            "{} is damaged: neither of its two slots is valid, so it is unknown which records are \
             on disk. Restore the file from a backup together with its segments; or move \
             the whole folder away: the consumer then continues after the offset that is stored on \
             the broker.",
            path.display()
        ))
    })
}

/// The position in the folder, read only. `None` if there is none.
pub(super) fn look(folder: &Path) -> Result<Option<State>, SinkError> {
    let path = folder.join(NAME);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(newest(&bytes, &path)?.1.state)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).tried("read", || path.clone()),
    }
}

impl<F> Position<F> {
    /// Creates the file, with `state` in its first slot.
    pub(super) fn create<S: Storage<File = F>>(
        storage: &mut S,
        state: State,
    ) -> Result<Position<F>, SinkError> {
        Position::create_at(storage, 1, state)
    }

    fn create_at<S: Storage<File = F>>(
        storage: &mut S,
        sequence: u64,
        state: State,
    ) -> Result<Position<F>, SinkError> {
        let path = storage.path(NEW_NAME);
        match storage.remove(NEW_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .tried("remove", || path.clone())?;
        let file = storage.create(NEW_NAME).tried("create", || path.clone())?;
        let mut bytes = encode(sequence, &state).tried("lay out", || path.clone())?;
        bytes.resize(FILE_BYTES_MAX, b' ');
        storage.write_at(&file, 0, &bytes).tried("write", || path.clone())?;
        storage.sync(&file).tried("sync", || path.clone())?;
        storage.rename(NEW_NAME, NAME).tried("rename", || path.clone())?;
        storage.sync_dir().tried("sync", || storage.path(""))?;
        Ok(Position { file, durable: Durable { slot: 0, sequence, state } })
    }

    /// Reads the file and adopts its state; `None` if there is no file.
    ///
    /// # Errors
    /// Fatal if neither slot is valid.
    pub(super) fn adopt<S: Storage<File = F>>(
        storage: &mut S,
    ) -> Result<Option<Position<F>>, SinkError> {
        let path = storage.path(NAME);
        let file = match storage.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.tried("open", || path.clone())?,
        };
        let bytes = storage.read(&file, FILE_BYTES_MAX).tried("read", || path.clone())?;
        let (_, Slot { sequence, state }) = newest(&bytes, &path)?;
        Position::create_at(storage, sequence, state).map(Some)
    }

    /// Opens the file again after a failure, and overwrites the slot that may hold a failed commit
    /// with the state that this process knows to be durable.
    pub(super) fn reinstate<S: Storage<File = F>>(
        storage: &mut S,
        durable: Durable,
    ) -> Result<Position<F>, SinkError> {
        let path = storage.path(NAME);
        let file = storage.open(NAME).tried("open", || path.clone())?;
        let bytes = storage.read(&file, FILE_BYTES_MAX).tried("read", || path.clone())?;
        let found = bytes.chunks(SLOT_BYTES).nth(durable.slot).map(decode);
        match found {
            Some(Read::Valid(slot))
                if slot.sequence == durable.sequence && slot.state == durable.state => {}
            _ => {
                return Err(SinkError::Fatal(format!(
                    "{} does not hold what this process committed: another program wrote to it, or \
                     the disk lost it. Find the cause, then restart this consumer: it resumes from \
                     the position in the file.",
                    path.display()
                )));
            }
        }
        let state = durable.state.clone();
        let mut position = Position { file, durable };
        position.commit(storage, state)?;
        Ok(position)
    }

    /// The durable state.
    pub(super) fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Commits `state`.
    pub(super) fn commit<S: Storage<File = F>>(
        &mut self,
        storage: &mut S,
        state: State,
    ) -> Result<(), SinkError> {
        let path = storage.path(NAME);
        let slot = 1 - self.durable.slot;
        let Some(sequence) = self.durable.sequence.checked_add(1) else {
            return Err(SinkError::Fatal(format!(
                "{} is damaged: its sequence is the highest possible. Move the folder away; the \
                 offset that is stored on the broker then decides where to resume.",
                path.display()
            )));
        };
        let bytes = encode(sequence, &state).tried("lay out", || path.clone())?;
        let at = (slot * SLOT_BYTES) as u64;
        storage.write_at(&self.file, at, &bytes).tried("write", || path.clone())?;
        storage.sync(&self.file).tried("sync", || path.clone())?;
        self.durable = Durable { slot, sequence, state };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChunkId, Offset};

    fn state(name: &str) -> State {
        let chunk = ChunkId {
            first_offset: Offset(u64::MAX),
            epoch: u64::MAX,
            timestamp: Timestamp(i64::MIN),
            crc: u32::MAX,
        };
        State {
            stream: StreamName::from(name),
            reference: Reference::from(name),
            checkpoint: Some(Checkpoint { offset: Offset(u64::MAX), chunk: Some(chunk) }),
            tail: Some(Tail {
                segment: super::super::segment::file_name(Offset(u64::MAX), "ndjson.zst"),
                bytes: u64::MAX,
                started: Timestamp(i64::MIN),
            }),
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_slot_and_come_back() {
        let longest = 255 + Reference::SUFFIX_BYTES_MAX;
        let names = ["x".repeat(longest), "\u{1}".repeat(longest), "é".repeat(127), String::new()];
        for name in names {
            let state = state(&name);
            let bytes = encode(u64::MAX, &state).unwrap();
            assert_eq!(bytes.len(), SLOT_BYTES);
            let Read::Valid(slot) = decode(&bytes) else { panic!("not valid: {name}") };
            assert_eq!((slot.sequence, slot.state), (u64::MAX, state));
        }
        assert!(encode(1, &state(&"\u{1}".repeat(1000))).is_err());
    }

    #[test]
    fn every_torn_or_flipped_slot_is_bad() {
        let bytes = encode(7, &state("events")).unwrap();
        let meaningful = bytes.iter().rposition(|b| *b != b' ').unwrap() + 1;
        for at in 0..meaningful {
            assert!(matches!(decode(&bytes[..at]), Read::Bad), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x04;
            assert!(!matches!(decode(&flipped), Read::Valid(_)), "flipped at {at}");
        }
    }
}
