//! A table that somebody changes under the running sink: no value is stored as another one, and no
//! message counts as bad because of it.

use super::*;

/// A table of one column behind the first three.
async fn make(postgres: &Postgres, schema: &str, table: &str, column: &str) {
    postgres
        .run(&format!(
            "CREATE TABLE {schema}.{table} (stream text NOT NULL, \"offset\" bigint NOT NULL, \
             timestamp timestamptz NOT NULL, {column})"
        ))
        .await;
}

/// A sink with a column `v` of this type, from the body.
fn typed(postgres: &Postgres, schema: &str, from: &str, kind: ColumnType) -> PostgresOptions {
    let columns = Some(vec![column("v", from, kind)]);
    PostgresOptions { columns, ..options(&postgres.url(), schema) }
}

/// The values of `v`, in the order of the offsets.
async fn values(postgres: &Postgres, schema: &str) -> Vec<String> {
    let sql = format!("SELECT v::text FROM {schema}.events ORDER BY \"offset\"");
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Changes after which the values still fit: new messages are written unchanged, at once.
#[tokio::test]
async fn a_change_that_fits_is_followed() {
    let postgres = or_skip!(Postgres::shared().await);
    let swap = "CREATE TABLE S.next (\"offset\" numeric, stream text, v numeric, timestamp timestamptz); \
                INSERT INTO S.next SELECT \"offset\", stream, v, timestamp FROM S.events; \
                ALTER TABLE S.events RENAME TO former; ALTER TABLE S.next RENAME TO events";
    for (kind, change) in [
        ("bigint", "ALTER TABLE S.events ALTER v TYPE numeric(20)"),
        ("numeric", "ALTER TABLE S.events ALTER v TYPE bigint"),
        ("bigint", "ALTER TABLE S.events ALTER v TYPE integer"),
        ("bigint", swap),
        (
            "bigint",
            "ALTER TABLE S.events DROP v, ADD w text, ADD v numeric DEFAULT 1; ALTER TABLE S.events DROP w",
        ),
        (
            "bigint",
            "CREATE DOMAIN S.amount AS numeric CHECK (value > 0); ALTER TABLE S.events ALTER v TYPE S.amount",
        ),
        (
            "bigint",
            "DROP TABLE S.events; CREATE TABLE S.events (v numeric, stream text, \"offset\" numeric, \
             timestamp timestamp); INSERT INTO S.events VALUES (1, 'events', 0, now())",
        ),
    ] {
        let schema = postgres.schema().await;
        make(postgres, &schema, "events", &format!("v {kind}")).await;
        let options = typed(postgres, &schema, "/v", ColumnType::Integer);
        let mut sink = open(options).await.unwrap();
        write(&mut sink, bodies(0, &[r#"{"v":1}"#])).await.unwrap();
        postgres.run(&change.replace("S.", &format!("{schema}."))).await;
        write(&mut sink, bodies(1, &[r#"{"v":2000}"#, r#"{"v":3}"#])).await.unwrap();
        assert_eq!(values(postgres, &schema).await, ["1", "2000", "3"], "{change}");
    }
}

/// The whole schema is replaced: the table has the same name and other types.
#[tokio::test]
async fn a_schema_that_is_swapped() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    make(postgres, &schema, "events", "v bigint").await;
    let mut sink = open(typed(postgres, &schema, "/v", ColumnType::Integer)).await.unwrap();
    write(&mut sink, bodies(0, &[r#"{"v":1}"#])).await.unwrap();
    postgres
        .run(&format!(
            "CREATE SCHEMA {schema}_next; ALTER TABLE {schema}.rillway_positions SET SCHEMA {schema}_next; \
             ALTER SCHEMA {schema} RENAME TO {schema}_former; ALTER SCHEMA {schema}_next RENAME TO {schema}"
        ))
        .await;
    make(postgres, &schema, "events", "v numeric").await;
    write(&mut sink, bodies(1, &[r#"{"v":2000}"#])).await.unwrap();
    assert_eq!(values(postgres, &schema).await, ["2000"]);
}

/// Changes after which the values do not fit, though the server would take or refuse them row by row: the
/// consumer waits with an error that says what to do, and continues when the table is repaired.
#[tokio::test]
async fn a_change_that_does_not_fit_is_no_fault_of_a_message() {
    use ColumnType::*;
    let postgres = or_skip!(Postgres::shared().await);
    let view = "ALTER TABLE S.events RENAME TO kept; CREATE VIEW S.events AS SELECT * FROM S.kept; \
                CREATE FUNCTION S.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                RAISE EXCEPTION 'not here'; END $$; \
                CREATE TRIGGER no INSTEAD OF INSERT ON S.events FOR EACH ROW EXECUTE FUNCTION S.no()";
    for (from, kind, before, change, says, back) in [
        // 8 bytes are a binary64 too: 3 would be 1.5e-323.
        (
            "/v",
            Integer,
            "bigint",
            "ALTER TABLE S.events ALTER v TYPE double precision",
            "of type double precision, and its values need bigint",
            "ALTER TABLE S.events ALTER v TYPE bigint",
        ),
        // 8 letters are a bigint.
        (
            "/t",
            Text,
            "text",
            "ALTER TABLE S.events ALTER v TYPE bigint USING 1",
            "of type bigint, and its values need text",
            "ALTER TABLE S.events ALTER v TYPE text",
        ),
        // 22021: the bytes are no UTF-8.
        (
            "body",
            Bytes,
            "bytea",
            "ALTER TABLE S.events ALTER v TYPE text USING 'x'",
            "of type text, and its values need bytea",
            "ALTER TABLE S.events ALTER v TYPE bytea USING 'x'",
        ),
        // 22P02: no such label.
        (
            "/t",
            Text,
            "text",
            "CREATE TYPE S.mood AS ENUM ('fine'); ALTER TABLE S.events ALTER v TYPE S.mood USING 'fine'",
            "mood, and its values need text",
            "ALTER TABLE S.events ALTER v TYPE text",
        ),
        // 23502, for every row.
        (
            "/v",
            Integer,
            "bigint",
            "DELETE FROM S.events; ALTER TABLE S.events ADD must text NOT NULL",
            "\"must\" is NOT NULL without a default",
            "ALTER TABLE S.events ALTER must DROP NOT NULL",
        ),
        // P0001, for every row.
        (
            "/v",
            Integer,
            "bigint",
            view,
            "is no table",
            "DROP VIEW S.events; ALTER TABLE S.kept RENAME TO events",
        ),
        (
            "/v",
            Integer,
            "bigint",
            "ALTER TABLE S.events RENAME v TO w",
            "ADD COLUMN \"v\" bigint",
            "ALTER TABLE S.events RENAME w TO v",
        ),
    ] {
        let schema = postgres.schema().await;
        let run = |sql: &str| {
            let sql = sql.replace("S.", &format!("{schema}."));
            async move { postgres.run(&sql).await }
        };
        make(postgres, &schema, "events", &format!("v {before}")).await;
        let mut sink = open(typed(postgres, &schema, from, kind)).await.unwrap();
        let body = "{\"v\":3,\"t\":\"eight of\"}";
        let raw: &[u8] = if from == "body" { b"\xff\xfe" } else { body.as_bytes() };
        write(&mut sink, bodies(0, &[raw])).await.unwrap();
        run(change).await;
        // If the server itself reports it, a new connection is made first.
        let mut what = transient(write(&mut sink, bodies(1, &[raw, raw])).await);
        if what.contains("SQLSTATE 42") {
            what = transient(write(&mut sink, bodies(1, &[raw, raw])).await);
        }
        assert!(what.contains(says), "{change}: {what}");
        run(back).await;
        write(&mut sink, bodies(1, &[raw, raw])).await.unwrap();
        let rows = offsets(postgres, &schema).await;
        assert!(rows.ends_with(&[1, 2]), "{change}: {rows:?}");
        let last = values(postgres, &schema).await.pop().unwrap();
        let sent = if from == "/v" {
            "3"
        } else if from == "/t" {
            "eight of"
        } else {
            "\\xfffe"
        };
        assert_eq!(last, sent, "{change}");
    }
}
