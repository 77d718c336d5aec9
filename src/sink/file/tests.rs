//! The file sink as its users meet it: on a real file system, through the trait, from more than
//! one process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::sink::conformance::{self, Medium, Owners, STREAM, batch};
use crate::sink::testing::{child, child_dir, fatal, transient};

pub(super) async fn open(options: FileOptions) -> Result<FileSink, SinkError> {
    FileSink::open(options, STREAM.into(), "archiver".into()).await
}

/// The segments and what is in them, unpacked.
fn segments(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((_, extension)) = segment::parse(&name) else { continue };
        let bytes = std::fs::read(&path).unwrap();
        let mut text = String::new();
        match extension.split_once('.') {
            _ if bytes.is_empty() => {}
            Some((_, "zst")) => {
                text = String::from_utf8(zstd::stream::decode_all(&*bytes).unwrap()).unwrap();
            }
            Some(_) => {
                let mut reader = flate2::read::MultiGzDecoder::new(&*bytes);
                std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
            }
            None => text = String::from_utf8(bytes).unwrap(),
        }
        found.push((name, text));
    }
    found.sort();
    found
}

/// The offsets of all NDJSON lines, in order.
pub(super) fn offsets(folder: &Path) -> Vec<u64> {
    let read = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["offset"].as_u64().unwrap()
    };
    segments(folder).iter().flat_map(|(_, text)| text.lines().map(read)).collect()
}

struct Files {
    dir: TempDir,
    options: FileOptions,
}

impl Files {
    fn new(compression: Compression, rotate_bytes: Option<u64>) -> Files {
        let dir = TempDir::new().unwrap();
        let options =
            FileOptions { compression, rotate_bytes, ..FileOptions::new(dir.path().join("a/b")) };
        Files { dir, options }
    }
}

#[async_trait]
impl Medium for Files {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(open(self.options.clone()).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(offsets(&self.dir.path().join("a/b").join(STREAM)))
    }

    fn offset_limit(&self) -> u64 {
        u64::MAX
    }

    /// Asked once: a second owner of one process waits a while before it gives up.
    fn owners(&self) -> Owners {
        match self.options.rotate_bytes.is_none() && self.options.compression == Compression::None {
            true => Owners::OneByLock,
            false => Owners::Many,
        }
    }
}

#[tokio::test]
async fn conforms() {
    let compressions =
        [Compression::None, Compression::Zstd { level: 3 }, Compression::Gzip { level: 6 }];
    for compression in compressions {
        for rotate_bytes in [None, Some(1), Some(1_000)] {
            let told = conformance::all(|| Files::new(compression, rotate_bytes)).await;
            told.unwrap_or_else(|why| panic!("{compression:?}, {rotate_bytes:?}: {why}"));
        }
    }
}

#[tokio::test]
async fn segments_are_named_after_their_first_offset_and_end_where_told() {
    let files = Files::new(Compression::None, Some(1));
    let mut sink = open(files.options.clone()).await.unwrap();
    for range in [7..9, 9..12, 12..13] {
        sink.write(&Arc::new(batch(range))).await.unwrap();
    }
    // Format and compression may change between two runs: the old segment is left as it is.
    sink.close().await.unwrap();
    let raw = FileOptions {
        format: Format::raw_lines(),
        compression: Compression::Gzip { level: 1 },
        rotate_bytes: None,
        ..files.options.clone()
    };
    let mut sink = open(raw).await.unwrap();
    sink.write(&Arc::new(batch(13..15))).await.unwrap();
    sink.write(&Arc::new(batch(15..16))).await.unwrap();
    let found: Vec<(String, usize)> = segments(sink.folder())
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .collect();
    let expected = [
        ("00000000000000000007.ndjson", 2),
        ("00000000000000000009.ndjson", 3),
        ("00000000000000000012.ndjson", 1),
        ("00000000000000000013.raw.gz", 3),
    ];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
    let raw = segments(sink.folder()).pop().unwrap().1;
    assert_eq!(raw, "offset 13\noffset 14\noffset 15\n");
}

