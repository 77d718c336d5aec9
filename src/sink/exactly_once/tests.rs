//! Each verdict of the module's table, one by one.

use super::*;

fn at(offset: u64) -> Option<Checkpoint> {
    Some(Checkpoint { offset: Offset(offset), chunk: None })
}

fn in_doubt(known: Option<Checkpoint>, to: Option<Checkpoint>) -> PositionTracker {
    let mut tracker = PositionTracker::starting_at(known);
    tracker.committing(to);
    tracker
}

/// Reads a row that holds `found`; whether a commit in doubt was found to count.
fn read(tracker: &mut PositionTracker, found: Option<Checkpoint>) -> Result<bool, PositionMoved> {
    let compared = tracker.compare(found)?;
    let landed = compared.has_landed();
    tracker.resume(compared);
    Ok(landed)
}

fn before_write(tracker: &mut PositionTracker, first: u64, last: u64) -> BeforeWrite {
    tracker.before_write(Offset(first), at(last).unwrap())
}

#[test]
fn the_row_is_read_before_anything_is_written() {
    for mut tracker in [PositionTracker::default(), in_doubt(at(2), at(5)), in_doubt(at(2), None)] {
        assert!(tracker.must_read_row());
        assert_eq!(before_write(&mut tracker, 3, 5), BeforeWrite::ReadRow);
    }
    let mut fresh = PositionTracker::default();
    assert_eq!(read(&mut fresh, at(7)), Ok(false));
    assert_eq!(fresh.committed(), at(7));
    assert_eq!(before_write(&mut fresh, 8, 9), BeforeWrite::Write);
}

#[test]
fn a_commit_that_did_not_count_is_written_again() {
    let mut tracker = in_doubt(at(2), at(5));
    assert_eq!(read(&mut tracker, at(2)), Ok(false));
    assert_eq!(before_write(&mut tracker, 3, 5), BeforeWrite::Write);
}

#[test]
fn a_commit_that_counted_is_answered_for_once() {
    let mut tracker = in_doubt(at(2), at(5));
    assert_eq!(read(&mut tracker, at(5)), Ok(true));
    // Another lost connection changes nothing.
    assert_eq!(read(&mut tracker, at(5)), Ok(false));
    assert_eq!(tracker.committed(), at(5));
    assert_eq!(before_write(&mut tracker, 3, 5), BeforeWrite::AlreadyCommitted);
    assert_eq!(before_write(&mut tracker, 3, 5), BeforeWrite::Overlaps(at(5).unwrap()));
    assert_eq!(before_write(&mut tracker, 6, 6), BeforeWrite::Write);
}

#[test]
fn a_landed_commit_answers_for_no_other_batch() {
    for (first, last, expected) in
        [(6, 7, BeforeWrite::Write), (3, 7, BeforeWrite::Overlaps(at(5).unwrap()))]
    {
        let mut tracker = in_doubt(at(2), at(5));
        assert_eq!(read(&mut tracker, at(5)), Ok(true));
        assert_eq!(before_write(&mut tracker, first, last), expected);
        assert_ne!(before_write(&mut tracker, 3, 5), BeforeWrite::AlreadyCommitted);
    }
}

#[test]
fn a_reset_forgets_the_position_and_what_landed() {
    let mut tracker = in_doubt(at(2), at(5));
    assert_eq!(read(&mut tracker, at(5)), Ok(true));
    tracker.committing(None);
    assert_eq!(read(&mut tracker, None), Ok(true));
    assert_eq!(before_write(&mut tracker, 0, 5), BeforeWrite::Write);
    // One that did not count is repeated, and repeating it is no harm.
    let mut tracker = in_doubt(at(2), None);
    assert_eq!(read(&mut tracker, at(2)), Ok(false));
    tracker.committing(None);
    tracker.confirmed();
    tracker.committing(None);
    assert_eq!(read(&mut tracker, None), Ok(false));
    assert_eq!(tracker.committed(), None);
}

#[test]
fn a_position_that_this_sink_did_not_leave_is_refused() {
    let landed = || {
        let mut tracker = in_doubt(at(1), at(2));
        assert_eq!(read(&mut tracker, at(2)), Ok(true));
        tracker
    };
    let trackers = [PositionTracker::starting_at(at(2)), in_doubt(at(2), at(5)), landed()];
    for tracker in trackers {
        for found in [None, at(0), at(3), at(6)] {
            let moved = PositionMoved { found, committed: at(2) };
            assert_eq!(tracker.compare(found), Err(moved), "{tracker:?}");
        }
    }
}

#[test]
fn a_refused_commit_leaves_the_position() {
    let mut tracker = in_doubt(at(2), at(5));
    tracker.rolled_back();
    assert_eq!(tracker.committed(), at(2));
    assert_eq!(before_write(&mut tracker, 3, 5), BeforeWrite::Write);
    // Without a commit there is nothing to confirm.
    tracker.confirmed();
    assert_eq!(tracker.committed(), at(2));
}

#[test]
fn the_same_offset_in_another_chunk_is_another_position() {
    use crate::types::{ChunkId, Timestamp};
    let chunk = |crc| ChunkId { first_offset: Offset(0), epoch: 1, timestamp: Timestamp(9), crc };
    let found = |crc| Some(Checkpoint { offset: Offset(2), chunk: Some(chunk(crc)) });
    let tracker = PositionTracker::starting_at(found(1));
    assert!(tracker.compare(found(1)).is_ok());
    assert!(tracker.compare(found(2)).is_err());
}
