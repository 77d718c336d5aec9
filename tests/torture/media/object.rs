//! The `object` sink: Parquet in a folder, and NDJSON on an S3 server behind a gate.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rillway::faults::Point;
use tempfile::TempDir;

use crate::common::daemon::Home;
use crate::common::load::number;
use crate::common::s3::{BUCKET, Gate, Mood, S3};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::small_disk::SmallDisk;
use crate::object::archive;
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, Second, number_in, quoted};
use crate::torture::outage::outages;

/// Many small objects.
const SMALL: &str = "rotate_records = 200, rotate_age = \"100ms\"";

pub(super) struct Folder {
    dir: TempDir,
    /// A file system that can be filled.
    disk: Option<SmallDisk>,
}

impl Folder {
    pub(super) fn new() -> Folder {
        Folder { dir: tempfile::tempdir().unwrap(), disk: None }
    }

    fn on_a_small_disk() -> Result<Folder, Unavailable> {
        Ok(Folder { disk: Some(SmallDisk::new(128)?), ..Folder::new() })
    }

    fn path(&self) -> &Path {
        self.disk.as_ref().map_or(self.dir.path(), SmallDisk::path)
    }
}

/// Offset and number of each row.
fn rows(bytes: Vec<u8>) -> Vec<(u64, u64)> {
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let column = |name| schema.columns().iter().position(|column| column.name() == name).unwrap();
    let (offset, body) = (column("offset"), column("body"));
    let row = |row: parquet::record::Row| {
        let at = row.get_long(offset).unwrap().cast_unsigned();
        (at, number_in(row.get_string(body).unwrap().as_bytes()))
    };
    reader.get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect()
}

#[async_trait]
impl Oracle for Folder {
    fn name(&self) -> &'static str {
        "object, Parquet, folder"
    }

    fn sink(&self, _stream: &str) -> String {
        format!("{{ type = \"object\", url = {}, {SMALL} }}", quoted(self.path()))
    }

    /// In the order of the objects' names, which begin with their first offset.
    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        let files = archive::files(&self.path().join(stream)).into_iter();
        let objects = files.filter(|path| path.extension().is_some_and(|e| e == "parquet"));
        // An incomplete object fails the test.
        let records = objects.flat_map(|path| rows(std::fs::read(path).unwrap())).collect();
        Landed { records, torn: 0 }
    }

    /// Frozen anywhere, it may hold the lock under which the checkpoint is replaced: then the second one waits.
    fn second(&self, frozen_at: Option<Point>) -> Second {
        match frozen_at {
            Some(_) => Second::TakesOver,
            None => Second::TakesOverOrWaits,
        }
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match (how, &self.disk) {
            (Failure::Refuses, Some(disk)) if on => disk.fill(),
            (Failure::Refuses, Some(disk)) => disk.free(),
            _ => return false,
        }
        true
    }
}

struct Bucket {
    server: S3,
    gate: Gate,
}

impl Bucket {
    async fn new() -> Result<Bucket, Unavailable> {
        let server = S3::start()?;
        let gate = Gate::to(server.port).await;
        Ok(Bucket { server, gate })
    }
}

#[async_trait]
impl Oracle for Bucket {
    fn name(&self) -> &'static str {
        "object, NDJSON, S3"
    }

    fn sink(&self, _stream: &str) -> String {
        let options = S3::options(self.gate.port);
        format!(
            "{{ type = \"object\", url = \"s3://{BUCKET}/torture\", format = \"ndjson\", \
             request_timeout = \"2s\", options = {options}, {SMALL} }}"
        )
    }

    /// Without the gate.
    async fn landed(&mut self, _home: &Home, stream: &str) -> Landed {
        let objects = archive::objects(self.server.port, &format!("torture/{stream}")).await;
        let mut records = Vec::new();
        for (key, bytes) in objects {
            assert!(key.ends_with(".ndjson.zst"), "{key}");
            let text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap();
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                records.push((line["offset"].as_u64().unwrap(), number(&line)));
            }
        }
        Landed { records, torn: 0 }
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        self.gate.set(match how {
            _ if !on => Mood::Open,
            Failure::Gone => Mood::Cut,
            Failure::Refuses => Mood::Status(503),
            Failure::Hangs => Mood::Silent,
        });
        true
    }
}

#[tokio::test]
async fn kills_over_a_folder() {
    or_skip!(killed(Folder::new()).await);
}

#[tokio::test]
async fn kills_over_a_store() {
    let bucket = or_skip!(Bucket::new().await);
    or_skip!(killed(bucket).await);
}

#[tokio::test]
async fn one_that_was_frozen_writes_nothing_into_the_folder_of_another() {
    or_skip!(frozen(Folder::new()).await);
}

#[tokio::test]
async fn one_that_was_frozen_writes_nothing_into_the_bucket_of_another() {
    let bucket = or_skip!(Bucket::new().await);
    or_skip!(frozen(bucket).await);
}

#[tokio::test]
async fn a_store_that_cuts_refuses_and_hangs() {
    let bucket = or_skip!(Bucket::new().await);
    or_skip!(outages(bucket).await);
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while() {
    let folder = or_skip!(Folder::on_a_small_disk());
    or_skip!(outages(folder).await);
}
