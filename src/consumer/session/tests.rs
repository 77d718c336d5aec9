//! Where does a consumer begin, by what its source can do?

use std::path::Path;

use super::*;
use crate::consumer::spec::{Begin, OnBad, testing};
use crate::flow::resume::Lost;
use crate::source::scripted::{ABLE, Scripted};
use crate::source::{Abilities, ErrorKind, Event, Source as _};
use crate::types::{ChunkId, StreamName, Timestamp};

/// A transport that only delivers.
const UNABLE: Abilities =
    Abilities { bounds: false, emptiness: false, probes: false, offsets: false };

fn spec(source: &Scripted, start: Start, state_dir: &Path) -> Spec {
    Spec {
        stream: StreamName::from("s"),
        begin: Begin::At(start),
        on_bad: OnBad::Halt,
        source: Arc::new(source.clone()),
        ..testing::spec(state_dir)
    }
}

fn own(remembered: Option<Memory>) -> Own {
    Own { position: None, remembered, anew: None, prefer: Prefer::Replica }
}

/// Three chunks of ten messages.
fn thirty(abilities: Abilities) -> Scripted {
    let scripted = Scripted::new(abilities);
    for written in [100, 200, 300] {
        scripted.publish(&vec![vec![0; 10]; 10], Timestamp(written));
    }
    scripted
}

async fn establish_on(
    scripted: &Scripted,
    start: Start,
    own: Own,
) -> Result<(Subscription, Resumption), SessionError> {
    let state = tempfile::tempdir().unwrap();
    let spec = spec(scripted, start, state.path());
    let operation = spec.operations().connect("read");
    establish(&spec, own, &Budget::new(1 << 20), &operation).await
}

#[tokio::test]
async fn a_beginning_is_stored_before_anything_is_read() {
    for (start, at) in [
        (Start::Next, 30),
        (Start::Last, 20),
        (Start::Timestamp(Timestamp(150)), 10),
        (Start::Offset(Offset(7)), 7),
    ] {
        let scripted = thirty(ABLE);
        let (_, session) = establish_on(&scripted, start, own(None)).await.unwrap();
        assert_eq!(session.plan.wanted, Some(Offset(at)), "{start}");
        let kept = session.plan.begins.is_some();
        assert_eq!(scripted.stored(), kept.then_some(Offset(at - 1)), "{start}");
        assert_eq!(kept, start != Start::Offset(Offset(7)), "an offset means the same for ever");
    }
}

#[tokio::test]
async fn a_source_that_only_delivers_is_asked_what_a_start_means() {
    let scripted = thirty(UNABLE);
    for (start, at) in
        [(Start::First, 0), (Start::Next, 30), (Start::Timestamp(Timestamp(150)), 10)]
    {
        let (_, session) = establish_on(&scripted, start, own(None)).await.unwrap();
        assert_eq!(session.plan.wanted, Some(Offset(at)), "{start}");
        assert!(session.plan.begins.is_some(), "{start}: it is kept");
        // Without an answer: not read, since a later attempt would begin later.
        let silent = Scripted::new(UNABLE);
        let refused = establish_on(&silent, start, own(None)).await.err();
        let kind = match &refused {
            Some(SessionError::Broker(error)) => Some(error.kind()),
            _ => None,
        };
        assert_eq!(kind, Some(ErrorKind::Unavailable), "{start}: {refused:?}");
    }
    let start = Start::Offset(Offset(10));
    let (mut subscription, session) = establish_on(&scripted, start, own(None)).await.unwrap();
    assert_eq!((session.plan, session.stored), (Plan::at(start), None));
    assert_eq!(session.bounds, None, "what is not known is not called empty");
    let Some(Event::Chunk(delivery)) = subscription.next().await else { panic!() };
    let chunk = crate::wire::chunk::Chunk::decode(delivery.chunk).unwrap();
    assert_eq!(chunk.header().first_offset, Offset(10));
}

