//! The `file` sink, on a folder.

use std::path::PathBuf;

use async_trait::async_trait;
use rillway::faults::Point;
use tempfile::TempDir;

use crate::common::daemon::Home;
use crate::common::load::number;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::small_disk::SmallDisk;
use crate::torture::frozen::frozen;
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle, Second, quoted};
use crate::torture::outage::outages;

pub(super) struct Files {
    disk: Disk,
    /// Compressed, with small segments.
    small: bool,
}

enum Disk {
    Usual(TempDir),
    /// A file system that can be filled.
    Small(SmallDisk),
}

impl Files {
    pub(super) fn new(small: bool) -> Files {
        Files { disk: Disk::Usual(tempfile::tempdir().unwrap()), small }
    }

    fn on_a_small_disk() -> Result<Files, Unavailable> {
        Ok(Files { disk: Disk::Small(SmallDisk::new(128)?), small: false })
    }

    fn dir(&self) -> PathBuf {
        match &self.disk {
            Disk::Usual(dir) => dir.path().join("out"),
            Disk::Small(disk) => disk.path().join("out"),
        }
    }
}

#[async_trait]
impl Oracle for Files {
    fn name(&self) -> &'static str {
        if self.small { "file, zstd, rotated" } else { "file" }
    }

    fn sink(&self, _stream: &str) -> String {
        let small =
            if self.small { ", compression = \"zstd\", rotate_bytes = \"1KiB\"" } else { "" };
        format!("{{ type = \"file\", dir = {}{small} }}", quoted(&self.dir()))
    }

    async fn landed(&mut self, home: &Home, stream: &str) -> Landed {
        let dir = self.dir();
        let dir = dir.to_str().unwrap();
        let segments = home.segments(dir, stream).len();
        assert_eq!(self.small, segments > 3, "{segments} files");
        // A torn line fails the test.
        let lines = home.lines(dir, stream);
        let records = lines.iter().map(|line| (line["offset"].as_u64().unwrap(), number(line)));
        Landed { records: records.collect(), torn: 0 }
    }

    fn second(&self, _frozen_at: Option<Point>) -> Second {
        Second::Waits
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match (how, &self.disk) {
            (Failure::Refuses, Disk::Small(disk)) if on => disk.fill(),
            (Failure::Refuses, Disk::Small(disk)) => disk.free(),
            _ => return false,
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    or_skip!(killed(Files::new(false)).await);
}

#[tokio::test]
async fn kills_with_compressed_files_that_are_soon_full() {
    or_skip!(killed(Files::new(true)).await);
}

#[tokio::test]
async fn the_other_one_waits_for_one_that_is_frozen() {
    or_skip!(frozen(Files::new(false)).await);
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while() {
    let files = or_skip!(Files::on_a_small_disk());
    or_skip!(outages(files).await);
}
