//! Content of an archive, read without Rillway: the objects are fetched, and DuckDB reads them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::daemon::Home;
use crate::common::s3::S3;
use crate::common::skip::Unavailable;
use crate::common::{duckdb, eventually, s3};

/// The objects in the bucket below a prefix: their keys, in order, and their bytes.
pub(crate) async fn objects(port: u16, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let store = AmazonS3Builder::new()
        .with_bucket_name(s3::BUCKET)
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_allow_http(true)
        .build()
        .unwrap();
    let mut listed = store.list(Some(&object_store::path::Path::from(prefix)));
    let mut found = Vec::new();
    while let Some(meta) = listed.next().await {
        let path = meta.unwrap().location;
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        found.push((path.to_string(), bytes.to_vec()));
    }
    found.sort();
    found
}

/// Downloads them into a folder.
pub(crate) async fn fetch(port: u16, prefix: &str, into: &Path) {
    for (key, bytes) in objects(port, prefix).await {
        let path = into.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Lets a daemon write all `total` messages, and stops it. Returns the folder of the archive, which is `place` in
/// the daemon's home, or in a store.
pub(crate) async fn finished(home: &Home, total: u64, place: &str, store: Option<&S3>) -> PathBuf {
    let daemon = home.start();
    eventually("everything is durable", Duration::from_secs(90), || async {
        let consumer = daemon.consumer("archiver").await?;
        assert!(consumer["state"] != "halted", "{consumer}");
        (consumer["durable_offset"].as_u64()? + 1 >= total && consumer["lag_messages"] == 0)
            .then_some(())
    })
    .await;
    daemon.terminate().await;
    let Some(store) = store else { return home.path(place) };
    fetch(store.port, place, &home.path("fetched")).await;
    home.path("fetched").join(place)
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The number of the claim in an object's name: the order in which objects were made.
pub(crate) fn claim(name: &str) -> u64 {
    let (_, rest) = name.rsplit_once('/').map_or(name, |(_, name)| name).split_once('-').unwrap();
    rest.split_once('.').unwrap().0.parse().unwrap()
}

/// Checks that this table of Parquet files has the messages 0 to `total`, each once, with the offsets of
/// the stream in order.
pub(crate) fn assert_exact(table: &Path, total: u64) -> Result<(), Unavailable> {
    let rows = duckdb::ask(&format!(
        "SELECT count(*), count(DISTINCT \"offset\"), count(DISTINCT body), min(i), max(i), \
                sum(CASE WHEN i <= before THEN 1 ELSE 0 END) \
         FROM (SELECT *, lag(i) OVER (ORDER BY \"offset\") AS before \
               FROM (SELECT *, CAST(body->>'$.i' AS BIGINT) AS i \
                     FROM read_parquet('{}/**/*.parquet', hive_partitioning = true)))",
        table.display()
    ))?;
    let last = i64::try_from(total).unwrap() - 1;
    let total = last + 1;
    let expected = [total, total, total, 0, last, 0].map(serde_json::Value::from);
    assert_eq!(
        rows[0]
            .iter()
            .map(|v| v.as_i64().or_else(|| v.as_f64().map(|f| f as i64)))
            .collect::<Vec<_>>(),
        expected.iter().map(|v| v.as_i64()).collect::<Vec<_>>(),
        "rows, offsets, bodies, first, last, out of order in {}",
        table.display()
    );
    Ok(())
}
