//! Power losses over a local folder, with commits of one object and of two.

use std::path::Path;

use bytes::Bytes;

use super::commit::{Commit, Object};
use super::committer::Committer;
use super::layout::{Format, Layout, Packing};
use super::local::Local;
use super::store::Digest;
use super::{Names, SinkError, names_in};
use crate::files::testing::Medium;
use crate::types::{Checkpoint, Offset, Reference, StreamName};

const OBJECTS: u64 = 3;

fn the_names() -> Names {
    names_in("events".to_owned(), &StreamName::from("events"), &Reference::from("archive"))
}

fn object(nth: u64, folder: &str) -> Object {
    let bytes = Bytes::from(format!("{nth} {folder}\n"));
    Object {
        folder: folder.to_owned(),
        extension: "ndjson".to_owned(),
        digest: Digest::of(&bytes),
        bytes,
        first_offset: Offset(nth),
        last_offset: Offset(nth),
        records: 1,
    }
}

/// A commit of this many objects.
fn commit(nth: u64, several: usize) -> Commit {
    let folders = ["r=a", "r=b"];
    let objects = folders.iter().take(several).map(|folder| object(nth, folder)).collect();
    Commit::new(objects, Checkpoint { offset: Offset(nth), chunk: None }).unwrap()
}

/// Retries transient errors.
macro_rules! again {
    ($operation:expr) => {{
        let mut left = 5;
        loop {
            match $operation.await {
                Err(SinkError::Transient { .. }) if left > 0 => left -= 1,
                other => break other.unwrap(),
            }
        }
    }};
}

async fn owner(root: &Path) -> Committer {
    let layout = Layout::new(&Format::Ndjson(Packing::Plain), &StreamName::from("events"));
    let layout = layout.unwrap();
    again!(async {
        let store = std::sync::Arc::new(Local::open(root.to_owned()).await?);
        Committer::take_over(store, the_names(), layout.clone()).await
    })
}

fn next(committer: &Committer) -> u64 {
    committer.position().map_or(0, |at| at.offset.0 + 1)
}

/// Writes the missing records, up to `end`.
async fn write(committer: &mut Committer, several: usize, end: u64) {
    while next(committer) < end {
        let commit = commit(next(committer), several);
        again!(committer.commit(&commit));
        if next(committer).is_multiple_of(2) {
            again!(committer.settle());
        }
    }
}

fn visible(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => visible(&path, into),
            false => into.push(std::fs::read_to_string(path).unwrap()),
        }
    }
    into.sort();
}

/// After a power loss everything committed is there, once, and the position agrees with it.
async fn check(root: &Path, several: usize, committed: u64, when: &str) {
    let mut committer = owner(root).await;
    assert!(next(&committer) >= committed, "{when}: stands at {:?}", committer.position());
    write(&mut committer, several, OBJECTS).await;
    let mut found = Vec::new();
    visible(&root.join("events"), &mut found);
    found.retain(|text| !text.is_empty());
    let texts = |nth| ["r=a", "r=b"].into_iter().take(several).map(move |f| format!("{nth} {f}\n"));
    let expected: Vec<String> = (0..OBJECTS).flat_map(texts).collect();
    assert_eq!(found, expected, "{when}");
}

/// Each sync of a folder fails once, and the kernel forgets the unsynced changes; the power
/// fails after each object.
#[tokio::test]
async fn a_power_loss_after_any_failed_sync_takes_nothing_back() {
    for several in [1, 2] {
        let mut tried = 0;
        // Each commit of two takes twice as many syncs, and only the second one differs from the first.
        for committed in if several == 1 { 1..=OBJECTS } else { 2..=2 } {
            for nth in 1.. {
                let dir = tempfile::tempdir().unwrap();
                let medium = Medium::of(dir.path());
                medium.fail(nth);
                let mut committer = owner(dir.path()).await;
                write(&mut committer, several, committed).await;
                if medium.syncs() < nth {
                    break;
                }
                tried += 1;
                medium.lose_power();
                let when = format!("sync {nth}, {committed} commits of {several}");
                check(dir.path(), several, committed, &when).await;
            }
        }
        assert!(tried > 15, "{tried}");
    }
}

/// The sync fails and the process dies at once; another takes over the content of the page
/// cache, and then the power fails.
#[tokio::test]
async fn unsynced_data_of_a_dead_owner_is_not_trusted() {
    for several in [1, 2] {
        let mut tried = 0;
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let medium = Medium::of(dir.path());
            let mut committer = owner(dir.path()).await;
            write(&mut committer, several, 1).await;
            let before = medium.syncs();
            medium.fail(nth);
            let died = match committer.commit(&commit(1, several)).await {
                Ok(()) => committer.settle().await.is_err(),
                Err(_) => true,
            };
            if !died {
                assert!(medium.syncs() - before < nth);
                break;
            }
            tried += 1;
            medium.kill();
            let taken = next(&owner(dir.path()).await);
            medium.lose_power();
            check(dir.path(), several, taken, &format!("sync {nth}, {several}")).await;
        }
        assert!(tried >= 3, "{tried}");
    }
}
