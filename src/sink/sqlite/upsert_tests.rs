//! Rows that are replaced by their key, and columns that are added.

use std::collections::BTreeMap;

use super::tests::{Place, ask, fatal, of, open, poison};
use super::*;
use crate::sink::conformance::{self, KeyedMedium, Medium, Owners, STREAM, message};
use crate::types::column::{Column, ColumnType, OnMisfit};
use crate::types::upsert::Upsert;
use rusqlite::types::Value as Sql;

fn column(name: &str, from: &str, kind: ColumnType) -> Column {
    let (name, from) = (name.to_owned(), from.parse().unwrap());
    Column { name, from, kind, required: false, on_misfit: OnMisfit::BadMessage }
}

fn by(key: &[&str]) -> Upsert {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    let delete_if = Some(("/op".parse().unwrap(), "d".to_owned()));
    Upsert { key, empty_body_deletes: false, delete_if }
}

/// A table of integers and texts by `id`.
fn place() -> Place {
    let mut place = Place::new();
    let id = column("id", "/id", ColumnType::Integer);
    place.options.columns = Some(vec![column("v", "/v", ColumnType::Text), id]);
    place.options.upsert = Some(by(&["id"]));
    place
}

fn bodies(first: u64, bodies: &[&str]) -> Arc<Batch> {
    of(first, &bodies.iter().map(|body| message(body.as_bytes())).collect::<Vec<_>>())
}

/// `id:v@offset` of each row.
fn rows(place: &Place) -> String {
    let sql = "SELECT id || ':' || ifnull(v, '-') || '@' || offset FROM events ORDER BY id";
    let all = place.ask(sql).into_iter().map(|row| match &row[..] {
        [Sql::Text(text)] => text.clone(),
        other => panic!("{other:?}"),
    });
    all.collect::<Vec<_>>().join(" ")
}

struct Keyed(Place);

#[async_trait]
impl Medium for Keyed {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        self.0.open().await
    }

    /// Rows of a former incarnation have no offset.
    async fn visible(&mut self) -> Option<Vec<u64>> {
        let rows =
            self.0.ask("SELECT offset FROM events WHERE offset >= 0 ORDER BY offset").into_iter();
        let offset = |row: Vec<Sql>| match row[..] {
            [Sql::Integer(offset)] => offset.cast_unsigned(),
            _ => panic!("{row:?}"),
        };
        Some(rows.map(offset).collect())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    async fn refuse(&mut self, on: bool) -> bool {
        self.0.refuse(on).await
    }

    async fn vanish(&mut self, on: bool) -> bool {
        self.0.vanish(on).await
    }
}

