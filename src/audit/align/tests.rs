use super::*;

fn entry(offset: u64, content: &str) -> Entry {
    Entry { offset: Offset(offset), content: content.into() }
}

fn expected() -> Vec<Expected> {
    (100..400).map(|n| Expected::Record(entry(n, &format!("content {n}")))).collect()
}

/// The same records, at other offsets.
fn found() -> Vec<Entry> {
    (0..300).map(|n| entry(n, &format!("content {}", n + 100))).collect()
}

fn aligned(expected: &[Expected], found: &[Entry], skips: Skips, page: usize) -> String {
    let mut align = Align::new(Letters::None, skips, false);
    let found: Vec<Found> = found.iter().cloned().map(Found::Record).collect();
    let (mut expected, mut found) = (expected.chunks(page), found.chunks(page));
    let mut altered = Vec::new();
    loop {
        match align.run() {
            Need::Expected => align.expect(expected.next().map(<[_]>::to_vec)),
            Need::Found => align.find(found.next().map(<[_]>::to_vec)),
            Need::Judging => altered.extend(align.take_pairs().iter().map(|p| p.offset.0)),
            Need::Nothing => break,
        }
    }
    let Tally { same, missing, doubled, surplus, unknown, foreign, .. } = &align.tally;
    format!(
        "same {same}, missing {}, doubled {} by {surplus}, altered {altered:?}, unknown {}, foreign {foreign:?}",
        missing.text(9),
        doubled.text(9),
        unknown.text(9)
    )
}

#[test]
fn each_kind_is_told_at_any_page_size() {
    type Change = fn(&mut Vec<Entry>);
    let changes: [(Change, &str); 8] = [
        (|_| {}, "same 300, missing , doubled  by 0, altered [], unknown , foreign []"),
        (
            |all| drop(all.remove(7)),
            "same 299, missing 107, doubled  by 0, altered [], unknown , foreign []",
        ),
        (
            |all| all[7].content = b"other".to_vec(),
            "same 299, missing , doubled  by 0, altered [107], unknown , foreign []",
        ),
        (
            |all| all.insert(8, entry(0, "content 107")),
            "same 300, missing , doubled 107 by 1, altered [], unknown , foreign []",
        ),
        (
            |all| all.insert(8, entry(9, "other")),
            "same 300, missing , doubled  by 0, altered [], unknown , foreign [9]",
        ),
        (
            |all| all.truncate(290),
            "same 290, missing 390-399, doubled  by 0, altered [], unknown , foreign []",
        ),
        (
            |all| {
                all.remove(250);
                all[200].content = b"other".to_vec();
                all.insert(100, entry(0, "content 150"));
                all.remove(0);
            },
            "same 297, missing 100, 350, doubled 150 by 1, altered [300], unknown , foreign []",
        ),
        (
            |all| drop(all.drain(50..90)),
            "same 260, missing 150-189, doubled  by 0, altered [], unknown , foreign []",
        ),
    ];
    for (change, told) in changes {
        let mut found = found();
        change(&mut found);
        for page in [1, 7, 1000] {
            assert_eq!(aligned(&expected(), &found, Skips::Nothing, page), told, "page {page}");
        }
    }
}

