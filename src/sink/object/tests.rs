//! The contract, on a folder and in memory, in each format; and what objects look like.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;

use super::remote::Remote;
use super::*;
use crate::sink::conformance::{self, Medium, Owners, batch, batch_with_bad};
use crate::types::Offset;

fn parquet() -> Format {
    let columns = ParquetColumns::Envelope { body_is_text: true };
    Format::Parquet { zstd_level: Some(1), columns }
}

fn options(place: Place, format: Format) -> ObjectOptions {
    let rotation = Rotation { records: 1 << 20, bytes: 32 << 20, age: Duration::from_secs(300) };
    ObjectOptions { place, format, partition_by: None, rotation }
}

fn stream() -> StreamName {
    StreamName::from(conformance::STREAM)
}

fn reference() -> Reference {
    Reference::from("archive")
}

/// The offsets in an object.
fn offsets(name: &str, bytes: &[u8]) -> Vec<u64> {
    let lines = |text: String| -> Vec<u64> {
        let values =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        values.map(|line| line["offset"].as_u64().unwrap()).collect()
    };
    let ending = name.split_once('.').unwrap().1;
    match ending {
        "parquet" => {
            let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).unwrap();
            let rows = reader.get_row_iter(None).unwrap();
            rows.map(|row| row.unwrap().get_long(1).unwrap() as u64).collect()
        }
        "ndjson" => lines(String::from_utf8(bytes.to_vec()).unwrap()),
        "ndjson.zst" => lines(String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap()),
        "ndjson.gz" => {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
            lines(text)
        }
        other => panic!("an object ends in {other}"),
    }
}

/// The number of the claim, in the object's name.
fn claim(name: &str) -> u64 {
    let (_, rest) = name.split_once('-').unwrap();
    rest.split_once('.').unwrap().0.parse().unwrap()
}

fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
    into.sort();
}

/// The objects of the stream, in the order of their keys.
fn objects(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    files(&root.join(conformance::STREAM), &mut found);
    found
}

struct Folder {
    dir: tempfile::TempDir,
    format: Format,
}

