//! The sqlite sink in adverse conditions: other writers, files that vanish, full disks, kills.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use tempfile::TempDir;

use super::tests::{Place, REFERENCE, offsets, open};
use super::*;
use crate::sink::conformance::{STREAM, batch};
use crate::sink::testing::{child, child_dir, fatal, fill, on_a_small_file_system, transient};

#[tokio::test]
async fn a_locked_database_is_waited_for() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    let other = Connection::open(&place.options.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let next = Arc::new(batch(0..3));
    for _ in 0..2 {
        let why = transient(sink.write(&next).await);
        assert!(why.contains("locked") && why.contains("Another program"), "{why}");
    }
    transient(open(&place.options).await);
    other.execute_batch("COMMIT").unwrap();
    sink.write(&next).await.unwrap();
    // A reader blocks nobody, however long it reads.
    other.execute_batch("BEGIN; SELECT * FROM events").unwrap();
    sink.write(&Arc::new(batch(3..5))).await.unwrap();
    assert_eq!(offsets(&place.options), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn the_second_process_takes_over_and_the_first_writes_nothing_more() {
    let place = Place::new();
    let mut first = open(&place.options).await.unwrap();
    first.write(&Arc::new(batch(0..3))).await.unwrap();
    let mut second = open(&place.options).await.unwrap();
    assert_eq!(second.position().await.unwrap(), Some(batch(0..3).checkpoint()));
    for _ in 0..2 {
        let why = fatal(first.write(&Arc::new(batch(3..5))).await);
        assert!(
            why.contains("took over") && why.contains(&std::process::id().to_string()),
            "{why}"
        );
    }
    second.write(&Arc::new(batch(3..6))).await.unwrap();
    fatal(first.write(&Arc::new(batch(3..5))).await);
    fatal(first.restart().await);
    assert_eq!(offsets(&place.options), (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_changed_position_is_not_used() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    place.ask("UPDATE rillway_positions SET \"offset\" = 1");
    let why = fatal(sink.write(&Arc::new(batch(3..4))).await);
    assert!(why.contains("offset 1 instead of offset 2"), "{why}");
    place.ask("DELETE FROM rillway_positions");
    let why = fatal(sink.write(&Arc::new(batch(3..4))).await);
    assert!(why.contains("its row was removed"), "{why}");
    assert_eq!(offsets(&place.options), [0, 1, 2]);
}

#[tokio::test]
async fn a_file_that_is_gone_is_missed_and_found_again() {
    let place = Place::new();
    let (path, folder) = (&place.options.path, place.dir.path().join("a"));
    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();

    let away = place.dir.path().join("away");
    std::fs::rename(&folder, &away).unwrap();
    let next = Arc::new(batch(3..5));
    for _ in 0..2 {
        let why = transient(sink.write(&next).await);
        assert!(why.contains(path.to_str().unwrap()), "{why}");
        assert!(!path.exists(), "a new database was made in place of the missing one");
    }
    std::fs::rename(&away, &folder).unwrap();
    sink.write(&next).await.unwrap();
    assert_eq!(offsets(&place.options), [0, 1, 2, 3, 4]);

    // Another file in its place, beside the log of the former one.
    let copy = place.dir.path().join("copy.db");
    Connection::open(&copy).unwrap().execute_batch("CREATE TABLE x (a)").unwrap();
    std::fs::rename(&copy, path).unwrap();
    for _ in 0..2 {
        let why = fatal(sink.write(&Arc::new(batch(5..6))).await);
        assert!(why.contains("was replaced") && why.contains("b.db-wal"), "{why}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_missed() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    std::fs::remove_file(place.dir.path().join("a/b.db-wal")).unwrap();
    let why = transient(sink.write(&Arc::new(batch(3..5))).await);
    assert!(why.contains("b.db-wal"), "{why}");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_to_have_come_through() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    let next = Arc::new(batch(3..8));
    for came_through in [true, false] {
        // As after a failure in COMMIT or after it.
        let doubted = Arc::clone(&next);
        sink.run(move |writer| writer.doubt(&doubted, came_through)).await.unwrap();
        if !came_through {
            break;
        }
        sink.write(&next).await.unwrap();
        assert_eq!(sink.position().await.unwrap(), Some(next.checkpoint()));
        assert_eq!(offsets(&place.options), (0..8).collect::<Vec<_>>());
        assert!(fatal(sink.write(&next).await).contains("internal error"), "it came a third time");
    }
    let why = fatal(sink.write(&Arc::new(batch(8..9))).await);
    assert!(why.contains("instead of"), "{why}");
}

#[tokio::test]
async fn what_is_no_database_or_a_damaged_one_is_fatal() {
    let place = Place::new();
    let folder = place.dir.path().join("a");
    std::fs::create_dir(&folder).unwrap();
    let path = &place.options.path;
    std::fs::write(path, "these are not the bytes that you are looking for".repeat(100)).unwrap();
    let why = fatal(open(&place.options).await);
    assert!(why.contains("not a database") && why.contains(path.to_str().unwrap()), "{why}");
    assert!(fatal(examine(&place.options, &STREAM.into(), &REFERENCE.into())).contains("b.db"));
    std::fs::remove_file(path).unwrap();

    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(0..2_000))).await.unwrap();
    sink.close().await.unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8_192..].fill(0x5A);
    std::fs::write(path, bytes).unwrap();
    let why = fatal(open(&place.options).await);
    assert!(why.contains("malformed") && why.contains("backup"), "{why}");

    let elsewhere = SqliteOptions { path: folder, ..place.options.clone() };
    assert!(fatal(open(&elsewhere).await).contains("it is a folder"));
    let below = SqliteOptions { path: path.join("x.db"), ..place.options.clone() };
    fatal(open(&below).await);
}

#[tokio::test]
async fn a_full_file_system_is_transient_and_a_read_only_one_fatal() {
    let test = "a_full_file_system_is_transient_and_a_read_only_one_fatal";
    let Some(dir) = on_a_small_file_system(&format!("sqlite::fault_tests::{test}"), "8m") else {
        return;
    };
    let options = SqliteOptions::new(dir.join("x.db"), &STREAM.into());
    let mut sink = open(&options).await.unwrap();
    sink.write(&Arc::new(batch(0..100))).await.unwrap();
    let ballast = dir.join("ballast");
    fill(&ballast);
    let large = Arc::new(batch(100..40_000));
    for _ in 0..3 {
        let why = transient(sink.write(&large).await);
        assert!(why.contains("x.db"), "{why}");
        eprintln!("full: {why}");
    }
    std::fs::remove_file(&ballast).unwrap();
    // Larger than the whole file system: it fails in the middle of the batch.
    let why = transient(sink.write(&Arc::new(batch(100..400_000))).await);
    assert!(why.contains("full"), "{why}");
    assert_eq!(offsets(&options), (0..100).collect::<Vec<_>>());
    sink.write(&large).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(offsets(&options), (0..40_000).collect::<Vec<_>>());

    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&dir).status().unwrap();
    assert!(remounted.success());
    let why = fatal(open(&options).await);
    assert!(why.contains("Let the user that rillway runs as write"), "{why}");
}

/// Writes batches from its position on until it is killed, and prints what was acknowledged.
async fn write_until_killed(options: &SqliteOptions) {
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
    let options = |dir: &Path| SqliteOptions::new(dir.join("x.db"), &STREAM.into());
    if let Some(dir) = child_dir() {
        write_until_killed(&options(&dir)).await;
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    let mut acknowledged = None;
    for _ in 0..12 {
        let mut child =
            child("sqlite::fault_tests::kill_9_under_load_loses_and_repeats_nothing", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after this many acknowledgements, and a random moment more.
        let (mut left, more) = (random.usize(0..8), random.u32(0..400_000));
        loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(offset) = line.strip_prefix("acknowledged ") {
                acknowledged = Some(offset.parse::<u64>().unwrap());
                left = left.saturating_sub(1);
            }
            if left == 0 && (line == "open" || line.starts_with("acknowledged ")) {
                break;
            }
        }
        (0..more).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut sink = open(&options(dir.path())).await.unwrap();
    let reached = sink.position().await.unwrap().map(|at| at.offset.0);
    assert!(reached >= acknowledged && acknowledged.is_some(), "{reached:?} < {acknowledged:?}");
    let expected: Vec<u64> = (0..=reached.unwrap()).collect();
    assert!(offsets(&options(dir.path())) == expected, "lost or repeated up to {reached:?}");
}
