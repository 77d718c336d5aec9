//! Commits of several objects that an earlier process has claimed: what an opening leaves to later, what each
//! attempt does, and what is removed then.

use std::sync::Mutex;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::commit::Object;
use super::committer::look;
use super::remote::Remote;
use super::simulation::{IN_TWO, commit, layout, names, object};
use super::testing::{Disturbed, Interference};
use super::*;
use crate::types::Offset;

/// Writes down each operation, and refuses some.
#[derive(Default)]
struct Watched {
    log: Mutex<Vec<String>>,
    /// An operation, and a part of its key.
    refused: Mutex<Option<(&'static str, String)>>,
}

impl Interference for Watched {
    async fn around<R: Send>(
        &self,
        operation: impl Future<Output = Result<R, SinkError>> + Send,
    ) -> Result<R, SinkError> {
        operation.await
    }

    fn begins(&self, what: &str, key: &str) -> Result<(), SinkError> {
        self.log.lock().unwrap().push(format!("{what} {key}"));
        match &*self.refused.lock().unwrap() {
            Some((refused, part)) if *refused == what && key.contains(part) => {
                Err(SinkError::transient(format!("could not {what} it: refused")))
            }
            _ => Ok(()),
        }
    }
}

type Watching = Arc<Disturbed<Watched>>;

fn watching(memory: &Arc<InMemory>) -> Watching {
    let store: Arc<dyn ObjectStore> = memory.clone();
    let remote = Remote::new(store, "memory:".to_owned(), String::new(), Duration::from_secs(600));
    Arc::new(Disturbed { inner: Arc::new(remote), interference: Watched::default() })
}

fn refuse(store: &Watching, refused: Option<(&'static str, &str)>) {
    let refused = refused.map(|(what, part)| (what, part.to_owned()));
    *store.interference.refused.lock().unwrap() = refused;
}

/// The operations since the last call that begin with this.
fn done(store: &Watching, what: &str) -> Vec<String> {
    let log = std::mem::take(&mut *store.interference.log.lock().unwrap());
    log.into_iter().filter(|line| line.starts_with(what)).collect()
}

async fn take_over(store: &Watching) -> Committer {
    Committer::take_over(store.clone(), names(IN_TWO), layout()).await.unwrap()
}

/// A commit of objects in the folders r=0, r=1 and so on.
fn in_folders(folders: u64) -> Commit {
    let objects = (0..folders).map(|nth| object(&format!("r={nth}"), [nth].into_iter()).unwrap());
    let checkpoint = Checkpoint { offset: Offset(folders - 1), chunk: None };
    Commit::new(objects.collect::<Vec<Object>>(), checkpoint).unwrap()
}

/// Claims a commit, and dies before any of its objects from this one on exists.
async fn claimed(folders: u64, from: u64) -> Arc<InMemory> {
    let memory = Arc::new(InMemory::new());
    let store = watching(&memory);
    let mut dies = take_over(&store).await;
    refuse(&store, Some(("create", &format!("events/r={from}/"))));
    dies.commit(&in_folders(folders)).await.unwrap_err();
    memory
}

fn at(position: Option<Checkpoint>) -> Option<u64> {
    position.map(|at| at.offset.0)
}

/// The broker gives an instance that becomes active less than a minute.
#[tokio::test]
async fn an_opening_leaves_a_claimed_commit_to_the_first_flush() {
    let memory = claimed(3, 0).await;
    let store = watching(&memory);
    let parts: Vec<Part> = serde_json::from_str(r#"["/r"]"#).unwrap();
    let options = ObjectOptions {
        place: Place::Folder("unused".into()),
        format: Format::Ndjson(Packing::Plain),
        partition_by: Some(Partitioning::new(&parts, &mut Vec::new(), 8)),
        rotation: Rotation { records: 9, bytes: 1 << 20, age: Duration::from_secs(300) },
    };
    let whose = || (StreamName::from("events"), Reference::from("archive"));
    let (stream, reference) = whose();
    let mut sink = ObjectSink::on(store.clone(), &options, stream, reference).await.unwrap();
    assert_eq!(at(sink.position().await.unwrap()), Some(2));
    let asked = done(&store, "");
    let is_small = |line: &String| !line.contains("read_whole") && !line.contains(" events/r=");
    assert!(asked.iter().all(is_small), "{asked:?}");
    for (upto, expected) in [(Upto::Claimed, Some(2)), (Upto::Created, None)] {
        let looked = look(&*store, &names(IN_TWO), &layout(), upto).await.unwrap();
        assert_eq!(at(looked), expected, "{upto:?}");
    }
    assert!(sink.flush_at().is_some_and(|at| at <= Instant::now()));
    sink.flush().await.unwrap();
    assert_eq!(sink.flush_at(), None);
    assert_eq!(store.list("events").await.unwrap().len(), 3);
    assert!(!store.any_below(&names(IN_TWO).staged).await.unwrap());
    assert_eq!(at(sink.position().await.unwrap()), Some(2));
}

#[tokio::test]
async fn each_attempt_does_only_what_is_left() {
    let memory = claimed(12, 2).await;
    let store = watching(&memory);
    // Of the first eight, all but one exist: they are sent at the same time.
    assert_eq!(store.list("events").await.unwrap().len(), 7);
    let mut second = take_over(&store).await;
    refuse(&store, Some(("create", "events/r=10/")));
    done(&store, "");
    second.settle().await.unwrap_err();
    let first = done(&store, "");
    let count =
        |lines: &[String], what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count(&first, "read_whole"), 1);
    assert_eq!(count(&first, "digest events/"), 7, "what exists is compared");
    assert_eq!(count(&first, "create events/"), 5, "what does not is sent: {first:?}");
    second.settle().await.unwrap_err();
    let again = done(&store, "");
    let expected = ["exists", "create"];
    assert_eq!(again.len(), 2, "{again:?}");
    for (line, what) in again.iter().zip(expected) {
        assert!(line.starts_with(&format!("{what} events/r=10/")), "{again:?}");
    }
    refuse(&store, None);
    second.settle().await.unwrap();
    assert_eq!(store.list("events").await.unwrap().len(), 12);
}

/// The same for a commit of its own.
#[tokio::test]
async fn a_commit_that_is_repeated_sends_nothing_twice() {
    let store = watching(&Arc::new(InMemory::new()));
    let mut committer = take_over(&store).await;
    refuse(&store, Some(("create", "events/r=1/")));
    let commit = in_folders(3);
    committer.commit(&commit).await.unwrap_err();
    done(&store, "");
    refuse(&store, None);
    committer.commit(&commit).await.unwrap();
    let asked = done(&store, "");
    assert_eq!(asked.len(), 2, "{asked:?}");
    // One whose answer was lost is looked for first.
    assert!(asked[0].starts_with("exists events/r=1/"), "{asked:?}");
    assert!(asked[1].starts_with("create events/r=1/"), "{asked:?}");
    // Nothing of it is believed of the next one.
    committer.commit(&super::simulation::commit(3, 6, true)).await.unwrap();
    assert_eq!(done(&store, "create events/").len(), 2);
}

/// A name that the store never takes.
#[tokio::test]
async fn an_object_that_is_always_refused_is_told_with_a_way_out() {
    let store = watching(&Arc::new(InMemory::new()));
    let mut committer = take_over(&store).await;
    refuse(&store, Some(("create", "events/r=1/")));
    let objects = in_folders(3);
    for attempt in 1..7 {
        let told = committer.commit(&objects).await.unwrap_err().to_string();
        let is_advised = told.contains("the store never takes an object of this name");
        assert_eq!(is_advised, attempt >= 5, "{attempt}: {told}");
        // The first commit of all: the sink has no position to go back to.
        assert_eq!(told.contains("--to offset:0"), attempt >= 5, "{told}");
    }
    // The way out: without a claim, the archive continues at its former position, with other folders.
    let key = names(IN_TWO).checkpoint;
    let (bytes, version) = store.read(&key).await.unwrap().unwrap();
    let mut state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    state["claim"] = serde_json::Value::Null;
    store.swap(&key, Some(&version), state.to_string().into()).await.unwrap();
    for key in store.list("events").await.unwrap() {
        store.remove(&key).await.unwrap();
    }
    let mut next = take_over(&store).await;
    assert_eq!(next.position(), None);
    next.commit(&commit(0, 0, true)).await.unwrap();
    next.settle().await.unwrap();
    assert_eq!(store.list("events").await.unwrap().len(), 1);
    assert!(!store.any_below(&names(IN_TWO).staged).await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_removed_is_tried_again_with_the_next_commit() {
    let store = watching(&Arc::new(InMemory::new()));
    let mut committer = take_over(&store).await;
    refuse(&store, Some(("remove", "")));
    for first in [0, 2, 4] {
        committer.commit(&commit(first, first + 1, true)).await.unwrap();
        committer.settle().await.unwrap();
        // One refusal is enough to know, for the claim and for the settling.
        assert!(done(&store, "remove").len() <= 2);
    }
    let staged = names(IN_TWO).staged;
    assert_eq!(store.list(&staged).await.unwrap().len(), 3);
    refuse(&store, None);
    committer.commit(&commit(6, 7, true)).await.unwrap();
    committer.settle().await.unwrap();
    assert_eq!(store.list(&staged).await.unwrap(), Vec::<String>::new());
}

/// What others have left is removed little by little, after the opening; also if the layout is the former one again.
#[tokio::test]
async fn what_others_have_staged_never_delays_an_opening() {
    let memory = Arc::new(InMemory::new());
    let store = watching(&memory);
    take_over(&store).await.pass_over(Checkpoint { offset: Offset(4), chunk: None }).await.unwrap();
    let staged = names(IN_TWO).staged;
    for nth in 0..120 {
        store.create(&format!("{staged}/{:020}-x-{nth}", 1), "x".into()).await.unwrap();
    }
    let kept = format!("{staged}/{:020}-x-1", 99);
    store.create(&kept, "x".into()).await.unwrap();
    let by_hour = || super::Names { partition_by: None, ..names(IN_TWO) };
    let take_over = || Committer::take_over(store.clone(), by_hour(), layout());
    // The folders have other names, and no object is there yet.
    take_over().await.unwrap();
    done(&store, "");
    let mut committer = take_over().await.unwrap();
    let asked = done(&store, "");
    assert!(!asked.iter().any(|line| line.contains("staged")), "{asked:?}");
    refuse(&store, Some(("remove", "")));
    for _ in 0..3 {
        committer.settle().await.unwrap();
        assert_eq!(done(&store, "remove").len(), 1, "the others would be refused too");
    }
    refuse(&store, None);
    for left in [70, 20, 0, 0] {
        committer.settle().await.unwrap();
        assert_eq!(store.list(&staged).await.unwrap().len(), left + 1);
    }
    assert_eq!(store.list(&staged).await.unwrap(), [kept]);
}
