//! The sqlite sink as its users meet it: real files, through the trait, queried by a connection of the
//! test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use tempfile::TempDir;

use super::*;
use crate::sink::BadReason;
use crate::sink::conformance::{self, Medium, Owners, STREAM, batch, message};
pub(super) use crate::sink::testing::{fatal, poison, transient};
use crate::types::Offset;
use crate::types::column::{Column, ColumnType, OnMisfit};

pub(super) const REFERENCE: &str = "analytics";

pub(super) async fn open(options: &SqliteOptions) -> Result<SqliteSink, SinkError> {
    SqliteSink::open(options.clone(), STREAM.into(), REFERENCE.into()).await
}

/// A folder and a database in it.
pub(super) struct Place {
    pub(super) dir: TempDir,
    pub(super) options: SqliteOptions,
    /// Another program's connection, in a transaction.
    lock: Option<Mutex<Connection>>,
}

impl Place {
    pub(super) fn new() -> Place {
        let dir = TempDir::new().unwrap();
        let options = SqliteOptions::new(dir.path().join("a/b.db"), &STREAM.into());
        Place { dir, options, lock: None }
    }

    fn with_columns(columns: &[Column]) -> Place {
        let mut place = Place::new();
        place.options.columns = Some(columns.to_vec());
        place
    }

    /// Runs statements before the first sink is opened.
    pub(super) fn prepared(sql: &str) -> Place {
        let place = Place::new();
        std::fs::create_dir(place.dir.path().join("a")).unwrap();
        Connection::open(&place.options.path).unwrap().execute_batch(sql).unwrap();
        place
    }

    pub(super) fn ask(&self, sql: &str) -> Vec<Vec<Sql>> {
        ask(&self.options.path, sql)
    }

    fn offsets(&self) -> Vec<u64> {
        offsets(&self.options)
    }
}

/// The result of a query, by a connection of the test's own.
pub(super) fn ask(path: &Path, sql: &str) -> Vec<Vec<Sql>> {
    let database = Connection::open(path).unwrap();
    let mut statement = database.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| (0..width).map(|nth| row.get(nth)).collect());
    rows.unwrap().map(Result::unwrap).collect()
}

pub(super) fn offsets(options: &SqliteOptions) -> Vec<u64> {
    let sql = format!("SELECT offset FROM {} ORDER BY rowid", table::quoted(&options.table));
    ask(&options.path, &sql)
        .into_iter()
        .map(|row| match row[..] {
            [Sql::Integer(offset)] => offset.cast_unsigned(),
            _ => panic!("{row:?}"),
        })
        .collect()
}

/// A batch of these messages from offset `first` on.
pub(super) fn of(first: u64, messages: &[Vec<u8>]) -> Arc<Batch> {
    let part = conformance::part(first, messages).unwrap();
    Arc::new(Batch::new(STREAM.into(), vec![part]).unwrap())
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

fn typed(name: &str, from: &str, kind: ColumnType) -> Column {
    let on_misfit = OnMisfit::BadMessage;
    Column { name: name.to_owned(), from: from.parse().unwrap(), kind, required: false, on_misfit }
}

#[async_trait]
impl Medium for Place {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(open(&self.options).await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        Some(self.offsets())
    }

    fn owners(&self) -> Owners {
        Owners::LastByFence
    }

    /// Another program writes for a long time.
    async fn refuse(&mut self, on: bool) -> bool {
        self.lock = on.then(|| {
            let other = Connection::open(&self.options.path).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            Mutex::new(other)
        });
        true
    }

    async fn vanish(&mut self, on: bool) -> bool {
        let (here, away) = (self.dir.path().join("a"), self.dir.path().join("away"));
        let (from, to) = if on { (here, away) } else { (away, here) };
        std::fs::rename(from, to).unwrap();
        true
    }
}

pub(super) const NOT_ASKED: [&str; 8] = [
    "gives_up_what_is_held",
    "holds_until_flushed",
    "repeats_a_failed_flush",
    "survives_a_slow_medium",
    "survives_a_torn_write",
    "survives_a_torn_write_and_a_reopening",
    "tells_of_durable_parts_in_order",
    "winds_up_what_it_has_begun",
];

#[tokio::test]
async fn the_contract_is_kept() {
    let told = conformance::all(Place::new).await.unwrap();
    assert_eq!(told.not_asked(), NOT_ASKED);
}

#[tokio::test]
async fn the_contract_is_kept_with_columns() {
    let columns = [typed("what", "body", ColumnType::Text)];
    let told = conformance::all(|| Place::with_columns(&columns)).await.unwrap();
    assert_eq!(told.not_asked(), NOT_ASKED);
}

/// Properties (message-id, subject by a symbol), application properties, and a body.
fn full_message() -> Vec<u8> {
    let mut message = vec![0, 0x53, 0x73, 0xC0, 13, 4, 0xA1, 3, b'i', b'-', b'1', 0x40, 0x40];
    message.extend([0xA1, 3, b's', b'u', b'b']);
    message.extend([0, 0x53, 0x74, 0xC1, 6, 2, 0xA1, 1, b'n', 0x54, 7]);
    message.extend(conformance::message(b"text"));
    message
}

#[tokio::test]
async fn the_default_table_holds_the_envelope() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    let nul = [0, 0x53, 0x75, 0xA0, 3, b'a', 0, b'b'];
    let messages =
        [message(b"{}"), full_message(), message(&[0xFF, 1]), nul.to_vec(), message(b"")];
    sink.write(&of(7, &messages)).await.unwrap();
    let rows = place.ask("SELECT * FROM events");
    let stamp = text("2023-11-14 22:13:20.007");
    let row = |offset: i64, rest: [Sql; 4]| {
        [vec![text("events"), Sql::Integer(offset), stamp.clone()], rest.to_vec()].concat()
    };
    let only = |body: Sql| [Sql::Null, Sql::Null, Sql::Null, body];
    assert_eq!(
        rows,
        [
            row(7, only(text("{}"))),
            row(8, [text("i-1"), text("sub"), text("{\"n\":7}"), text("text")]),
            row(9, only(Sql::Blob(vec![0xFF, 1]))),
            row(10, only(Sql::Blob(b"a\0b".to_vec()))),
            row(11, only(text(""))),
        ]
    );
    // In the form of SQLite's own functions.
    let within = "SELECT count(*), min(strftime('%s', timestamp)) FROM events
                  WHERE timestamp >= datetime(1700000000, 'unixepoch')
                  AND timestamp < datetime(1700000001, 'unixepoch')";
    assert_eq!(place.ask(within), [[Sql::Integer(5), text("1700000000")]]);
}

