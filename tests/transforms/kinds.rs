//! Each kind of sink, super streams and AMQP 0.9.1.

use rillway::wire::amqp::{Message, carried};
use serde_json::{Value, json};

use super::*;
use crate::common::postgres::Postgres;
use crate::common::reading::messages;
use crate::common::web::{Reply, Web};

const TOTAL: u64 = 200;

fn record(offset: u64) -> Value {
    let body = made(offset);
    serde_json::from_str(&body).unwrap()
}

async fn every_kind() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let web = Web::start(|_| Reply::Keep).await;
    let stream = streams::create(broker, "kinds").await;
    put(broker, &stream, &all(TOTAL)).await;
    let columns = |price: &str| {
        format!(
            "columns = {{ n = {{ from = \"/n\", type = \"integer\" }}, price = {{ from = \"/price\", type = {price:?} }} }}"
        )
    };
    // SQLite has no number of so many digits.
    let (text, numeric) = (columns("text"), columns("numeric"));
    let (url, copy) = (postgres.url(), format!("{stream}-copy"));
    let sinks = [
        ("lite", format!("type = \"sqlite\", path = \"lite.db\", table = \"t\", {text}")),
        ("pg", format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\", {numeric}")),
        ("lines", "type = \"object\", url = \"lines\", format = \"ndjson\", compression = \"none\"".to_owned()),
        ("copy", format!("type = \"stream\", stream = \"{copy}\", create = true")),
        ("http", format!("type = \"http\", url = \"{}\"", web.url())),
        ("count", "type = \"metrics\", metrics = [{ name = \"kept_total\", type = \"counter\", value = \"/n\" }]".to_owned()),
        ("print", "type = \"stdout\"".to_owned()),
    ];
    let keys = format!("{PROGRAMS}start = \"first\"");
    let consumers =
        sinks.map(|(name, sink)| consumer(name, &stream, &keys, &format!("{{ {sink} }}")));
    let home = Home::new(&broker.uri(), &consumers.concat());
    let mut daemon = home.start();
    for name in ["lite", "pg", "copy", "http", "count", "print"] {
        daemon.until_durable(name, TOTAL - 1).await;
    }
    let sum: u64 = kept(TOTAL).iter().sum();
    assert_eq!(daemon.metric("kept_total", &[]).await, Some(sum as f64));
    daemon
        .until("lines", "all read", LONG, |c| c["received_offset"].as_u64() == Some(TOTAL - 1))
        .await;
    daemon.terminate().await;

    let lite = rusqlite::Connection::open(home.path("lite.db")).unwrap();
    let mut rows = lite.prepare("SELECT offset, n, price FROM t ORDER BY offset").unwrap();
    let rows: Vec<(u64, u64, String)> = rows
        .query_map([], |row| {
            let price: rusqlite::types::Value = row.get(2)?;
            let price = match price {
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            };
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64, price))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), kept(TOTAL));
    assert!(rows.iter().all(|(offset, n, _)| offset == n));
    assert_eq!(rows[0].2, "1.10000000000000000001");

    let client = postgres.client().await;
    let sql = format!("SELECT count(*), sum(n)::bigint, min(price)::text FROM {schema}.t");
    let row = client.query_one(&sql, &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64),
        (kept(TOTAL).len() as u64, sum)
    );
    assert_eq!(row.get::<_, String>(2), "1.10000000000000000001");

    let copied = messages(broker, &copy).await;
    let bodies: Vec<String> = copied
        .iter()
        .map(|message| {
            let message = Message::parse(message).unwrap();
            String::from_utf8(carried(&message).unwrap().into_owned()).unwrap()
        })
        .collect();
    assert_eq!(bodies, kept(TOTAL).into_iter().map(made).collect::<Vec<_>>());

    let sent: Vec<Value> =
        web.seen().into_iter().filter(|seen| seen.kept).flat_map(|seen| seen.records).collect();
    assert_eq!(sent.len(), kept(TOTAL).len());
    assert_eq!(sent[0]["body"], record(1));

    let printed = std::fs::read_to_string(home.path("stdout")).unwrap();
    let printed: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed.len(), kept(TOTAL).len());
    assert_eq!(printed[1]["body"], record(4));
    assert!(home.path("lines").is_dir());
    Ok(())
}

#[tokio::test]
async fn every_kind_of_sink_sees_what_was_made() {
    or_skip!(every_kind().await);
}

/// A super stream, with the partition's own name in `$message`; and AMQP 0.9.1, where the position is known
/// by the message as it came: the consumer goes on after a restart, and repeats nothing.
#[tokio::test]
async fn partitions_and_amqp() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let (whole, partitions) = streams::create_super(broker, "whole", 2).await;
            for partition in &partitions {
                put(broker, partition, &all(60)).await;
            }
            let keys = "where = '.region == \"eu\"'\nmap = '{n, of: $message.stream}'";
            let sink = "{ type = \"file\", dir = \"parts\" }";
            let parts = consumer("parts", "-", keys, sink)
                .replace("stream = \"-\"", &format!("super_stream = \"{whole}\""));
            let home = Home::new(&broker.uri(), &parts);
            let daemon = home.start();
            for partition in &partitions {
                home.until_landed(&daemon, "parts", partition, 20).await;
            }
            daemon.terminate().await;
            for partition in &partitions {
                let lines = home.lines("parts", partition);
                assert_eq!(lines[0]["body"], json!({"n": 1, "of": partition}));
                assert_eq!(home.offsets("parts", partition), kept(60));
            }

            let stream = streams::create(broker, "by-amqp").await;
            put(broker, &stream, &all(100)).await;
            let sink = "{ type = \"file\", dir = \"amqp\" }";
            let home = Home::new(
                &format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port),
                &consumer("amqp", &stream, PROGRAMS, sink),
            );
            for total in [100, 200] {
                let mut daemon = home.start();
                daemon.until_durable("amqp", total - 1).await;
                daemon.terminate().await;
                assert_eq!(home.offsets("amqp", &stream), kept(total));
                put(broker, &stream, &(total..total + 100).map(nth).collect::<Vec<_>>()).await;
            }
            Ok::<(), Unavailable>(())
        }
        .await
    );
}
