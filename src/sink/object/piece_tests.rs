//! Batches that are large when they are decoded: taken in pieces, over several objects, and over failures
//! of the store amid them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::testing::{Disturbed, Interference};
use super::*;
use crate::sink::conformance::{BAD_MESSAGE, STREAM, part};
use crate::types::Offset;

/// Once it may, lets every third operation fail, having been done or not.
struct Fails {
    may: AtomicBool,
    operations: AtomicU64,
}

impl Interference for Fails {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        if !self.may.load(Ordering::Relaxed) {
            return operation.await;
        }
        match self.operations.fetch_add(1, Ordering::Relaxed) % 6 {
            2 => Err(SinkError::transient("not done")),
            5 => operation.await.and(Err(SinkError::transient("the answer was lost"))),
            _ => operation.await,
        }
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
        partition_by: None,
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
    let interference = Fails { may: AtomicBool::new(false), operations: AtomicU64::new(0) };
    let store = Arc::new(Disturbed { inner, interference });
    let archive = Reference::from("archive");
    let mut sink = ObjectSink::on(store.clone(), &options, STREAM.into(), archive).await.unwrap();
    // Opening is many operations, of which one would always fail.
    store.interference.may.store(true, Ordering::Relaxed);
    let mut failed = 0;
    for first in [0, 1000] {
        let batch = batch(first, &vec![nulls(); 1000]);
        while let Err(error) = sink.write(&batch).await {
            assert!(matches!(error, SinkError::Transient { .. }), "{error}");
            failed += 1;
        }
        // Full objects exist already; the rest is held.
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