#[tokio::test]
async fn what_a_source_cannot_store_the_state_file_has() {
    let scripted = thirty(UNABLE);
    let position = Checkpoint { offset: Offset(14), chunk: None };
    let own = own(Some(Memory::Position(position)));
    let (subscription, session) = establish_on(&scripted, Start::First, own).await.unwrap();
    assert_eq!((session.plan.wanted, session.stored), (Some(Offset(15)), Some(Offset(14))));
    let link = subscription.link();
    assert_eq!(
        store(&**link, Offset(20)).await.unwrap(),
        Some(Offset(20)),
        "nothing is in the way"
    );
    assert_eq!(scripted.stored(), None);
    // A source that keeps offsets, and has none, has lost it.
    let lost = establish_on(&thirty(ABLE), Start::First, own).await.err();
    assert!(
        matches!(lost, Some(SessionError::Lost { lost: Lost::Forgotten { .. }, .. })),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_beginning_that_a_source_cannot_store_is_kept_all_the_same() {
    let scripted = thirty(Abilities { offsets: false, ..ABLE });
    let (_, session) = establish_on(&scripted, Start::Next, own(None)).await.unwrap();
    let beginning = session.plan.begins.unwrap();
    assert_eq!((beginning.at, scripted.stored()), (Offset(30), None));
    scripted.publish(&[vec![0; 10]], Timestamp(400));
    let own = own(Some(Memory::Beginning(beginning)));
    let (_, again) = establish_on(&scripted, Start::Next, own).await.unwrap();
    assert_eq!((again.plan.wanted, again.plan.origin), (Some(Offset(30)), Some(Origin::Beginning)));
}

#[tokio::test]
async fn a_beginning_recognises_its_stream_by_the_record_before_it() {
    let scripted = thirty(UNABLE);
    let (_, session) = establish_on(&scripted, Start::Next, own(None)).await.unwrap();
    let beginning = session.plan.begins.unwrap();
    assert_eq!(beginning.behind.map(|record| record.first_offset), Some(Offset(29)));
    let own = own(Some(Memory::Beginning(beginning)));
    let (_, again) = establish_on(&scripted, Start::Next, own).await.unwrap();
    assert_eq!(again.plan.wanted, Some(Offset(30)));

    let another = Scripted::new(UNABLE);
    another.publish(&vec![vec![1; 10]; 40], Timestamp(100));
    let lost = establish_on(&another, Start::Next, own).await.err();
    let is_rewritten = |lost: &Lost| matches!(lost, Lost::Rewritten { position: Offset(29) });
    assert!(
        matches!(&lost, Some(SessionError::Lost { lost, of: Some(Origin::Beginning) }) if is_rewritten(lost)),
        "{lost:?}"
    );
    let shorter = Scripted::new(UNABLE);
    shorter.publish(&[vec![0; 10]], Timestamp(100));
    let doubt = establish_on(&shorter, Start::Next, own).await.err();
    assert!(matches!(doubt, Some(SessionError::Doubt { .. })), "{doubt:?}");
}

#[tokio::test]
async fn a_stored_offset_has_to_be_confirmed() {
    let scripted = thirty(ABLE);
    scripted.set_stored(Some(Offset(14)));
    let (_, session) = establish_on(&scripted, Start::First, own(None)).await.unwrap();
    assert_eq!(session.plan.wanted, Some(Offset(15)));

    scripted.truncate(2);
    let lost = establish_on(&scripted, Start::First, own(None)).await.err();
    assert!(
        matches!(lost, Some(SessionError::Lost { lost: Lost::Evicted { .. }, .. })),
        "{lost:?}"
    );

    scripted.set_stored(Some(Offset(99)));
    let doubt = establish_on(&scripted, Start::First, own(None)).await.err();
    assert!(matches!(doubt, Some(SessionError::Doubt { .. })), "{doubt:?}");

    scripted.cut();
    let missing = establish_on(&Scripted::missing(), Start::First, own(None)).await.err();
    let is_missing = |e: &SourceError| e.kind() == crate::source::ErrorKind::Missing;
    assert!(matches!(&missing, Some(SessionError::Broker(e)) if is_missing(e)), "{missing:?}");
}

#[tokio::test]
async fn no_answer_to_where_the_stream_begins_is_no_loss() {
    let link = thirty(UNABLE).connect(Prefer::Replica).await.unwrap();
    let (from, to) = (Offset(10), Some(Offset(20)));
    let question = Question { from, to, position: None, seen: None };
    let answer = passed(&*link, question, 0).await.err();
    let is_retried = |e: &SourceError| e.kind() == ErrorKind::Unavailable;
    assert!(matches!(&answer, Some(SessionError::Broker(e)) if is_retried(e)), "{answer:?}");
}

#[test]
fn a_stream_gives_the_record_at_a_position_or_begins_behind_it() {
    let id = ChunkId { first_offset: Offset(10), epoch: 1, timestamp: Timestamp(0), crc: 0 };
    let known = Checkpoint { offset: Offset(14), chunk: Some(id) };
    let unknown = Checkpoint { offset: Offset(14), chunk: None };
    let check = |position, given, first: Option<u64>| {
        check_jump(position, Offset(given), first.map(Offset)).is_ok()
    };
    assert!(check(known, 10, Some(0)), "it holds the position");
    assert!(check(known, 20, Some(20)), "retention is done: that is a gap like others");
    assert!(!check(known, 20, Some(0)) && !check(known, 20, Some(14)), "retention is at work");
    assert!(check(unknown, 20, Some(0)), "it may be an offset of the broker's own");
}
