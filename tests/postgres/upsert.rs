//! Rows that are replaced by their key, and columns that are added.

use std::collections::BTreeMap;

use rillway::sink::conformance::KeyedMedium;
use rillway::sink::postgres::examine;
use rillway::types::upsert::{Missing, Upsert};

use super::*;

fn by(key: &[&str]) -> Upsert {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    let delete_if = Some(("/op".parse().unwrap(), "d".to_owned()));
    Upsert { key, empty_body_deletes: false, delete_if }
}

/// Integers and texts by `id`.
fn keyed(postgres: &Postgres, schema: &str) -> PostgresOptions {
    let id = column("id", "/id", ColumnType::Integer);
    PostgresOptions {
        columns: Some(vec![column("v", "/v", ColumnType::Text), id]),
        upsert: Some(by(&["id"])),
        ..options(&postgres.url(), schema)
    }
}

/// `id:v@offset` of each row.
async fn rows(postgres: &Postgres, schema: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(concat(id, ':', coalesce(v, '-'), '@', \"offset\"), ' ' ORDER BY id), '') \
         FROM {schema}.events"
    );
    postgres.client().await.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn open_as(
    options: &PostgresOptions,
    stream: &str,
    reference: &str,
) -> Result<PostgresSink, SinkError> {
    PostgresSink::open(options.clone(), stream.into(), reference.into(), Claim::new()).await
}

async fn look(options: &PostgresOptions) -> Result<(), SinkError> {
    examine(options, &STREAM.into(), &"r".into()).await.map(drop)
}

/// A batch of another stream.
fn of_other(first: u64, body: &str) -> Batch {
    let part = conformance::part(first, &[conformance::message(body.as_bytes())]).unwrap();
    Batch::new("other".into(), vec![part]).unwrap()
}

/// The same medium, with a key: each message has its own.
struct Keyed(Table);

#[async_trait]
impl Medium for Keyed {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        if self.0.proxy.is_none() {
            self.0.postgres.run(&format!("CREATE SCHEMA {}", self.0.schema)).await;
            self.0.proxy = Some(Proxy::to(self.0.postgres.port).await);
        }
        let port = self.0.proxy.as_ref().unwrap().port;
        let options = PostgresOptions {
            connect_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(8),
            columns: Some(vec![column("what", "body", ColumnType::Text)]),
            upsert: Some(Upsert { delete_if: None, ..by(&["what"]) }),
            ..options(&self.0.postgres.url_of("rillway", port), &self.0.schema)
        };
        super::open(options).await.map(|sink| Box::new(sink) as Box<dyn Sink>)
    }

    /// Rows of a former incarnation have no offset.
    async fn visible(&mut self) -> Option<Vec<u64>> {
        let sql = format!(
            "SELECT \"offset\" FROM {}.events WHERE \"offset\" >= 0 ORDER BY 1",
            self.0.schema
        );
        let rows = self.0.postgres.client().await.query(&sql, &[]).await.unwrap();
        Some(rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).collect())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    async fn break_next(&mut self) -> bool {
        self.0.break_next().await
    }

    async fn refuse(&mut self, on: bool) -> bool {
        self.0.refuse(on).await
    }

    async fn vanish(&mut self, on: bool) -> bool {
        self.0.vanish(on).await
    }

    async fn slow(&mut self, on: bool) -> bool {
        self.0.slow(on).await
    }
}

#[tokio::test]
async fn does_what_every_sink_must_with_a_key() {
    let postgres = or_skip!(Postgres::shared().await);
    let told = conformance::all(|| Keyed(Table::new(postgres))).await.unwrap();
    assert_eq!(told.not_asked(), WRITES_A_BATCH_AT_ONCE, "{told:?}");
}

struct Latest {
    postgres: &'static Postgres,
    schema: String,
}

impl Latest {
    async fn new() -> Result<Latest, Unavailable> {
        let postgres = Postgres::shared().await?;
        Ok(Latest { postgres, schema: postgres.schema().await })
    }
}

#[async_trait]
impl KeyedMedium for Latest {
    async fn open(&self, stream: &str, reference: &str) -> Result<Box<dyn Sink>, SinkError> {
        let opened = open_as(&keyed(self.postgres, &self.schema), stream, reference).await;
        opened.map(|sink| Box::new(sink) as Box<dyn Sink>)
    }

    async fn rows(&self) -> String {
        rows(self.postgres, &self.schema).await
    }

    async fn forget(&self) {
        self.postgres.run(&format!("DELETE FROM {}.rillway_positions", self.schema)).await;
    }
}

#[tokio::test]
async fn a_row_is_the_latest_message_of_its_key() {
    let latest = or_skip!(Latest::new().await);
    conformance::keeps_the_latest_of_each_key(&latest).await.unwrap();
}

#[tokio::test]
async fn an_earlier_message_does_not_replace_a_later_one() {
    let latest = or_skip!(Latest::new().await);
    conformance::never_goes_back(&latest).await.unwrap();
}

#[tokio::test]
async fn a_new_incarnation_replaces_the_rows_of_the_old_one() {
    let latest = or_skip!(Latest::new().await);
    conformance::begins_anew(&latest).await.unwrap();
}

/// The table is changed under the running sink: the merge would convert what was copied with the old types, so it
/// does not count, and the same messages are written again with the new ones.
#[tokio::test]
async fn a_change_is_followed_where_rows_are_replaced() {
    let postgres = or_skip!(Postgres::shared().await);
    let swap = "CREATE TABLE S.next AS SELECT * FROM S.events; ALTER TABLE S.next ALTER id TYPE numeric; \
                CREATE UNIQUE INDEX ON S.next (id); ALTER TABLE S.events RENAME TO former; \
                ALTER TABLE S.next RENAME TO events";
    for change in [
        "ALTER TABLE S.events ALTER id TYPE numeric(20)",
        "ALTER TABLE S.events ALTER id TYPE integer",
        "ALTER TABLE S.events ALTER v TYPE varchar(4)",
        "ALTER TABLE S.events DROP v, ADD v text DEFAULT 'kept'",
        swap,
    ] {
        let schema = postgres.schema().await;
        let mut sink = open_as(&keyed(postgres, &schema), STREAM, "r").await.unwrap();
        let bodies_of = |first, all: &[&str]| Arc::new(bodies(first, all));
        let first = [r#"{"id":1,"v":"a"}"#, r#"{"id":2,"v":"kept"}"#];
        sink.write(&bodies_of(0, &first)).await.unwrap();
        postgres.run(&change.replace("S.", &format!("{schema}."))).await;
        let next = [r#"{"id":2000,"v":"b"}"#, r#"{"id":1,"v":"c"}"#, r#"{"id":2000,"op":"d"}"#];
        sink.write(&bodies_of(2, &next)).await.unwrap();
        assert_eq!(rows(postgres, &schema).await, "1:c@3 2:kept@1", "{change}");
        assert_eq!(sink.position().await.unwrap().unwrap().offset.0, 4);
    }
}

/// The last changes of a batch are merged at once: a value that moves from one row to another would be refused.
#[tokio::test]
async fn no_other_column_that_is_written_may_be_unique() {
    let postgres = or_skip!(Postgres::shared().await);
    for (columns, fits) in [
        ("(v)", false),
        ("(v) WHERE id > 5", false),
        ("(abs(id))", false),
        ("(\"offset\")", false),
        ("(v) INCLUDE (id)", false),
        ("(serial) INCLUDE (v)", true),
        ("(v, id)", true),
        ("(serial)", true),
    ] {
        let schema = postgres.schema().await;
        let table = format!(
            "CREATE TABLE {schema}.events (stream text, \"offset\" bigint, timestamp timestamptz, v text, \
             id integer PRIMARY KEY, serial serial)"
        );
        postgres.run(&table).await;
        let index = format!("CREATE UNIQUE INDEX other ON {schema}.events {columns}");
        postgres.run(&index).await;
        let options = keyed(postgres, &schema);
        let other = "the index other keeps other columns";
        if !fits {
            let why = transient(open(options.clone()).await.map(drop));
            assert!(why.contains(other), "{columns}: {why}");
            postgres.run(&format!("DROP INDEX {schema}.other")).await;
        }
        let mut sink = open(options).await.unwrap();
        let first = bodies(0, &[r#"{"id":7,"v":"a"}"#, r#"{"id":8,"v":"b"}"#]);
        write(&mut sink, first).await.unwrap();
        // Once it is added while rows are written, nothing is written, and no message is at fault.
        let swapped = bodies(2, &[r#"{"id":7,"v":"b"}"#, r#"{"id":8,"v":"a"}"#]);
        if !fits {
            postgres.run(&index).await;
            for _ in 0..2 {
                let why = transient(write(&mut sink, swapped.clone()).await);
                assert!(why.contains(other), "{columns}: {why}");
            }
            postgres.run(&format!("DROP INDEX {schema}.other")).await;
        }
        write(&mut sink, swapped).await.unwrap();
        assert_eq!(rows(postgres, &schema).await, "7:b@2 8:a@3", "{columns}");
    }
}

#[tokio::test]
async fn a_table_needs_an_index_of_exactly_the_key() {
    let postgres = or_skip!(Postgres::shared().await);
    for (sql, fits) in [
        ("", false),
        ("ALTER TABLE S.events ADD PRIMARY KEY (id)", true),
        ("ALTER TABLE S.events ADD UNIQUE (id) INCLUDE (v)", true),
        ("ALTER TABLE S.events ADD UNIQUE (id) DEFERRABLE", false),
        ("CREATE INDEX ON S.events (id)", false),
        ("CREATE UNIQUE INDEX ON S.events (id) WHERE id > 5", false),
        ("CREATE UNIQUE INDEX ON S.events (id, v)", false),
        ("CREATE UNIQUE INDEX ON S.events (id)", true),
    ] {
        let schema = postgres.schema().await;
        let table = format!(
            "CREATE TABLE {schema}.events (stream text, \"offset\" bigint, timestamp timestamptz, v text, id integer)"
        );
        postgres.run(&table).await;
        postgres.run(&sql.replace("S.", &format!("{schema}."))).await;
        let options = keyed(postgres, &schema);
        let remedy = format!("CREATE UNIQUE INDEX ON \"{schema}\".\"events\" (\"id\")");
        if !fits {
            for why in
                [transient(look(&options).await), transient(open(options.clone()).await.map(drop))]
            {
                assert!(why.contains(&remedy), "{sql}: {why}");
            }
            if sql.contains("DEFERRABLE") {
                let drop =
                    format!("ALTER TABLE \"{schema}\".\"events\" DROP CONSTRAINT events_id_key");
                let why = transient(look(&options).await);
                assert!(why.contains(&drop), "{why}");
                // An index beside it is not enough.
                postgres.run(&remedy).await;
                let why = transient(look(&options).await);
                assert!(why.contains(&drop) && !why.contains(&remedy), "{why}");
                postgres.run(&drop).await;
            } else {
                postgres.run(&remedy).await;
            }
        }
        look(&options).await.unwrap();
        let mut sink = open(options).await.unwrap();
        for first in [0, 1] {
            write(&mut sink, bodies(first, &[r#"{"id":1,"v":"a"}"#])).await.unwrap();
        }
        assert_eq!(rows(postgres, &schema).await, "1:a@1", "{sql}");
        // Without the index nothing is written, and no message is at fault.
        if sql.contains("PRIMARY") {
            postgres.run(&format!("ALTER TABLE {schema}.events DROP CONSTRAINT events_pkey")).await;
            let next = bodies(2, &[r#"{"id":1,"v":"b"}"#]);
            transient(write(&mut sink, next.clone()).await);
            let why = transient(write(&mut sink, next.clone()).await);
            assert!(why.contains(&remedy), "{why}");
            postgres.run(&remedy).await;
            write(&mut sink, next).await.unwrap();
            assert_eq!(rows(postgres, &schema).await, "1:b@2");
        }
    }
}

/// The server decides which keys are equal.
#[tokio::test]
async fn keys_are_equal_as_the_server_says() {
    let postgres = or_skip!(Postgres::shared().await);
    for (kind, columns, values, expected) in [
        ("numeric(5,1)", ColumnType::Numeric, ["1", "1.0", "1.04", "2"], 2),
        ("char(4)", ColumnType::Text, ["\"a\"", "\"a \"", "\"a  \"", "\"A\""], 2),
        (
            "uuid",
            ColumnType::Text,
            [
                "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
                "\"A0EEBC999C0B4EF8BB6D6BB9BD380A11\"",
                "\"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}\"",
                "\"b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
            ],
            2,
        ),
        ("text", ColumnType::Text, ["\"a\"", "\"A\"", "\"\"", "\"ä\""], 4),
        (
            "timestamptz",
            ColumnType::Timestamp,
            ["0", "\"1970-01-01T00:00:00Z\"", "\"1970-01-01T01:00:00+01:00\"", "1"],
            2,
        ),
        ("bytea", ColumnType::Bytes, ["\"a\"", "\"b\"", "\"a\"", "\"\""], 3),
    ] {
        let schema = postgres.schema().await;
        postgres
            .run(&format!(
                "CREATE TABLE {schema}.events (stream text, \"offset\" bigint, timestamp timestamptz, \
                 k {kind} PRIMARY KEY, must text NOT NULL, checked int CHECK (checked < 5))"
            ))
            .await;
        let columns = vec![
            column("k", "/k", columns),
            column("must", "/must", ColumnType::Text),
            column("checked", "/checked", ColumnType::Integer),
        ];
        let mut sink = open(PostgresOptions {
            columns: Some(columns),
            upsert: Some(by(&["k"])),
            ..options(&postgres.url(), &schema)
        })
        .await
        .unwrap();
        let put: Vec<String> =
            values.iter().map(|k| format!("{{\"k\":{k},\"must\":\"x\"}}")).collect();
        let gone: Vec<String> =
            values.iter().map(|k| format!("{{\"k\":{k},\"op\":\"d\"}}")).collect();
        let count = format!("SELECT count(*) FROM {schema}.events");
        let client = postgres.client().await;
        for (first, batch, rows) in [(0, &put, expected), (10, &gone, 0), (20, &put, expected)] {
            write(&mut sink, bodies(first, batch)).await.unwrap();
            let found: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
            assert_eq!(found, rows, "{kind}");
        }
        // Only the last change of a key counts: what the server refuses of it is found.
        let k = values[0];
        let last = format!("{{\"k\":{k},\"must\":\"x\",\"checked\":9}}");
        let batch: Vec<&String> = vec![&put[0], &put[3], &last];
        let bad = poison(write(&mut sink, bodies(30, &batch)).await);
        assert_eq!(bad.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(), [32], "{kind}: {bad:?}");
        assert!(bad[0].detail.contains("events_checked_check"), "{bad:?}");
        write(&mut sink, bodies(30, &[&put[0], &put[3]])).await.unwrap();
        client.execute(&format!("DROP TABLE {schema}.events"), &[]).await.unwrap();
    }
}

/// What the server refuses of many: a length, a check, a foreign key, a trigger, and a delete that another
/// table forbids.
#[tokio::test]
async fn what_the_server_refuses_is_found_among_changes() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    postgres
        .run(&format!(
            "CREATE TABLE {schema}.events (stream text, \"offset\" bigint, timestamp timestamptz, \
             v varchar(3) CHECK (v <> 'no'), id bigint PRIMARY KEY); \
             CREATE TABLE {schema}.children (id bigint REFERENCES {schema}.events)"
        ))
        .await;
    let mut sink = open(keyed(postgres, &schema)).await.unwrap();
    let mut all: Vec<String> =
        (0..1000).map(|id| format!("{{\"id\":{id},\"v\":\"{}\"}}", id % 100)).collect();
    write(&mut sink, bodies(0, &all)).await.unwrap();
    postgres.run(&format!("INSERT INTO {schema}.children VALUES (7)")).await;
    all[3] = r#"{"id":3,"v":"longer"}"#.to_owned();
    all[7] = r#"{"id":7,"op":"d"}"#.to_owned();
    all[500] = r#"{"id":500,"v":"no"}"#.to_owned();
    all[501] = r#"{"id":501,"op":"d"}"#.to_owned();
    let batch = bodies(1000, &all);
    let bad = poison(write(&mut sink, batch.clone()).await);
    assert_eq!(
        bad.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(),
        [1003, 1007, 1500],
        "{bad:?}"
    );
    write(&mut sink, batch.without(bad.iter().map(|bad| bad.offset).collect())).await.unwrap();
    let found = rows(postgres, &schema).await;
    for part in ["3:3@3 ", "7:7@7 ", " 500:0@500 502:2@1502 ", " 999:99@1999"] {
        assert!(found.contains(part), "{part}: {found}");
    }
}

#[tokio::test]
async fn missing_rights_are_named() {
    let postgres = or_skip!(Postgres::shared().await);
    let schema = postgres.schema().await;
    drop(open(keyed(postgres, &schema)).await.unwrap());
    let role = format!("{schema}_role");
    postgres
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}; \
             GRANT INSERT ON {schema}.events TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON {schema}.rillway_positions TO {role}"
        ))
        .await;
    let mut options = keyed(postgres, &schema);
    options.url = Secret::new(postgres.url_of(&role, postgres.port));
    let why = transient(look(&options).await);
    let grant =
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON \"{schema}\".\"events\" TO {role}");
    assert!(why.contains(&grant), "{why}");
    postgres.run(&grant).await;
    look(&options).await.unwrap();
    let mut sink = open(options.clone()).await.unwrap();
    write(&mut sink, bodies(0, &[r#"{"id":1,"v":"a"}"#])).await.unwrap();
    // Only an owner adds columns.
    options.columns.as_mut().unwrap().push(column("w", "/w", ColumnType::Text));
    for (missing, says) in
        [(Missing::Refuse, "evolve = \"add\""), (Missing::Add, "only the table's owner may")]
    {
        options.missing = missing;
        for why in
            [transient(look(&options).await), transient(open(options.clone()).await.map(drop))]
        {
            assert!(why.contains(says), "{why}");
            assert!(why.contains("ADD COLUMN \"w\" text"), "{why}");
        }
    }
    let owner = PostgresOptions { url: keyed(postgres, &schema).url, ..options };
    look(&owner).await.unwrap();
    let mut sink = open(owner).await.unwrap();
    write(&mut sink, bodies(1, &[r#"{"id":1,"v":"a","w":"w"}"#])).await.unwrap();
}

/// A writer that is in the middle of its work when another one adds columns goes on; nothing is dropped or
/// retyped.
#[tokio::test]
async fn a_writer_goes_on_while_another_adds_columns() {
    let postgres = or_skip!(Postgres::shared().await);
    for upsert in [None, Some(by(&["id"]))] {
        let schema = postgres.schema().await;
        let options = PostgresOptions { upsert, ..keyed(postgres, &schema) };
        let mut writer = open(options.clone()).await.unwrap();
        write(&mut writer, bodies(0, &[r#"{"id":1,"v":"a"}"#])).await.unwrap();
        let mut wider = options.clone();
        wider.columns.as_mut().unwrap().insert(0, column("w", "/w", ColumnType::Integer));
        let why = transient(open_as(&wider, "other", "r").await.map(drop));
        assert!(why.contains("evolve = \"add\""), "{why}");
        wider.missing = Missing::Add;
        let mut other = open_as(&wider, "other", "r").await.unwrap();
        write(&mut other, of_other(0, r#"{"id":2,"v":"b","w":5}"#)).await.unwrap();
        write(&mut writer, bodies(1, &[r#"{"id":3,"v":"c"}"#])).await.unwrap();
        assert_eq!(rows(postgres, &schema).await, "1:a@0 2:b@0 3:c@1");
        let sum = format!("SELECT sum(w)::text FROM {schema}.events");
        let sum: String = postgres.client().await.query_one(&sum, &[]).await.unwrap().get(0);
        assert_eq!(sum, "5");
        let mut other_type = wider.clone();
        other_type.columns.as_mut().unwrap()[0].kind = ColumnType::Text;
        let why = transient(open_as(&other_type, "third", "r").await.map(drop));
        assert!(why.contains("of type bigint, and its values need text"), "{why}");
    }
}

/// Any sequence of changes, in batches of any size, leaves the last change of each key.
#[tokio::test]
async fn the_table_is_the_last_state() {
    let postgres = or_skip!(Postgres::shared().await);
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let schema = postgres.schema().await;
        let mut expected: BTreeMap<u64, String> = BTreeMap::new();
        let mut sink = open(keyed(postgres, &schema)).await.unwrap();
        let mut offset = 0;
        for _ in 0..20 {
            let (mut batch, first) = (Vec::new(), offset);
            for _ in 0..random.u64(1..60) {
                let id = random.u64(0..20);
                if random.u8(0..4) == 0 {
                    batch.push(format!("{{\"id\":{id},\"op\":\"d\"}}"));
                    expected.remove(&id);
                } else {
                    batch.push(format!("{{\"id\":{id},\"v\":\"{offset}\"}}"));
                    expected.insert(id, format!("{id}:{offset}@{offset}"));
                }
                offset += 1;
            }
            write(&mut sink, bodies(first, &batch)).await.unwrap();
            let expected: Vec<&str> = expected.values().map(String::as_str).collect();
            assert_eq!(rows(postgres, &schema).await, expected.join(" "), "seed {seed}");
        }
    }
}
