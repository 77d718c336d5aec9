use super::*;
use crate::audit::ranges::Ranges;

fn entry(offset: u64, content: &str) -> Entry {
    Entry { offset: Offset(offset), content: content.to_owned().into() }
}

fn record(offset: u64, content: &str) -> Found {
    Found::Record(entry(offset, content))
}

/// A merge of ten records with these, handed over in pages of this many.
fn merged(found: &[Found], page: usize) -> Tally {
    let expected: Vec<_> =
        (0..10).map(|n| Expected::Record(entry(n, &format!("content {n}")))).collect();
    merged_with(&expected, found, page, Letters::None)
}

fn merged_with(expected: &[Expected], found: &[Found], page: usize, letters: Letters) -> Tally {
    let mut merge = Merge::new(letters);
    let (mut expected, mut found) = (expected.chunks(page), found.chunks(page));
    loop {
        match merge.run() {
            Need::Expected => merge.expect(expected.next().map(<[_]>::to_vec)),
            Need::Found => merge.find(found.next().map(<[_]>::to_vec)),
            Need::Judging => {
                for pair in merge.take_pairs() {
                    merge.tally.unreadable.push(format!("altered {}", pair.offset));
                }
            }
            Need::Nothing => return merge.tally,
        }
    }
}

fn all() -> Vec<Found> {
    (0..10).map(|n| record(n, &format!("content {n}"))).collect()
}

/// Missing, doubled, misplaced, extra, altered and the same, as text.
fn shown(tally: &Tally) -> String {
    format!(
        "missing {}; doubled {} by {}; misplaced {}; extra {}; {:?}; same {}",
        tally.missing.text(9),
        tally.doubled.text(9),
        tally.surplus,
        tally.misplaced.text(9),
        tally.extra.text(9),
        tally.unreadable,
        tally.same
    )
}

#[test]
fn each_kind_is_told_at_any_page_size() {
    type Change = fn(&mut Vec<Found>);
    let changes: [(Change, &str); 11] = [
        (|_| {}, "missing ; doubled  by 0; misplaced ; extra ; []; same 10"),
        (|all| drop(all.remove(3)), "missing 3; doubled  by 0; misplaced ; extra ; []; same 9"),
        (
            |all| all[3] = record(3, "other"),
            "missing ; doubled  by 0; misplaced ; extra ; [\"altered 3\"]; same 9",
        ),
        (
            |all| all.insert(4, record(3, "content 3")),
            "missing ; doubled 3 by 1; misplaced ; extra ; []; same 10",
        ),
        // A copy at the end, and one at the beginning.
        (
            |all| all.push(record(3, "content 3")),
            "missing ; doubled 3 by 1; misplaced ; extra ; []; same 10",
        ),
        (
            |all| all.insert(0, record(8, "content 8")),
            "missing ; doubled 8 by 1; misplaced ; extra ; []; same 10",
        ),
        // Moved to the end, and to the beginning.
        (
            |all| {
                let moved = all.remove(3);
                all.push(moved);
            },
            "missing ; doubled  by 0; misplaced 3; extra ; []; same 9",
        ),
        (
            |all| {
                let moved = all.remove(8);
                all.insert(1, moved);
            },
            "missing ; doubled  by 0; misplaced 8; extra ; []; same 10",
        ),
        (
            |all| {
                all.push(record(12, "x"));
                all.push(record(12, "x"));
            },
            "missing ; doubled  by 0; misplaced ; extra 12; []; same 10",
        ),
        (|all| all.truncate(2), "missing 2-9; doubled  by 0; misplaced ; extra ; []; same 2"),
        (|all| all.clear(), "missing 0-9; doubled  by 0; misplaced ; extra ; []; same 0"),
    ];
    for (change, expected) in changes {
        let mut found = all();
        change(&mut found);
        for page in [1, 2, 3, 100] {
            assert_eq!(shown(&merged(&found, page)), expected, "pages of {page}: {found:?}");
        }
    }
}

#[test]
fn several_changes_are_told_apart() {
    let mut found = all();
    found[5] = record(5, "other");
    found.insert(7, record(6, "content 6"));
    found.remove(2);
    let told = "missing 2; doubled 6 by 1; misplaced ; extra ; [\"altered 5\"]; same 8";
    assert_eq!(shown(&merged(&found, 3)), told);
}

#[test]
fn what_should_not_be_there_has_its_reason() {
    let expected = [
        Expected::Record(entry(0, "a")),
        Expected::Refused(Offset(1), "no number".to_owned()),
        Expected::Unwanted(Offset(2)),
        Expected::Unknown(Offset(3), Offset(6)),
        Expected::Record(entry(7, "b")),
    ];
    let found = [0, 1, 2, 4, 5, 7].map(|n| record(n, if n == 7 { "b" } else { "a" }));
    let tally = merged_with(&expected, &found, 2, Letters::None);
    assert_eq!(shown(&tally), "missing ; doubled  by 0; misplaced ; extra 1-2; []; same 2");
    assert_eq!(tally.extra_because.len(), 2, "{tally:?}");
    assert_eq!(tally.unknown.text(9), "3-6");
    let tally = merged_with(&expected, &[record(0, "a"), record(7, "b")], 2, Letters::None);
    assert_eq!(shown(&tally), "missing ; doubled  by 0; misplaced ; extra ; []; same 2");
    assert_eq!((tally.left_out.text(9).as_str(), tally.unwanted), ("1", 1));
}

#[test]
fn dead_letters_are_not_missing_and_what_has_none_is() {
    let expected = [
        Expected::Record(entry(0, "a")),
        Expected::Refused(Offset(1), "no number".to_owned()),
        Expected::Refused(Offset(2), "no number".to_owned()),
        Expected::Record(entry(3, "refused by a constraint")),
    ];
    let mut letters = Ranges::default();
    letters.add(Offset(1));
    letters.add(Offset(3));
    let found = [record(0, "a")];
    let tally = merged_with(&expected, &found, 9, Letters::At(letters));
    assert_eq!(tally.dead_letters.text(9), "1, 3");
    assert_eq!(tally.missing.text(9), "2");
    assert!(tally.missing_because[0].1.contains("no dead letter"), "{tally:?}");
    let tally = merged_with(&expected, &found, 9, Letters::Unknown);
    assert_eq!((tally.left_out.text(9).as_str(), tally.missing.text(9).as_str()), ("1-2", "3"));
}