/// Pieces of 100 records, each with its first offset.
#[test]
fn a_piece_that_is_gone_is_missing_and_the_rest_is_the_same() {
    let all: Vec<Entry> =
        (0..300).map(|n| entry(100 + n / 100 * 100, &format!("content {}", n + 100))).collect();
    let told = |found: &[Entry]| {
        let mut align = Align::new(Letters::None, Skips::Nothing, true);
        align.expect(Some(expected()));
        align.expect(None);
        align.find(Some(found.iter().cloned().map(Found::Record).collect()));
        align.find(None);
        let mut altered = 0;
        while let Need::Judging = align.run() {
            altered += align.take_pairs().len();
        }
        let Tally { same, missing, doubled, foreign, .. } = &align.tally;
        format!("{same} {} {} {altered} {foreign:?}", missing.text(9), doubled.text(9))
    };
    assert_eq!(told(&all), "300   0 []");
    assert_eq!(told(&all[100..]), "200 100-199  0 []");
    assert_eq!(told(&[&all[..100], &all[200..]].concat()), "200 200-299  0 []");
    assert_eq!(told(&[&all[..40], &all[250..]].concat()), "90 140-349  0 []");
    // Written again in the next piece; and what others have put at the end of one.
    let again: Vec<Entry> =
        all[50..100].iter().map(|e| entry(150, std::str::from_utf8(&e.content).unwrap())).collect();
    assert_eq!(told(&[&all[..100], &again, &all[100..]].concat()), "300  150-199 0 []");
    let strange: Vec<Entry> = (0..150).map(|n| entry(100, &format!("strange {n}"))).collect();
    assert_eq!(told(&[&all[..100], &strange[..2], &all[100..]].concat()), "300   0 [100, 100]");
    assert!(told(&[&all[..100], &strange, &all[100..]].concat()).starts_with("300   0 [100, "));
}

#[test]
fn equal_bodies_of_one_piece_do_not_make_up_for_those_of_another() {
    let told = |from: u64, pieces: &[(u64, usize)]| {
        let skips = if from > 0 { Skips::Found } else { Skips::Nothing };
        let mut align = Align::new(Letters::None, skips, true);
        let mut expected: Vec<_> =
            (from..300).map(|at| Expected::Record(entry(at, "tick"))).collect();
        let found = pieces.iter().flat_map(|(at, count)| vec![entry(*at, "tick"); *count]);
        let found: Vec<Found> = found.map(Found::Record).collect();
        let mut found = found.chunks(40);
        loop {
            match align.run() {
                Need::Expected if expected.is_empty() => align.expect(None),
                Need::Expected => align.expect(Some(std::mem::take(&mut expected))),
                Need::Found => align.find(found.next().map(<[_]>::to_vec)),
                Need::Judging => unreachable!("all are equal"),
                Need::Nothing => break,
            }
        }
        let Tally { same, missing, doubled, surplus, foreign_count, .. } = &align.tally;
        assert_eq!(*foreign_count, 0);
        format!("{same}, missing {}, doubled {} by {surplus}", missing.text(9), doubled.text(9))
    };
    assert_eq!(told(0, &[(0, 100), (100, 100), (200, 100)]), "300, missing , doubled  by 0");
    assert_eq!(
        told(0, &[(0, 105), (100, 95), (200, 100)]),
        "295, missing 195-199, doubled 99 by 5"
    );
    assert_eq!(told(0, &[(0, 105), (100, 200)]), "300, missing , doubled 99 by 5");
    assert_eq!(told(0, &[(0, 95), (100, 105), (200, 100)]), "295, missing 95-99, doubled 199 by 5");
    // Written again into the next piece.
    assert_eq!(told(0, &[(0, 100), (50, 150), (200, 100)]), "300, missing , doubled 49 by 50");
    // What comes before the range is nothing too many.
    assert_eq!(told(50, &[(0, 100), (100, 200)]), "250, missing , doubled  by 0");
    assert_eq!(told(50, &[(0, 100), (100, 101), (200, 99)]), "249, missing 299, doubled 199 by 1");
}

#[test]
fn one_side_may_begin_later() {
    let told = aligned(&expected(), &found()[280..], Skips::Expected, 10);
    assert_eq!(told, "same 20, missing , doubled  by 0, altered [], unknown 100-379, foreign []");
    let told = aligned(&expected()[280..], &found(), Skips::Found, 10);
    assert_eq!(told, "same 20, missing , doubled  by 0, altered [], unknown , foreign []");
}

#[test]
fn what_is_not_expected_needs_no_counterpart() {
    let mut all = expected();
    all[3] = Expected::Unwanted(Offset(103));
    all[150] = Expected::Refused(Offset(250), "bad".to_owned());
    let mut found = found();
    found.remove(150);
    found.remove(3);
    found.remove(200);
    let told = "same 297, missing 302, doubled  by 0, altered [], unknown , foreign []";
    assert_eq!(aligned(&all, &found, Skips::Nothing, 10), told);
}
