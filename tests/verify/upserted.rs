//! Tables of the latest row of each key: what was deleted, altered, put back or brought in is told, exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{assert_same, consumer, report, verify};
use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const CHANGES: u64 = 2_000;
const KEYS: u64 = 97;

/// The change at this offset: its key, and the value that it sets; none: it deletes.
fn change(offset: u64) -> (u64, Option<u64>) {
    let key = offset * 31 % KEYS;
    (key, (!offset.is_multiple_of(7)).then_some(offset * 3))
}

fn body(offset: u64) -> String {
    match change(offset) {
        _ if offset == 500 => "no JSON".to_owned(),
        (key, Some(v)) => {
            format!("{{\"id\":\"k{key}\",\"n\":{key}.50,\"v\":{v},\"doc\":{{\"b\":1,\"a\":{v}}}}}")
        }
        (key, None) => format!("{{\"id\":\"k{key}\",\"n\":{key}.5,\"op\":\"d\"}}"),
    }
}

/// The rows that should be there: the offset of each key.
fn latest(upto: u64) -> BTreeMap<u64, u64> {
    let mut rows = BTreeMap::new();
    for offset in (0..upto).filter(|offset| *offset != 500) {
        match change(offset) {
            (key, Some(_)) => rows.insert(key, offset),
            (key, None) => rows.remove(&key),
        };
    }
    rows
}

const ROWS: &str = "mode = \"upsert\", key = [\"id\", \"n\"], delete_when = { from = \"/op\", equals = \"d\" }, \
    columns = { id = \"/id\", n = { from = \"/n\", type = \"numeric\" }, v = { from = \"/v\", type = \"integer\" }, \
    doc = { from = \"/doc\", type = \"json\" } }";

/// A database with the table `latest`, in which statements can be run.
struct Table<R> {
    name: &'static str,
    sink: String,
    /// What stands before the table's name.
    schema: String,
    run: R,
}

async fn forged<R: AsyncFn(&Home, String)>(table: Table<R>) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "upserted").await;
    streams::publish(broker, &stream, (0..CHANGES).map(body)).await;
    let Table { name, sink, schema, run } = table;
    let text = consumer(name, &stream, &sink) + "on_bad_message = \"skip\"\n";
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    daemon.until_durable(name, CHANGES - 1).await;
    let rows = latest(CHANGES);
    let offsets: Vec<u64> = rows.values().copied().collect();
    // While the daemon runs, and after it.
    let (found, code) = report(&home, &[name]);
    assert_same(name, &found, code);
    assert_eq!(
        (&found["same"], &found["left_out"]["ranges"]),
        (&json!(rows.len()), &json!([[500, 500]]))
    );
    assert_eq!(found["superseded"], CHANGES - 1 - rows.len() as u64, "{found:#}");
    daemon.terminate().await;
    let (found, code) = report(&home, &[name, "--from", "offset:1000"]);
    assert_same("a part of it", &found, code);
    let later = offsets.iter().filter(|offset| **offset >= 1000).count();
    assert_eq!(found["same"], later, "{found:#}");

    let [missing, altered, stale, moved] = [3, 10, 20, 30].map(|nth| offsets[nth]);
    // A row that went back to an earlier message of its key, and a deleted one that came back.
    let key_of = |at: u64| change(at).0;
    let earlier = (0..stale)
        .rev()
        .find(|at| key_of(*at) == key_of(stale) && change(*at).1.is_some() && *at != 500);
    let earlier = earlier.unwrap();
    let gone = (0..KEYS).find(|key| !rows.contains_key(key)).unwrap();
    let back =
        (0..CHANGES).rev().find(|at| key_of(*at) == gone && change(*at).1.is_some()).unwrap();
    let brought =
        (back..CHANGES).find(|at| key_of(*at) == gone && change(*at).1.is_none()).unwrap();
    let deletes = (0..CHANGES).find(|at| change(*at).1.is_none()).unwrap();
    let of = |at: u64| {
        let (key, v) = change(at);
        format!(
            "v = {}, doc = '{{\"b\":1,\"a\":{}}}', \"offset\" = {at} WHERE id = 'k{key}'",
            v.unwrap(),
            v.unwrap()
        )
    };
    let row = |at: u64, id: u64| {
        let v = change(at).1.unwrap();
        format!(
            "('{stream}', {at}, '2026-01-01 00:00:00', 'k{id}', {id}.5, {v}, '{{\"b\":1,\"a\":{v}}}')"
        )
    };
    run(&home, format!("DELETE FROM {schema}latest WHERE \"offset\" = {missing}")).await;
    run(&home, format!("UPDATE {schema}latest SET v = 7654321 WHERE \"offset\" = {altered}")).await;
    run(
        &home,
        format!("UPDATE {schema}latest SET {}", of(earlier).replace("WHERE", "WHERE n > -1 AND")),
    )
    .await;
    let insert = format!(
        "INSERT INTO {schema}latest (stream, \"offset\", \"timestamp\", id, n, v, doc) VALUES "
    );
    // A row of which there are two needs another key; and one has the offset of a delete.
    let strange = format!("('{stream}', {deletes}, '2026-01-01 00:00:00', 'new', 1, 1, NULL)");
    for row in [row(back, gone), row(moved, 1000), strange] {
        run(&home, format!("{insert}{row}")).await;
    }
    let (found, code) = report(&home, &[name]);
    let mut missed = [missing, stale];
    missed.sort_unstable();
    let ranges = |of: &[u64]| json!(of.iter().map(|at| [at, at]).collect::<Vec<_>>()).to_string();
    let mut extra = [earlier, back, deletes];
    extra.sort_unstable();
    let doubled = [moved];
    assert_eq!(code, 65, "{found:#}");
    let exact = |kind: &str| found[kind]["ranges"].clone();
    assert_eq!(exact("missing").to_string(), ranges(&missed), "{found:#}");
    assert_eq!(exact("doubled").to_string(), ranges(&doubled), "{found:#}");
    assert_eq!(exact("extra").to_string(), ranges(&extra), "{found:#}");
    assert!(exact("altered").as_array().unwrap().contains(&json!([altered, altered])), "{found:#}");
    let why = found["extra_because"].to_string();
    let next = (earlier + 1..=stale).find(|at| key_of(*at) == key_of(stale)).unwrap();
    let what = if change(next).1.is_some() { "replaced" } else { "deleted" };
    assert!(why.contains(&format!("offset {next} has {what} it")), "{why}");
    assert!(why.contains(&format!("offset {brought} has deleted it")), "{why}");
    // An earlier end cannot be compared.
    let output = verify(&home, &[name, "--to", "1500"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("leave --to out"), "{said}");
    Ok(())
}

