//! What is seen and planned against a stream in memory: of one that was created again, of one that grows meanwhile,
//! and under a reference that was renamed meanwhile.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Barrier;

use super::super::spec::{Begin, testing};
use super::super::state_file::Renamed;
use super::*;
use crate::flow::beginning::Beginning;
use crate::sink::SinkError;
use crate::sink::factory::renames;
use crate::source::Source;
use crate::source::scripted::{ABLE, Scripted};
use crate::types::{ConsumerName, Reference, StreamName, Timestamp};

fn publish(stream: &Scripted, chunks: usize, written: i64) {
    (0..chunks).for_each(|_| stream.publish(&vec![vec![0; 10]; 10], Timestamp(written)));
}

/// A consumer that keeps nothing but its state file and the offset on the broker.
fn subject(source: impl Source + 'static, reference: &str, state_dir: &Path) -> Subject {
    let spec = Spec {
        stream: StreamName::from("s"),
        reference: Reference::from(reference),
        begin: Begin::At(Start::First),
        source: Arc::new(source),
        ..testing::spec(state_dir)
    };
    Subject {
        spec: Arc::new(spec),
        sink: Arc::new(|| Box::pin(async { Err(SinkError::Fatal("keeps no position".into())) })),
        look: Arc::new(|| Box::pin(async { Ok(None) })),
        renaming: renames(|_| async { Ok(()) }),
        renames: false,
        keeps_position: false,
    }
}

/// The same, of another stream.
fn on(stream: &str, subject: Subject) -> Subject {
    let spec = Spec { stream: StreamName::from(stream), ..Spec::clone(&subject.spec) };
    Subject { spec: Arc::new(spec), ..subject }
}

/// Moved to this offset, and so with the identity of what is before it.
async fn moved(subject: &Subject, at: u64) {
    let to = plan(subject, Target::To(Start::Offset(Offset(at)))).await.unwrap().to;
    assert!(to.behind.is_some());
    let ready = Ready::prepare(vec![(subject.clone(), to)]).await;
    ready.unwrap_or_else(|why| panic!("{why}")).carry_out().await.unwrap();
}

fn report(planned: &Planned) -> Report {
    let key = (&ConsumerName::from("c"), &StreamName::from("s"));
    Report::of(key, planned, "are printed again", false)
}

/// By its counters, the other stream could be the same.
#[tokio::test]
async fn a_stream_that_was_created_again_is_no_longer_where_it_was() {
    let state = tempfile::tempdir().unwrap();
    let stream = Scripted::new(ABLE);
    publish(&stream, 3, 100);
    moved(&subject(stream.clone(), "c", state.path()), 15).await;
    assert_eq!(
        see(&subject(stream, "c", state.path())).await.unwrap().next_offset(),
        Some(Offset(15))
    );

    let another = Scripted::new(ABLE);
    publish(&another, 4, 900);
    another.set_stored(Some(Offset(14)));
    let there = subject(another, "c", state.path());
    // What a move has left is a beginning: of another stream, everything is read.
    let seen = see(&there).await.unwrap();
    assert_eq!(seen.next, Next::From("the first message".to_owned()));
    let planned = plan(&there, Target::To(Start::Offset(Offset(10)))).await.unwrap();
    assert!(report(&planned).may_skip());

    // Once a message was durable, it is a position.
    let file = StateFile::of(&there.spec);
    let chunk = seen.memory.and_then(|memory| memory.beginning()?.behind);
    assert!(chunk.is_some());
    file.write(Memory::Position(Checkpoint { offset: Offset(14), chunk })).unwrap();
    let seen = see(&there).await.unwrap();
    assert!(matches!(&seen.next, Next::Halt(why) if why.contains("created again")), "{seen:?}");
    // Even a move back leaves out what the other stream has before it.
    let planned = plan(&there, Target::To(Start::Offset(Offset(10)))).await.unwrap();
    assert!(report(&planned).may_skip());
}

/// A stream of which the replicas show less than the leader.
#[derive(Debug)]
struct Behind {
    replica: Scripted,
    leader: Scripted,
}

#[async_trait]
impl Source for Behind {
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        match prefer {
            Prefer::Replica => self.replica.connect(prefer).await,
            Prefer::Leader => self.leader.connect(prefer).await,
        }
    }
}

#[tokio::test]
async fn what_only_the_leader_has_is_not_skipped_without_consent() {
    let state = tempfile::tempdir().unwrap();
    let (replica, leader) = (Scripted::new(ABLE), Scripted::new(ABLE));
    publish(&replica, 2, 100);
    publish(&leader, 3, 100);
    replica.set_stored(Some(Offset(19)));
    let subject = subject(Behind { replica, leader }, "c", state.path());
    let planned = plan(&subject, Target::To(Start::Next)).await.unwrap();
    let report = report(&planned);
    assert_eq!((report.from_offset, report.to_offset), (Some(Offset(20)), Offset(30)));
    assert_eq!(report.skipped.map(|range| (range.messages, range.is_exact)), Some((10, true)));
    assert!(report.may_skip());
}

