use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Contents are `KEY VALUE`; a delete is `KEY`.
struct ByWord;

impl Keys for ByWord {
    fn read(&self, content: &[u8], key: &mut Vec<u8>) -> bool {
        let mut words = content.split(|byte| *byte == b' ');
        key.extend_from_slice(words.next().unwrap());
        words.next().is_none()
    }
}

fn entry(offset: u64, content: &str) -> Entry {
    Entry { offset: Offset(offset), content: content.into() }
}

/// Report of the comparison of expected messages with rows of an upsert table. Both come in pages of `page` entries,
/// and at most `room` keys stay in memory.
fn told(
    (expected, rows): (&[Expected], &[Entry]),
    letters: Letters,
    (page, room): (usize, usize),
) -> String {
    let span = Span { from: Offset(0), to: Offset(99) };
    let mut latest = Latest::with_room(letters, Box::new(ByWord), span, room);
    let rows: Vec<Found> = rows.iter().cloned().map(Found::Record).collect();
    let (mut expected, mut rows) = (expected.chunks(page), rows.chunks(page));
    let mut altered = Vec::new();
    loop {
        match latest.run() {
            Need::Expected => latest.expect(expected.next().map(<[_]>::to_vec)),
            Need::Found => latest.find(rows.next().map(<[_]>::to_vec)),
            Need::Judging => altered.extend(latest.take_pairs().iter().map(|pair| pair.offset.0)),
            Need::Nothing => break,
        }
    }
    assert_eq!(latest.trouble(), None);
    let apart = latest.apart;
    let tally = latest.tally();
    let Tally {
        same,
        missing,
        doubled,
        extra,
        unknown,
        superseded,
        unreadable_count,
        dead_letters,
        ..
    } = tally;
    let text = |name: &str, ranges: &super::super::ranges::Ranges| match ranges.count() {
        0 => String::new(),
        _ => format!(" {name} {}", ranges.text(99)),
    };
    let altered = if altered.is_empty() { String::new() } else { format!(" altered {altered:?}") };
    let ranges = [
        text("missing", missing),
        text("doubled", doubled),
        text("extra", extra),
        text("unknown", unknown),
        text("letters", dead_letters),
    ];
    let odd = if *unreadable_count + apart > 0 {
        format!(" odd {unreadable_count} {apart}")
    } else {
        String::new()
    };
    format!("same {same} superseded {superseded}{altered}{}{odd}", ranges.concat())
}

fn told_of(messages: &[&str], rows: &[(u64, &str)]) -> String {
    let expected: Vec<Expected> = (0..)
        .zip(messages)
        .map(|(at, content)| match *content {
            "?" => Expected::Unknown(Offset(at), Offset(at)),
            "-" => Expected::Unwanted(Offset(at)),
            "!" => Expected::Refused(Offset(at), "bad".to_owned()),
            content => Expected::Record(entry(at, content)),
        })
        .collect();
    let rows: Vec<Entry> = rows.iter().map(|(at, content)| entry(*at, content)).collect();
    let all: Vec<String> = [(1, 1), (2, 100), (100, 2)]
        .into_iter()
        .map(|sizes| told((&expected, &rows), Letters::None, sizes))
        .collect();
    assert!(all.iter().all(|told| *told == all[0]), "{all:#?}");
    all[0].clone()
}

#[test]
fn each_kind_of_difference_is_told() {
    let messages = ["a 1", "b 1", "a 2", "c 1", "b", "d 1"];
    let right = [(2, "a 2"), (3, "c 1"), (5, "d 1")];
    assert_eq!(told_of(&messages, &right), "same 3 superseded 3");
    assert_eq!(told_of(&messages, &right[1..]), "same 2 superseded 3 missing 2");
    assert_eq!(
        told_of(&messages, &[(2, "a 2"), (3, "c 9"), (5, "d 1")]),
        "same 2 superseded 3 altered [3]"
    );
    let doubled = [(2, "a 2"), (3, "c 1"), (3, "c 1"), (5, "d 1")];
    assert_eq!(told_of(&messages, &doubled), "same 3 superseded 3 doubled 3");
    // A row that went back in time, one that is deleted, and one of no message.
    assert_eq!(
        told_of(&messages, &[(0, "a 1"), (3, "c 1"), (5, "d 1")]),
        "same 3 superseded 2 missing 2 extra 0"
    );
    assert_eq!(
        told_of(&messages, &[(1, "b 1"), (2, "a 2"), (3, "c 1"), (5, "d 1")]),
        "same 4 superseded 2 extra 1"
    );
    assert_eq!(
        told_of(&messages, &[(2, "a 2"), (3, "c 1"), (5, "d 1"), (6, "e 1")]),
        "same 3 superseded 3 extra 6"
    );
    assert_eq!(
        told_of(&messages, &[(2, "a 2"), (3, "c 1"), (4, "b 1"), (5, "d 1")]),
        "same 3 superseded 3 extra 4"
    );
}

