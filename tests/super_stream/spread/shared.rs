//! The partitions of a daemon share one connection, on which the broker asks each of them at the same time:
//! does what one does with that stay its own business?

use std::sync::Arc;
use std::time::Duration;

use rillway::flow::resume::Start;
use rillway::source::stream::{SingleActive, StreamSource};
use rillway::source::{self, Budget, Event, Prefer, Source};
use rillway::types::{Reference, StreamName};
use rusqlite::Connection;
use serde_json::Value;

use super::places::{Count, Kind, Landed};
use super::{until_all_written, until_moving, until_spread};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::Load;
use crate::common::proxy::Proxy;
use crate::common::reading::connect_options;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};
use crate::super_stream::{LONG, row, rows, until_row};

const NAME: &str = "apart";

/// Each partition goes into a database of its own in this folder.
fn consumer(super_stream: &str, folder: &std::path::Path) -> String {
    let path = folder.join("rows-{partition}.db");
    format!(
        "[[consumer]]\nname = \"{NAME}\"\nsuper_stream = \"{super_stream}\"\nsingle_active = true\n\
         batch = {{ max_messages = 50, max_age = \"50ms\" }}\n\
         commit = {{ every_messages = 1000000, every = \"1s\" }}\n\
         restart = {{ min_backoff = \"20ms\", max_backoff = \"500ms\" }}\n\
         sink = {{ type = \"sqlite\", path = {path:?}, table = \"events\" }}\n"
    )
}

async fn stored(daemon: &Daemon, partition: &str) -> u64 {
    let row = row(daemon, NAME, partition).await;
    row.and_then(|row| row["stored_offset"].as_u64()).unwrap_or(0)
}

fn restarts(rows: &[Value], of: &[String]) -> u64 {
    let count = |row: &Value| row["restarts"].as_u64().unwrap();
    rows.iter().filter(|row| of.iter().any(|name| row["stream"] == name.as_str())).map(count).sum()
}

/// One partition cannot give up its part, for its sink hangs: the others are handed over, and go on, on
/// the same connection, and in the end it is handed over too.
async fn slow() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "slow", 4).await;
    let folder = tempfile::tempdir().unwrap();
    let homes = [(); 2].map(|()| Home::new(&broker.uri(), &consumer(&orders, folder.path())));
    let loads: Vec<_> = partitions.iter().map(|p| Load::on(broker, p, super::PACE)).collect();
    let first = homes[0].start();
    until_spread(&[&first], &[NAME], &partitions, true).await;
    until_moving(&[&first], &[NAME], &partitions).await;

    let slow = Connection::open(folder.path().join("rows-1.db")).unwrap();
    slow.busy_timeout(LONG).unwrap();
    slow.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Without anything to write, it would yield at once.
    until_row(&first, (NAME, &partitions[1]), "it has something to write", |row| {
        row["received_offset"].as_u64() > row["durable_offset"].as_u64()
    })
    .await;
    let second = homes[1].start();
    // The broker gives it every other partition.
    until_row(&second, (NAME, &partitions[3]), "it is handed over", |row| {
        row["state"] == "running"
    })
    .await;
    until_row(&first, (NAME, &partitions[1]), "it yields", |row| row["state"] == "draining").await;
    // All are read over one connection: if it were held up, none would go on.
    for partition in [&partitions[0], &partitions[0], &partitions[0], &partitions[2]] {
        let before = stored(&first, partition).await;
        eventually("the others go on", LONG, || async {
            (stored(&first, partition).await > before).then_some(())
        })
        .await;
    }
    let waits = row(&first, NAME, &partitions[1]).await.unwrap();
    assert_eq!(waits["state"], "draining", "it waits for its sink: {waits}");
    slow.execute_batch("ROLLBACK").unwrap();
    until_spread(&[&first, &second], &[NAME], &partitions, true).await;
    until_moving(&[&first, &second], &[NAME], &partitions).await;
    for daemon in [&first, &second] {
        let rows = rows(daemon, NAME).await;
        assert_eq!(restarts(&rows, &partitions), 0, "the connection was kept: {rows:?}");
    }

    let totals = super::stop(loads, &partitions).await;
    until_all_written(&[&first, &second], &[NAME], &totals).await;
    first.terminate().await;
    second.terminate().await;
    let mut landed = Landed::new();
    for nth in 0..partitions.len() {
        landed.extend(super::places::rows(&folder.path().join(format!("rows-{nth}.db"))));
    }
    Count::of(Kind::Sqlite, &landed, &totals).assert_exact(Kind::Sqlite);
    streams::delete_super(broker, &orders).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_slow_to_yield_does_not_hold_up_the_others() {
    or_skip!(slow().await);
}

