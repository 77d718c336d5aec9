//! Is every message of every partition in every sink, once, through kills?

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row};
use serde_json::Value;

use super::{LONG, consumer, rows, until_written};
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, assert_exact};
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, reading, streams};

const PARTITIONS: usize = 3;

const PACE: Pace = Pace { messages: 20, pause: Duration::from_millis(20) };

/// All lines of the NDJSON objects below this folder.
fn lines_below(folder: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lines.extend(lines_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "ndjson") {
            let text = std::fs::read_to_string(&path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    lines
}

/// Kills the daemon and starts it again, while messages are published into all partitions; returns how
/// many are in each.
async fn through_kills(
    broker: &Broker,
    home: &Home,
    partitions: &[String],
    names: &[&str],
) -> Vec<u64> {
    let loads: Vec<_> = partitions.iter().map(|one| Load::on(broker, one, PACE)).collect();
    let mut daemon = home.start();
    for round in 1..=3 {
        let wanted = 300 * round;
        for name in names {
            eventually(&format!("{name} has all partitions moving"), LONG, || async {
                let rows = rows(&daemon, name).await;
                let moved = |row: &&Value| row["durable_offset"].as_u64() >= Some(wanted);
                (rows.iter().filter(moved).count() == partitions.len()).then_some(())
            })
            .await;
        }
        daemon.kill();
        daemon = home.start();
    }
    let mut totals = Vec::new();
    for load in loads {
        totals.push(load.stop().await);
    }
    let mut ends = Vec::new();
    for (name, partition) in names.iter().flat_map(|name| partitions.iter().map(move |p| (name, p)))
    {
        ends.push((name, partition, until_written(broker, &daemon, name, partition).await));
    }
    daemon.terminate().await;
    for (name, partition, end) in ends {
        let stored = streams::stored_offset(broker, partition, name).await;
        assert!(stored >= Some(end), "{name} on {partition}: {stored:?}, and it ends at {end}");
    }
    totals
}

async fn in_every_sink() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "orders", PARTITIONS).await;
    let target = streams::create(broker, "orders-copy").await;
    let each = [
        ("rows", "sink = { type = \"sqlite\", path = \"rows.db\", table = \"orders\" }".to_owned()),
        ("apart", "sink = { type = \"sqlite\", path = \"apart-{partition}.db\" }".to_owned()),
        ("files", "sink = { type = \"file\", dir = \"files/{partition}\" }".to_owned()),
        (
            "objects",
            "sink = { type = \"object\", url = \"archive\", format = \"ndjson\", compression = \"none\", \
             rotate_records = 200, rotate_age = \"200ms\" }"
                .to_owned(),
        ),
        ("copy", format!("sink = {{ type = \"stream\", stream = \"{target}\" }}")),
    ];
    let consumers: String = each.iter().map(|(name, sink)| consumer(name, &orders, sink)).collect();
    let home = Home::new(&broker.uri(), &consumers);
    let names = each.each_ref().map(|(name, _)| *name);
    let totals = through_kills(broker, &home, &partitions, &names).await;

    let counts = |path: &str, table: &str, stream: &str| -> (u64, u64) {
        let rows = Connection::open(home.path(path)).unwrap();
        let sql = format!(
            "SELECT count(*), count(DISTINCT \"offset\") FROM \"{table}\" WHERE stream = '{stream}'"
        );
        let count = |row: &Row<'_>, nth| row.get(nth).map(i64::unsigned_abs);
        rows.query_row(&sql, [], |row| Ok((count(row, 0)?, count(row, 1)?))).unwrap()
    };
    let archive = lines_below(&home.path("archive"));
    for (nth, (partition, total)) in partitions.iter().zip(&totals).enumerate() {
        assert_eq!(counts("rows.db", "orders", partition), (*total, *total), "{partition}");
        let default = orders.replace('-', "_");
        let apart = counts(&format!("apart-{nth}.db"), &default, partition);
        assert_eq!(apart, (*total, *total), "{partition} in its own file");
        let files = home.lines(&format!("files/{nth}"), partition);
        assert_exact(&format!("files of {partition}"), &files, *total);
        let mut objects: Vec<_> =
            archive.iter().filter(|line| line["stream"] == partition.as_str()).cloned().collect();
        objects.sort_by_key(|line| line["offset"].as_u64());
        assert_exact(&format!("objects of {partition}"), &objects, *total);
    }
    assert_eq!(archive.len() as u64, totals.iter().sum::<u64>());
    let mut copied = vec![0; usize::try_from(*totals.iter().max().unwrap()).unwrap()];
    for body in reading::bodies(broker, &target).await {
        let body: Value = serde_json::from_str(&body).unwrap();
        copied[usize::try_from(body["i"].as_u64().unwrap()).unwrap()] += 1;
    }
    for (number, times) in copied.into_iter().enumerate() {
        let there = totals.iter().filter(|total| **total > number as u64).count();
        assert_eq!(times, there, "message {number} in the copy");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_in_every_sink_once_through_kills() {
    or_skip!(in_every_sink().await);
}

async fn in_postgres() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_0).await?;
    let server = Postgres::shared().await?;
    let (orders, partitions) = streams::create_super(broker, "pg-orders", PARTITIONS).await;
    let table = orders.replace('-', "_");
    let url = server.url();
    let sink = |table: &str| {
        format!("sink = {{ type = \"postgres\", url = \"{url}\", table = \"{table}\" }}")
    };
    let consumers = consumer("together", &orders, &sink(&table))
        + &consumer("apart", &orders, &sink(&format!("{table}_p{{partition}}")));
    let home = Home::new(&broker.uri(), &consumers);
    let totals = through_kills(broker, &home, &partitions, &["together", "apart"]).await;
    for (nth, (partition, total)) in partitions.iter().zip(&totals).enumerate() {
        for table in [table.clone(), format!("{table}_p{nth}")] {
            let sql = format!(
                "SELECT count(*) || ' ' || count(DISTINCT \"offset\") FROM \"{table}\" WHERE stream = '{partition}'"
            );
            let row = server.client().await.query_one(&sql, &[]).await.unwrap();
            assert_eq!(
                row.get::<_, String>(0),
                format!("{total} {total}"),
                "{partition} in {table}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_in_postgres_once_through_kills() {
    or_skip!(in_postgres().await);
}