#[test]
fn what_is_not_known_accuses_nobody() {
    // After a damaged chunk, a key may have changed; a row that it has written is there.
    assert_eq!(
        told_of(&["a 1", "?", "b 1"], &[(1, "a 7")]),
        "same 0 superseded 1 missing 2 unknown 1 odd 0 1"
    );
    assert_eq!(told_of(&["a 1", "?", "b 1"], &[(2, "b 1")]), "same 1 superseded 0 unknown 0-1");
    assert_eq!(told_of(&["a 1", "-", "!"], &[(0, "a 1")]), "same 1 superseded 0");
    assert_eq!(
        told_of(&["a 1", "-", "!"], &[(0, "a 1"), (1, "x 1"), (2, "y 1")]),
        "same 1 superseded 0 extra 1-2"
    );
    // Rows of an earlier incarnation, and of a position that was moved back.
    assert_eq!(told_of(&["a 1"], &[(u64::MAX, "z 1"), (0, "a 1")]), "same 1 superseded 0 odd 0 1");
    assert_eq!(told_of(&["a 1"], &[(u64::MAX, "a 0")]), "same 0 superseded 0 missing 0 odd 1 1");
    assert_eq!(told_of(&["a 1"], &[(200, "a 9")]), "same 0 superseded 1 odd 0 1");
}

#[test]
fn a_dead_letter_changes_no_row() {
    let mut letters = super::super::ranges::Ranges::default();
    letters.add(Offset(1));
    let expected = ["a 1", "a 2"];
    let expected: Vec<_> =
        (0..).zip(expected).map(|(at, content)| Expected::Record(entry(at, content))).collect();
    let told = told((&expected, &[entry(0, "a 1")]), Letters::At(letters), (9, 9));
    assert_eq!(told, "same 1 superseded 0 letters 1");
}

/// More rows than there is room for ranges, if each were told by itself.
#[test]
fn a_table_that_lost_all_its_rows_misses_one_range() {
    let expected: Vec<Expected> =
        (0..300_000).map(|at| Expected::Record(entry(at, &format!("{at} x")))).collect();
    let told = told((&expected, &[]), Letters::None, (expected.len(), usize::MAX));
    assert_eq!(told, "same 0 superseded 0 missing 0-299999");
}

proptest! {
    /// Random changes; of the rows that should be there some are deleted or altered, and rows of old messages
    /// are put back.
    #[test]
    fn exactly_what_was_done_is_told(
        changes in proptest::collection::vec((0_u8..6, any::<bool>()), 1..60),
        fates in proptest::collection::vec(0_u8..8, 60),
        back in proptest::collection::vec(0_u8..10, 60),
        sizes in (1_usize..20, 1_usize..8),
    ) {
        let expected: Vec<Expected> = (0..).zip(&changes).map(|(at, (key, deletes))| {
            let content = if *deletes { key.to_string() } else { format!("{key} v{at}") };
            Expected::Record(entry(at, &content))
        }).collect();
        let last: BTreeMap<u8, usize> = changes.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect();
        let (mut rows, mut missing, mut altered, mut extra) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, (key, deletes)) in changes.iter().enumerate() {
            let (at64, is_last) = (at as u64, last[key] == at);
            let content = format!("{key} v{at}");
            match (is_last, deletes) {
                (true, false) => match fates[at] {
                    0 => missing.push(at64),
                    1 => {
                        altered.push(at64);
                        rows.push(entry(at64, &format!("{content}!")));
                    }
                    _ => rows.push(entry(at64, &content)),
                },
                (false, false) if back[at] == 0 => {
                    extra.push(at64);
                    rows.push(entry(at64, &content));
                }
                _ => {}
            }
        }
        let same = rows.len() - altered.len();
        let told = told((&expected, &rows), Letters::None, sizes);
        let ranges = |name: &str, of: &[u64]| {
            let mut ranges = super::super::ranges::Ranges::default();
            of.iter().for_each(|at| ranges.add(Offset(*at)));
            if of.is_empty() { String::new() } else { format!(" {name} {}", ranges.text(99)) }
        };
        let superseded = changes.len() - rows.len() - missing.len();
        let altered = if altered.is_empty() { String::new() } else { format!(" altered {altered:?}") };
        prop_assert_eq!(
            told,
            format!("same {same} superseded {superseded}{altered}{}{}", ranges("missing", &missing), ranges("extra", &extra))
        );
    }
}