#[tokio::test]
async fn columns_take_typed_values() {
    let place = Place::with_columns(&[
        typed("who", "/user/id", ColumnType::Text),
        typed("n", "/n", ColumnType::Integer),
        typed("f", "/f", ColumnType::Float),
        typed("amount", "/amount", ColumnType::Numeric),
        typed("yes", "/yes", ColumnType::Boolean),
        typed("at", "/at", ColumnType::Timestamp),
        typed("rest", "/rest", ColumnType::Json),
        typed("raw", "/user/id", ColumnType::Bytes),
    ]);
    let mut sink = open(&place.options).await.unwrap();
    let json = br#"{"user":{"id":"0012"},"n":-3,"f":0.5,"amount":12.30,"yes":true,
        "at":"2026-01-02T03:04:05.678901+01:00","rest":[1,{"a":null}]}"#;
    sink.write(&of(0, &[message(json), message(b"{}")])).await.unwrap();
    let rows = place.ask("SELECT who, n, f, amount, yes, at, rest, raw FROM events");
    assert_eq!(
        rows[0],
        [
            text("0012"),
            Sql::Integer(-3),
            Sql::Real(0.5),
            Sql::Real(12.3),
            Sql::Integer(1),
            text("2026-01-02 02:04:05.678901"),
            text("[1,{\"a\":null}]"),
            Sql::Blob(b"0012".to_vec()),
        ]
    );
    assert_eq!(rows[1], vec![Sql::Null; 8]);
}

#[tokio::test]
async fn bad_records_are_named_and_the_rest_lands() {
    let mut lenient = typed("lenient", "/m", ColumnType::Numeric);
    lenient.on_misfit = OnMisfit::Null;
    let n = typed("n", "/n", ColumnType::Integer);
    let m = typed("m", "/m", ColumnType::Numeric);
    let place = Place::with_columns(&[n, m, lenient]);
    let mut sink = open(&place.options).await.unwrap();
    let bodies: [&[u8]; 6] = [
        br#"{"n":1,"m":1}"#,
        b"not JSON",
        br#"{"n":"one"}"#,
        br#"{"n":2,"m":12345678901234567890.5}"#,
        b"\xFF",
        br#"{"n":3,"m":0.1}"#,
    ];
    let batch = of(40, &bodies.map(message));
    let bad = poison(sink.write(&batch).await);
    let named: Vec<_> = bad.iter().map(|b| (b.offset.0, b.reason)).collect();
    let misfit = BadReason::Misfit;
    assert_eq!(named, [(41, misfit), (42, misfit), (43, misfit), (44, misfit)], "{bad:?}");
    assert!(bad[2].detail.contains("\"m\"") && bad[2].detail.contains("text"), "{bad:?}");
    assert!(place.offsets().is_empty());
    let rest = (*batch).clone().without(bad.iter().map(|b| b.offset).collect());
    sink.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(place.offsets(), [40, 45]);
    assert_eq!(sink.position().await.unwrap(), Some(batch.checkpoint()));
}

