use std::time::Instant;

use super::*;
use crate::flow::beginning::Moved;

fn chunk(first: u64) -> ChunkId {
    ChunkId { first_offset: Offset(first), epoch: 1, timestamp: Timestamp(7), crc: 9 }
}

fn extent(id: ChunkId, records: u32) -> ChunkExtent {
    ChunkExtent { id, records }
}

fn at(offset: u64, first: u64) -> Checkpoint {
    Checkpoint { offset: Offset(offset), chunk: Some(chunk(first)) }
}

fn began(at: u64) -> Beginning {
    Beginning { at: Offset(at), behind: None, instead_of: None, moved: None }
}

fn stream(first: u64) -> Known {
    Known { own: None, stored: None, remembered: None, stream_first: Some(Offset(first)) }
}

fn remembering(beginning: Beginning, first: u64) -> Known {
    Known { remembered: Some(Memory::Beginning(beginning)), ..stream(first) }
}

#[test]
fn the_sink_goes_before_the_broker_and_the_broker_before_the_start() {
    let known = Known { own: Some((Origin::Sink, at(7, 5))), stored: Some(Offset(3)), ..stream(0) };
    let plan = Plan::resume(stand(&known).unwrap());
    assert_eq!((plan.wanted, plan.origin), (Some(Offset(8)), Some(Origin::Sink)));
    assert_eq!(plan.subscribe, Start::Offset(Offset(7)));

    let standing = stand(&Known { own: None, ..known }).unwrap();
    assert_eq!((standing.wanted(), standing.origin()), (Some(Offset(4)), Some(Origin::Broker)));
    assert_eq!(stand(&stream(0)), Ok(Standing::New));
}

#[test]
fn stored_zero_resumes_at_one() {
    let standing = stand(&Known { stored: Some(Offset(0)), ..stream(0) });
    assert_eq!(standing.unwrap().wanted(), Some(Offset(1)));
}

#[test]
fn evicted_only_where_the_next_offset_is_gone() {
    let stored = |offset| Known { stored: Some(Offset(offset)), ..stream(100) };
    assert!(stand(&stored(99)).is_ok());
    assert_eq!(stand(&stored(98)), Err(Lost::Evicted { wanted: Offset(99), first: Offset(100) }));
}

#[test]
fn forgotten_is_not_new() {
    let known = Known { remembered: Some(Memory::Position(at(50, 40))), ..stream(100) };
    assert_eq!(stand(&known), Err(Lost::Forgotten { remembered: Offset(50) }));
}

#[test]
fn a_beginning_counts_until_something_was_stored() {
    let known = remembering(began(50), 0);
    let mirrored = Known { stored: Some(Offset(49)), ..known };
    assert_eq!(stand(&mirrored), Ok(Standing::Beginning(began(50))));
    let plan = Plan::resume(stand(&mirrored).unwrap());
    assert_eq!((plan.subscribe, plan.wanted), (Start::Offset(Offset(49)), Some(Offset(50))));
    assert_eq!((plan.origin, plan.begins), (Some(Origin::Beginning), None));
    // More was stored since, or somebody set it back.
    for stored in [30, 80] {
        let standing = stand(&Known { stored: Some(Offset(stored)), ..known }).unwrap();
        assert_eq!(standing.origin(), Some(Origin::Broker));
        assert_eq!(standing.wanted(), Some(Offset(stored + 1)));
    }
    let own = |offset| Known { own: Some((Origin::Sink, at(offset, 30))), ..mirrored };
    assert_eq!(stand(&own(60)).unwrap().origin(), Some(Origin::Sink));
    assert_eq!(stand(&own(40)), Ok(Standing::Beginning(began(50))), "what a policy let pass");
}

