//! A sink that dies at every operation of the store, and is started again with another configuration: another
//! `map`, other sources of the folders, other columns, another format, other limits. Whatever was changed, each
//! record is in one object, and none is missing below a position (it is in an object, or in what the checkpoint
//! claims as staged); with and without `partition_by`.
//!
//! What a record is depends on its offset and on the number of the life in which it is read, as if `map` had been
//! changed in between.
//!
//! ```text
//! RILLWAY_OBJECT_SIMULATIONS=100000 cargo test --lib object::crash      more of the random ones
//! ```

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;

use super::remote::Remote;
use super::testing::{Disturbed, Interference};
use super::*;
use crate::sink::conformance::{self, STREAM, message, part};
use crate::types::column::{Column, ColumnType, OnMisfit};
use crate::types::{Offset, StreamName};

const RECORDS: u64 = 24;

/// Dies after some operations: the next one takes effect or not, and its answer never arrives.
struct Dies {
    left: AtomicI64,
    takes_effect: bool,
}

impl Interference for Dies {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => return operation.await,
            0 if self.takes_effect => drop(operation.await?),
            _ => {}
        }
        Err(SinkError::transient("the process is dead"))
    }
}

/// Fails now and then: the operation was not begun, or its answer was lost.
struct Flaky(Arc<Mutex<fastrand::Rng>>);

impl Interference for Flaky {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        let fate = self.0.lock().unwrap().u8(0..12);
        match fate {
            0 => Err(SinkError::transient("not begun")),
            1 => operation.await.and(Err(SinkError::transient("its answer was lost"))),
            _ => operation.await,
        }
    }
}

fn store(memory: &Arc<InMemory>) -> Arc<dyn Store> {
    let store: Arc<dyn ObjectStore> = memory.clone();
    Arc::new(Remote::new(store, "memory:".to_owned(), String::new(), Duration::from_secs(600)))
}