#[tokio::test]
async fn rows_that_the_table_refuses_are_bad_and_none_is_dropped_in_silence() {
    // IGNORE and REPLACE would drop a row silently.
    let place = Place::prepared(
        "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, message_id TEXT,
            subject TEXT, application_properties TEXT,
            body TEXT UNIQUE ON CONFLICT IGNORE CHECK (length(body) < 5))",
    );
    let mut sink = open(&place.options).await.unwrap();
    let messages = [&b"a"[..], b"bb", b"a", b"too long", b"c", b"a"].map(message);
    let batch = of(0, &messages);
    let bad = poison(sink.write(&batch).await);
    let named: BTreeMap<_, _> = bad.iter().map(|b| (b.offset.0, b.detail.as_str())).collect();
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), [2, 3, 5]);
    assert!(named[&2].contains("UNIQUE constraint failed: events.body"), "{bad:?}");
    assert!(named[&3].contains("CHECK constraint failed"), "{bad:?}");
    assert!(bad.iter().all(|b| b.reason == BadReason::Refused));
    let rest = (*batch).clone().without(bad.iter().map(|b| b.offset).collect());
    sink.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(place.offsets(), [0, 1, 4]);
}

#[tokio::test]
async fn a_row_beyond_sqlites_limit_is_bad() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    sink.run(|writer| writer.limit_length(1_000)).await.unwrap();
    let messages = [message(b"small"), message(&[b'x'; 2_000]), message(&[b'y'; 900])];
    let bad = poison(sink.write(&of(0, &messages)).await);
    assert_eq!(bad.iter().map(|b| b.offset).collect::<Vec<_>>(), [Offset(1)]);
    assert!(bad[0].detail.contains("too big"), "{bad:?}");
    let rest = (*of(0, &messages)).clone().without(vec![Offset(1)]);
    sink.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(place.offsets(), [0, 2]);
}

/// SQLite gives the failure of an expression no number of its own.
#[tokio::test]
async fn a_row_over_which_an_expression_fails_is_bad_and_the_table_is_not() {
    let place = Place::new();
    drop(open(&place.options).await.unwrap());
    place.ask("CREATE INDEX by_user ON events (json_extract(body, '$.user'))");
    let mut sink = open(&place.options).await.unwrap();
    let messages = [message(b"{\"user\":1}"), message(b"no JSON"), message(b"{\"user\":2}")];
    let bad = poison(sink.write(&of(0, &messages)).await);
    assert_eq!(bad.iter().map(|b| b.offset.0).collect::<Vec<_>>(), [1]);
    assert!(bad[0].detail.contains("malformed JSON"), "{bad:?}");
    let rest = (*of(0, &messages)).clone().without(vec![Offset(1)]);
    sink.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(place.offsets(), [0, 2]);
}

#[tokio::test]
async fn a_trigger_that_ends_the_transaction_commits_nothing() {
    let place = Place::new();
    drop(open(&place.options).await.unwrap());
    place.ask(
        "CREATE TRIGGER t BEFORE INSERT ON events WHEN new.body = 'bad'
         BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END",
    );
    let mut sink = open(&place.options).await.unwrap();
    let messages = [message(b"good"), message(b"bad"), message(b"good")];
    let bad = poison(sink.write(&of(0, &messages)).await);
    assert_eq!(bad.iter().map(|b| b.offset.0).collect::<Vec<_>>(), [1]);
    assert!(bad[0].detail.contains("not this one"), "{bad:?}");
    assert_eq!((place.offsets(), sink.position().await.unwrap()), (vec![], None));
    let rest = (*of(0, &messages)).clone().without(vec![Offset(1)]);
    sink.write(&Arc::new(rest)).await.unwrap();
    assert_eq!(place.offsets(), [0, 2]);
}

#[tokio::test]
async fn several_consumers_and_other_tables_live_in_one_file() {
    let place = Place::prepared("CREATE TABLE mine (a); INSERT INTO mine VALUES (1)");
    let one = SqliteOptions { table: "both".to_owned(), ..place.options.clone() };
    let mut first = open(&one).await.unwrap();
    let other = SqliteSink::open(one.clone(), "other".into(), "x".into()).await;
    let mut second = other.unwrap();
    let part = conformance::part(0, &[message(b"of another stream")]).unwrap();
    for n in 0..20 {
        let write = async |sink: &mut SqliteSink, batch: Batch| {
            sink.write(&Arc::new(batch)).await.unwrap();
        };
        let part = conformance::part(n, &[message(b"x")]).unwrap_or_else(|| part.clone());
        let theirs = Batch::new("other".into(), vec![part]).unwrap();
        tokio::join!(write(&mut first, batch(n * 3..n * 3 + 3)), write(&mut second, theirs));
    }
    let counted = place.ask("SELECT stream, count(*), max(offset) FROM both GROUP BY 1 ORDER BY 1");
    let row = |stream: &str, n, last| vec![text(stream), Sql::Integer(n), Sql::Integer(last)];
    assert_eq!(counted, [row("events", 60, 59), row("other", 20, 19)]);
    assert_eq!(place.ask("SELECT * FROM mine"), [[Sql::Integer(1)]]);
}