#[async_trait]
impl Medium for Folder {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        let options = options(Place::Folder(self.dir.path().to_owned()), self.format.clone());
        Ok(Box::new(ObjectSink::open(options, stream(), reference()).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        let read = |path: &std::path::PathBuf| {
            offsets(path.file_name().unwrap().to_str().unwrap(), &std::fs::read(path).unwrap())
        };
        let mut paths = objects(self.dir.path());
        paths.sort_by_key(|path| claim(path.file_name().unwrap().to_str().unwrap()));
        Some(paths.iter().flat_map(read).collect())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }
}

#[tokio::test]
async fn a_folder_keeps_the_contract_in_every_format() {
    for format in [
        parquet(),
        Format::Ndjson(Packing::Plain),
        Format::Ndjson(Packing::Zstd { level: 3 }),
        Format::Ndjson(Packing::Gzip { level: 6 }),
    ] {
        let fresh = || Folder { dir: tempfile::tempdir().unwrap(), format: format.clone() };
        conformance::all(fresh).await.unwrap_or_else(|why| panic!("{format:?}: {why}"));
    }
}

struct Memory(Arc<InMemory>);

impl Memory {
    fn store(&self) -> Arc<dyn Store> {
        let limit = Duration::from_secs(10);
        Arc::new(Remote::new(self.0.clone(), "memory:".to_owned(), "deep/down".to_owned(), limit))
    }
}

#[async_trait]
impl Medium for Memory {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        let options = options(Place::Folder("unused".into()), parquet());
        Ok(Box::new(ObjectSink::on(self.store(), &options, stream(), reference()).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        let mut listed = self.0.list(Some(&object_store::path::Path::from("deep/down/events")));
        while let Some(meta) = listed.next().await {
            let path = meta.unwrap().location;
            let bytes = self.0.get(&path).await.unwrap().bytes().await.unwrap();
            let name = path.filename().unwrap();
            found.push((claim(name), offsets(name, &bytes)));
        }
        found.sort();
        Some(found.into_iter().flat_map(|(_, offsets)| offsets).collect())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }
}

#[tokio::test]
async fn an_object_store_keeps_the_contract() {
    let told = conformance::all(|| Memory(Arc::new(InMemory::new()))).await.unwrap();
    assert!(told.asked().contains(&"lets_one_owner_write"), "{:?}", told.not_asked());
}

async fn sink_in(dir: &Path, change: impl FnOnce(&mut ObjectOptions)) -> ObjectSink {
    let mut options = options(Place::Folder(dir.to_owned()), parquet());
    change(&mut options);
    ObjectSink::open(options, stream(), reference()).await.unwrap()
}

async fn write(sink: &mut ObjectSink, range: std::ops::Range<u64>) -> bool {
    assert_eq!(sink.write(&Arc::new(batch(range))).await.unwrap(), Durability::Held);
    sink.flush_at().unwrap() <= Instant::now()
}

#[tokio::test]
async fn an_object_ends_by_records_bytes_and_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink_in(dir.path(), |o| o.rotation.records = 20).await;
    assert!(!write(&mut sink, 0..19).await);
    assert!(write(&mut sink, 19..20).await, "the twentieth record ends it");
    sink.flush().await.unwrap();
    assert_eq!(sink.flush_at(), None);
    drop(sink);
    let mut sink = sink_in(dir.path(), |o| o.rotation.bytes = 2000).await;
    assert!(!write(&mut sink, 20..30).await);
    assert!(write(&mut sink, 30..200).await, "more than 2000 bytes end it");
    sink.flush().await.unwrap();
    drop(sink);
    let age = Duration::from_secs(1000);
    let mut sink = sink_in(dir.path(), |o| o.rotation.age = age).await;
    let before = Instant::now();
    assert!(!write(&mut sink, 200..210).await);
    let due = sink.flush_at().unwrap();
    assert!(due >= before + age && due <= Instant::now() + age);
    assert!(!write(&mut sink, 210..220).await);
    assert_eq!(sink.flush_at(), Some(due), "later records do not make it younger");
    sink.flush().await.unwrap();
    let sizes = objects(dir.path()).into_iter().map(|path| {
        offsets(path.file_name().unwrap().to_str().unwrap(), &std::fs::read(&path).unwrap()).len()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [20, 180, 20]);
}

#[tokio::test]
async fn what_an_object_is_called_and_what_it_says_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink_in(dir.path(), |_| {}).await;
    write(&mut sink, 7..9).await;
    let bad = batch_with_bad(9..12, &BTreeSet::from([9]));
    assert!(matches!(sink.write(&Arc::new(bad.clone())).await, Err(SinkError::Poison(_))));
    sink.write(&Arc::new(bad.without(vec![Offset(9), Offset(11)]))).await.unwrap();
    sink.flush().await.unwrap();
    let [path] = &objects(dir.path())[..] else { panic!("{:?}", objects(dir.path())) };
    let name = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
    // The chunks of these batches are of 2023-11-14T22:13:20Z.
    assert_eq!(name, "events/date=2023-11-14/hour=22/00000000000000000007-2.parquet");
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let meta = reader.metadata().file_metadata();
    let facts: Vec<_> = meta
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|kv| (kv.key.as_str(), kv.value.as_deref().unwrap()))
        .collect();
    for fact in [
        ("rillway.stream", "events"),
        ("rillway.reference", "archive"),
        ("rillway.first_offset", "7"),
        ("rillway.last_offset", "10"),
        ("rillway.records", "3"),
    ] {
        assert!(facts.contains(&fact), "{fact:?} is not in {facts:?}");
    }
    assert_eq!(sink.position().await.unwrap().map(|at| at.offset), Some(Offset(11)));
    let row = reader.get_row_iter(None).unwrap().nth(2).unwrap().unwrap();
    assert_eq!(
        row.to_string(),
        "{stream: \"events\", offset: 10, timestamp: 2023-11-14 22:13:20.009000 +00:00, \
         message_id: null, subject: null, application_properties: null, body: \"offset 10\"}"
    );
}

/// A batch of one message a chunk, each with its own time.
fn batch_at(first: u64, times: &[i64]) -> Batch {
    let parts = times.iter().enumerate().map(|(nth, ms)| {
        let offset = first + nth as u64;
        let mut part = conformance::part(offset, &[conformance::message(b"x")]).unwrap();
        let time = crate::types::Timestamp(*ms);
        part.chunk.timestamp = time;
        let bytes = part.block.bytes().clone();
        part.block = crate::wire::block::Block::new(Offset(offset), 1, time, bytes).unwrap();
        part
    });
    Batch::new(stream(), parts.collect()).unwrap()
}

