//! Which tables it creates, which it accepts, and what is written into them.

use rillway::sink::conformance::batch;

use super::*;

/// A message with properties, application properties and a body of data.
fn full_message() -> Vec<u8> {
    let mut message = Vec::new();
    // properties: message-id "m1", no user-id, no to, subject "s"
    message.extend([0x00, 0x53, 0x73, 0xC0, 10, 4, 0xA1, 2, b'm', b'1', 0x40, 0x40, 0xA1, 1, b's']);
    // application-properties: {"k": 7}
    message.extend([0x00, 0x53, 0x74, 0xC1, 6, 2, 0xA1, 1, b'k', 0x54, 7]);
    message.extend(conformance::message(b"{\"a\":1}"));
    message
}

#[tokio::test]
async fn a_table_of_the_whole_envelope() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    let nul = conformance::message(b"a\0b");
    let raw = conformance::message(b"\xff\x00");
    write(&mut sink, batch_of(7, &[full_message(), nul, raw])).await.unwrap();
    sink.close().await.unwrap();
    let sql = format!(
        "SELECT row(stream, \"offset\", timestamp AT TIME ZONE 'UTC', message_id, subject, \
         application_properties, body, body_raw)::text FROM {schema}.events ORDER BY \"offset\""
    );
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            r#"(events,7,"2023-11-14 22:13:20.007",m1,s,"{""k"": 7}","{""a"":1}",)"#,
            r#"(events,8,"2023-11-14 22:13:20.007",,,,,"\\x610062")"#,
            r#"(events,9,"2023-11-14 22:13:20.007",,,,,"\\xff00")"#,
        ]
    );
}

