//! One stream, one table, two references: every row would be there twice.

use rillway::sink::conformance::batch;
use rillway::sink::postgres::examine;

use super::*;

async fn open_as(options: &PostgresOptions, reference: &str) -> Result<PostgresSink, SinkError> {
    let (stream, reference) = (StreamName::from(STREAM), Reference::from(reference));
    PostgresSink::open(options.clone(), stream, reference, Claim::new()).await
}

#[tokio::test]
async fn two_references_do_not_write_one_stream_into_one_table() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let role = format!("home_{schema}");
    postgres
        .run(&format!(
            "CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET search_path = {schema}"
        ))
        .await;
    let there = options(&postgres.url(), &schema);
    let mut first = open_as(&there, "old").await.unwrap();
    write(&mut first, batch(0..3)).await.unwrap();
    // The same table by another host name, and by the role's own schema.
    let url = postgres.url_of(&role, postgres.port).replace("127.0.0.1", "localhost");
    let same = PostgresOptions { schema: None, ..options(&url, &schema) };
    for options in [&there, &same] {
        let what = fatal(open_as(options, "renamed").await.map(drop));
        for says in
            ["under the reference \"old\" (up to offset 2)", "reference = \"old\"", "DELETE FROM"]
        {
            assert!(what.contains(says), "{what}");
        }
        let what = fatal(examine(options, &STREAM.into(), &"renamed".into()).await);
        assert!(what.contains("twice"), "{what}");
    }
    // Nothing was taken over meanwhile.
    write(&mut first, batch(3..4)).await.unwrap();
    // Other tables, other streams and replays repeat nothing.
    let beside = PostgresOptions { table: "beside".into(), ..there.clone() };
    let mut beside = open_as(&beside, "renamed").await.unwrap();
    write(&mut beside, batch(0..2)).await.unwrap();
    open_as(&there, "old.replay-7").await.unwrap();
    PostgresSink::open(there.clone(), "other".into(), "renamed".into(), Claim::new())
        .await
        .unwrap();
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2, 3]);
    // The remedy that the error names.
    postgres
        .run(&format!(
            "DELETE FROM {schema}.events; DELETE FROM {schema}.rillway_positions \
             WHERE stream = 'events' AND reference LIKE 'old%'"
        ))
        .await;
    let what = fatal(write(&mut first, batch(4..5)).await);
    assert!(what.contains("deleted"), "{what}");
    let mut sink = open_as(&there, "renamed").await.unwrap();
    write(&mut sink, batch(2..4)).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await, [2, 3]);
}

/// Many that begin at once: one of them gets the table.
#[tokio::test]
async fn of_those_that_begin_at_once_one_writes() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let there = options(&postgres.url(), &schema);
    let opening = (0..8).map(|nth| {
        let there = there.clone();
        tokio::spawn(async move { open_as(&there, &format!("r{nth}")).await.map(drop) })
    });
    let mut opened = 0;
    for task in opening.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(()) => opened += 1,
            Err(SinkError::Fatal(what)) => assert!(what.contains("twice"), "{what}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(opened, 1);
}

/// A table of positions as earlier versions made it.
#[tokio::test]
async fn positions_of_an_older_version() {
    let postgres = or_skip!(Postgres::shared().await);
    let old = "CREATE TABLE S.rillway_positions (stream text NOT NULL, reference text NOT NULL, \
               owner text NOT NULL, epoch bigint NOT NULL, backend integer NOT NULL, \
               backend_start timestamptz, taken_at timestamptz NOT NULL, \
               \"offset\" numeric(20, 0), chunk_first_offset numeric(20, 0), chunk_epoch numeric(20, 0), \
               chunk_timestamp_ms bigint, chunk_crc bigint, updated_at timestamptz, \
               PRIMARY KEY (stream, reference)); \
               INSERT INTO S.rillway_positions VALUES \
               ('events', 'a', 'gone', 4, 1, now(), now(), 5), ('events', 'b', 'gone', 7, 1, now(), now(), 9)";
    let schema = postgres.schema().await;
    postgres.run(&old.replace("S.", &format!("{schema}."))).await;
    let a = options(&postgres.url(), &schema);
    let b = PostgresOptions { table: "other".into(), ..a.clone() };
    // A new reference waits, because it is unknown which table the other rows are in.
    let what = transient(open_as(&a, "new").await.map(drop));
    assert!(what.contains("does not say into which") && what.contains("UPDATE"), "{what}");
    // The old ones continue where they were.
    for (options, reference, at) in [(&a, "a", 5), (&b, "b", 9)] {
        let mut sink = open_as(options, reference).await.unwrap();
        assert_eq!(sink.position().await.unwrap().map(|at| at.offset.0), Some(at));
    }
    // Then the tables are known.
    let third = PostgresOptions { table: "third".into(), ..a.clone() };
    open_as(&third, "new").await.unwrap();
    let what = fatal(open_as(&a, "newer").await.map(drop));
    assert!(what.contains("reference = \"a\""), "{what}");
}

