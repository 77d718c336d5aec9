//! Records that can never be written: all of a batch are reported exactly, nothing of the batch is
//! written, and then the rest of it is.

use std::collections::BTreeSet;

use rillway::sink::BadReason;
use rillway::types::Offset;

use super::*;

/// An existing table with everything that can refuse a row.
const STRICT: &str = "name varchar(5), amount numeric(5,2), small smallint, kind text CHECK (kind <> 'bad'), \
                      ref bigint, must text NOT NULL, extra jsonb, UNIQUE (ref)";

fn strict(postgres: &Postgres, schema: &str) -> PostgresOptions {
    use ColumnType::*;
    let columns = [
        ("name", Text),
        ("amount", Numeric),
        ("small", Integer),
        ("kind", Text),
        ("ref", Integer),
        ("must", Text),
        ("extra", Json),
    ];
    PostgresOptions {
        columns: Some(columns.map(|(name, kind)| column(name, &format!("/{name}"), kind)).to_vec()),
        ..options(&postgres.url(), schema)
    }
}

async fn make(postgres: &Postgres, schema: &str, columns: &str) {
    postgres
        .run(&format!(
            "CREATE TABLE {schema}.events (stream text NOT NULL, \"offset\" bigint NOT NULL, \
             timestamp timestamptz NOT NULL, {columns})"
        ))
        .await;
}

/// Writes these documents, and returns which were refused and why; the rest is then written.
async fn refused(sink: &mut PostgresSink, first: u64, documents: &[String]) -> Vec<(u64, String)> {
    let whole = bodies(first, documents);
    let bad = poison(write(sink, whole.clone()).await);
    let named: BTreeSet<Offset> = bad.iter().map(|bad| bad.offset).collect();
    assert_eq!(named.len(), bad.len(), "none is named twice: {bad:?}");
    assert!(bad.is_sorted_by_key(|bad| bad.offset), "{bad:?}");
    write(sink, whole.without(named.into_iter().collect())).await.unwrap();
    bad.into_iter().map(|bad| (bad.offset.0, format!("{:?} {}", bad.reason, bad.detail))).collect()
}