#[tokio::test]
async fn an_old_segment_takes_no_further_batch() {
    let options =
        |dir: &TempDir, age| FileOptions { rotate_age: Some(age), ..FileOptions::new(dir.path()) };
    for (age, expected) in [(Duration::from_nanos(1), 3), (Duration::from_secs(86_400), 1)] {
        let dir = TempDir::new().unwrap();
        let mut sink = open(options(&dir, age)).await.unwrap();
        for n in 0..3 {
            // Only for a clock that moves in milliseconds: the next one has to begin.
            let now = Timestamp::now();
            while n > 0 && Timestamp::now() <= now {
                std::hint::spin_loop();
            }
            sink.write(&Arc::new(batch(n..n + 1))).await.unwrap();
        }
        assert_eq!(segments(sink.folder()).len(), expected, "{age:?}");
    }
}

#[tokio::test]
async fn each_stream_has_its_own_folder_and_odd_names_stay_inside() {
    let dir = TempDir::new().unwrap();
    for (stream, folder) in [("../../up", "%2E.%2F..%2Fup"), ("a", "a"), ("..", "%2E.")] {
        let options = FileOptions::new(dir.path());
        let sink = FileSink::open(options, stream.into(), "archiver".into()).await.unwrap();
        assert_eq!(sink.folder(), dir.path().join(folder));
        assert!(sink.folder().join(position::NAME).is_file());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_second_sink_in_this_process_is_refused() {
    let files = Files::new(Compression::None, None);
    let mut first = open(files.options.clone()).await.unwrap();
    first.write(&Arc::new(batch(0..3))).await.unwrap();
    let why = transient(open(files.options.clone()).await);
    assert!(why.contains(first.folder().to_str().unwrap()), "{why}");
    assert!(why.contains(&format!("this process (pid {})", std::process::id())), "{why}");
    first.write(&Arc::new(batch(3..5))).await.unwrap();
    first.close().await.unwrap();
    let mut second = open(files.options.clone()).await.unwrap();
    second.write(&Arc::new(batch(5..6))).await.unwrap();
    assert_eq!(offsets(second.folder()), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_lives() {
    if let Some(dir) = child_dir() {
        let sink = open(FileOptions::new(dir)).await.unwrap();
        println!("\nholds");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap(); // Until it is killed.
        drop(sink);
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut child =
        child("file::tests::a_second_process_is_refused_while_the_first_lives", dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holds"), "the child did not start");

    let why = transient(open(FileOptions::new(dir.path())).await);
    assert!(why.contains(&format!("the process with pid {}", child.id())), "{why}");
    assert!(why.contains(dir.path().join(STREAM).to_str().unwrap()), "{why}");

    child.kill().unwrap();
    child.wait().unwrap();
    open(FileOptions::new(dir.path())).await.unwrap();
}

/// Writes batches from its position on for as long as it lives, and tells what was acknowledged.
async fn write_until_killed(dir: PathBuf) {
    let options = FileOptions { rotate_bytes: Some(300_000), ..FileOptions::new(dir) };
    let mut sink = open(options).await.unwrap();
    let mut next = sink.position().await.unwrap().map_or(0, |at| at.offset.0 + 1);
    println!("\nopen");
    loop {
        let end = next + 1 + next % 3_000;
        sink.write(&Arc::new(batch(next..end))).await.unwrap();
        println!("acknowledged {}", end - 1);
        next = end;
    }
}

#[tokio::test]
async fn kill_9_under_load_loses_and_repeats_nothing() {
    if let Some(dir) = child_dir() {
        write_until_killed(dir).await;
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    let mut acknowledged = None;
    for _ in 0..12 {
        let mut child =
            child("file::tests::kill_9_under_load_loses_and_repeats_nothing", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after this many acknowledgements, and a random moment more.
        let (mut left, more) = (random.usize(0..12), random.u32(0..200_000));
        loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(offset) = line.strip_prefix("acknowledged ") {
                acknowledged = Some(offset.parse::<u64>().unwrap());
                left -= 1;
            }
            if left == 0 && (line == "open" || line.starts_with("acknowledged ")) {
                break;
            }
        }
        (0..more).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut sink = open(FileOptions::new(dir.path())).await.unwrap();
    let reached = sink.position().await.unwrap().map(|at| at.offset.0);
    assert!(reached >= acknowledged && acknowledged.is_some(), "{reached:?} < {acknowledged:?}");
    let expected: Vec<u64> = (0..=reached.unwrap()).collect();
    assert!(offsets(sink.folder()) == expected, "lost or repeated up to {reached:?}");
}

#[tokio::test]
async fn a_new_incarnation_begins_at_any_offset_and_the_old_one_stays() {
    let files = Files::new(Compression::None, None);
    let mut sink = open(files.options.clone()).await.unwrap();
    sink.write(&Arc::new(batch(100..105))).await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    sink.restart().await.unwrap();
    sink.write(&Arc::new(batch(0..2))).await.unwrap();
    let folder = sink.folder().to_owned();
    sink.close().await.unwrap();
    let sink = open(files.options.clone()).await.unwrap();
    assert_eq!(offsets(sink.folder()), [0, 1], "and a start changes nothing");
    let lines = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().lines().count();
    assert_eq!(lines("00000000000000000100.ndjson.aside"), 5);
    assert_eq!(lines("00000000000000000000.ndjson.aside"), 3);
}

#[tokio::test]
async fn an_inspection_returns_the_position_and_changes_nothing() {
    let files = Files::new(Compression::None, None);
    let look = || committed(&files.options, &STREAM.into(), &"archiver".into());
    assert_eq!(look().unwrap(), None);
    assert!(!files.options.dir.join(STREAM).exists(), "a look made a folder");
    let mut sink = open(files.options.clone()).await.unwrap();
    assert_eq!(look().unwrap(), None);
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    assert_eq!(look().unwrap(), sink.position().await.unwrap(), "while the sink is in use");
    let other = committed(&files.options, &STREAM.into(), &"billing".into());
    assert!(fatal(other).contains("belongs to reference \"archiver\""));
    std::fs::write(sink.folder().join(position::NAME), "rubbish").unwrap();
    assert!(fatal(look()).contains("damaged"));
}

#[tokio::test]
async fn the_position_of_another_reference_is_refused() {
    let files = Files::new(Compression::None, None);
    let mut sink = open(files.options.clone()).await.unwrap();
    sink.close().await.unwrap();
    let other = FileSink::open(files.options.clone(), STREAM.into(), "billing".into()).await;
    let why = fatal(other);
    for part in ["\"archiver\"", "\"billing\"", position::NAME] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn wrong_options_are_told_by_key() {
    let good = FileOptions::new("/nowhere");
    let with = |compression| FileOptions { compression, ..good.clone() };
    let cases = [
        (good.clone(), None),
        (with(Compression::Zstd { level: 22 }), None),
        (with(Compression::Gzip { level: 0 }), None),
        (with(Compression::Zstd { level: 0 }), Some("level: ")),
        (with(Compression::Zstd { level: 23 }), Some("level: ")),
        (with(Compression::Gzip { level: 10 }), Some("level: ")),
        (FileOptions { rotate_bytes: Some(0), ..good.clone() }, Some("rotate_bytes: ")),
        (FileOptions { rotate_age: Some(Duration::ZERO), ..good.clone() }, Some("rotate_age: ")),
        (FileOptions::new(""), Some("dir: ")),
    ];
    for (options, expected) in cases {
        match (options.validate(), expected) {
            (Ok(()), None) => {}
            (Err(why), Some(key)) => assert!(why.starts_with(key), "{why}"),
            (other, _) => panic!("{options:?}: {other:?}"),
        }
    }
    let long = FileSink::open(good, "x".repeat(256).as_str().into(), "archiver".into()).await;
    assert!(fatal(long).contains("255 bytes"));
    // A replay of the consumer with the longest reference.
    let range = Reference::range_suffix(Timestamp(0), 999_999);
    let reference = format!("{}{range}", "r".repeat(255));
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions::new(dir.path());
    let sink = FileSink::open(options, "events".into(), reference.as_str().into()).await.unwrap();
    drop(sink);
}

#[tokio::test]
async fn batches_of_another_stream_and_writes_after_the_end_are_refused() {
    let files = Files::new(Compression::None, None);
    let mut sink = open(files.options.clone()).await.unwrap();
    let part = conformance::part(0, &[conformance::message(b"x")]).unwrap();
    let other = Batch::new("other".into(), vec![part]).unwrap();
    assert!(fatal(sink.write(&Arc::new(other)).await).contains("internal error"));
    sink.close().await.unwrap();
    assert!(fatal(sink.write(&Arc::new(batch(0..1))).await).contains("after it was closed"));
}