#[tokio::test]
async fn typed_columns_with_all_their_digits() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let kinds = [
        ("t", ColumnType::Text),
        ("i", ColumnType::Integer),
        ("f", ColumnType::Float),
        ("n", ColumnType::Numeric),
        ("b", ColumnType::Boolean),
        ("at", ColumnType::Timestamp),
        ("j", ColumnType::Json),
        ("y", ColumnType::Bytes),
    ];
    let columns = kinds.map(|(name, kind)| column(name, &format!("/{name}"), kind));
    let options =
        PostgresOptions { columns: Some(columns.to_vec()), ..options(&postgres.url(), &schema) };
    let mut sink = open(options.clone()).await.unwrap();
    let documents = [
        r#"{"t":"ü","i":-9223372036854775808,"f":1.5e-300,"n":-12345678901234567890.000100,
            "b":true,"at":"2024-02-29T12:00:00.123456+01:00","j":{"x":[1,null]},"y":"abc"}"#,
        r#"{"t":7,"n":0.00000000000000000001,"b":null,"j":"s"}"#,
        r#"{"n":"99999999999999999999999999999999999999","i":"12","f":3,"at":0}"#,
    ];
    write(&mut sink, bodies(0, &documents)).await.unwrap();
    let sql = format!(
        "SELECT row(t, i, f, n, b, at AT TIME ZONE 'UTC', j, y)::text FROM {schema}.events ORDER BY \"offset\""
    );
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            r#"(ü,-9223372036854775808,1.5e-300,-12345678901234567890.000100,t,"2024-02-29 11:00:00.123456","{""x"": [1, null]}","\\x616263")"#,
            r#"(7,,,0.00000000000000000001,,,"""s""",)"#,
            r#"(,12,3,99999999999999999999999999999999999999,,"1970-01-01 00:00:00",,)"#,
        ]
    );
    // The same into an existing table with narrower types.
    let narrow = "t varchar(3), i smallint, f real, n numeric(10,2), b boolean, at timestamp, \
                  j json, y bytea, noted timestamptz DEFAULT now()";
    postgres.run(&format!("DROP TABLE {schema}.events; CREATE DOMAIN {schema}.name AS text; \
        CREATE TABLE {schema}.events (stream {schema}.name, \"offset\" numeric, timestamp timestamptz, {narrow})")).await;
    sink.close().await.unwrap();
    let mut sink = open(options).await.unwrap();
    write(&mut sink, bodies(3, &[r#"{"t":"abc","i":5,"f":0.5,"n":1.005,"at":1000,"j":[]}"#]))
        .await
        .unwrap();
    let sql = format!(
        "SELECT row(stream, \"offset\", t, i, f, n, at, j, noted IS NULL)::text FROM {schema}.events"
    );
    let row: String = postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(row, r#"(events,3,abc,5,0.5,1.01,"1970-01-01 00:00:01",[],f)"#);
}

/// Everything that is wrong is reported at once, in words that an operator can act on.
#[tokio::test]
async fn a_table_that_does_not_fit() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let strict = PostgresOptions { create: false, ..options(&postgres.url(), &schema) };
    let what = transient(open(strict.clone()).await.map(drop));
    assert!(what.contains("there is no table") && what.contains("CREATE TABLE"), "{what}");

    let made = "stream text, \"offset\" text, timestamp timestamptz, subject text, must text NOT NULL, \
                body text GENERATED ALWAYS AS ('x') STORED";
    postgres.run(&format!("CREATE TABLE {schema}.events ({made})")).await;
    let what = transient(open(options(&postgres.url(), &schema)).await.map(drop));
    for part in [
        "the column \"offset\" is of type text, and its values need bigint or",
        "the column \"body\" is generated",
        "ADD COLUMN \"message_id\" text, ADD COLUMN \"application_properties\" jsonb, ADD COLUMN \"body_raw\" bytea",
        "the column \"must\" is NOT NULL without a default",
    ] {
        assert!(what.contains(part), "{part}: {what}");
    }
    postgres
        .run(&format!(
            "DROP TABLE {schema}.events; CREATE VIEW {schema}.events AS SELECT 1 AS stream"
        ))
        .await;
    let what = transient(open(options(&postgres.url(), &schema)).await.map(drop));
    assert!(what.contains("is no table"), "{what}");
}

/// A role with exactly the rights that the guide lists; and the errors when it lacks one.
#[tokio::test]
async fn the_least_that_a_role_needs() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    open(options(&postgres.url(), &schema)).await.unwrap().close().await.unwrap();
    let role = format!("role_{schema}");
    postgres.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let poor = PostgresOptions {
        create: false,
        ..options(&postgres.url_of(&role, postgres.port), &schema)
    };
    let what = transient(open(poor.clone()).await.map(drop));
    assert!(what.contains("permission denied") && what.contains("Grant"), "{what}");
    postgres.run(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await;
    let what = transient(open(poor.clone()).await.map(drop));
    assert!(
        what.contains(&format!("GRANT INSERT ON \"{schema}\".\"events\" TO \"{role}\"")),
        "{what}"
    );
    assert!(what.contains("GRANT SELECT, INSERT, UPDATE ON"), "{what}");
    postgres
        .run(&format!(
            "GRANT INSERT ON {schema}.events TO {role}; \
         GRANT SELECT, INSERT, UPDATE ON {schema}.rillway_positions TO {role}"
        ))
        .await;
    let mut sink = open(poor).await.unwrap();
    write(&mut sink, batch(0..3)).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2]);
}

/// A table that disappears while the sink runs is transient too; the sink continues when it is back.
#[tokio::test]
async fn a_table_that_changes_meanwhile() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    let mut sink = open(options(&postgres.url(), &schema)).await.unwrap();
    write(&mut sink, batch(0..3)).await.unwrap();
    postgres.run(&format!("ALTER TABLE {schema}.events RENAME COLUMN subject TO topic")).await;
    transient(write(&mut sink, batch(3..5)).await);
    let what = transient(write(&mut sink, batch(3..5)).await);
    assert!(what.contains("ADD COLUMN \"subject\""), "{what}");
    let back = format!(
        "ALTER TABLE {schema}.events RENAME COLUMN topic TO subject; \
                        ALTER TABLE {schema}.events ALTER COLUMN \"offset\" TYPE numeric"
    );
    postgres.run(&back).await;
    write(&mut sink, batch(3..5)).await.unwrap();
    // Other types than those that were looked up: they are looked up again.
    postgres.run(&format!("ALTER TABLE {schema}.events ALTER COLUMN \"offset\" TYPE bigint")).await;
    write(&mut sink, batch(5..6)).await.unwrap();
    assert_eq!(offsets(postgres, &schema).await, [0, 1, 2, 3, 4, 5]);
}
