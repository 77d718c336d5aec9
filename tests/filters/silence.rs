//! Nothing matches: does the position move on all the same, in the sinks too, and is it noticed if
//! retention takes what nobody has looked through?

use serde_json::Value;

use super::{BY_REGION, LONG, consumer, offsets, publish, sinking, written};
use crate::common::daemon::{Daemon, Home};
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SMALL: [(&str, &str); 2] =
    [("max-length-bytes", "300000"), ("stream-max-segment-size-bytes", "100000")];

/// The stream's end, as the daemon sees it, and where it begins.
async fn bounds(daemon: &Daemon, name: &str) -> Option<(f64, f64)> {
    let label = format!("consumer=\"{name}\"");
    let first = daemon.metric("rillway_stream_first_offset", &[&label]).await?;
    Some((first, daemon.metric("rillway_stream_last_offset", &[&label]).await?))
}

/// More is published than the stream keeps, again and again, and nothing of it matches.
async fn never_overtaken(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create_with(broker, "silent", &SMALL).await;
    publish(&rstream, &stream, "us", &["us"; 100]).await;
    let columns = "{ type = \"sqlite\", path = \"rows.db\", table = \"nths\", columns = { nth = { from = \"/nth\", type = \"integer\" } } }";
    let consumers =
        consumer("files", &stream, BY_REGION) + &sinking("rows", &stream, BY_REGION, columns);
    let home = Home::new(&broker.uri(), &consumers);
    let mut daemon = home.start();
    let mut published = 100;
    for _ in 0..4 {
        for name in ["files", "rows"] {
            daemon.until_durable(name, published - 1).await;
        }
        publish(&rstream, &stream, "us", &["us"; 1000]).await;
        published += 1000;
    }
    for name in ["files", "rows"] {
        daemon.until_durable(name, published - 1).await;
        let label = format!("consumer=\"{name}\"");
        let received = daemon.metric("rillway_received_messages_total", &[&label]).await;
        assert_eq!(received, Some(0.0), "{name}");
    }
    // Retention has taken what is at the beginning.
    eventually("the stream is truncated", LONG, || async {
        bounds(&daemon, "files").await.filter(|(first, _)| *first > 100.0)
    })
    .await;
    daemon.terminate().await;

    // The sinks' own positions have moved.
    let check = home.command(&["check", "--connect", "--json"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let plan: Value = serde_json::from_slice(&check.stdout).unwrap();
    for shown in plan["consumers"].as_array().unwrap() {
        let resume = &shown["resume"];
        let at = resume["position"].as_str().unwrap().strip_prefix("offset ").unwrap().to_owned();
        assert!(at.parse::<u64>().unwrap() >= published, "{shown}");
        assert!(resume["why"].as_str().unwrap().contains("the sink's own position"), "{shown}");
    }

    // One that matches is found behind all that.
    let mut daemon = home.start();
    publish(&rstream, &stream, "eu", &["us", "eu"]).await;
    home.until_landed(&daemon, "files", &stream, 1).await;
    let found = written(&home, "files", &stream);
    let at = offsets(&found)[0];
    assert!(found.len() == 1 && at > published, "{found:?}");
    daemon.until_durable("rows", at).await;
    daemon.terminate().await;
    let rows = rusqlite::Connection::open(home.path("rows.db")).unwrap();
    let of = "SELECT \"offset\", nth FROM nths";
    let row: (i64, i64) = rows.query_row(of, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(row, (i64::try_from(at).unwrap(), 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_is_never_overtaken_while_nothing_matches_on_4_0() {
    or_skip!(never_overtaken(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_is_never_overtaken_while_nothing_matches_on_4_3() {
    or_skip!(never_overtaken(Version::V4_3).await);
}

/// While the consumer does not run, retention takes more than it has looked through. It is not known
/// whether any of that matched.
async fn overtaken() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create_with(broker, "overtaken", &SMALL).await;
    publish(&rstream, &stream, "eu", &["eu"; 10]).await;
    let home = Home::new(&broker.uri(), &consumer("files", &stream, BY_REGION));
    let mut daemon = home.start();
    daemon.until_durable("files", 9).await;
    daemon.terminate().await;
    for _ in 0..4 {
        publish(&rstream, &stream, "us", &["us"; 1000]).await;
    }
    let watcher = Home::new(&broker.uri(), &consumer("watcher", &stream, ""));
    let watching = watcher.start();
    eventually("the stream is truncated", LONG, || async {
        bounds(&watching, "watcher").await.filter(|(first, _)| *first > 100.0)
    })
    .await;
    watching.terminate().await;
    let mut daemon = home.start();
    let why = daemon.until_halted("files").await;
    assert!(why.contains("dropped by retention") && why.contains("on_offset_lost"), "{why}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_unseen_is_a_loss() {
    or_skip!(overtaken().await);
}