#[tokio::test]
async fn forged_latest_rows_of_sqlite_are_told() {
    let run = async |home: &Home, sql: String| {
        let database = rusqlite::Connection::open(home.path("data.db")).unwrap();
        database.busy_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(database.execute(&sql, []).unwrap(), 1, "{sql}");
    };
    let sink = format!("type = \"sqlite\", path = \"data.db\", table = \"latest\", {ROWS}");
    or_skip!(forged(Table { name: "lite", sink, schema: String::new(), run }).await);
}

#[tokio::test]
async fn forged_latest_rows_of_postgres_are_told() {
    or_skip!(
        async {
            let postgres = Postgres::shared().await?;
            let schema = postgres.schema().await;
            let url = postgres.url();
            let sink = format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"latest\", {ROWS}");
            let run = async |_: &Home, sql: String| {
                assert_eq!(postgres.client().await.execute(&sql, &[]).await.unwrap(), 1, "{sql}");
            };
            forged(Table { name: "pg", sink, schema: format!("{schema}."), run }).await
        }
        .await
    );
}

/// Keys that only the server can compare are refused, with what to do.
#[tokio::test]
async fn keys_that_only_the_server_can_compare_are_refused() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let postgres = Postgres::shared().await?;
            let (schema, url) = (postgres.schema().await, postgres.url());
            let stream = streams::create(broker, "upserted-char").await;
            streams::publish(broker, &stream, ["{\"id\":\"a\"}", "{\"id\":\"a \"}"]).await;
            postgres
                .run(&format!(
                    "CREATE TABLE {schema}.latest (stream text, \"offset\" numeric, \"timestamp\" timestamptz, \
                     id char(3) PRIMARY KEY)"
                ))
                .await;
            let sink = format!(
                "type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"latest\", mode = \"upsert\", \
                 key = [\"id\"], columns = {{ id = \"/id\" }}"
            );
            let home = Home::new(&broker.uri(), &consumer("pg", &stream, &sink));
            let mut daemon = home.start();
            daemon.until_durable("pg", 1).await;
            let output = verify(&home, &["pg"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{said}");
            assert!(said.contains("\"id\"") && said.contains("character(3)") && said.contains("use text"), "{said}");
            daemon.terminate().await;
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
