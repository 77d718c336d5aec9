//! Partitions and super streams that are added and removed while the daemon runs.

use std::time::Duration;

use serde_json::Value;

use super::{LONG, consumer, publish, row, rows, until_row, until_written};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::assert_exact;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, amqp091, eventually, reading, streams};

/// Everything into one destination, from the next message on.
const FILES: &str = "start = \"next\"\nsink = { type = \"file\", dir = \"files\" }";

async fn until_running(daemon: &Daemon, partition: &str) -> Value {
    until_row(daemon, ("files", partition), "it runs", |row| row["ready"] == true).await
}

async fn until_gone(daemon: &Daemon, partition: &str) {
    eventually(&format!("{partition} is gone"), LONG, || async {
        row(daemon, "files", partition).await.is_none().then_some(())
    })
    .await;
    let labels = format!("stream=\"{partition}\"");
    eventually(&format!("the metrics of {partition} are gone"), LONG, || async {
        let (_, page) = daemon.http("GET", "/metrics").await?;
        (!page.contains(&labels)).then_some(())
    })
    .await;
}

async fn come_and_go(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let (orders, mut partitions) = streams::create_super(broker, "moving", 3).await;
    let home = Home::new(&broker.uri(), &consumer("files", &orders, FILES));
    let daemon = home.start();
    for partition in &partitions {
        until_running(&daemon, partition).await;
    }
    for partition in &partitions {
        publish(broker, partition, 0, 100).await;
        until_written(broker, &daemon, "files", partition).await;
    }
    let ready = daemon.http("GET", "/readyz").await.unwrap();
    assert_eq!(ready.0, 200, "{}", ready.1);
    assert_eq!(rows(&daemon, "files").await.len(), 3, "no row beside the partitions");

    // One more, with messages from before it was noticed.
    let late = format!("{orders}-late");
    streams::create_named(broker, &late, &[]).await;
    publish(broker, &late, 0, 100).await;
    amqp091::bind(broker, &late, &orders, "late").await;
    until_running(&daemon, &late).await;
    publish(broker, &late, 100, 200).await;
    until_written(broker, &daemon, "files", &late).await;
    partitions.push(late);

    // One is unbound: the offset of what it has read is stored, and it is not shown any more.
    let unbound = partitions.remove(0);
    publish(broker, &unbound, 100, 200).await;
    let end = until_written(broker, &daemon, "files", &unbound).await;
    amqp091::unbind(broker, &unbound, &orders, ("0", 0)).await;
    until_gone(&daemon, &unbound).await;
    assert!(streams::stored_offset(broker, &unbound, "files").await >= Some(end));
    publish(broker, &unbound, 200, 300).await;

    // One is deleted: the others continue.
    let deleted = partitions.remove(0);
    streams::delete(broker, &deleted).await;
    for partition in &partitions {
        let from = reading::offsets(broker, partition).await.len() as u64;
        let numbers = if partition.ends_with("late") { 200 } else { 100 };
        assert!(from >= numbers);
        publish(broker, partition, numbers, numbers + 100).await;
        until_written(broker, &daemon, "files", partition).await;
        assert_eq!(row(&daemon, "files", partition).await.unwrap()["restarts"], 0, "{partition}");
    }
    until_gone(&daemon, &deleted).await;

    // The first one is bound again, and continues where it was.
    amqp091::bind(broker, &unbound, &orders, "0").await;
    until_running(&daemon, &unbound).await;
    until_written(broker, &daemon, "files", &unbound).await;
    daemon.terminate().await;
    let totals = [(&unbound, 300), (&partitions[0], 200), (&partitions[1], 300)];
    for (partition, total) in totals {
        assert_exact(partition, &home.lines("files", partition), total);
    }

    // A partition that is added while nothing runs is read from its first message, too.
    let meanwhile = format!("{orders}-meanwhile");
    streams::create_named(broker, &meanwhile, &[]).await;
    publish(broker, &meanwhile, 0, 100).await;
    amqp091::bind(broker, &meanwhile, &orders, "meanwhile").await;
    let daemon = home.start();
    until_running(&daemon, &meanwhile).await;
    until_written(broker, &daemon, "files", &meanwhile).await;
    daemon.terminate().await;
    assert_exact(&meanwhile, &home.lines("files", &meanwhile), 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go_on_rabbitmq_4_0() {
    or_skip!(come_and_go(Version::V4_0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go_on_rabbitmq_4_3() {
    or_skip!(come_and_go(Version::V4_3).await);
}

async fn missing_and_made() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let orders = streams::unique("made");
    let home = Home::new(&broker.uri(), &consumer("files", &orders, FILES));
    let daemon = home.start();
    let told = until_row(&daemon, ("files", &orders), "it says what is missing", |row| {
        row["reason"].as_str().is_some_and(|reason| reason.contains("does not exist"))
    })
    .await;
    assert_eq!((&told["ready"], &told["state"]), (&false.into(), &"backoff".into()), "{told}");
    let (status, body) = daemon.http("GET", "/readyz").await.unwrap();
    assert!(status == 503 && body.contains("add_super_stream"), "{body}");
    let own = format!("stream=\"{orders}\"");
    let labels = ["consumer=\"files\"", own.as_str()];
    assert_eq!(daemon.metric("rillway_consumer_ready", &labels).await, Some(0.0));
    let (status, body) = daemon.http("POST", "/api/v1/consumers/files/commit").await.unwrap();
    assert!(status == 503 && body.contains("no partitions yet"), "{body}");

    let partitions = streams::create_super_named(broker, &orders, 2).await;
    for partition in &partitions {
        until_running(&daemon, partition).await;
        publish(broker, partition, 0, 100).await;
        until_written(broker, &daemon, "files", partition).await;
    }
    eventually("its own row is gone, and its metrics", LONG, || async {
        let is_shown = row(&daemon, "files", &orders).await.is_some()
            || daemon.metric("rillway_consumer_ready", &labels).await.is_some();
        (!is_shown).then_some(())
    })
    .await;

    // The whole super stream is deleted: nothing is forgotten, and every consumer shows its reason.
    streams::delete_super(broker, &orders).await;
    until_row(&daemon, ("files", &orders), "it is missing again", |row| {
        row["reason"].as_str().is_some_and(|reason| reason.contains("does not exist"))
    })
    .await;
    for partition in &partitions {
        until_row(&daemon, ("files", partition), "it is shown still", |row| row["ready"] == false)
            .await;
    }
    daemon.terminate().await;
    for partition in &partitions {
        assert_exact(partition, &home.lines("files", partition), 100);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_stream_that_is_missing_is_shown_and_waited_for() {
    or_skip!(missing_and_made().await);
}

async fn too_old() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let home = Home::new(&broker.uri(), &consumer("files", "orders", FILES));
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{said}");
    assert!(said.contains("needs RabbitMQ 3.11 or later") && said.contains("3.10"), "{said}");
    let daemon = home.start();
    until_row(&daemon, ("files", "orders"), "it says what is needed", |row| {
        row["reason"].as_str().is_some_and(|reason| reason.contains("3.11 or later"))
    })
    .await;
    daemon.signal("TERM");
    assert!(daemon.ended(Duration::from_secs(60)).await.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_3_10_is_reported_as_too_old() {
    or_skip!(too_old().await);
}
