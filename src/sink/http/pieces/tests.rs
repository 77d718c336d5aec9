use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::sink::conformance::{STREAM, batch, message, part};

fn cutter(format: BodyFormat, max_records: u64, max_bytes: usize) -> Cutter {
    Cutter::new(&StreamName::from(STREAM), format, max_records, max_bytes)
}

/// All requests that a batch makes if nothing is settled and all is accepted.
fn cut_all(cutter: &mut Cutter, batch: &Batch) -> Vec<Piece> {
    let (mut todo, progress) = (cutter.start(batch), Progress::default());
    std::iter::from_fn(|| cutter.next(batch, &mut todo, &progress)).collect()
}

fn ends(pieces: &[Piece]) -> Vec<(u64, u64)> {
    pieces.iter().map(|piece| (piece.range.first.0, piece.range.last.0)).collect()
}

fn offsets(body: &[u8]) -> Vec<u64> {
    let records: Vec<Value> = serde_json::from_slice(body).unwrap();
    records.iter().map(|record| record["offset"].as_u64().unwrap()).collect()
}

#[test]
fn windows_stand_at_multiples_of_their_width() {
    let mut cutter = cutter(BodyFormat::Json, 10, 1 << 20);
    let pieces = cut_all(&mut cutter, &batch(7..31));
    assert_eq!(ends(&pieces), [(7, 9), (10, 19), (20, 29), (30, 30)]);
    let pieces = cut_all(&mut cutter, &batch(u64::MAX - 3..u64::MAX - 1));
    assert_eq!(ends(&pieces), [(u64::MAX - 3, u64::MAX - 2)]);
}

