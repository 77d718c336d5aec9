//! A database that others change while the sink writes, and tables that two references want to write.

use super::tests::{Place, fatal, of, offsets, open, poison, transient};
use super::*;
use crate::sink::conformance::{STREAM, batch, message};
use crate::types::column::{Column, ColumnType, OnMisfit};

const NAME: &str = "analytics";

fn column(name: &str, kind: ColumnType) -> Column {
    let from = format!("/{name}").parse().unwrap();
    Column { name: name.into(), from, kind, required: false, on_misfit: OnMisfit::BadMessage }
}

fn bodies(first: u64, bodies: &[&str]) -> Arc<Batch> {
    of(first, &bodies.iter().map(|body| message(body.as_bytes())).collect::<Vec<_>>())
}

/// A change by another program.
fn run(place: &Place, sql: &str) {
    let database = rusqlite::Connection::open(&place.options.path).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn open_as(options: &SqliteOptions, reference: &str) -> Result<SqliteSink, SinkError> {
    SqliteSink::open(options.clone(), STREAM.into(), reference.into()).await
}

#[tokio::test]
async fn a_changed_table_is_checked_again() {
    let swap = |columns: &str| {
        format!(
            "BEGIN; ALTER TABLE events RENAME TO former; CREATE TABLE events ({columns}); \
             INSERT INTO events (stream, offset, timestamp, v) SELECT stream, offset, timestamp, v FROM former; COMMIT"
        )
    };
    let back = "DROP TABLE events; ALTER TABLE former RENAME TO events";
    let view = "ALTER TABLE events RENAME TO former; CREATE VIEW events AS SELECT * FROM former; \
                CREATE TRIGGER no INSTEAD OF INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END";
    let gone = "ALTER TABLE events RENAME TO former";
    let place = || {
        let mut place = Place::new();
        place.options.columns = Some(vec![column("v", ColumnType::Text)]);
        place
    };
    // `0012` would be 12 there; a NOT NULL would refuse every row.
    for (change, says, back) in [
        (swap("stream, offset INTEGER, timestamp, v INTEGER"), "changes values", back),
        (
            swap("stream TEXT, offset INTEGER, timestamp TEXT, v INTEGER) STRICT -- "),
            "STRICT",
            back,
        ),
        (swap("stream, offset INTEGER, timestamp, v, must TEXT NOT NULL DEFAULT 'x'"), "", ""),
        (view.to_owned(), "it is a view", "DROP VIEW events; ALTER TABLE former RENAME TO events"),
        (gone.to_owned(), "has no table", "ALTER TABLE former RENAME TO events"),
        (
            "ALTER TABLE events RENAME v TO w".to_owned(),
            "\"v\" is missing",
            "ALTER TABLE events RENAME w TO v",
        ),
        (
            "ALTER TABLE events DROP v; ALTER TABLE events ADD w; ALTER TABLE events ADD v TEXT"
                .to_owned(),
            "",
            "",
        ),
    ] {
        let change = change.replace("STRICT -- )", "STRICT");
        let place = place();
        let mut sink = open(&place.options).await.unwrap();
        sink.write(&bodies(0, &[r#"{"v":"0011"}"#])).await.unwrap();
        run(&place, &change);
        let next = bodies(1, &[r#"{"v":"0012"}"#, r#"{"v":"0013"}"#]);
        if !says.is_empty() {
            for _ in 0..2 {
                let why = transient(sink.write(&next).await);
                assert!(why.contains(says), "{change}: {why}");
            }
            run(&place, back);
        }
        sink.write(&next).await.unwrap();
        let last = place.ask("SELECT v FROM events ORDER BY offset DESC LIMIT 1");
        assert_eq!(last, [[rusqlite::types::Value::Text("0013".into())]], "{change}");
    }
}

/// A deferred foreign key: its records are reported together with the bad ones behind them. They do not
/// halt the consumer, and none of them becomes a dead letter too late.
#[tokio::test]
async fn a_deferred_foreign_key_is_a_matter_of_records() {
    for (last, expected) in [(r#"{"id":1}"#, vec![1]), ("no JSON", vec![1, 3])] {
        let mut place = Place::prepared(
            "CREATE TABLE known (id INTEGER PRIMARY KEY); INSERT INTO known VALUES (1); \
             CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, \
             id INTEGER REFERENCES known DEFERRABLE INITIALLY DEFERRED)",
        );
        place.options.columns = Some(vec![column("id", ColumnType::Integer)]);
        let mut sink = open(&place.options).await.unwrap();
        let batch = bodies(0, &[r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":1}"#, last]);
        let bad = poison(sink.write(&batch).await);
        assert_eq!(bad.iter().map(|bad| bad.offset.0).collect::<Vec<_>>(), expected);
        assert!(offsets(&place.options).is_empty());
        let bad = expected.into_iter().map(crate::types::Offset).collect();
        let rest = Arc::unwrap_or_clone(batch).without(bad);
        let rows = rest.messages();
        sink.write(&Arc::new(rest)).await.unwrap();
        assert_eq!(offsets(&place.options).len() as u64, rows);
    }
}

#[tokio::test]
async fn two_references_do_not_write_one_stream_into_one_table() {
    let place = Place::new();
    let mut first = open(&place.options).await.unwrap();
    first.write(&Arc::new(batch(0..3))).await.unwrap();
    // By another path to the same file.
    let link = place.dir.path().join("link.db");
    std::os::unix::fs::symlink(&place.options.path, &link).unwrap();
    let linked = SqliteOptions { path: link, table: "EVENTS".into(), ..place.options.clone() };
    for options in [&place.options, &linked] {
        let why = fatal(open_as(options, "renamed").await.map(drop));
        for says in [
            "under the reference \"analytics\" (up to offset 2)",
            "reference = \"analytics\"",
            "DELETE FROM",
        ] {
            assert!(why.contains(says), "{why}");
        }
        let why = fatal(examine(options, &STREAM.into(), &"renamed".into()));
        assert!(why.contains("twice"), "{why}");
    }
    // Nothing was taken over meanwhile.
    first.write(&Arc::new(batch(3..4))).await.unwrap();
    // Other tables, other streams and replays repeat nothing.
    let beside = SqliteOptions { table: "beside".into(), ..place.options.clone() };
    open_as(&beside, "renamed").await.unwrap();
    open_as(&place.options, "analytics.replay-1").await.unwrap();
    SqliteSink::open(place.options.clone(), "other".into(), "renamed".into()).await.unwrap();
    // The remedy that the error names.
    run(
        &place,
        "DELETE FROM events; DELETE FROM rillway_positions WHERE stream = 'events' AND reference LIKE 'analytics%'",
    );
    let mut sink = open_as(&place.options, "renamed").await.unwrap();
    sink.write(&Arc::new(batch(0..2))).await.unwrap();
    assert_eq!(offsets(&place.options), [0, 1]);
}

#[tokio::test]
async fn an_inspection_reports_unwritable_tables() {
    let place = Place::prepared(
        "CREATE VIEW events AS SELECT 1 AS stream; CREATE TABLE other (a NOT NULL)",
    );
    let look = |path: &std::path::Path, table: &str, create| {
        let options = SqliteOptions {
            path: path.to_owned(),
            table: table.to_owned(),
            create,
            ..place.options.clone()
        };
        examine(&options, &STREAM.into(), &NAME.into())
    };
    let (path, dir) = (&place.options.path, place.dir.path());
    assert!(fatal(look(path, "events", true)).contains("it is a view"));
    assert!(fatal(look(path, "other", true)).contains("the column \"stream\" is missing"));
    assert!(fatal(look(path, "none", false)).contains("has no table \"none\""));
    assert_eq!(look(path, "none", true).unwrap(), None);
    let why = fatal(look(dir, "events", true));
    assert!(why.contains("it is a folder") && !why.contains("disk"), "{why}");
    assert!(fatal(look(&path.join("below.db"), "events", true)).contains("is not a folder"));
    assert!(transient(look(&dir.join("none.db"), "events", false)).contains("`create` is false"));
    assert_eq!(look(&dir.join("new/deep/none.db"), "events", true).unwrap(), None);
    assert!(!dir.join("new").exists(), "a look made a folder");
    // A start says the same.
    let folder = SqliteOptions { path: dir.to_owned(), ..place.options.clone() };
    let why = fatal(open(&folder).await.map(drop));
    assert!(why.contains("it is a folder"), "{why}");
}
