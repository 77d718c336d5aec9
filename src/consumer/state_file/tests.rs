//! What is on people's disks: names and contents as earlier versions wrote them.

use std::path::Path;

use super::*;
use crate::consumer::dead_letter_index::DeadLetterIndex;
use crate::consumer::spec::testing::spec;
use crate::flow::beginning::Beginning;
use crate::types::{Checkpoint, ChunkId, Offset};

fn of(dir: &Path, reference: &str, stream: &str) -> Spec {
    Spec { reference: reference.into(), stream: stream.into(), ..spec(dir) }
}

const POSITION: &str = r#"{
  "stream": "events",
  "reference": "archiver",
  "offset": 41,
  "chunk": {
    "first_offset": 40,
    "epoch": 3,
    "timestamp": 1764201600000,
    "crc": 3735928559
  },
  "written": 1764201601000
}"#;

const BEGINNING: &str = r#"{
  "stream": "events",
  "reference": "other",
  "begins_at": 7,
  "written": 1764201601000
}"#;

#[test]
fn files_of_earlier_versions_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("archiver@events.json", POSITION);
    write("other@events.json", BEGINNING);
    write("archiver@events.dead-letters", "3\n17\n99\n4");
    let timestamp = Timestamp(1_764_201_600_000);
    let chunk = ChunkId { first_offset: Offset(40), epoch: 3, timestamp, crc: 0xdead_beef };
    let position = Checkpoint { offset: Offset(41), chunk: Some(chunk) };
    let archiver = of(dir.path(), "archiver", "events");
    let read = |spec: &Spec| StateFile::of(spec).read().unwrap();
    assert_eq!(read(&archiver), Some(Memory::Position(position)));
    let beginning = Beginning { at: Offset(7), behind: None, instead_of: None, moved: None };
    let other = of(dir.path(), "other", "events");
    assert_eq!(read(&other), Some(Memory::Beginning(beginning)));
    let noted = DeadLetterIndex::open(&archiver, Some(Offset(17))).unwrap();
    let known: Vec<u64> = (0..200).filter(|offset| noted.knows(Offset(*offset))).collect();
    assert_eq!(known, [3, 17], "neither a torn line nor what the sink does not hold");
}

#[test]
fn names_stay_what_they_are() {
    let dir = Path::new("/state");
    let long = "s".repeat(250);
    let shortened = format!("r@{}~0abe7fe8eaa3ba3d.json", "s".repeat(226));
    let table = [
        ("archiver", "events", "archiver@events.json"),
        ("a@b/c", "\u{e4}:%\\", "a%40b%2Fc@%C3%A4%3A%25%5C.json"),
        ("r", long.as_str(), shortened.as_str()),
    ];
    for (reference, stream, name) in table {
        assert_eq!(StateFile::of(&of(dir, reference, stream)).path(), dir.join(name));
    }
}

/// The streams of one consumer, and references that read the same stream, never share a file.
#[test]
fn every_reference_has_its_own_files_for_each_stream() {
    let dir = tempfile::tempdir().unwrap();
    let all = [("r", "a"), ("r", "b"), ("q", "a"), ("r@a", "b"), ("r", "a@b")];
    let at = |offset| Memory::Position(Checkpoint { offset: Offset(offset), chunk: None });
    for (offset, (reference, stream)) in (0..).zip(all) {
        StateFile::of(&of(dir.path(), reference, stream)).write(at(offset)).unwrap();
    }
    for (offset, (reference, stream)) in (0..).zip(all) {
        let spec = of(dir.path(), reference, stream);
        assert_eq!(StateFile::of(&spec).read().unwrap(), Some(at(offset)));
        let (lock, letters) = (file_of(&spec, "lock", ""), file_of(&spec, "dead-letters", NEXT));
        let name = |path: &Path| path.file_stem().unwrap().to_owned();
        assert_eq!(name(&lock), name(StateFile::of(&spec).path()));
        assert_eq!(name(&lock), name(&letters));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), all.len());
}