#[tokio::test]
async fn every_kind_of_refusal_at_once() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    make(postgres, &schema, STRICT).await;
    let mut sink = open(strict(postgres, &schema)).await.unwrap();
    let bad = [
        (
            r#"{"must":"x","name":"longer"}"#,
            "Refused PostgreSQL refused it: value too long",
            "\"name\"",
        ),
        (r#"{"must":"x","amount":12345.6}"#, "numeric field overflow", "\"amount\""),
        (r#"{"must":"x","small":70000}"#, "70000 is out of range for type smallint", "\"small\""),
        (r#"{"must":"x","kind":"bad"}"#, "violates check constraint", ""),
        (r#"{"must":"x","ref":17}"#, "duplicate key", ""),
        (r#"{"name":"y"}"#, "violates not-null constraint", "\"must\""),
        (r#"{"must":"a\u0000b"}"#, "NUL", "\"must\""),
        (r#"{"must":"x","extra":"\u0000"}"#, "u0000", "\"extra\""),
        (r#"{"must":"x","small":"no"}"#, "Misfit", "\"small\""),
        ("no JSON", "Misfit", "JSON"),
    ];
    // Good ones before, between and after; the first with the key that a bad one repeats.
    let good =
        |i: usize| format!(r#"{{"must":"x","ref":{},"name":"abcde","amount":999.99}}"#, i + 17);
    let mut documents = Vec::new();
    let mut expected = Vec::new();
    for (nth, (document, why, at)) in bad.iter().enumerate() {
        documents.extend((0..50).map(|i| good(nth * 50 + i)));
        expected.push((documents.len() as u64, *why, *at));
        documents.push((*document).to_owned());
    }
    let found = refused(&mut sink, 0, &documents).await;
    let offsets_found: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
    let offsets_expected: Vec<u64> = expected.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(offsets_found, offsets_expected, "{found:?}");
    for ((_, detail), (_, why, at)) in found.iter().zip(&expected) {
        assert!(detail.contains(why) && detail.contains(at), "{why} {at}: {detail}");
    }
    assert_eq!(offsets(postgres, &schema).await.len(), 500);
    // And the sink continues.
    write(&mut sink, bodies(1_000, &[r#"{"must":"x"}"#])).await.unwrap();
}

/// Foreign keys are checked after the COPY, where no line is named; deferred ones at the COMMIT.
#[tokio::test]
async fn refusals_that_name_no_line() {
    let postgres = or_skip!(Postgres::shared().await);
    for how in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let schema = postgres.schema().await;
        postgres.run(&format!("CREATE TABLE {schema}.known (id bigint PRIMARY KEY); INSERT INTO {schema}.known VALUES (1)")).await;
        make(postgres, &schema, &format!("id bigint REFERENCES {schema}.known {how}")).await;
        let columns = Some(vec![column("id", "/id", ColumnType::Integer)]);
        let options = PostgresOptions { columns, ..options(&postgres.url(), &schema) };
        let mut sink = open(options).await.unwrap();
        let bad = [0, 3, 4, 98, 99];
        let documents: Vec<String> = (0..100)
            .map(|i| format!("{{\"id\":{}}}", if bad.contains(&i) { 2 } else { 1 }))
            .collect();
        let found = refused(&mut sink, 0, &documents).await;
        assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), bad, "{how}");
        assert!(found[0].1.contains("foreign key"), "{found:?}");
        assert_eq!(offsets(postgres, &schema).await.len(), 95, "{how}");
    }
}

/// A message that the client refuses is behind one that only the COMMIT would refuse: both are reported
/// at once, because dead letters are written in order.
#[tokio::test]
async fn a_deferred_refusal_before_a_misfit() {
    let postgres = or_skip!(Postgres::shared().await);
    let trigger = "CREATE FUNCTION S.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   IF new.id = 2 THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$; \
                   CREATE CONSTRAINT TRIGGER no AFTER INSERT ON S.events DEFERRABLE INITIALLY DEFERRED \
                   FOR EACH ROW EXECUTE FUNCTION S.no()";
    let key = "CREATE TABLE S.known (id bigint PRIMARY KEY); INSERT INTO S.known VALUES (1); \
               ALTER TABLE S.events ADD FOREIGN KEY (id) REFERENCES S.known DEFERRABLE INITIALLY DEFERRED";
    let unique = "ALTER TABLE S.events ADD UNIQUE (twice) DEFERRABLE INITIALLY DEFERRED";
    for constraint in [trigger, key, unique] {
        let schema = postgres.schema().await;
        make(postgres, &schema, "id bigint, twice bigint").await;
        postgres.run(&constraint.replace("S.", &format!("{schema}."))).await;
        let columns = ["id", "twice"].map(|c| column(c, &format!("/{c}"), ColumnType::Integer));
        let options = PostgresOptions {
            columns: Some(columns.to_vec()),
            ..options(&postgres.url(), &schema)
        };
        let mut sink = open(options).await.unwrap();
        let documents = [
            r#"{"id":1,"twice":7}"#,
            if constraint == unique { r#"{"id":1,"twice":7}"# } else { r#"{"id":2}"# },
            r#"{"id":1}"#,
            "no JSON",
            r#"{"id":1,"twice":8}"#,
        ]
        .map(str::to_owned);
        let found = refused(&mut sink, 0, &documents).await;
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3], "{constraint}");
        assert_eq!(offsets(postgres, &schema).await, [0, 2, 4], "{constraint}");
    }
}

/// A later record of the batch may satisfy a deferred constraint: then nothing is refused for it, even if
/// other records of the batch are.
#[tokio::test]
async fn a_deferred_constraint_that_is_met_in_the_end() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    make(
        postgres,
        &schema,
        &format!(
            "id bigint PRIMARY KEY CHECK (id < 100), \
             parent bigint REFERENCES {schema}.events DEFERRABLE INITIALLY DEFERRED"
        ),
    )
    .await;
    let columns = ["id", "parent"].map(|c| column(c, &format!("/{c}"), ColumnType::Integer));
    let options =
        PostgresOptions { columns: Some(columns.to_vec()), ..options(&postgres.url(), &schema) };
    let mut sink = open(options).await.unwrap();
    let documents = [r#"{"id":1,"parent":3}"#, r#"{"id":100}"#, r#"{"id":3}"#].map(str::to_owned);
    let found = refused(&mut sink, 0, &documents).await;
    assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1], "{found:?}");
    assert_eq!(offsets(postgres, &schema).await, [0, 2]);
}

/// A trigger that says no.
#[tokio::test]
async fn a_trigger_that_refuses() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    postgres.run(&format!(
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF new.body = 'no' THEN RAISE EXCEPTION 'I do not like this one'; END IF; RETURN new; END $$; \
         CREATE TRIGGER no BEFORE INSERT ON {schema}.events FOR EACH ROW EXECUTE FUNCTION {schema}.no()"
    )).await;
    let found = refused(&mut sink, 5, &["yes", "no", "yes"].map(str::to_owned)).await;
    assert!(matches!(&found[..], [(6, why)] if why.contains("I do not like")), "{found:?}");
    assert_eq!(offsets(postgres, &schema).await, [5, 7]);
}

/// Many records, all bad: still exact, and in acceptable time.
#[tokio::test]
async fn thousands_of_bad_ones() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    make(postgres, &schema, STRICT).await;
    let mut sink = open(strict(postgres, &schema)).await.unwrap();
    let documents: Vec<String> = (0..2_000)
        .map(|i| {
            format!(r#"{{"must":"x","name":"{}"}}"#, if i % 1_000 == 7 { "ok" } else { "longer" })
        })
        .collect();
    let whole = bodies(0, &documents);
    let bad = poison(write(&mut sink, whole).await);
    assert_eq!(bad.len(), 1_998);
    assert!(bad.iter().all(|bad| bad.offset.0 % 1_000 != 7 && bad.reason == BadReason::Refused));
    assert_eq!(offsets(postgres, &schema).await.len(), 0);
}

/// A row without a partition is not the message's fault: the consumer waits until the server is repaired.
#[tokio::test]
async fn a_missing_partition_is_waited_for() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let columns = "stream text, \"offset\" bigint, timestamp timestamptz, message_id text, subject text, \
                   application_properties jsonb, body text, body_raw bytea";
    postgres
        .run(&format!("CREATE TABLE {schema}.events ({columns}) PARTITION BY RANGE (timestamp)"))
        .await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    let what = transient(write(&mut sink, bodies(0, &["x"])).await);
    assert!(what.contains("Create a partition"), "{what}");
    postgres.run(&format!("CREATE TABLE {schema}.p PARTITION OF {schema}.events DEFAULT")).await;
    write(&mut sink, bodies(0, &["x"])).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await, [0]);
}
