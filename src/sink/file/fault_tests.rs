//! The file sink on real file systems that are full, read-only or taken away.
//!
//! Some of these need a small file system of their own. They run in a child process under `unshare`,
//! in a mount namespace that ends with it. If that is not allowed, they are skipped by name.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tests::{offsets, open};
use super::*;
use crate::sink::conformance::{STREAM, batch};
use crate::sink::testing::{self, fatal, fill, transient};

fn on_a_small_file_system(test: &str) -> Option<PathBuf> {
    testing::on_a_small_file_system(&format!("file::fault_tests::{test}"), "1m")
}

#[tokio::test]
async fn a_full_file_system_is_transient_and_leaves_nothing_torn() {
    let test = "a_full_file_system_is_transient_and_leaves_nothing_torn";
    let Some(dir) = on_a_small_file_system(test) else { return };
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = FileOptions { compression, ..FileOptions::new(dir.join("out")) };
        let mut sink = open(options.clone()).await.unwrap();
        sink.write(&Arc::new(batch(0..100))).await.unwrap();
        let ballast = dir.join("ballast");
        fill(&ballast);

        let large = Arc::new(batch(100..60_000));
        for _ in 0..3 {
            let what = transient(sink.write(&large).await);
            assert!(what.contains("No space left"), "{what}");
            assert!(what.contains(sink.folder().to_str().unwrap()), "{what}");
            let at = sink.position().await.unwrap().unwrap();
            assert_eq!(at.offset.0, 99);
        }
        std::fs::remove_file(&ballast).unwrap();
        // Larger than all of the file system, where it is not compressed: it fails amid the batch.
        let next = match compression {
            Compression::None => {
                transient(sink.write(&large).await);
                batch(100..500)
            }
            _ => batch(100..60_000),
        };
        let reached = next.last_offset().0;
        sink.write(&Arc::new(next)).await.unwrap();
        sink.close().await.unwrap();
        let mut sink = open(options).await.unwrap();
        assert_eq!(sink.position().await.unwrap().unwrap().offset.0, reached);
        assert_eq!(offsets(sink.folder()), (0..=reached).collect::<Vec<_>>());
        sink.close().await.unwrap();
        std::fs::remove_dir_all(dir.join("out")).unwrap();
    }
}

#[tokio::test]
async fn a_start_on_a_full_file_system_is_tried_again() {
    let Some(dir) = on_a_small_file_system("a_start_on_a_full_file_system_is_tried_again") else {
        return;
    };
    let ballast = dir.join("ballast");
    fill(&ballast);
    let options = FileOptions::new(dir.join("out"));
    for _ in 0..2 {
        let what = transient(open(options.clone()).await);
        assert!(what.contains("No space left"), "{what}");
    }
    std::fs::remove_file(&ballast).unwrap();
    let mut sink = open(options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    assert_eq!(offsets(sink.folder()), [0, 1, 2]);
}

#[tokio::test]
async fn a_file_system_that_turned_read_only_is_fatal() {
    let Some(dir) = on_a_small_file_system("a_file_system_that_turned_read_only_is_fatal") else {
        return;
    };
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(&dir).status().unwrap();
        assert!(status.success());
    };
    let options = FileOptions::new(dir.join("out"));
    let mut sink = open(options.clone()).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    sink.close().await.unwrap();
    remount("remount,ro");
    let why = fatal(open(options.clone()).await);
    assert!(why.contains("Read-only file system"), "{why}");
    remount("remount,rw");
    open(options).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let mut sink = open(FileOptions::new(dir.path())).await.unwrap();
    let folder = sink.folder().to_owned();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    copy(&folder, &dir.path().join("backup"));
    std::fs::remove_dir_all(&folder).unwrap();
    for _ in 0..3 {
        let what = transient(sink.write(&Arc::new(batch(3..6))).await);
        assert!(what.contains(folder.to_str().unwrap()), "{what}");
        assert!(!folder.exists(), "it must not begin anew by itself");
    }
    copy(&dir.path().join("backup"), &folder);
    sink.write(&Arc::new(batch(3..6))).await.unwrap();
    assert_eq!(offsets(&folder), [0, 1, 2, 3, 4, 5]);
    // It also locks the folder that came back.
    assert!(transient(open(FileOptions::new(dir.path())).await).contains("in use"));
}

#[tokio::test]
async fn committed_data_that_was_cut_off_is_never_written_over() {
    for whole_name_gone in [false, true] {
        let dir = TempDir::new().unwrap();
        let mut sink = open(FileOptions::new(dir.path())).await.unwrap();
        sink.write(&Arc::new(batch(0..3))).await.unwrap();
        let segment = sink.folder().join("00000000000000000000.ndjson");
        if whole_name_gone {
            std::fs::remove_file(&segment).unwrap();
        } else {
            std::fs::write(&segment, b"").unwrap(); // As `logrotate copytruncate` does.
        }
        let what = transient(sink.write(&Arc::new(batch(3..6))).await);
        assert!(what.contains("changed by another program"), "{what}");
        let expected = if whole_name_gone { "is missing" } else { "has 0 bytes, but" };
        for _ in 0..2 {
            let why = fatal(sink.write(&Arc::new(batch(3..6))).await);
            assert!(why.contains(expected) && why.contains(segment.to_str().unwrap()), "{why}");
        }
        sink.close().await.unwrap();
        let why = fatal(open(FileOptions::new(dir.path())).await);
        assert!(why.contains(expected) && why.contains("up to offset 2"), "{why}");
    }
}

#[tokio::test]
async fn a_position_that_was_changed_underneath_is_fatal() {
    let dir = TempDir::new().unwrap();
    let mut sink = open(FileOptions::new(dir.path())).await.unwrap();
    let folder = sink.folder().to_owned();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    copy(&folder, &dir.path().join("backup"));
    sink.write(&Arc::new(batch(3..6))).await.unwrap();
    // An older copy is put in its place, and then something fails.
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&dir.path().join("backup"), &folder);
    transient(sink.write(&Arc::new(batch(6..9))).await);
    let why = fatal(sink.write(&Arc::new(batch(6..9))).await);
    assert!(why.contains("does not hold what this process committed"), "{why}");
}

#[tokio::test]
async fn a_dir_that_is_a_file_is_fatal() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    for path in [file.clone(), file.join("deeper")] {
        let why = fatal(open(FileOptions::new(&path)).await);
        assert!(why.contains(path.join(STREAM).to_str().unwrap()), "{why}");
    }
}

#[tokio::test]
async fn a_foreign_file_where_the_next_segment_belongs_is_put_aside() {
    let dir = TempDir::new().unwrap();
    let options = FileOptions { rotate_bytes: Some(1), ..FileOptions::new(dir.path()) };
    let mut sink = open(options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    let foreign = sink.folder().join("00000000000000000003.ndjson");
    std::fs::write(&foreign, b"{\"offset\":3}\n").unwrap();
    transient(sink.write(&Arc::new(batch(3..6))).await);
    sink.write(&Arc::new(batch(3..6))).await.unwrap();
    assert_eq!(offsets(sink.folder()), [0, 1, 2, 3, 4, 5]);
    let aside = sink.folder().join("00000000000000000003.ndjson.aside");
    assert_eq!(std::fs::read(aside).unwrap(), b"{\"offset\":3}\n");
}
