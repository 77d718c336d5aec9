//! A service that refuses some records: the bad ones are found one by one and reported all at once; the
//! others arrive once.

use std::collections::BTreeSet;

use rillway::sink::BadReason;
use rillway::types::Offset;

use super::*;
use conformance::batch_with_bad;

/// Refuses every request that holds one of these.
async fn refusing(bad: &'static [u64], status: u16) -> Web {
    Web::start(move |seen| match seen.offsets().iter().find(|offset| bad.contains(offset)) {
        Some(offset) => Reply::Answer(status, Vec::new(), format!("no {offset} please")),
        None => Reply::Keep,
    })
    .await
}

fn poison(result: Result<Durability, SinkError>) -> Vec<(u64, BadReason, String)> {
    match result {
        Err(SinkError::Poison(bad)) => {
            bad.into_iter().map(|bad| (bad.offset.0, bad.reason, bad.detail)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bad_records_are_found_and_the_others_land_once() {
    const BAD: [u64; 4] = [0, 777, 778, 1999];
    let web = refusing(&BAD, 422).await;
    let mut sink = open(options(&web)).await;
    let named = poison(write(&mut sink, batch(0..2000)).await);
    assert_eq!(named.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), BAD);
    for (offset, reason, detail) in &named {
        assert_eq!(*reason, BadReason::Refused);
        assert!(detail.contains(&format!("(offset {offset}) was answered with 422")), "{detail}");
        assert!(detail.contains(&format!("no {offset} please")), "{detail}");
    }
    let good: Vec<u64> = (0..2000).filter(|offset| !BAD.contains(offset)).collect();
    assert_eq!(web.kept(), good);
    // 4 requests, and for each bad one at most two for each halving of 500.
    let requests = web.seen().len();
    assert!(requests <= 4 + 4 * 2 * 9, "{requests} requests");
    // Nothing is left to be sent, whatever the policy.
    let bad: Vec<Offset> = BAD.into_iter().map(Offset).collect();
    write(&mut sink, batch(0..2000).without(bad)).await.unwrap();
    assert_eq!(web.seen().len(), requests);
    write(&mut sink, batch(2000..2001)).await.unwrap();
    assert_eq!(web.seen().len(), requests + 1);
}

#[tokio::test]
async fn what_stands_before_the_first_bad_one_is_not_sent_again() {
    let web = refusing(&[70], 400).await;
    let mut sink = open(options(&web)).await;
    let whole = batch(0..100);
    assert_eq!(poison(write(&mut sink, whole.clone()).await).len(), 1);
    let requests = web.seen().len();
    write(&mut sink, whole.before(Offset(70)).unwrap()).await.unwrap();
    assert_eq!(web.seen().len(), requests);
}

#[tokio::test]
async fn too_large_is_halved_until_it_fits() {
    let web = Web::start(|seen| match seen.body.len() > 2_000 {
        true => Reply::Answer(413, Vec::new(), "at most 2000".to_owned()),
        false => Reply::Keep,
    })
    .await;
    let mut sink = open(options(&web)).await;
    write(&mut sink, batch(0..500)).await.unwrap();
    assert_eq!(web.kept(), (0..500).collect::<Vec<_>>());
    // A record that is too large even alone is bad.
    let mut messages: Vec<_> = (0..5).map(|_| conformance::message(b"small")).collect();
    messages[3] = conformance::message(&[b'x'; 3_000]);
    let part = conformance::part(500, &messages).unwrap();
    let mixed = Batch::new(StreamName::from(STREAM), vec![part]).unwrap();
    let named = poison(write(&mut sink, mixed).await);
    assert_eq!(named.len(), 1);
    assert_eq!((named[0].0, named[0].1), (503, BadReason::OverLimit));
    let all: BTreeSet<u64> = web.kept().into_iter().collect();
    assert_eq!(all, (0..505).filter(|offset| *offset != 503).collect());
}

/// Dead letters are written in order of offset: those of a second report would come too late.
#[tokio::test]
async fn what_is_unreadable_and_what_is_refused_are_named_together() {
    let unreadable = BTreeSet::from([1, 90, 1500]);
    let expected = [
        (1, BadReason::Undecodable),
        (10, BadReason::Refused),
        (90, BadReason::Undecodable),
        (1499, BadReason::Refused),
        (1500, BadReason::Undecodable),
    ];
    for (format, in_flight) in [(BodyFormat::Json, 4), (BodyFormat::Ndjson, 1)] {
        // A failure in the middle, after which the batch is given again.
        let web = Web::start(|seen| match (seen.nth, seen.offsets()) {
            (5, _) => Reply::status(503),
            (_, offsets) if [10, 1499].iter().any(|bad| offsets.contains(bad)) => {
                Reply::status(422)
            }
            _ => Reply::Keep,
        })
        .await;
        let mut options = options(&web);
        (options.format, options.in_flight) = (format, in_flight);
        // Records that cannot be encoded say nothing about the service.
        options.refusals_max = Some(3);
        let mut sink = open(options).await;
        let whole = batch_with_bad(0..2000, &unreadable);
        transient(write(&mut sink, whole.clone()).await);
        let named = poison(write(&mut sink, whole.clone()).await);
        let named: Vec<_> = named.into_iter().map(|(offset, reason, _)| (offset, reason)).collect();
        assert_eq!(named, expected);
        let bad = expected.map(|(offset, _)| offset);
        let good: Vec<u64> = (0..2000).filter(|offset| !bad.contains(offset)).collect();
        assert_eq!(web.kept(), good);
        let requests = web.seen().len();
        write(&mut sink, whole.without(bad.map(Offset).into())).await.unwrap();
        assert_eq!((web.seen().len(), web.kept()), (requests, good));
    }
}

/// A service that refuses everything also keeps the records that cannot be encoded from being given up.
#[tokio::test]
async fn nothing_is_named_where_the_service_is_wrong() {
    let web = Web::start(|_| Reply::status(422)).await;
    let mut options = options(&web);
    options.refusals_max = Some(5);
    let mut sink = open(options).await;
    let what = fatal(write(&mut sink, batch_with_bad(0..6, &[5].into())).await);
    assert!(what.contains("refused 5 messages in a row"), "{what}");
    // If nothing else is left, nothing is sent.
    let requests = web.seen().len();
    let named = poison(write(&mut sink, batch_with_bad(10..12, &[10, 11].into())).await);
    assert_eq!((named.len(), web.seen().len()), (2, requests));
}

/// A failure in the middle of the search: what was found by then is not searched for again.
#[tokio::test]
async fn a_search_goes_on_where_it_was_broken_off() {
    let web = Web::start(|seen| {
        let offsets = seen.offsets();
        match (offsets.contains(&10), offsets.contains(&400)) {
            (true, _) => Reply::status(422),
            // The other half of the same window, once the bad one was found.
            (_, true) if offsets.len() < 500 && seen.nth < 30 => Reply::status(503),
            _ => Reply::Keep,
        }
    })
    .await;
    let mut options = options(&web);
    options.in_flight = 1;
    let mut sink = open(options).await;
    let mut rounds = 0;
    let named = loop {
        match write(&mut sink, batch(0..500)).await {
            Err(SinkError::Transient { .. }) => rounds += 1,
            other => break poison(other),
        }
        assert!(rounds < 100);
    };
    assert!(rounds > 0, "the search was never broken off");
    assert_eq!(named.len(), 1);
    let alone = web.seen().iter().filter(|seen| seen.offsets() == [10]).count();
    assert_eq!(alone, 1, "it was asked for again");
    assert_eq!(web.kept(), (0..500).filter(|offset| *offset != 10).collect::<Vec<_>>());
}

/// A service that has failed must not turn the stream into bad messages: with `skip`, all of them would
/// be lost.
#[tokio::test]
async fn a_service_that_refuses_everything_halts_the_consumer() {
    let web =
        Web::start(|_| Reply::Answer(400, Vec::new(), "no such field: stream".to_owned())).await;
    let mut sink = open(options(&web)).await;
    let what = fatal(write(&mut sink, batch(0..5000)).await);
    assert!(what.contains("refused 100 messages in a row"), "{what}");
    assert!(what.contains("no such field: stream"), "{what}");
    let requests = web.seen().len();
    assert!(requests < 300, "{requests} requests");

    // In small batches, too: the count continues from one batch to the next.
    let web = Web::start(|_| Reply::status(400)).await;
    let mut sink = open(options(&web)).await;
    let mut given_up = 0;
    let what = loop {
        match write(&mut sink, batch(given_up * 7..given_up * 7 + 7)).await {
            Err(SinkError::Poison(bad)) => assert_eq!(bad.len(), 7),
            other => break fatal(other),
        }
        given_up += 1;
        assert!(given_up < 100);
    };
    assert_eq!(given_up, 14, "{what}");

    // A service that accepts something now and then knows what it refuses.
    let web = Web::start(|seen| match seen.offsets().iter().any(|offset| offset % 10 != 0) {
        true => Reply::status(400),
        false => Reply::Keep,
    })
    .await;
    let mut sink = open(options(&web)).await;
    assert_eq!(poison(write(&mut sink, batch(0..1000)).await).len(), 900);
}

/// Of very many bad records, only a limited number is kept and reported at once, all up to the last of
/// them; and nothing behind that one is sent in vain.
#[tokio::test]
async fn very_many_refused_records_are_named_in_rounds() {
    const IN_FLIGHT: usize = 16;
    let most = rillway::sink::BAD_RECORDS_MAX;
    let web = Web::start(|_| Reply::status(422)).await;
    let mut options = options(&web);
    (options.max_records, options.in_flight, options.refusals_max) = (1, IN_FLIGHT, None);
    let mut sink = open(options).await;
    let all = batch(0..most as u64 + 500);
    let named = poison(write(&mut sink, all.clone()).await);
    assert!((most..most + IN_FLIGHT).contains(&named.len()), "{}", named.len());
    assert!(named.iter().map(|(offset, ..)| *offset).eq(0..named.len() as u64));
    assert_eq!(web.seen().len(), named.len());
    let rest = all.without(named.iter().map(|(offset, ..)| Offset(*offset)).collect());
    let others = poison(write(&mut sink, rest).await);
    assert_eq!(named.len() + others.len(), most + 500);
    assert_eq!(web.seen().len(), most + 500);
}

/// A record was refused before a failure. After it, the records around it are accepted in one request
/// while the consumer ends. That does not make the bad one accepted.
#[tokio::test]
async fn what_was_refused_is_not_accepted_with_its_neighbours() {
    let (failing, ending) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let web = Web::start({
        let (failing, ending) = (Arc::clone(&failing), Arc::clone(&ending));
        let fails = move || Reply::When(Arc::clone(&failing), Box::new(Reply::status(503)));
        move |seen| match seen.offsets().as_slice() {
            [4] => Reply::status(400),
            offsets if offsets.contains(&4) => Reply::status(400),
            [3] | [5, ..] => fails(),
            [3, ..] => Reply::When(Arc::clone(&ending), Box::new(Reply::Keep)),
            _ => Reply::Keep,
        }
    })
    .await;
    let mut options = options(&web);
    (options.max_records, options.in_flight) = (10, 3);
    let mut sink = open(options).await;
    let refused = async {
        let refused = |seen: &Seen| seen.offsets() == [4];
        while !web.seen().iter().any(refused) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        failing.add_permits(2);
    };
    let (failed, ()) = tokio::join!(write(&mut sink, batch(0..10)), refused);
    transient(failed);
    let rest = Arc::new(batch(3..10));
    assert_eq!(
        sink.write(&rest).await.unwrap(),
        Durability::Part(None),
        "a turn without an answer"
    );
    ending.add_permits(1);
    assert_eq!(sink.wind_up(&rest).await.unwrap(), Durability::Part(Some(Offset(3))));
    match sink.wind_up(&Arc::new(batch(4..10))).await {
        Err(SinkError::Poison(bad)) => assert_eq!(bad[0].offset, Offset(4)),
        other => panic!("{other:?}"),
    }
    assert_eq!(web.kept(), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
}