/// It was looked up before the rename, and is moved after it.
#[tokio::test]
async fn a_reference_that_was_renamed_meanwhile_is_not_moved() {
    let state = tempfile::tempdir().unwrap();
    let stream = Scripted::new(ABLE);
    publish(&stream, 3, 100);
    let subject = subject(stream.clone(), "c", state.path());
    let to = Beginning { at: Offset(10), behind: None, instead_of: None, moved: None };
    let file = StateFile::of(&subject.spec);
    let other = || Some(Reference::from("other"));
    for renamed in [
        Renamed { renamed_to: other(), ..Renamed::default() },
        Renamed { renamed_from: other(), ..Renamed::default() },
    ] {
        file.write_all(Memory::Beginning(to), renamed.clone()).unwrap();
        let before = file.read_all().unwrap();
        let ready = Ready::prepare(vec![(subject.clone(), to)]).await;
        let told = ready.err().map(|why| why.to_string()).unwrap_or_default();
        assert!(told.contains("rename") && told.contains("\"other\""), "{renamed:?}: {told}");
        assert_eq!((file.read_all().unwrap(), stream.stored()), (before, None));
    }
}

/// Another program has the name: the broker holds its offset, and no state file knows of it.
#[tokio::test]
async fn a_name_that_another_program_has_is_not_taken() {
    let state = tempfile::tempdir().unwrap();
    let stream = Scripted::new(ABLE);
    publish(&stream, 3, 100);
    let old = subject(stream.clone(), "c", state.path());
    moved(&old, 15).await;
    // In memory, all references share the one stored offset.
    let new = subject(stream.clone(), "d", state.path());
    let told = Renames::plan(vec![Rename { old: old.clone(), new: new.clone() }]).await.err();
    let told = told.map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(told.contains("holds offset 14 for reference \"d\""), "{told}");
    stream.set_stored(None);
    // And its own, which is now lost, is not replaced by `start`.
    let told = Renames::plan(vec![Rename { old, new }]).await.err();
    let told = told.map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(told.contains("and then rename it"), "{told}");
}

/// From `c` to `d`, and from there to `e`: who repeats the first command does not open `d` again.
#[tokio::test]
async fn a_name_that_was_renamed_since_stays_closed() {
    let state = tempfile::tempdir().unwrap();
    let stream = Scripted::new(ABLE);
    publish(&stream, 3, 100);
    let of = |name: &str| subject(stream.clone(), name, state.path());
    let at = Beginning { at: Offset(10), behind: None, instead_of: None, moved: None };
    for (name, to) in [("c", "d"), ("d", "e")] {
        let renamed = Renamed { renamed_to: Some(Reference::from(to)), ..Renamed::default() };
        StateFile::of(&of(name).spec).write_all(Memory::Beginning(at), renamed).unwrap();
    }
    let told = Renames::plan(vec![Rename { old: of("c"), new: of("d") }]).await.err();
    let told = told.map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(told.contains("\"d\" was renamed to \"e\""), "{told}");
}

/// A stream of which so many connections, of all that share the number, wait for another one.
#[derive(Debug)]
struct Paired {
    stream: Scripted,
    waits: Arc<AtomicU64>,
    both: Arc<Barrier>,
}

#[async_trait]
impl Source for Paired {
    async fn connect(&self, prefer: Prefer) -> Result<Arc<dyn Link>, SourceError> {
        let less = |left: u64| left.checked_sub(1);
        if self.waits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            self.both.wait().await;
        }
        self.stream.connect(prefer).await
    }
}

/// One that has a position, and one that has none: both are locked before anything is decided, and the sink of the
/// second, of which no state file speaks, is renamed first.
#[tokio::test]
async fn streams_are_renamed_together() {
    let state = tempfile::tempdir().unwrap();
    let (waits, both) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(2)));
    let renamed = Arc::new(Mutex::new(Vec::new()));
    let of = |name: &'static str| {
        let stream = Scripted::new(ABLE);
        publish(&stream, 3, 100);
        let (waits, both) = (Arc::clone(&waits), Arc::clone(&both));
        let paired = Paired { stream: stream.clone(), waits, both };
        let old = on(name, subject(paired, "c", state.path()));
        let renamed = Arc::clone(&renamed);
        let renaming = renames(move |former| {
            if !former.is_trial {
                renamed.lock().unwrap().push(name);
            }
            async { Ok(()) }
        });
        Rename { old, new: Subject { renaming, ..on(name, subject(stream, "d", state.path())) } }
    };
    let (begun, new) = (of("begun"), of("new"));
    let at = Beginning { at: Offset(0), behind: None, instead_of: None, moved: None };
    let files = [&begun.old, &begun.new].map(|one| StateFile::of(&one.spec));
    files[0].write(Memory::Beginning(at)).unwrap();
    let renames = Renames::plan(vec![begun, new]).await.unwrap();
    waits.store(2, Ordering::Relaxed);
    let renaming = renames.carry_out(|| Ok(()));
    let carried = tokio::time::timeout(Duration::from_secs(60), renaming).await;
    carried.expect("one waits for the other to be locked").unwrap();
    assert_eq!(*renamed.lock().unwrap(), ["new", "begun"]);
    assert!(files[0].read().unwrap_err().to_string().contains("renamed to \"d\""));
    assert_eq!(files[1].read_all().unwrap(), Some((Memory::Beginning(at), Renamed::default())));
}
