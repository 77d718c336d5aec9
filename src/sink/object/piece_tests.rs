//! Batches that are large when they are decoded: taken in pieces, over several objects, and over failures
//! of the store amid them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::store::{Created, Digest, Swapped, Version, transient};
use super::*;
use crate::sink::conformance::{BAD_MESSAGE, STREAM, part};
use crate::types::Offset;

/// Once it may, every third operation fails, having been done or not.
struct Failing {
    inner: Arc<dyn Store>,
    fails: AtomicBool,
    operations: AtomicU64,
}

impl Failing {
    async fn through<R>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>>,
    ) -> Result<R, SinkError> {
        if !self.fails.load(Ordering::Relaxed) {
            return operation.await;
        }
        match self.operations.fetch_add(1, Ordering::Relaxed) % 6 {
            2 => Err(transient("not done".to_owned())),
            5 => operation.await.and(Err(transient("the answer was lost".to_owned()))),
            _ => operation.await,
        }
    }
}

#[async_trait]
impl Store for Failing {
    fn place(&self, key: &str) -> String {
        self.inner.place(key)
    }
    async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, SinkError> {
        self.through(self.inner.create(key, bytes)).await
    }
    async fn digest(&self, key: &str) -> Result<Option<Digest>, SinkError> {
        self.through(self.inner.digest(key)).await
    }
    async fn keep(&self, key: &str) -> Result<(), SinkError> {
        self.through(self.inner.keep(key)).await
    }
    async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, SinkError> {
        self.through(self.inner.read(key)).await
    }
    async fn swap(
        &self,
        key: &str,
        from: Option<&Version>,
        bytes: Bytes,
    ) -> Result<Swapped, SinkError> {
        self.through(self.inner.swap(key, from, bytes)).await
    }
    async fn any_below(&self, folder: &str) -> Result<bool, SinkError> {
        self.through(self.inner.any_below(folder)).await
    }
    async fn has_folder(&self, above: &str, name: &str) -> Result<bool, SinkError> {
        self.through(self.inner.has_folder(above, name)).await
    }
}

/// An array of 4,000 nulls among the application properties: 20,000 bytes of JSON.
fn nulls() -> Vec<u8> {
    let array = [&[0xf0][..], &5u32.to_be_bytes(), &4000u32.to_be_bytes(), &[0x40]].concat();
    let map = [&[0x00, 0x53, 0x74, 0xc1, 14, 2, 0xa1, 1, b'n'][..], &array].concat();
    [&map[..], &[0x00, 0x53, 0x75, 0xa0, 1, b'x']].concat()
}

fn batch(first: u64, messages: &[Vec<u8>]) -> Arc<Batch> {
    let parts = part(first, messages).into_iter().collect();
    Arc::new(Batch::new(StreamName::from(STREAM), parts).unwrap())
}

fn options(root: &std::path::Path) -> ObjectOptions {
    ObjectOptions {
        place: Place::Folder(root.to_owned()),
        format: Format::Ndjson(Packing::Plain),
        rotation: Rotation { records: 1 << 20, bytes: 2 << 20, age: Duration::from_secs(300) },
    }
}

/// The offsets in each object, in the order of their keys.
fn objects(folder: &std::path::Path) -> Vec<Vec<u64>> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    paths.sort();
    let offsets = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["offset"].as_u64().unwrap()).collect()
    };
    paths.into_iter().map(offsets).collect()
}

#[tokio::test]
async fn a_batch_may_become_several_objects_whatever_fails_amid_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let inner = options.place.open().await.unwrap();
    let fails = AtomicBool::new(false);
    let store = Arc::new(Failing { inner, fails, operations: AtomicU64::new(0) });
    let archive = Reference::from("archive");
    let mut sink = ObjectSink::on(store.clone(), &options, STREAM.into(), archive).await.unwrap();
    // Opening is many operations, of which one would always fail.
    store.fails.store(true, Ordering::Relaxed);
    let mut failed = 0;
    for first in [0, 1000] {
        let batch = batch(first, &vec![nulls(); 1000]);
        while let Err(error) = sink.write(&batch).await {
            assert!(matches!(error, SinkError::Transient { .. }), "{error}");
            failed += 1;
        }
        // What is full is there already; the rest is held.
        let there: usize = objects(&dir.path().join(STREAM)).iter().map(Vec::len).sum();
        assert!(there as u64 > first + 800, "{there} after {first}");
    }
    while sink.flush().await.is_err() {
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
    assert_eq!(sink.position().await.unwrap().unwrap().offset, Offset(1999));
    let objects = objects(&dir.path().join(STREAM));
    assert!(objects.concat().into_iter().eq(0..2000));
    // 2 MiB hold 105 of these, and an object ends within a piece of that.
    assert!(objects.len() > 12, "{}", objects.len());
    assert!(objects.iter().all(|object| object.len() < 200), "an object grew with its batch");
}

#[tokio::test]
async fn the_bad_ones_of_a_large_batch_are_all_found_before_any_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = ObjectSink::open(options(dir.path()), STREAM.into(), Reference::from("archive"))
        .await
        .unwrap();
    let bad = BTreeSet::from([3, 500, 999]);
    let message = |offset| if bad.contains(&offset) { BAD_MESSAGE.to_vec() } else { nulls() };
    let messages: Vec<Vec<u8>> = (0..1000).map(message).collect();
    let whole = batch(0, &messages);
    match sink.write(&whole).await {
        Err(SinkError::Poison(named)) => {
            assert!(named.iter().map(|bad| bad.offset.0).eq(bad.iter().copied()));
        }
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join(STREAM).exists(), "something was taken");
    let rest = Batch::clone(&whole).without(bad.iter().copied().map(Offset).collect());
    sink.write(&Arc::new(rest)).await.unwrap();
    sink.flush().await.unwrap();
    let found = objects(&dir.path().join(STREAM)).concat();
    assert!(found.into_iter().eq((0..1000).filter(|offset| !bad.contains(offset))));
}
