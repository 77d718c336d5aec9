//! `partition_by`: several open objects, whose records lie between each other.
//!
//! The sink crashes at any moment, over a store whose operations fail before or after they took effect; what
//! each record is depends on its offset alone, as in a stream.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::testing::{Disturbed, Interference};
use super::*;
use crate::sink::conformance::{STREAM, message, part};
use crate::types::{Offset, StreamName};

/// A store that fails now and then: the operation was not begun, or its answer was lost.
struct Flaky(Arc<Mutex<fastrand::Rng>>);

impl Interference for Flaky {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        let fate = self.0.lock().unwrap().u8(0..12);
        match fate {
            0 => Err(SinkError::transient("not begun")),
            1 => {
                operation.await?;
                Err(SinkError::transient("its answer was lost"))
            }
            _ => operation.await,
        }
    }
}

/// The stream of a seed: what is at each offset.
#[derive(Clone, Copy)]
struct Stream {
    seed: u64,
    regions: u64,
}

impl Stream {
    fn dice(self, offset: u64, sides: u64) -> u64 {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(1_000_003) ^ offset).u64(0..sides)
    }

    fn region(self, offset: u64) -> String {
        format!("r{}", self.dice(offset, self.regions))
    }

    /// Whether a policy has left the record out.
    fn is_left_out(self, offset: u64) -> bool {
        self.dice(offset + 1_000_000, 8) == 0
    }

    fn batch(self, range: std::ops::Range<u64>) -> Arc<Batch> {
        let body = |offset| format!("{{\"region\":\"{}\"}}", self.region(offset));
        let messages: Vec<_> =
            range.clone().map(|offset| message(body(offset).as_bytes())).collect();
        let part = part(range.start, &messages).unwrap();
        let batch = Batch::new(StreamName::from(STREAM), vec![part]).unwrap();
        let out = range.filter(|offset| self.is_left_out(*offset)).map(Offset);
        Arc::new(batch.without(out.collect()))
    }

    fn records(self, until: u64) -> BTreeSet<u64> {
        (0..until).filter(|offset| !self.is_left_out(*offset)).collect()
    }
}

fn options(root: &Path, parts: &str, rotation: Rotation, open_max: usize) -> ObjectOptions {
    let parts = serde_json::from_str(parts).unwrap();
    ObjectOptions {
        place: Place::Folder(root.to_owned()),
        format: Format::Ndjson(Packing::Plain),
        partition_by: Some(Partitioning { parts, open_max }),
        rotation,
    }
}

/// The offsets in all objects; fails if one is there twice, or in a wrong folder.
fn visible(root: &Path, stream: Stream) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.join(STREAM)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.to_str().unwrap().to_owned();
            if !name.ends_with(".ndjson") {
                continue;
            }
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let offset = line["offset"].as_u64().unwrap();
                assert!(found.insert(offset), "offset {offset} is there twice, in {name}");
                let region = format!("/region={}/", stream.region(offset));
                assert!(name.contains(&region), "offset {offset} is in {name}");
            }
        }
    }
    found
}