/// The same with a role that may not alter the table, nor create one: duplicate rows are refused all the
/// same.
#[tokio::test]
async fn positions_of_an_older_version_that_may_not_be_altered() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    open(options(&postgres.url(), &schema)).await.unwrap();
    let role = format!("poor_{schema}");
    postgres
        .run(&format!(
            "ALTER TABLE {schema}.rillway_positions DROP COLUMN table_name; \
             UPDATE {schema}.rillway_positions SET owner = 'an older version'; \
             CREATE TABLE {schema}.beside (LIKE {schema}.events); CREATE ROLE {role} LOGIN; \
             GRANT USAGE ON SCHEMA {schema} TO {role}; \
             GRANT INSERT ON {schema}.events, {schema}.beside TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON {schema}.rillway_positions TO {role}"
        ))
        .await;
    let poor = options(&postgres.url_of(&role, postgres.port), &schema);
    let beside = PostgresOptions { table: "beside".into(), ..poor.clone() };
    // It is unknown which table the old one's rows are in.
    let what = transient(open_as(&beside, "new").await.map(drop));
    assert!(what.contains("does not say into which") && what.contains("ADD COLUMN"), "{what}");
    examine(&poor, &STREAM.into(), &"r".into()).await.unwrap();
    let mut sink = open(poor.clone()).await.unwrap();
    write(&mut sink, batch(0..2)).await.unwrap();
    // Now it is known.
    let what = fatal(open_as(&poor, "renamed").await.map(drop));
    assert!(what.contains("twice") && what.contains("reference = \"r\""), "{what}");
    let what = fatal(examine(&poor, &STREAM.into(), &"renamed".into()).await);
    assert!(what.contains("twice"), "{what}");
    write(&mut open_as(&beside, "new").await.unwrap(), batch(0..1)).await.unwrap();
    // The owner adds the column: what is known stays known, and the sink continues.
    postgres
        .run(&format!("ALTER TABLE {schema}.rillway_positions ADD COLUMN table_name text"))
        .await;
    write(&mut sink, batch(2..3)).await.unwrap();
    let what = fatal(open_as(&poor, "renamed").await.map(drop));
    assert!(what.contains("twice"), "{what}");
    open(poor).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2]);
}

/// The tables are missing, and several consumers open their sinks at once: none of them fails because of
/// the others, and the table that they share has one index.
#[tokio::test]
async fn those_that_create_the_tables_at_once_all_open() {
    let postgres = or_skip!(Postgres::shared().await);
    for _ in 0..8 {
        let schema = postgres.schema().await;
        let options = options(&postgres.url(), &schema);
        let opening = (0..6).map(|nth| {
            let (options, stream) = (options.clone(), format!("stream-{nth}"));
            tokio::spawn(async move {
                let (stream, reference) = (stream.as_str().into(), "r".into());
                PostgresSink::open(options, stream, reference, Claim::new()).await.map(drop)
            })
        });
        for task in opening.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        let count =
            "SELECT count(*) FROM pg_indexes WHERE schemaname = $1 AND tablename = 'events'";
        let row = postgres.client().await.query_one(count, &[&schema]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
    }
}