#[tokio::test]
async fn unsuitable_tables_are_reported_with_every_reason() {
    const REST: &str = "message_id TEXT, subject, application_properties TEXT, body BLOB";
    let cases = [
        (
            "TABLE events (stream TEXT, offset INT, BODY TEXT)",
            "\"timestamp\" is missing (as TEXT); ",
        ),
        ("VIEW events AS SELECT 1", "it is a view"),
        (
            "TABLE events (stream TEXT, offset TEXT, timestamp, REST)",
            "\"offset\" is declared \"TEXT\"",
        ),
        (
            "TABLE events (stream INT, offset INT, timestamp, REST)",
            "\"stream\" is declared \"INT\"",
        ),
        ("TABLE events (stream, offset, timestamp, REST, x NOT NULL)", "\"x\" must not be NULL"),
        ("TABLE events (stream, offset, timestamp AS (1), REST)", "\"timestamp\" is generated"),
        ("TABLE events (stream, offset, timestamp DATETIME, REST, x NOT NULL DEFAULT 1, y)", ""),
        ("TABLE Events (id INTEGER PRIMARY KEY, Stream, Offset INT, timestamp TEXT, REST)", ""),
    ];
    for (sql, expected) in cases {
        let place = Place::prepared(&format!("CREATE {}", sql.replace("REST", REST)));
        match expected {
            "" => {
                let mut sink = open(&place.options).await.unwrap();
                sink.write(&Arc::new(batch(0..3))).await.unwrap();
                assert_eq!(place.offsets(), [0, 1, 2]);
            }
            expected => {
                let why = fatal(open(&place.options).await);
                assert!(why.contains("the table \"events\"") && why.contains(expected), "{why}");
                assert!(place.ask("SELECT * FROM sqlite_schema").len() == 1, "something was made");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_created_unless_allowed() {
    let place = Place::prepared("CREATE TABLE x (a)");
    let options = SqliteOptions { create: false, ..place.options.clone() };
    let why = fatal(open(&options).await);
    assert!(why.contains("has no table \"events\"") && why.contains("CREATE TABLE"), "{why}");
    let (_, statement) = why.split_once("Create it: ").unwrap();
    place.ask(statement.trim_end_matches(';'));
    open(&options).await.unwrap();
    let missing = SqliteOptions { path: place.dir.path().join("none.db"), ..options };
    let why = transient(open(&missing).await);
    assert!(why.contains("none.db") && why.contains("not there"), "{why}");
    assert!(!missing.path.exists());
}

#[tokio::test]
async fn an_inspection_returns_the_position_and_changes_nothing() {
    let place = Place::new();
    let look = || examine(&place.options, &STREAM.into(), &REFERENCE.into()).unwrap();
    assert_eq!(look(), None);
    assert!(!place.dir.path().join("a").exists(), "a look made a folder");
    let mut sink = open(&place.options).await.unwrap();
    assert_eq!(look(), None);
    sink.write(&Arc::new(batch(0..3))).await.unwrap();
    assert_eq!(look(), Some(batch(0..3).checkpoint()), "while the sink is in use");
    sink.write(&Arc::new(batch(3..4))).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(look(), Some(batch(3..4).checkpoint()));
    let left: Vec<_> = std::fs::read_dir(place.dir.path().join("a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["b.db"], "what was left beside the database");
}

#[tokio::test]
async fn a_new_incarnation_begins_at_any_offset_and_the_rows_stay() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    sink.write(&Arc::new(batch(10..12))).await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    sink.write(&Arc::new(batch(0..2))).await.unwrap();
    drop(sink);
    let mut sink = open(&place.options).await.unwrap();
    assert_eq!(sink.position().await.unwrap(), Some(batch(0..2).checkpoint()));
    assert_eq!(place.offsets(), [10, 11, 0, 1]);
}

#[tokio::test]
async fn batches_of_another_stream_and_writes_after_the_end_are_refused() {
    let place = Place::new();
    let mut sink = open(&place.options).await.unwrap();
    let part = conformance::part(0, &[message(b"x")]).unwrap();
    let other = Arc::new(Batch::new("other".into(), vec![part]).unwrap());
    assert!(fatal(sink.write(&other).await).contains("internal error"));
    sink.close().await.unwrap();
    assert!(fatal(sink.write(&Arc::new(batch(0..1))).await).contains("after it was closed"));
}