/// Repeats a call until it does not fail for a moment.
macro_rules! stubbornly {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(done) => break done,
                Err(SinkError::Transient { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
}

async fn run(seed: u64) {
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let dice = |sides: u64| random.lock().unwrap().u64(0..sides);
    let stream = Stream { seed, regions: 1 + dice(6) };
    let dir = tempfile::tempdir().unwrap();
    let rotation =
        Rotation { records: 1 + dice(12), bytes: 100 + dice(4_000), age: Duration::from_secs(300) };
    let open_max = usize::try_from(1 + dice(4)).unwrap();
    let options = options(dir.path(), r#"["/region", "date"]"#, rotation, open_max);
    let inner = options.place.open().await.unwrap();
    let store: Arc<dyn Store> =
        Arc::new(Disturbed { inner, interference: Flaky(Arc::clone(&random)) });
    let open = async || {
        stubbornly!(ObjectSink::on(Arc::clone(&store), &options, STREAM.into(), "r".into()))
    };
    let mut sink = open().await;
    let mut next = 0;
    for step in 0..40 {
        match dice(10) {
            0..6 => {
                let until = next + 1 + dice(25);
                let batch = stream.batch(next..until);
                stubbornly!(sink.write(&batch));
                next = until;
            }
            6..8 => {
                stubbornly!(sink.flush());
                assert_eq!(visible(dir.path(), stream), stream.records(next), "seed {seed} {step}");
            }
            // It crashes, perhaps in the middle of a flush; the next one begins at its position.
            how => {
                if how == 9 {
                    let _interrupted: Result<(), SinkError> = sink.flush().await;
                }
                drop(sink);
                sink = open().await;
                let position = sink.position().await.unwrap();
                next = position.map_or(0, |at| at.offset.0 + 1);
                let durable = visible(dir.path(), stream);
                let below = stream.records(next);
                assert!(below.is_subset(&durable), "seed {seed} {step}: lost below {next}");
            }
        }
        visible(dir.path(), stream);
    }
    let until = next + 10;
    stubbornly!(sink.write(&stream.batch(next..until)));
    stubbornly!(sink.flush());
    assert_eq!(visible(dir.path(), stream), stream.records(until), "seed {seed}");
    let at = sink.position().await.unwrap();
    assert_eq!(at.map(|at| at.offset.0), Some(until - 1), "seed {seed}");
}

#[tokio::test]
async fn every_record_is_in_one_object_of_its_folder_wherever_it_crashes() {
    for seed in 0..150 {
        run(seed).await;
    }
}

fn calm() -> Rotation {
    Rotation { records: 1_000, bytes: 1 << 20, age: Duration::from_secs(300) }
}

async fn open(options: &ObjectOptions) -> Result<ObjectSink, SinkError> {
    ObjectSink::open(options.clone(), STREAM.into(), "r".into()).await
}

/// Ends while objects of some folders exist, and others are open.
async fn write_one_by_one(options: &ObjectOptions, stream: Stream) {
    let mut sink = open(options).await.unwrap();
    for offset in 0..20 {
        sink.write(&stream.batch(offset..offset + 1)).await.unwrap();
    }
}

/// A part of the folders is written when the process ends; the sources of the values may not change then.
#[tokio::test]
async fn another_partitioning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream { seed: 1, regions: 3 };
    // Each second record ends an object, while others stay open.
    let small = Rotation { records: 2, ..calm() };
    let by_region = options(dir.path(), r#"["/region"]"#, small, 8);
    let elsewhere = options(dir.path(), r#"[{"name":"region","from":"/new/region"}]"#, small, 8);
    let by_tenant = options(dir.path(), r#"["/tenant"]"#, small, 8);
    let by_hour = ObjectOptions { partition_by: None, ..by_region.clone() };
    write_one_by_one(&by_region, stream).await;
    let why = |result: Result<ObjectSink, SinkError>| match result {
        Err(SinkError::Fatal(why)) => why,
        other => panic!("{:?}", other.map(drop)),
    };
    for other in [&by_tenant, &by_hour] {
        let told = why(open(other).await);
        assert!(told.contains("partitioned by region=/region"), "{told}");
        let looked = committed(other, &STREAM.into(), &"r".into()).await;
        assert!(matches!(looked, Err(SinkError::Fatal(_))), "{looked:?}");
    }
    let told = why(open(&elsewhere).await);
    assert!(told.contains("stop it gracefully"), "{told}");
    let mut sink = open(&by_region).await.unwrap();
    let next = sink.position().await.unwrap().map_or(0, |at| at.offset.0 + 1);
    assert!(next < 20, "nothing was open");
    sink.write(&stream.batch(next..30)).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(visible(dir.path(), stream), stream.records(30));
    drop(sink);
    // After a graceful end nothing depends on the former source.
    open(&elsewhere).await.unwrap();
    // An archive by hour stays one.
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_owned());
    open(&ObjectOptions { place: place.clone(), ..by_hour }).await.unwrap();
    let told = why(open(&ObjectOptions { place, ..by_region }).await);
    assert!(told.contains("partitioned by date, hour"), "{told}");
}

/// A re-created stream begins again, also in folders that were ahead.
#[tokio::test]
async fn a_new_incarnation_is_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream { seed: 2, regions: 3 };
    let small = Rotation { records: 2, ..calm() };
    let by_region = options(dir.path(), r#"["/region"]"#, small, 8);
    write_one_by_one(&by_region, stream).await;
    let mut sink = open(&by_region).await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    let before = std::fs::read_dir(dir.path().join(STREAM)).unwrap().count();
    assert!(before > 0);
    let count = || {
        let glob = |folder: &Path| -> Vec<std::path::PathBuf> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let files = glob(&dir.path().join(STREAM)).into_iter().flat_map(|folder| glob(&folder));
        files.map(|file| std::fs::read_to_string(file).unwrap().lines().count()).sum::<usize>()
    };
    let former = count();
    sink.write(&stream.batch(0..20)).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(count() - former, stream.records(20).len());
}