/// The configuration of a life.
fn options(life: u64, partitioned: bool, rotation: Rotation, open_max: usize) -> ObjectOptions {
    let column = |name: &str| Column {
        name: name.to_owned(),
        from: "/n".parse().unwrap(),
        kind: ColumnType::Integer,
        required: false,
        on_misfit: OnMisfit::Null,
    };
    let columns = |names: &[&str]| {
        let columns = ParquetColumns::Named(names.iter().map(|name| column(name)).collect());
        Format::Parquet { zstd_level: None, columns }
    };
    let (format, parts) = match life % 4 {
        0 => (Format::Ndjson(Packing::Plain), r#"["/region"]"#),
        1 => (columns(&["a", "b"]), r#"[{"name":"region","from":"/n"}]"#),
        2 => {
            (Format::Ndjson(Packing::Gzip { level: 1 }), r#"[{"name":"region","from":"/nowhere"}]"#)
        }
        _ => (columns(&["b", "c"]), r#"["/region"]"#),
    };
    let parts: Vec<Part> = serde_json::from_str(parts).unwrap();
    ObjectOptions {
        place: Place::Folder("unused".into()),
        format,
        partition_by: partitioned.then(|| Partitioning::new(&parts, &mut Vec::new(), open_max)),
        rotation,
    }
}

/// Whether a policy leaves the record out.
fn is_left_out(offset: u64) -> bool {
    offset % 7 == 3
}

/// What a life reads at these offsets.
fn batch(life: u64, range: std::ops::Range<u64>) -> Arc<Batch> {
    let region = |offset: u64| (offset * 5 + life * (offset / 2)) % 4;
    let body = |offset| format!("{{\"region\":\"r{}\",\"n\":{}}}", region(offset), offset % 3);
    let messages: Vec<_> = range.clone().map(|offset| message(body(offset).as_bytes())).collect();
    let part = part(range.start, &messages).unwrap();
    let batch = Batch::new(StreamName::from(STREAM), vec![part]).unwrap();
    let out = range.filter(|offset| is_left_out(*offset)).map(Offset);
    Arc::new(batch.without(out.collect()))
}

fn offsets_in(key: &str, bytes: bytes::Bytes) -> Vec<u64> {
    let text = match key.split_once('.').unwrap().1 {
        "parquet" => {
            let reader = SerializedFileReader::new(bytes).unwrap();
            let rows = reader.get_row_iter(None).unwrap();
            return rows.map(|row| row.unwrap().get_long(1).unwrap().cast_unsigned()).collect();
        }
        "ndjson" => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
            text
        }
    };
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line["offset"].as_u64().unwrap()).collect()
}

/// The records of all objects, each with its object. Fails if one is there twice.
fn visible(memory: &InMemory, what: &str) -> BTreeMap<u64, String> {
    let table = object_store::path::Path::from(STREAM);
    let listed: Vec<_> = memory.list(Some(&table)).collect::<Vec<_>>().now_or_never().unwrap();
    let mut found = BTreeMap::new();
    for meta in listed {
        let path = meta.unwrap().location;
        let got = memory.get(&path).now_or_never().unwrap().unwrap();
        let bytes = got.bytes().now_or_never().unwrap().unwrap();
        for offset in offsets_in(path.as_ref(), bytes) {
            let other = found.insert(offset, path.to_string());
            assert_eq!(other, None, "{what}: offset {offset} is in {path} too");
        }
    }
    found
}

/// The records that the checkpoint claims as staged, each with its object.
fn claimed(memory: &InMemory) -> BTreeMap<u64, String> {
    let get = |key: &str| {
        let got = memory.get(&object_store::path::Path::from(key)).now_or_never().unwrap().ok()?;
        Some(got.bytes().now_or_never().unwrap().unwrap())
    };
    let checkpoint = get(&format!("_rillway/{STREAM}/checkpoint.json"));
    let state: serde_json::Value =
        checkpoint.map_or(serde_json::Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    let claim = &state["claim"];
    let Some(number) = claim["staged"]["number"].as_u64() else { return BTreeMap::new() };
    let packed = get(claim["key"].as_str().unwrap()).expect("what is claimed is staged");
    let objects = super::commit::unpack(&packed).unwrap();
    let records = objects.into_iter().flat_map(|object| {
        let key = object.key(STREAM, number);
        let offsets = offsets_in(&key, object.bytes);
        offsets.into_iter().map(move |offset| (offset, key.clone()))
    });
    records.collect()
}

/// Nothing is missing below the position, and what was visible before still is, in the same object.
fn check(
    memory: &InMemory,
    position: Option<Checkpoint>,
    before: &mut BTreeMap<u64, String>,
    what: &str,
) -> u64 {
    let now = visible(memory, what);
    let next = position.map_or(0, |at| at.offset.0 + 1);
    let mut kept = claimed(memory);
    let is_its_own = |(offset, key): (&u64, &String)| now.get(offset).is_none_or(|at| at == key);
    assert!(kept.iter().all(is_its_own), "{what}: {kept:?} is claimed, visible {now:?}");
    kept.extend(now.iter().map(|(offset, key)| (*offset, key.clone())));
    let expected = (0..next).filter(|offset| !is_left_out(*offset));
    let below = kept.keys().copied().filter(|offset| *offset < next);
    assert!(expected.eq(below), "{what}: position {next}, kept {:?}", kept.keys());
    assert!(before.iter().all(|(offset, key)| now.get(offset) == Some(key)), "{what}: moved");
    *before = now;
    next
}

/// One life, until it dies or has written all.
async fn live(
    store: Arc<dyn Store>,
    memory: &InMemory,
    options: &ObjectOptions,
    life: u64,
    (before, what): (&mut BTreeMap<u64, String>, &str),
) -> Result<(), SinkError> {
    let mut sink = ObjectSink::on(store, options, STREAM.into(), "r".into()).await?;
    let mut next = check(memory, sink.position().await?, before, what);
    // As its task does: what an earlier life has claimed is finished first.
    if sink.flush_at().is_some() {
        sink.flush().await?;
        assert_eq!(check(memory, sink.position().await?, before, what), next, "{what}");
        let all = visible(memory, what);
        assert!((0..next).all(|n| is_left_out(n) || all.contains_key(&n)), "{what}: {next}");
    }
    while next < RECORDS {
        let until = (next + 5).min(RECORDS);
        sink.write(&batch(life, next..until)).await?;
        next = until;
        if next.is_multiple_of(2) {
            sink.flush().await?;
            check(memory, sink.position().await?, before, what);
        }
    }
    sink.flush().await?;
    sink.close().await
}

/// Dies in the first life after so many operations, and in the second one. Returns whether it did.
async fn die_at(partitioned: bool, first: i64, second: i64, takes_effect: bool) -> bool {
    let what = format!("{partitioned} {first} {second} {takes_effect}");
    let memory = Arc::new(InMemory::new());
    let mut before = BTreeMap::new();
    let mut died = false;
    for (life, left) in [(0, first), (1, second), (2, i64::MAX)] {
        let interference = Dies { left: AtomicI64::new(left), takes_effect };
        let store = Arc::new(Disturbed { inner: store(&memory), interference });
        let rotation =
            Rotation { records: 6 + 3 * life, bytes: 1 << 20, age: Duration::from_secs(300) };
        let options = options(life, partitioned, rotation, 3);
        let ended = live(store.clone(), &memory, &options, life, (&mut before, &what)).await;
        let is_dead = store.interference.left.load(Ordering::SeqCst) < 0;
        // What was staged need not be removed: a failure of that is none of the sink.
        assert!(ended.is_ok() || is_dead, "{what}: life {life}: {ended:?}");
        died |= is_dead && life == 0;
    }
    let found = visible(&memory, &what);
    let all: Vec<u64> = (0..RECORDS).filter(|offset| !is_left_out(*offset)).collect();
    assert!(found.keys().eq(&all), "{what}: {:?}", found.keys());
    died
}

async fn die_everywhere(partitioned: bool) {
    for takes_effect in [false, true] {
        let mut first = 0;
        loop {
            let mut died = false;
            for second in [0, 3, 8, 9, 10, 11, 12, 13, 17, 23, 1_000] {
                died |= die_at(partitioned, first, second, takes_effect).await;
            }
            if !died {
                break;
            }
            first += 1;
        }
        assert!(first > if partitioned { 25 } else { 15 }, "only {first} operations");
    }
}

#[tokio::test]
async fn each_record_is_in_one_object_wherever_it_dies_and_whatever_is_changed_then() {
    die_everywhere(false).await;
}

#[tokio::test]
async fn the_same_with_folders_by_a_value() {
    die_everywhere(true).await;
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

/// Batches, flushes and crashes by chance, over a store that fails by chance.
async fn run(seed: u64) {
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let dice = |sides: u64| random.lock().unwrap().u64(0..sides);
    let memory = Arc::new(InMemory::new());
    let inner = store(&memory);
    let flaky = Arc::new(Disturbed { inner, interference: Flaky(Arc::clone(&random)) });
    let (partitioned, what) = (dice(4) > 0, format!("SEED={seed}"));
    let mut before = BTreeMap::new();
    let mut life = 0;
    let open = async |life| {
        let rotation = Rotation {
            records: 1 + dice(12),
            bytes: 100 + dice(4_000),
            age: Duration::from_secs(300),
        };
        let open_max = usize::try_from(1 + dice(4)).unwrap();
        let options = options(life, partitioned, rotation, open_max);
        stubbornly!(ObjectSink::on(flaky.clone(), &options, STREAM.into(), "r".into()))
    };
    let mut sink = open(life).await;
    let mut next = 0;
    for _ in 0..30 {
        match dice(10) {
            0..6 => {
                let until = next + 1 + dice(25);
                stubbornly!(sink.write(&batch(life, next..until)));
                next = until;
            }
            6..8 => {
                stubbornly!(sink.flush());
                let at = sink.position().await.unwrap();
                let at = check(&memory, at, &mut before, &what);
                assert_eq!(at, next, "{what}");
            }
            // It crashes, perhaps in the middle of a flush; the next one begins at its position.
            how => {
                if how == 9 {
                    let _interrupted: Result<(), SinkError> = sink.flush().await;
                }
                drop(sink);
                life += dice(3);
                sink = open(life).await;
                next = check(&memory, sink.position().await.unwrap(), &mut before, &what);
            }
        }
        visible(&memory, &what);
    }
    let until = next + 10;
    stubbornly!(sink.write(&batch(life, next..until)));
    stubbornly!(sink.flush());
    let position = sink.position().await.unwrap();
    assert_eq!(check(&memory, position, &mut before, &what), until, "{what}");
    assert!(before.keys().all(|offset| *offset < until), "{what}");
}

#[tokio::test]
async fn each_record_is_in_one_object_by_chance() {
    let runs = std::env::var("RILLWAY_OBJECT_SIMULATIONS").map_or(100, |n| n.parse().unwrap());
    if let Ok(seed) = std::env::var("SEED") {
        return run(seed.parse().unwrap()).await;
    }
    for seed in 0..runs {
        run(seed).await;
    }
}

/// An archive in which each message has a folder of its own.
struct Apart(Arc<InMemory>);

#[async_trait]
impl conformance::Medium for Apart {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        // No commit ends within a batch: the contract wants all of one or nothing.
        let rotation = Rotation { records: 20, bytes: 1 << 20, age: Duration::from_secs(300) };
        let open_max = 1_000_000;
        let body = Part::Value(Column {
            name: "b".to_owned(),
            from: "body".parse().unwrap(),
            kind: ColumnType::Text,
            required: false,
            on_misfit: OnMisfit::Null,
        });
        let partition_by = Some(Partitioning::new(&[body], &mut Vec::new(), open_max));
        let options = ObjectOptions { partition_by, ..options(0, false, rotation, 1) };
        Ok(Box::new(ObjectSink::on(store(&self.0), &options, STREAM.into(), "r".into()).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        let mut listed = self.0.list(Some(&object_store::path::Path::from(STREAM)));
        while let Some(meta) = listed.next().await {
            let path = meta.unwrap().location;
            let bytes = self.0.get(&path).await.unwrap().bytes().await.unwrap();
            let (_, rest) = path.filename().unwrap().split_once('-').unwrap();
            let claim: u64 = rest.split_once('.').unwrap().0.parse().unwrap();
            found.push((claim, offsets_in(path.as_ref(), bytes)));
        }
        found.sort();
        Some(found.into_iter().flat_map(|(_, offsets)| offsets).collect())
    }

    fn owners(&self) -> conformance::Owners {
        conformance::Owners::LastByFence
    }
}

#[tokio::test]
async fn the_contract_is_kept_with_a_folder_for_each_message() {
    let told = conformance::all(|| Apart(Arc::new(InMemory::new()))).await.unwrap();
    assert!(told.asked().contains(&"lets_one_owner_write"), "{:?}", told.not_asked());
}
