//! A backlog of rows that the server refuses, over a slow connection: the search for them ends, or keeps
//! what it has found.

use std::collections::BTreeSet;
use std::time::Instant;

use rillway::types::Offset;

use super::*;

/// Round-trip time.
const ROUND_TRIP: Duration = Duration::from_millis(10);

const LONG: Duration = Duration::from_secs(60);

/// A table under a sink, with statements that are executed after its creation.
async fn changed(
    postgres: &Postgres,
    schema: &str,
    proxy: &Proxy,
    change: &str,
    write_timeout: Duration,
) -> PostgresSink {
    let options = PostgresOptions {
        columns: Some(vec![column("v", "/v", ColumnType::Integer)]),
        write_timeout,
        ..options(&postgres.url_of("rillway", proxy.port), schema)
    };
    let mut sink = open(options).await.unwrap();
    write(&mut sink, bodies(0, &[r#"{"v":0}"#])).await.unwrap();
    postgres.run(&change.replace("S.", &format!("{schema}."))).await;
    sink
}

/// Writes as the consumer does under `skip`: refused records are left out, until the rest is written.
/// Returns the offsets that were left out, and the number of answers that reported them.
async fn skipping(sink: &mut PostgresSink, mut batch: Batch) -> (BTreeSet<u64>, usize) {
    let (mut skipped, mut answers) = (BTreeSet::new(), 0);
    let began = Instant::now();
    loop {
        match sink.write(&Arc::new(batch.clone())).await {
            Ok(_) => return (skipped, answers),
            Err(SinkError::Poison(bad)) => {
                let offsets: Vec<Offset> = bad.iter().map(|bad| bad.offset).collect();
                assert!(!offsets.is_empty() && offsets.is_sorted(), "{offsets:?}");
                // Dead letters need this: no record is found below those found before.
                assert!(skipped.last().is_none_or(|last| *last < offsets[0].0));
                skipped.extend(offsets.iter().map(|offset| offset.0));
                batch = batch.without(offsets);
                answers += 1;
            }
            // A statement may take longer than it may here, on a machine that stalls.
            Err(SinkError::Transient { .. }) if began.elapsed() < LONG => {}
            Err(other) => panic!("{other} after {answers} answers, {} skipped", skipped.len()),
        }
    }
}

fn documents(count: u64, value: impl Fn(u64) -> i64) -> Batch {
    let documents: Vec<String> = (1..=count).map(|i| format!("{{\"v\":{}}}", value(i))).collect();
    bodies(1, &documents)
}

/// A CHECK that refuses every record: one answer reports all, after a few hundred round trips.
#[tokio::test]
async fn all_of_a_backlog_is_refused() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let proxy = Proxy::far_from(postgres.port, ROUND_TRIP / 2).await;
    let check = "ALTER TABLE S.events ADD CHECK (v < 10)";
    let mut sink = changed(postgres, &schema, &proxy, check, LONG).await;
    let began = Instant::now();
    let (skipped, _) = skipping(&mut sink, documents(10_000, |_| 10)).await;
    assert_eq!(skipped.len(), 10_000);
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(offsets(postgres, &schema).await, [0]);
}

/// Good records in between, some of them refused because of an earlier one in their batch; with errors
/// that name a line, and others that do not.
#[tokio::test]
async fn a_part_of_a_backlog_is_refused() {
    let postgres = or_skip!(Postgres::shared().await);
    let proxy = Proxy::far_from(postgres.port, ROUND_TRIP / 2).await;
    let key = "CREATE TABLE S.known AS SELECT generate_series(0, 100000) AS v; \
               ALTER TABLE S.known ADD PRIMARY KEY (v); \
               ALTER TABLE S.events ADD FOREIGN KEY (v) REFERENCES S.known";
    let trigger = "CREATE FUNCTION S.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   IF new.v < 0 THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$; \
                   CREATE TRIGGER no BEFORE INSERT ON S.events FOR EACH ROW EXECUTE FUNCTION S.no(); \
                   ALTER TABLE S.events ADD UNIQUE (v)";
    // A rule, through which an INSERT does something else than a COPY.
    let rule = "ALTER TABLE S.events ADD CHECK (v >= 0); \
                CREATE RULE away AS ON INSERT TO S.events WHERE new.v < 0 DO INSTEAD NOTHING";
    for (change, count) in [(key, 3_000_u64), (trigger, 3_000), (rule, 300)] {
        let schema = postgres.schema().await;
        let mut sink = changed(postgres, &schema, &proxy, change, LONG).await;
        // Sparse bad records, and a run of them.
        let bad = |i: u64| i % 311 == 5 || (count / 2..count / 2 + 150).contains(&i);
        let value = |i: u64| if bad(i) { -(i.cast_signed()) } else { i.cast_signed() };
        let (skipped, _) = skipping(&mut sink, documents(count, value)).await;
        let expected: BTreeSet<u64> = (1..=count).filter(|i| bad(*i)).collect();
        assert_eq!(skipped, expected, "{change}");
        let rows = offsets(postgres, &schema).await.len() as u64;
        assert_eq!(rows, 1 + count - expected.len() as u64, "{change}");
    }
}

/// More bad records than one search finds in its time: each answer reports some, so that the batch gets
/// through, however long it is.
#[tokio::test]
async fn a_search_that_takes_too_long_keeps_what_it_found() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let proxy = Proxy::far_from(postgres.port, Duration::from_millis(60)).await;
    let check = "ALTER TABLE S.events ADD CHECK (v < 10)";
    let mut sink = changed(postgres, &schema, &proxy, check, Duration::from_secs(2)).await;
    let (skipped, answers) =
        skipping(&mut sink, documents(6_000, |i| if i % 1_000 == 7 { 1 } else { 10 })).await;
    assert_eq!(skipped.len(), 5_994);
    assert!(answers > 1, "one answer had them all: the test shows nothing");
    assert_eq!(offsets(postgres, &schema).await, [0, 7, 1_007, 2_007, 3_007, 4_007, 5_007]);
}

/// Cost of a batch, although the table is checked again: four round trips and a sync.
#[tokio::test]
async fn a_batch_takes_four_round_trips() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let proxy = Proxy::far_from(postgres.port, Duration::from_millis(250)).await;
    let mut sink = open(options(&postgres.url_of("rillway", proxy.port), &schema)).await.unwrap();
    let mut fewest = Duration::MAX;
    for first in 0..4 {
        let batch = bodies(first, &["x"]);
        let began = Instant::now();
        write(&mut sink, batch).await.unwrap();
        fewest = fewest.min(began.elapsed());
    }
    assert!(fewest < Duration::from_millis(500 * 5), "{fewest:?}");
}