#[test]
fn a_body_is_one_array_or_one_line_a_record() {
    let pieces = cut_all(&mut cutter(BodyFormat::Json, 3, 1 << 20), &batch(0..4));
    assert_eq!(offsets(&pieces[0].body), [0, 1, 2]);
    assert_eq!(offsets(&pieces[1].body), [3]);
    let pieces = cut_all(&mut cutter(BodyFormat::Ndjson, 3, 1 << 20), &batch(0..4));
    let text = std::str::from_utf8(&pieces[0].body).unwrap();
    assert!(text.ends_with("}\n"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["body"], "offset 2");
}

#[test]
fn what_is_too_large_is_halved_and_a_record_alone_is_never_too_large() {
    let size = |i| if i == 5 { 5_000 } else { 90 };
    let messages: Vec<_> = (0..8).map(|i| message(&vec![b'x'; size(i)])).collect();
    let batch = Batch::new(StreamName::from(STREAM), vec![part(0, &messages).unwrap()]).unwrap();
    let pieces = cut_all(&mut cutter(BodyFormat::Json, 8, 1_000), &batch);
    assert_eq!(ends(&pieces), [(0, 3), (4, 4), (5, 5), (6, 7)]);
    let all: Vec<_> = pieces.iter().flat_map(|piece| offsets(&piece.body)).collect();
    assert_eq!(all, (0..8).collect::<Vec<_>>());
}

#[test]
fn halves_go_down_to_one_record_and_skip_what_is_empty() {
    let mut cutter = cutter(BodyFormat::Json, 100, 1 << 20);
    let batch = batch(40..45);
    let progress = Progress::default();
    let mut todo = cutter.start(&batch);
    let whole = cutter.next(&batch, &mut todo, &progress).unwrap();
    assert_eq!(whole.range.records, 5);
    todo.halve(&whole.range);
    // 0–99 is too wide: its halves would be the same request again.
    let mut seen = Vec::new();
    while let Some(piece) = cutter.next(&batch, &mut todo, &progress) {
        seen.push((piece.range.first.0, piece.range.last.0));
        assert!(seen.len() < 20, "{seen:?}");
        if piece.range.records > 1 {
            todo.halve(&piece.range);
        }
    }
    let alone: Vec<u64> = seen.iter().filter(|(a, b)| a == b).map(|(a, _)| *a).collect();
    assert_eq!(alone, [40, 41, 42, 43, 44]);
    assert!(!seen.contains(&(40, 44)), "the same request again: {seen:?}");
}

#[test]
fn what_is_settled_is_left_out() {
    let mut cutter = cutter(BodyFormat::Json, 4, 1 << 20);
    let batch = batch(0..12).without(vec![Offset(9)]);
    let mut progress = Progress::default();
    progress.accepted(Offset(1), Offset(6));
    let mut todo = cutter.start(&batch);
    let pieces: Vec<_> = std::iter::from_fn(|| cutter.next(&batch, &mut todo, &progress)).collect();
    let all: Vec<_> = pieces.iter().map(|piece| offsets(&piece.body)).collect();
    assert_eq!(all, [vec![0], vec![7], vec![8, 10, 11]]);
    assert_eq!(ends(&pieces), [(0, 0), (7, 7), (8, 11)]);
}

#[test]
fn only_what_cannot_be_encoded_is_unreadable() {
    let bad = crate::sink::conformance::batch_with_bad(0..9, &[3, 8].into());
    let found = cutter(BodyFormat::Json, 4, 1 << 20).unreadable(&bad);
    assert_eq!(found.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(), [3, 8]);
}

proptest! {
    /// The same records, cut into batches elsewhere: the requests inside are the same, byte for byte,
    /// except those that touch a batch's edge.
    #[test]
    fn requests_do_not_depend_on_where_batches_are_cut(
        sizes in proptest::collection::vec(0usize..400, 1..120),
        first in 0u64..50,
        mut cuts in proptest::collection::vec(1u64..120, 0..5),
        max_records in 1u64..40,
        max_bytes in 1_024usize..3_000,
    ) {
        let messages: Vec<_> = sizes.iter().map(|size| message(&vec![b'x'; *size])).collect();
        let chunk = part(first, &messages).unwrap();
        let whole = Batch::new(StreamName::from(STREAM), vec![chunk.clone()]).unwrap();
        let mut cutter = cutter(BodyFormat::Json, max_records, max_bytes);
        let expected = cut_all(&mut cutter, &whole);

        cuts.retain(|cut| *cut < sizes.len() as u64);
        cuts.sort_unstable();
        cuts.dedup();
        let mut rest = chunk;
        let (mut seen, mut edges) = (Vec::new(), Vec::new());
        for cut in cuts.iter().map(|cut| first + cut).chain([u64::MAX]) {
            let width = u32::try_from((cut - rest.block.first_offset().0).min(1000)).unwrap();
            let (now, later) = rest.block.clone().split_at(width);
            edges.push(now.last_offset());
            let batch = Batch::new(
                StreamName::from(STREAM),
                vec![crate::flow::batch::Part { block: now, ..rest.clone() }],
            );
            seen.extend(cut_all(&mut cutter, &batch.unwrap()));
            rest.block = later;
        }
        let all: Vec<u64> = seen.iter().flat_map(|piece| offsets(&piece.body)).collect();
        prop_assert_eq!(all, (first..first + sizes.len() as u64).collect::<Vec<_>>());
        edges.pop(); // The end of the last batch is no edge between two.
        for piece in &expected {
            let window = Window::of(piece.range.first, max_records);
            let across = edges.iter().any(|edge| (window.first..window.last).contains(&edge.0));
            if !across {
                let same = seen.iter().any(|s| s.range == piece.range && s.body == piece.body);
                prop_assert!(same, "{:?} is not there: {:?}", piece.range, ends(&seen));
            }
        }
        for piece in &seen {
            let range = &piece.range;
            prop_assert!(range.records == 1 || piece.body.len() <= max_bytes);
            prop_assert!(range.records <= max_records);
        }
    }
}

#[test]
fn halves_come_before_what_waits() {
    let mut cutter = cutter(BodyFormat::Json, 10, 1 << 20);
    let (batch, progress) = (batch(0..30), Progress::default());
    let mut todo = cutter.start(&batch);
    let sent = cutter.next(&batch, &mut todo, &progress).unwrap();
    let waits = cutter.next(&batch, &mut todo, &progress).unwrap();
    assert!(!todo.has_below(&waits.range));
    todo.halve(&sent.range);
    assert!(todo.has_below(&waits.range));
    todo.put_back(&waits.range);
    let rest: Vec<Piece> =
        std::iter::from_fn(|| cutter.next(&batch, &mut todo, &progress)).collect();
    assert_eq!(ends(&rest), [(0, 4), (5, 9), (10, 19), (20, 29)]);

    // Whichever of two is refused first.
    let mut todo = cutter.start(&batch);
    let sent: Vec<Piece> =
        std::iter::from_fn(|| cutter.next(&batch, &mut todo, &progress)).take(2).collect();
    todo.halve(&sent[0].range);
    todo.halve(&sent[1].range);
    let rest: Vec<Piece> =
        std::iter::from_fn(|| cutter.next(&batch, &mut todo, &progress)).collect();
    assert_eq!(ends(&rest), [(0, 4), (5, 9), (10, 14), (15, 19), (20, 29)]);
}
