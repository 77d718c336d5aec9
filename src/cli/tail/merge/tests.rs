use super::*;
use crate::sink::conformance::batch;

/// Merges until nothing moves; what was passed on, as stream and offset.
fn passed(merge: &mut Merge, now: Instant) -> (Vec<(usize, u64)>, Step) {
    let mut out = Vec::new();
    loop {
        let step = merge.step(now, |lane, record| {
            out.push((lane, record.offset.0));
            ControlFlow::Continue(())
        });
        if step != Step::Moved {
            return (out, step);
        }
    }
}

fn add(merge: &mut Merge, lane: usize, range: std::ops::Range<u64>) {
    // The chunk of these messages is written at `range.start` ms.
    merge.add(lane, Arc::new(batch(range)), None);
}

#[test]
fn one_stream_is_passed_on_at_once_up_to_its_end() {
    let now = Instant::now();
    let mut merge = Merge::new([Some(Offset(4))], None, now);
    add(&mut merge, 0, 0..3);
    assert_eq!(passed(&mut merge, now), (vec![(0, 0), (0, 1), (0, 2)], Step::Waits(None)));
    add(&mut merge, 0, 3..9);
    assert_eq!(passed(&mut merge, now), (vec![(0, 3), (0, 4)], Step::Done));
    let mut merge = Merge::new([None], None, now);
    add(&mut merge, 0, 5..6);
    assert_eq!(passed(&mut merge, now), (vec![(0, 5)], Step::Waits(None)));
}

/// The wanted end was the broker's own record, or was left out: what is behind it shows that.
#[test]
fn an_end_without_a_message_is_an_end() {
    let now = Instant::now();
    let mut merge = Merge::new([Some(Offset(4))], None, now);
    add(&mut merge, 0, 7..9);
    assert_eq!(passed(&mut merge, now), (vec![], Step::Done));
    let mut merge = Merge::new([Some(Offset(4))], None, now);
    let left_out = batch(3..5).without(vec![Offset(3), Offset(4)]);
    merge.add(0, Arc::new(left_out), None);
    assert_eq!(passed(&mut merge, now), (vec![], Step::Done));
}

#[test]
fn streams_are_merged_by_time_and_each_keeps_its_order() {
    let now = Instant::now();
    let ends = [Some(Offset(41)), Some(Offset(31))];
    let mut merge = Merge::new(ends, None, now);
    for (lane, range) in [(0, 10..12), (0, 40..42), (1, 5..6), (1, 20..21), (1, 30..32)] {
        add(&mut merge, lane, range);
    }
    let expected = [(1, 5), (0, 10), (0, 11), (1, 20), (1, 30), (1, 31), (0, 40), (0, 41)];
    assert_eq!(passed(&mut merge, now), (expected.to_vec(), Step::Done));
}

#[test]
fn with_ends_each_stream_is_waited_for_and_without_only_for_a_while() {
    let now = Instant::now();
    let mut merge = Merge::new([Some(Offset(11)), Some(Offset(6))], None, now);
    add(&mut merge, 0, 10..12);
    let late = now + 100 * WAIT_MAX;
    assert_eq!(passed(&mut merge, late), (vec![], Step::Waits(None)));
    add(&mut merge, 1, 5..7);
    let all = vec![(1, 5), (1, 6), (0, 10), (0, 11)];
    assert_eq!(passed(&mut merge, late), (all, Step::Done));

    let mut merge = Merge::new([None, None, None], None, now);
    merge.end(2);
    add(&mut merge, 0, 10..12);
    let due = now + WAIT_MAX;
    assert_eq!(passed(&mut merge, now), (vec![], Step::Waits(Some(due))));
    assert_eq!(passed(&mut merge, due), (vec![(0, 10), (0, 11)], Step::Waits(None)));
    // The silent one is not waited for; the one that has just spoken is.
    add(&mut merge, 1, 5..6);
    assert_eq!(passed(&mut merge, due), (vec![], Step::Waits(Some(due + WAIT_MAX))));
    assert_eq!(passed(&mut merge, due + WAIT_MAX).0, [(1, 5)]);
}

#[test]
fn it_ends_behind_a_time_and_where_the_caller_stops() {
    let now = Instant::now();
    let at = |ms: i64| Some(Timestamp(1_700_000_000_000 + ms));
    let mut merge = Merge::new([None], at(10), now);
    add(&mut merge, 0, 10..12);
    add(&mut merge, 0, 12..13);
    assert_eq!(passed(&mut merge, now), (vec![(0, 10), (0, 11)], Step::Done));
    let mut merge = Merge::new([None], None, now);
    add(&mut merge, 0, 0..9);
    let stop = |_, _: Record<'_>| ControlFlow::Break(Enough::ForGood);
    assert_eq!(merge.step(now, stop), Step::Stopped);
}

/// A message may be printed as text far larger than itself, so `tail` pauses within a batch.
#[test]
fn a_pause_within_a_batch_loses_and_repeats_nothing() {
    let now = Instant::now();
    let mut merge = Merge::new([Some(Offset(5))], None, now);
    add(&mut merge, 0, 0..4);
    add(&mut merge, 0, 4..9);
    let mut steps = Vec::new();
    loop {
        let mut taken = Vec::new();
        let step = merge.step(now, |_, record| {
            taken.push(record.offset.0);
            match taken.len() {
                3 => ControlFlow::Break(Enough::ForNow),
                _ => ControlFlow::Continue(()),
            }
        });
        steps.push(taken);
        if step != Step::Moved {
            assert_eq!(step, Step::Done);
            break;
        }
    }
    steps.retain(|taken| !taken.is_empty());
    assert_eq!(steps, [vec![0, 1, 2], vec![3], vec![4, 5]]);
}

#[test]
fn an_end_may_be_known_only_later() {
    let now = Instant::now();
    let mut merge = Merge::new([None, None], None, now);
    add(&mut merge, 0, 0..3);
    assert_eq!(passed(&mut merge, now + WAIT_MAX).0.len(), 3);
    merge.end_at(0, Offset(2));
    merge.end(1);
    assert_eq!(passed(&mut merge, now + WAIT_MAX), (vec![], Step::Done));
}
