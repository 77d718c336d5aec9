//! What is committed at once: one object, or several of different folders.
//!
//! Several are also packed into one, which is staged before any of them is created (see [`committer`]):
//!
//! ```text
//! {"objects":[{"folder":"region=eu","extension":"parquet","first_offset":7,…},…]}    a line of JSON
//! bytes of the first object, bytes of the second one, …
//! ```
//! It has everything that is needed to create them. So whoever finds it finishes the commit, whatever the
//! configuration says by then, and without reading the stream again.
//!
//! [`committer`]: super::committer

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::store::Digest;
use crate::types::{Checkpoint, Offset};

/// An object to be created.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Partition, below the table.
    pub(super) folder: String,
    /// Extension of its name.
    pub(super) extension: String,
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) first_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) records: u64,
}

impl Object {
    /// Its key. `number` is that of its claim, so that no key is claimed twice.
    pub(super) fn key(&self, table: &str, number: u64) -> String {
        let Object { folder, extension, .. } = self;
        format!("{table}/{folder}/{:020}-{number}.{extension}", self.first_offset.0)
    }
}

/// Objects that hold all records from the last commit to a position, each of another folder.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// Never empty.
    pub(super) objects: Vec<Object>,
    /// All of them in one, if there are several.
    pub(super) packed: Option<Packed>,
    /// Position once all of them exist.
    pub(super) checkpoint: Checkpoint,
}

/// Several objects in one.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
}

impl Commit {
    /// A commit of these objects, whose bytes are then parts of the packed one.
    ///
    /// # Errors
    /// Text of an error that cannot happen.
    pub(super) fn new(objects: Vec<Object>, checkpoint: Checkpoint) -> Result<Commit, String> {
        if objects.len() < 2 {
            return Ok(Commit { objects, packed: None, checkpoint });
        }
        let bytes = pack(objects)?;
        let packed = Packed { digest: Digest::of(&bytes), bytes: bytes.clone() };
        Ok(Commit { objects: unpack(&bytes)?, packed: Some(packed), checkpoint })
    }

    pub(super) fn first_offset(&self) -> Offset {
        self.objects.iter().map(|object| object.first_offset).min().unwrap_or(Offset(0))
    }

    pub(super) fn last_offset(&self) -> Offset {
        self.objects.iter().map(|object| object.last_offset).max().unwrap_or(Offset(0))
    }

    pub(super) fn records(&self) -> u64 {
        self.objects.iter().map(|object| object.records).sum()
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    objects: Vec<Entry>,
}

/// An object of the index; its bytes begin where those of the one before it end.
#[derive(Serialize, Deserialize)]
struct Entry {
    folder: String,
    extension: String,
    first_offset: Offset,
    last_offset: Offset,
    records: u64,
    bytes: u64,
    crc: u32,
}

fn pack(objects: Vec<Object>) -> Result<Bytes, String> {
    let entries = objects.iter().map(|object| Entry {
        folder: object.folder.clone(),
        extension: object.extension.clone(),
        first_offset: object.first_offset,
        last_offset: object.last_offset,
        records: object.records,
        bytes: object.digest.bytes,
        crc: object.digest.crc,
    });
    let index = Index { objects: entries.collect() };
    let index = serde_json::to_vec(&index).map_err(|error| error.to_string())?;
    let bytes: usize = objects.iter().map(|object| object.bytes.len()).sum();
    let mut packed = BytesMut::with_capacity(index.len() + 1 + bytes);
    packed.put_slice(&index);
    packed.put_u8(b'\n');
    for object in objects {
        packed.put_slice(&object.bytes);
    }
    Ok(packed.freeze())
}

/// The objects of a packed one.
///
/// # Errors
/// Why it is none.
pub(super) fn unpack(packed: &Bytes) -> Result<Vec<Object>, String> {
    let end = packed.iter().position(|byte| *byte == b'\n').ok_or("it has no index")?;
    let (index, mut rest) = (packed.slice(..end), packed.slice(end + 1..));
    let index: Index = serde_json::from_slice(&index).map_err(|error| error.to_string())?;
    let mut objects = Vec::with_capacity(index.objects.len());
    for entry in index.objects {
        let length = usize::try_from(entry.bytes).ok().filter(|length| *length <= rest.len());
        let bytes = rest.split_to(length.ok_or("it ends too early")?);
        let digest = Digest { bytes: entry.bytes, crc: entry.crc };
        if Digest::of(&bytes) != digest {
            return Err(format!(
                "the checksum of its object from offset {} is wrong",
                entry.first_offset
            ));
        }
        objects.push(Object {
            folder: entry.folder,
            extension: entry.extension,
            bytes,
            digest,
            first_offset: entry.first_offset,
            last_offset: entry.last_offset,
            records: entry.records,
        });
    }
    if objects.is_empty() || !rest.is_empty() {
        return Err("it does not end where its last object does".to_owned());
    }
    Ok(objects)
}

/// Fuzz target: reads the bytes as staged objects. Those that are read are staged as the same bytes again.
pub(super) fn fuzz_packed(data: &[u8]) {
    if let Ok(objects) = unpack(&Bytes::copy_from_slice(data)) {
        let count = objects.len();
        let again = pack(objects).and_then(|packed| unpack(&packed));
        assert!(again.is_ok_and(|again| again.len() == count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(folder: &str, first: u64, bytes: &'static [u8]) -> Object {
        Object {
            folder: folder.to_owned(),
            extension: "ndjson".to_owned(),
            bytes: Bytes::from_static(bytes),
            digest: Digest::of(bytes),
            first_offset: Offset(first),
            last_offset: Offset(first + 5),
            records: 2,
        }
    }

    #[test]
    fn what_is_packed_is_found_again_and_damage_is_noticed() {
        let checkpoint = Checkpoint { offset: Offset(20), chunk: None };
        let objects =
            vec![object("r=a", 7, b"one\n"), object("r=b", 3, b""), object("r=\n", 9, b"\n\n")];
        let commit = Commit::new(objects.clone(), checkpoint).unwrap();
        assert_eq!((commit.first_offset().0, commit.last_offset().0, commit.records()), (3, 14, 6));
        let packed = commit.packed.unwrap();
        let found = unpack(&packed.bytes).unwrap();
        assert_eq!(format!("{found:?}"), format!("{objects:?}"));
        for at in 0..packed.bytes.len() {
            let cut = unpack(&packed.bytes.slice(..at));
            assert!(cut.is_err(), "cut at {at}");
        }
        let mut changed = packed.bytes.to_vec();
        *changed.last_mut().unwrap() = b'x';
        assert!(unpack(&changed.into()).unwrap_err().contains("checksum"));
        assert!(Commit::new(vec![object("r=a", 1, b"x")], checkpoint).unwrap().packed.is_none());
    }
}