#[tokio::test]
async fn a_batch_that_spans_hours_is_shared_out() {
    const HOUR: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink_in(dir.path(), |_| {}).await;
    sink.write(&Arc::new(batch_at(0, &[-1, 0, HOUR - 1, HOUR, HOUR, 0]))).await.unwrap();
    assert!(sink.flush_at().unwrap() <= Instant::now(), "what is sealed does not wait");
    sink.flush().await.unwrap();
    let names: Vec<_> = objects(dir.path())
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "events/date=1969-12-31/hour=23/00000000000000000000-2.parquet",
            "events/date=1970-01-01/hour=00/00000000000000000001-3.parquet",
            "events/date=1970-01-01/hour=00/00000000000000000005-5.parquet",
            "events/date=1970-01-01/hour=01/00000000000000000003-4.parquet",
        ]
    );
}

#[tokio::test]
async fn a_second_owner_ends_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = sink_in(dir.path(), |_| {}).await;
    write(&mut first, 0..10).await;
    first.flush().await.unwrap();
    write(&mut first, 10..20).await;
    let mut second = sink_in(dir.path(), |_| {}).await;
    assert_eq!(second.position().await.unwrap().map(|at| at.offset), Some(Offset(9)));
    match first.flush().await {
        Err(SinkError::Fatal(why)) => assert!(why.contains("has taken over"), "{why}"),
        other => panic!("{other:?}"),
    }
    write(&mut second, 10..12).await;
    second.flush().await.unwrap();
    assert_eq!(objects(dir.path()).len(), 2);
}

#[tokio::test]
async fn an_archive_without_its_checkpoint_is_not_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink_in(dir.path(), |_| {}).await;
    write(&mut sink, 0..10).await;
    sink.flush().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("_rillway")).unwrap();
    let options = options(Place::Folder(dir.path().to_owned()), parquet());
    match ObjectSink::open(options.clone(), stream(), reference()).await.err() {
        Some(SinkError::Fatal(why)) => assert!(why.contains("no checkpoint"), "{why}"),
        other => panic!("{other:?}"),
    }
    std::fs::remove_dir_all(dir.path().join("events")).unwrap();
    ObjectSink::open(options.clone(), stream(), reference()).await.unwrap();
    let other = ObjectSink::open(options, stream(), Reference::from("other")).await.err();
    assert!(other.unwrap().to_string().contains("belongs to"));
}

#[tokio::test]
async fn a_new_incarnation_starts_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink_in(dir.path(), |_| {}).await;
    write(&mut sink, 100..110).await;
    sink.flush().await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    write(&mut sink, 0..5).await;
    sink.flush().await.unwrap();
    assert_eq!(sink.position().await.unwrap().map(|at| at.offset), Some(Offset(4)));
    assert_eq!(objects(dir.path()).len(), 2);
}

#[test]
fn hidden_and_odd_names_of_streams_become_visible_folders() {
    for (name, folder) in [
        ("events", "events"),
        ("_x", "%5Fx"),
        (".x", "%2Ex"),
        ("a/b c=d", "a%2Fb%20c%3Dd"),
        ("..", "%2E."),
    ] {
        assert_eq!(layout::table(&StreamName::from(name), 255), folder);
    }
}

/// Three bytes a character, each of which is encoded as three: too long for a folder.
fn long_stream() -> StreamName {
    StreamName::from("\u{3042}".repeat(39).as_str())
}

fn in_a_bucket(prefix: &str) -> Place {
    let url = format!("s3://bucket/{prefix}").parse().unwrap();
    Place::Store { url, options: Vec::new(), operation_max: Duration::from_secs(5) }
}

/// With the names of any older version, an archive is found and continued.
#[test]
fn a_streams_part_of_a_key_fits_into_a_file_system() {
    let folder = Place::Folder("f".into());
    let long = layout::table(&long_stream(), folder.table_bytes_max());
    assert_eq!((long.len(), folder.former_table_bytes_max()), (255, 255));
    for (prefix, bytes, former) in [(0, 255, 351), (600, 255, 328), (673, 255, 255), (896, 32, 32)]
    {
        let place = in_a_bucket(&"p".repeat(prefix));
        let table = |bytes_max| layout::table(&long_stream(), bytes_max).len();
        assert_eq!(table(place.table_bytes_max()), bytes, "{prefix}");
        assert_eq!(table(place.former_table_bytes_max()), former, "{prefix}");
    }
}