#[test]
fn a_beginning_whose_mirror_is_gone() {
    let gone = |first| stand(&remembering(began(50), first));
    assert_eq!(gone(10), Err(Lost::Forgotten { remembered: Offset(49) }));
    assert_eq!(gone(50), Ok(Standing::Beginning(began(50))), "retention evicted it, and no more");
    assert_eq!(gone(51), Err(Lost::Evicted { wanted: Offset(50), first: Offset(51) }));
    let empty = Known { stream_first: None, ..remembering(began(50), 0) };
    assert_eq!(stand(&empty), Ok(Standing::Beginning(began(50))), "the stream's end decides");
    let zero = stand(&remembering(began(0), 0)).unwrap();
    assert_eq!(Plan::resume(zero).subscribe, Start::Offset(Offset(0)));
    assert_eq!(stand(&remembering(began(0), 3)).unwrap_err().messages(), 3);
}

#[test]
fn a_beginning_that_replaces_a_stored_offset_goes_before_it() {
    let anew = Beginning { instead_of: Some(at(19, 0)), ..began(0) };
    let stored = |offset| stand(&Known { stored: Some(Offset(offset)), ..remembering(anew, 0) });
    assert_eq!(stored(19), Ok(Standing::Beginning(anew)));
    assert_eq!(stored(25).unwrap().origin(), Some(Origin::Broker));
}

/// What a move replaces counts for nothing, whatever of it is moved already; what was reached since counts.
#[test]
fn a_move_counts_from_its_state_file_on() {
    for to in [0, 1, 50, 300] {
        let over = Some(Offset(90));
        let moving = Beginning {
            instead_of: Some(at(100, 95)),
            moved: Some(Moved { over, sink_is_behind: true }),
            ..began(to)
        };
        let known = |own: Option<u64>, stored: Option<u64>, moving| Known {
            own: own.map(|offset| (Origin::Sink, at(offset, 95))),
            stored: stored.map(Offset),
            ..remembering(moving, 0)
        };
        // Nothing of it is moved, then the sink, then the broker's offset; in any order.
        let before = to.checked_sub(1);
        for own in [Some(100), before, None] {
            for stored in [Some(90), before.or(Some(90))] {
                let standing = stand(&known(own, stored, moving));
                assert_eq!(standing, Ok(Standing::Beginning(moving)), "{to} {own:?} {stored:?}");
            }
        }
        // A sink without a position, and a reference without a stored offset.
        let new = Beginning {
            instead_of: None,
            moved: Some(Moved { over: None, sink_is_behind: false }),
            ..began(to)
        };
        assert_eq!(stand(&known(None, None, new)), Ok(Standing::Beginning(new)));
        let reached = stand(&known(None, Some(to + 7), new)).unwrap();
        assert_eq!(reached.wanted(), Some(Offset(to + 8)));
    }
}

#[test]
fn counters_can_confirm_a_position_but_never_refute_it() {
    let position = at(100, 95);
    assert_eq!(confirm(position, Evidence::Nothing), Ok(()));
    let no_chunk = |last| confirm(position, Evidence::NoChunk(last));
    let doubt = |last| Err(Unconfirmed::Doubt(Doubt { position: Offset(100), last }));
    assert_eq!(no_chunk(None), doubt(None));
    assert_eq!(no_chunk(Some(extent(chunk(80), 10))), doubt(Some(Offset(89))));
}

#[test]
fn the_chunk_that_is_there_decides() {
    let past =
        Lost::PastEnd { position: Offset(100), last: Some(Offset(89)), is_another_log: false };
    let position = at(100, 95);
    let came = |chunk, records| confirm(position, Evidence::Chunk(extent(chunk, records)));
    assert_eq!(came(chunk(95), 10), Ok(()));
    assert_eq!(came(chunk(80), 10), Err(past.into()));
    let other = ChunkId { crc: 1, ..chunk(95) };
    assert_eq!(came(other, 10), Err(Lost::Rewritten { position: Offset(100) }.into()));
    // No chunk for the position, but a last one that cannot come before the one that was read.
    let no_chunk = |position, last| confirm(position, Evidence::NoChunk(Some(last)));
    for earlier in
        [ChunkId { epoch: 2, ..chunk(80) }, ChunkId { timestamp: Timestamp(8), ..chunk(80) }]
    {
        let another =
            Lost::PastEnd { position: Offset(100), last: Some(Offset(89)), is_another_log: true };
        assert_eq!(no_chunk(position, extent(earlier, 10)), Err(another.into()));
    }
    let shorter = no_chunk(position, extent(other, 2));
    assert!(matches!(shorter, Err(Unconfirmed::Lost(_))), "the same place, another chunk");
    // A record shows neither an epoch nor a time by the leader's clock.
    let record = |id| ChunkId { epoch: ChunkId::epoch_of_record(1), ..id };
    for (known, last) in [(chunk(95), record(chunk(80))), (record(chunk(95)), record(chunk(80)))] {
        let position = Checkpoint { chunk: Some(known), ..position };
        let of_records = no_chunk(position, extent(last, 1));
        assert!(matches!(of_records, Err(Unconfirmed::Doubt(_))), "{of_records:?}");
    }
    let unknown = Checkpoint { chunk: None, ..position };
    let later = ChunkId { timestamp: Timestamp(8), ..chunk(80) };
    assert!(matches!(no_chunk(unknown, extent(later, 10)), Err(Unconfirmed::Doubt(_))));
}