/// Changes are made one by one, in their order, so another unique index refuses only what it would refuse of single
/// messages; also one that was added meanwhile.
#[tokio::test]
async fn another_unique_index_refuses_single_messages() {
    let mut place = place();
    let mut sink = place.open().await.unwrap();
    sink.write(&bodies(0, &[r#"{"id":1,"v":"a"}"#, r#"{"id":2,"v":"b"}"#])).await.unwrap();
    place.ask("CREATE UNIQUE INDEX other ON events (v)");
    let next = [
        r#"{"id":2,"v":"c"}"#,
        r#"{"id":1,"v":"b"}"#,
        r#"{"id":3,"v":"c"}"#,
        r#"{"id":2,"op":"d"}"#,
        r#"{"id":3,"v":"c"}"#,
    ];
    let batch = bodies(2, &next);
    let bad = poison(sink.write(&batch).await);
    assert_eq!(bad.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(), [4], "{bad:?}");
    assert!(bad[0].detail.contains("UNIQUE constraint failed: events.v"), "{bad:?}");
    sink.write(&Arc::new(Batch::clone(&batch).without(vec![bad[0].offset]))).await.unwrap();
    assert_eq!(rows(&place), "1:b@3 3:c@6");
}

#[tokio::test]
async fn the_contract_is_kept_with_a_key() {
    let fresh = || {
        let mut place = Place::new();
        place.options.columns = Some(vec![column("what", "body", ColumnType::Text)]);
        place.options.upsert = Some(Upsert { delete_if: None, ..by(&["what"]) });
        Keyed(place)
    };
    let told = conformance::all(fresh).await.unwrap();
    assert_eq!(told.not_asked(), super::tests::NOT_ASKED);
}

struct Latest(Place);

#[async_trait]
impl KeyedMedium for Latest {
    async fn open(&self, stream: &str, reference: &str) -> Result<Box<dyn Sink>, SinkError> {
        let opened =
            SqliteSink::open(self.0.options.clone(), stream.into(), reference.into()).await;
        opened.map(|sink| Box::new(sink) as Box<dyn Sink>)
    }

    async fn rows(&self) -> String {
        rows(&self.0)
    }

    async fn forget(&self) {
        let database = rusqlite::Connection::open(&self.0.options.path).unwrap();
        database.execute_batch("DELETE FROM rillway_positions").unwrap();
    }
}

#[tokio::test]
async fn a_row_is_the_latest_message_of_its_key() {
    let latest = Latest(place());
    conformance::keeps_the_latest_of_each_key(&latest).await.unwrap();
    // A key of one integer is the row's own id.
    let primary = latest.0.ask("SELECT count(*) FROM pragma_index_list('events')");
    assert_eq!(primary, [[Sql::Integer(0)]]);
}

#[tokio::test]
async fn an_earlier_message_does_not_replace_a_later_one() {
    conformance::never_goes_back(&Latest(place())).await.unwrap();
}

#[tokio::test]
async fn a_new_incarnation_replaces_the_rows_of_the_old_one() {
    conformance::begins_anew(&Latest(place())).await.unwrap();
}

#[tokio::test]
async fn a_table_needs_an_index_of_exactly_the_key() {
    let table =
        "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, v TEXT, id INTEGER";
    let remedy = "CREATE UNIQUE INDEX \"events_key\" ON \"events\" (\"id\" COLLATE BINARY)";
    for (sql, fits) in [
        (format!("{table})"), false),
        (format!("{table}, PRIMARY KEY (id))"), true),
        (format!("{table} UNIQUE)"), true),
        (format!("{table} PRIMARY KEY DESC)"), true),
        (format!("{table}) ; CREATE INDEX i ON events (id)"), false),
        (format!("{table}) ; CREATE UNIQUE INDEX i ON events (id) WHERE id > 5"), false),
        (format!("{table}) ; CREATE UNIQUE INDEX i ON events (id, v)"), false),
        (format!("{table}) ; CREATE UNIQUE INDEX i ON events (abs(id))"), false),
        (format!("{table}) ; CREATE UNIQUE INDEX i ON events (id COLLATE NOCASE)"), false),
        (format!("{table}); {remedy}"), true),
    ] {
        let mut place = Place::prepared(&sql);
        let like = self::place();
        place.options.columns = like.options.columns.clone();
        place.options.upsert = like.options.upsert.clone();
        let looked = examine(&place.options, &STREAM.into(), &"analytics".into());
        if fits {
            looked.unwrap_or_else(|error| panic!("{sql}: {error}"));
            let mut sink = open(&place.options).await.unwrap();
            for first in [0, 1] {
                sink.write(&bodies(first, &[r#"{"id":1,"v":"a"}"#])).await.unwrap();
            }
            assert_eq!(rows(&place), "1:a@1", "{sql}");
            continue;
        }
        for why in [fatal(looked), fatal(open(&place.options).await.map(drop))] {
            assert!(why.contains(remedy), "{sql}: {why}");
        }
    }
}

/// Values that differ for the key's index are different keys, whatever the column compares by.
#[tokio::test]
async fn keys_are_compared_as_they_are_written() {
    let mut place = Place::prepared(
        "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, v TEXT, \
         k TEXT COLLATE NOCASE); CREATE UNIQUE INDEX i ON events (k COLLATE BINARY, v COLLATE BINARY)",
    );
    place.options.columns =
        Some(vec![column("v", "/v", ColumnType::Text), column("k", "/k", ColumnType::Text)]);
    place.options.upsert = Some(by(&["k", "v"]));
    let mut sink = open(&place.options).await.unwrap();
    let all = [
        r#"{"k":"a","v":"1"}"#,
        r#"{"k":"A","v":"1"}"#,
        r#"{"k":"a\u0000b","v":"1"}"#,
        r#"{"k":"","v":""}"#,
        r#"{"k":"ä/'\"","v":"1"}"#,
    ];
    sink.write(&bodies(0, &all)).await.unwrap();
    let count = || place.ask("SELECT count(*) FROM events");
    assert_eq!(count(), [[Sql::Integer(5)]]);
    for (nth, body) in all.iter().enumerate() {
        let gone = body.replace('}', ",\"op\":\"d\"}");
        sink.write(&bodies(10 + nth as u64, &[&gone])).await.unwrap();
        assert_eq!(count(), [[Sql::Integer(4 - nth as i64)]], "{body}");
    }
}

#[tokio::test]
async fn numbers_as_keys_are_equal_when_they_mean_the_same() {
    let mut place = Place::new();
    place.options.columns = Some(vec![column("n", "/n", ColumnType::Numeric)]);
    place.options.upsert = Some(by(&["n"]));
    let mut sink = open(&place.options).await.unwrap();
    let all = [r#"{"n":1}"#, r#"{"n":1.0}"#, r#"{"n":"1.00"}"#, r#"{"n":1e0}"#, r#"{"n":1.5}"#];
    sink.write(&bodies(0, &all)).await.unwrap();
    assert_eq!(place.ask("SELECT count(*) FROM events"), [[Sql::Integer(2)]]);
    let bad = poison(sink.write(&bodies(9, &[r#"{"n":0.1234567890123456789}"#])).await);
    assert!(bad[0].detail.contains("so many digits"), "{bad:?}");
}

#[tokio::test]
async fn columns_are_added_on_request_and_never_changed() {
    let kinds = [
        ("t", ColumnType::Text),
        ("i", ColumnType::Integer),
        ("f", ColumnType::Float),
        ("n", ColumnType::Numeric),
        ("b", ColumnType::Boolean),
        ("j", ColumnType::Json),
        ("y", ColumnType::Bytes),
    ];
    for strict in ["", " STRICT"] {
        let mut place = Place::prepared(&format!(
            "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, old TEXT){strict}; \
             INSERT INTO events VALUES ('events', 0, '', 'kept')"
        ));
        let columns = kinds.iter().map(|(name, kind)| column(name, &format!("/{name}"), *kind));
        place.options.columns = Some(columns.collect());
        let looked = || examine(&place.options, &STREAM.into(), &"analytics".into());
        let why = fatal(looked());
        assert!(why.contains("evolve = \"add\""), "{why}");
        assert!(why.contains("ALTER TABLE \"events\" ADD COLUMN \"i\" INTEGER;"), "{why}");
        assert_eq!(fatal(open(&place.options).await.map(drop)), why);
        place.options.missing = Missing::Add;
        examine(&place.options, &STREAM.into(), &"analytics".into()).unwrap();
        let mut sink = open(&place.options).await.unwrap();
        let body = r#"{"t":"x","i":1,"f":2.5,"n":3,"b":true,"j":[],"y":"z"}"#;
        sink.write(&bodies(1, &[body])).await.unwrap();
        let all = place.ask("SELECT old, t, i, f, n, b, j, y FROM events ORDER BY offset");
        let mut nulls = vec![Sql::Text("kept".to_owned())];
        nulls.resize(kinds.len() + 1, Sql::Null);
        assert_eq!(all[0], nulls);
        let text = |text: &str| Sql::Text(text.to_owned());
        let expected = [
            Sql::Null,
            text("x"),
            Sql::Integer(1),
            Sql::Real(2.5),
            Sql::Integer(3),
            Sql::Integer(1),
            text("[]"),
            Sql::Blob(b"z".to_vec()),
        ];
        assert_eq!(all[1], expected);
        // Types are not changed.
        place.options.columns = Some(vec![column("i", "/i", ColumnType::Text)]);
        let why = fatal(open(&place.options).await.map(drop));
        assert!(why.contains("\"i\" is declared \"INTEGER\""), "{why}");
    }
}

/// A writer that is in the middle of its work when another one adds columns goes on.
#[tokio::test]
async fn a_writer_goes_on_while_another_adds_columns() {
    let place = place();
    let mut writer = open(&place.options).await.unwrap();
    writer.write(&bodies(0, &[r#"{"id":1,"v":"a"}"#])).await.unwrap();
    let mut wider = place.options.clone();
    wider.columns.as_mut().unwrap().push(column("w", "/w", ColumnType::Text));
    wider.missing = Missing::Add;
    let mut other =
        SqliteSink::open(wider.clone(), "other".into(), "analytics".into()).await.unwrap();
    let part = conformance::part(0, &[message(br#"{"id":2,"v":"b","w":"w"}"#)]).unwrap();
    other.write(&Arc::new(Batch::new("other".into(), vec![part]).unwrap())).await.unwrap();
    writer.write(&bodies(1, &[r#"{"id":3,"v":"c"}"#])).await.unwrap();
    assert_eq!(rows(&place), "1:a@0 2:b@0 3:c@1");
    // A column of the key is not added: the rows that exist would have no key.
    let mut keyed = wider.clone();
    keyed.columns.as_mut().unwrap().push(column("k", "/k", ColumnType::Text));
    keyed.upsert = Some(by(&["k"]));
    let why = fatal(SqliteSink::open(keyed, "third".into(), "analytics".into()).await.map(drop));
    assert!(why.contains("\"k\" is missing"), "{why}");
    let columns = ask(&place.options.path, "SELECT name FROM pragma_table_info('events')");
    assert_eq!(columns.len(), 6, "{columns:?}");
}

/// Any sequence of changes, in batches of any size, with a restart of the sink in between, leaves the last
/// change of each key.
#[test]
fn the_table_is_the_last_state() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let place = place();
        let mut expected: BTreeMap<u64, String> = BTreeMap::new();
        let mut sink = runtime.block_on(open(&place.options)).unwrap();
        let mut offset = 0;
        for _ in 0..20 {
            let mut batch = Vec::new();
            let first = offset;
            for _ in 0..random.u64(1..30) {
                let id = random.u64(0..12);
                if random.u8(0..4) == 0 {
                    batch.push(format!("{{\"id\":{id},\"op\":\"d\"}}"));
                    expected.remove(&id);
                } else {
                    batch.push(format!("{{\"id\":{id},\"v\":\"{offset}\"}}"));
                    expected.insert(id, format!("{id}:{offset}@{offset}"));
                }
                offset += 1;
            }
            let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
            if random.bool() {
                runtime.block_on(sink.close()).unwrap();
                sink = runtime.block_on(open(&place.options)).unwrap();
            }
            runtime.block_on(sink.write(&bodies(first, &batch))).unwrap();
            let expected: Vec<&str> = expected.values().map(String::as_str).collect();
            assert_eq!(rows(&place), expected.join(" "), "seed {seed}, before {offset}");
        }
    }
}