/// Waits until the broker has closed a connection that has not answered it in time.
async fn until_one_is_closed_for_its_silence(broker: &Broker) {
    let stream = streams::create(broker, "silent").await;
    let (name, reference) = (StreamName::new(stream.as_str()), Reference::new("silent"));
    let source = StreamSource::new(connect_options(broker.stream_port), name, reference)
        .single_active(SingleActive::default());
    let link = source.connect(Prefer::Leader).await.unwrap();
    let budget: Arc<Budget> = Budget::new(1 << 20);
    let mut subscription = source::begin(&link, Start::Next, &budget).await.unwrap();
    let event = tokio::time::timeout(LONG, subscription.next()).await.unwrap();
    let unanswered = match event {
        Some(Event::Activation(handover)) => handover,
        _ => panic!("the broker makes the only consumer active"),
    };
    tokio::time::timeout(LONG, link.ended()).await.expect("the broker closes the connection");
    drop(unanswered);
}

/// A partition that cannot open its sink does not answer the broker, which would close the connection for
/// it: the end of its subscription answers.
async fn unanswered() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    broker
        .ctl(&[
            "rabbitmqctl",
            "eval",
            "application:set_env(rabbitmq_stream, request_timeout, 8000).",
        ])
        .await;
    let (orders, partitions) = streams::create_super(&broker, "unanswered", 3).await;
    let folder = tempfile::tempdir().unwrap();
    // No database can be opened there.
    std::fs::create_dir(folder.path().join("rows-1.db")).unwrap();
    let home = Home::new(&broker.uri(), &consumer(&orders, folder.path()));
    let daemon = home.start();
    let fails = |row: &Value| row["state"] == "halted" || row["restarts"].as_u64() > Some(0);
    until_row(&daemon, (NAME, &partitions[1]), "it cannot open its sink", fails).await;
    let others = [partitions[0].clone(), partitions[2].clone()];
    for partition in &others {
        until_row(&daemon, (NAME, partition), "it runs", |row| row["state"] == "running").await;
    }
    // The broker looks at the time at intervals of that: after two of these it would have been seen.
    until_one_is_closed_for_its_silence(&broker).await;
    until_one_is_closed_for_its_silence(&broker).await;
    let rows = rows(&daemon, NAME).await;
    assert_eq!(restarts(&rows, &others), 0, "the connection was kept: {rows:?}");
    daemon.signal("TERM");
    assert!(daemon.ended(Duration::from_secs(60)).await.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_become_active_does_not_end_the_connection() {
    or_skip!(unanswered().await);
}

/// Behind one address that is the leader's, as in front of a single node, also.
async fn one_connection() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "one-connection", 6).await;
    let folder = tempfile::tempdir().unwrap();
    let proxies = [Proxy::to(broker.stream_port).await, Proxy::to(broker.stream_port).await];
    let homes = proxies.each_ref().map(|proxy| {
        let uri = broker.uri_by(proxy.port);
        let lines =
            format!("uri = \"{uri}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false");
        Home::with_broker(&lines, &consumer(&orders, folder.path()))
    });
    let first = homes[0].start();
    until_spread(&[&first], &[NAME], &partitions, true).await;
    let second = homes[1].start();
    until_spread(&[&first, &second], &[NAME], &partitions, true).await;
    for proxy in &proxies {
        eventually("one connection, one for offsets, and one for the lag", LONG, || async {
            (proxy.open() == 3).then_some(())
        })
        .await;
    }
    // Cut off, it gives its partitions away, and comes back.
    proxies[0].cut();
    let cut = |row: &Value| row["restarts"].as_u64() > Some(0);
    until_row(&first, (NAME, &partitions[0]), "it is cut off", cut).await;
    until_spread(&[&first, &second], &[NAME], &partitions, true).await;
    for proxy in &proxies {
        eventually("one connection again, one for offsets, and one for the lag", LONG, || async {
            (proxy.open() == 3).then_some(())
        })
        .await;
    }
    first.terminate().await;
    until_spread(&[&second], &[NAME], &partitions, true).await;
    second.terminate().await;
    streams::delete_super(broker, &orders).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_share_their_connections() {
    or_skip!(one_connection().await);
}