#[tokio::test]
async fn a_long_name_is_shortened_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Place::Folder(dir.path().to_owned());
    let memory = Memory(Arc::new(InMemory::new()));
    for (store, place) in
        [(folder.open().await.unwrap(), folder), (memory.store(), in_a_bucket("p"))]
    {
        let options = options(place, parquet());
        for begin in [0, 5] {
            let opened = ObjectSink::on(store.clone(), &options, long_stream(), reference());
            let mut sink = opened.await.unwrap();
            let position = sink.position().await.unwrap().map(|at| at.offset);
            assert_eq!(position, Offset(begin).prev());
            write(&mut sink, begin..begin + 5).await;
            sink.flush().await.unwrap();
        }
        let table = layout::table(&long_stream(), 255);
        assert!(store.has_folder("_rillway", &table).await.unwrap());
        assert!(!store.has_folder("_rillway", &table[..254]).await.unwrap());
        assert!(!store.has_folder("_rillway", &format!("{table}x")).await.unwrap());
        assert!(store.any_below(&table).await.unwrap());
    }
}

/// An older version used all that a key may have, or shortened the name to that.
#[tokio::test]
async fn an_archive_under_a_longer_name_stays_there() {
    for prefix in [0, 600] {
        let store = Memory(Arc::new(InMemory::new())).store();
        let options = options(in_a_bucket(&"p".repeat(prefix)), parquet());
        let name = layout::table(&long_stream(), options.place.former_table_bytes_max());
        let layout = Layout::new(&options.format, &long_stream()).unwrap();
        let names = names_in(name.clone(), &long_stream(), &reference());
        let mut former = Committer::take_over(store.clone(), names, layout).await.unwrap();
        former.pass_over(Checkpoint { offset: Offset(4), chunk: None }).await.unwrap();
        let opened = ObjectSink::on(store.clone(), &options, long_stream(), reference());
        let mut sink = opened.await.unwrap();
        assert_eq!(sink.position().await.unwrap().map(|at| at.offset), Some(Offset(4)));
        write(&mut sink, 5..9).await;
        sink.flush().await.unwrap();
        assert!(store.any_below(&name).await.unwrap());
        assert!(!store.any_below(&layout::table(&long_stream(), 255)).await.unwrap());
    }
}

/// A store that passes over a condition.
struct Careless {
    store: Arc<dyn Store>,
    overwrites: bool,
}

#[async_trait]
impl Store for Careless {
    fn place(&self, key: &str) -> String {
        self.store.place(key)
    }

    fn operations_max(&self) -> usize {
        self.store.operations_max()
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<store::Created, SinkError> {
        if self.overwrites {
            self.swap(key, None, bytes).await?;
            return Ok(store::Created::Made);
        }
        self.store.create(key, bytes).await
    }

    async fn exists(&self, key: &str) -> Result<bool, SinkError> {
        self.store.exists(key).await
    }

    async fn digest(&self, key: &str) -> Result<Option<store::Digest>, SinkError> {
        self.store.digest(key).await
    }

    async fn keep(&self, key: &str) -> Result<(), SinkError> {
        self.store.keep(key).await
    }

    async fn read(&self, key: &str) -> Result<Option<(Bytes, store::Version)>, SinkError> {
        self.store.read(key).await
    }

    async fn swap(
        &self,
        key: &str,
        _: Option<&store::Version>,
        bytes: Bytes,
    ) -> Result<store::Swapped, SinkError> {
        let now = self.store.read(key).await?.map(|(_, version)| version);
        self.store.swap(key, now.as_ref(), bytes).await
    }

    async fn remove(&self, key: &str) -> Result<(), SinkError> {
        self.store.remove(key).await
    }

    async fn any_below(&self, folder: &str) -> Result<bool, SinkError> {
        self.store.any_below(folder).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, SinkError> {
        self.store.list(folder).await
    }

    async fn read_whole(&self, key: &str) -> Result<Option<Bytes>, SinkError> {
        self.store.read_whole(key).await
    }

    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError> {
        self.store.has_folder(above, name).await
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    for (overwrites, header) in [(true, "If-None-Match"), (false, "If-Match")] {
        let store = Memory(Arc::new(InMemory::new())).store();
        let careless = Arc::new(Careless { store, overwrites });
        let options = options(Place::Folder("unused".into()), parquet());
        match ObjectSink::on(careless, &options, stream(), reference()).await.err() {
            Some(SinkError::Fatal(why)) => {
                assert!(why.contains(&format!("the store ignores {header}.")), "{why}");
            }
            other => panic!("{overwrites}: {other:?}"),
        }
    }
}
