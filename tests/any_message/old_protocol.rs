//! Properties that are not UTF-8, which AMQP 0.9.1 lets publishers write and RabbitMQ converts to AMQP
//! 1.0.

use rillway::sink::conformance::message as data;

use super::*;
use crate::common::amqp091::{Basic, publish};

/// A GUID as its raw bytes, a name in Latin-1, and a header value that is neither.
fn odd() -> Vec<Basic> {
    let guid = vec![0xff, 0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    vec![
        Basic { body: b"{\"n\":0}".to_vec(), ..Basic::default() },
        Basic { correlation_id: Some(guid.clone()), body: b"1".to_vec(), ..Basic::default() },
        Basic { app_id: Some(b"caf\xe9".to_vec()), body: b"2".to_vec(), ..Basic::default() },
        Basic { message_id: Some(guid), body: b"3".to_vec(), ..Basic::default() },
        Basic {
            headers: vec![
                (b"caf\xe9".to_vec(), b"plain".to_vec()),
                (b"plain".to_vec(), b"caf\xe9\xff".to_vec()),
                (b"nul".to_vec(), b"a\0b".to_vec()),
            ],
            body: b"4".to_vec(),
            ..Basic::default()
        },
        Basic { message_id: Some(b"a\0b".to_vec()), body: vec![0xff], ..Basic::default() },
    ]
}

async fn odd_properties(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let web = Web::start(|_| Reply::Keep).await;
    let stream = streams::create(broker, "old-protocol").await;
    let quiet = streams::create(broker, "old-quiet").await;
    publish(broker, &stream, odd()).await;
    let last = odd().len() as u64 - 1;
    put(broker, &quiet, &[data(b"1")]).await;
    let text = configuration(&stream, &quiet, &schema, postgres, &web);
    // Every omitted value would be a loss: here nothing may be omitted.
    let home = Home::new(&broker.uri(), &text.replace("on_bad_message = \"skip\"", ""));
    let mut daemon = home.start();
    let rows = ["file", "stdout", "null", "lite", "pg", "http", "stream"];
    for name in rows {
        daemon.until_durable(name, last).await;
    }
    for name in ["parquet", "parquetb", "lines"] {
        daemon.until(name, "read", Duration::from_secs(60), |c| c["received_offset"] == last).await;
        assert_ne!(daemon.consumer(name).await.unwrap()["state"], "halted", "{name}");
    }
    daemon.terminate().await;
    let lines = home.lines("file", &stream);
    assert_eq!(lines.len(), odd().len());
    let marked = "//4AAQIDBAUGBwgJCgsMDQ==";
    let id = &lines[1]["properties"];
    assert!(
        id["correlation_id"]["base64"] == marked
            || (id["correlation_id"] == marked && id["correlation_id_encoding"] == "base64"),
        "{id}"
    );
    assert!(lines[2].to_string().contains("Y2Fm6Q=="), "{}", lines[2]);
    assert!(lines[4].to_string().contains("Y2Fm6f8="), "{}", lines[4]);
    let database = rusqlite::Connection::open(home.path("lite.db")).unwrap();
    let id: String =
        database.query_row("SELECT message_id FROM t WHERE offset = 3", [], |r| r.get(0)).unwrap();
    assert_eq!(id, format!("{{\"base64\":\"{marked}\"}}"));
    let sql =
        format!("SELECT message_id FROM {schema}.t WHERE \"offset\" IN (3, 5) ORDER BY \"offset\"");
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, String>(0), id);
    assert_eq!(rows[1].get::<_, String>(0), "{\"base64\":\"YQBi\"}");
    let files = home.path("parquet").join(&stream).join("**/*.parquet").display().to_string();
    let sql = format!("SELECT message_id, body FROM read_parquet('{files}') ORDER BY \"offset\"");
    let rows = duckdb::ask(&sql)?;
    assert_eq!(rows[3][0], id);
    assert_eq!(rows[5][1], "{\"base64\":\"/w==\"}");
    Ok(())
}

#[tokio::test]
async fn odd_properties_on_rabbitmq_3_10() {
    or_skip!(odd_properties(Version::V3_10).await);
}

#[tokio::test]
async fn odd_properties_on_rabbitmq_4_3() {
    or_skip!(odd_properties(Version::V4_3).await);
}