#[test]
fn only_doubt_without_a_break_becomes_a_loss() {
    let t0 = Instant::now();
    let mut doubts = Doubts::default();
    assert!(!doubts.lasted(t0));
    assert!(!doubts.lasted(t0 + DOUBT_MAX - Duration::from_secs(1)));
    doubts.interrupted();
    assert!(!doubts.lasted(t0 + DOUBT_MAX));
    assert!(doubts.lasted(t0 + 2 * DOUBT_MAX));
    // A stream that was not there, and is there again, without the position.
    doubts.missing();
    doubts.interrupted();
    assert!(!doubts.lasted(t0));
    assert!(doubts.lasted(t0 + DOUBT_OF_ANOTHER_MAX));
    doubts.clear();
    assert!(!doubts.lasted(t0) && !doubts.lasted(t0 + DOUBT_OF_ANOTHER_MAX));
}

#[test]
fn the_first_chunk_confirms_the_position_or_not() {
    let other = ChunkId { crc: 1, ..chunk(5) };
    assert_eq!(verify(at(7, 5), extent(chunk(5), 10)), Ok(()));
    assert_eq!(verify(at(7, 5), extent(chunk(8), 10)), Ok(()), "the position's own chunk is gone");
    let rewritten = Err(Lost::Rewritten { position: Offset(7) });
    assert_eq!(verify(at(7, 5), extent(other, 10)), rewritten);
    let unknown = Checkpoint { offset: Offset(7), chunk: None };
    assert_eq!(verify(unknown, extent(other, 10)), Ok(()));
    assert_eq!(
        verify(at(70, 65), extent(chunk(5), 10)),
        Err(Lost::PastEnd { position: Offset(70), last: Some(Offset(14)), is_another_log: false })
    );
}

#[test]
fn a_start_is_shown_as_a_place() {
    let at = Start::Timestamp(Timestamp(4_070_908_800_000));
    assert_eq!(at.to_string(), "the first chunk written at 2099-01-01T00:00:00Z or later");
    assert_eq!(Start::Next.to_string(), "what is published next");
}

/// Only the leader's end is the stream's end; a chunk of another log is proof, whoever has it.
#[test]
fn an_end_that_is_too_low_is_believed_from_any_member_only_with_a_chunk_of_another_log() {
    let position = at(70, 65);
    let lost = |evidence| match confirm(position, evidence).unwrap_err() {
        Unconfirmed::Lost(lost) => lost,
        Unconfirmed::Doubt(doubt) => doubt.into(),
    };
    let newer = ChunkId { epoch: chunk(5).epoch + 1, ..chunk(5) };
    for (last, is_proved) in [(chunk(5), false), (newer, true)] {
        for evidence in
            [Evidence::Chunk(extent(last, 10)), Evidence::NoChunk(Some(extent(last, 10)))]
        {
            assert_eq!(lost(evidence).is_proved_by_any_member(), is_proved, "{evidence:?}");
        }
    }
    assert!(!lost(Evidence::NoChunk(None)).is_proved_by_any_member());
}
