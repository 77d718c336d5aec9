//! Do the partitions share connections, and does a failure of one partition, or of a connection,
//! stay limited to it?

use super::{LONG, consumer, publish, row, rows, until_row, until_written};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::assert_exact;
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const PARTITIONS: usize = 6;

/// Connections of two consumers: each has one for reading, and one for stored offsets.
const OF_TWO: usize = 4;

async fn until_all_run(daemon: &Daemon, name: &str) {
    eventually("all partitions run", LONG, || async {
        let rows = rows(daemon, name).await;
        let ready = rows.iter().filter(|row| row["ready"] == true).count();
        (rows.len() == PARTITIONS && ready == PARTITIONS).then_some(())
    })
    .await;
}

/// Waits until there are this many connections, and one more for the lag.
async fn until_connected(proxy: &Proxy, connections: usize) {
    eventually(&format!("{connections} connections and one for the lag"), LONG, || async {
        (proxy.open() == connections + 1).then_some(())
    })
    .await;
}

async fn one_for_all() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "shared", PARTITIONS).await;
    let proxy = Proxy::to(broker.stream_port).await;
    let files = |name: &str| format!("sink = {{ type = \"file\", dir = \"{name}\" }}");
    let consumers =
        consumer("one", &orders, &files("one")) + &consumer("two", &orders, &files("two"));
    let home = Home::with_broker(
        &format!(
            "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
            broker.uri_by(proxy.port)
        ),
        &consumers,
    );
    let daemon = home.start();
    for name in ["one", "two"] {
        until_all_run(&daemon, name).await;
    }
    until_connected(&proxy, OF_TWO).await;
    for partition in &partitions {
        publish(broker, partition, 0, 500).await;
    }
    for (name, partition) in
        ["one", "two"].iter().flat_map(|n| partitions.iter().map(move |p| (n, p)))
    {
        until_written(broker, &daemon, name, partition).await;
    }

    // All connections are cut; the partitions reconnect, and share again.
    proxy.cut();
    for name in ["one", "two"] {
        eventually("all partitions were cut off", LONG, || async {
            let rows = rows(&daemon, name).await;
            let restarted = rows.iter().filter(|row| row["restarts"].as_u64() > Some(0)).count();
            (restarted == PARTITIONS).then_some(())
        })
        .await;
        until_all_run(&daemon, name).await;
    }
    until_connected(&proxy, OF_TWO).await;
    for partition in &partitions {
        publish(broker, partition, 500, 1000).await;
    }
    for (name, partition) in
        ["one", "two"].iter().flat_map(|n| partitions.iter().map(move |p| (n, p)))
    {
        until_written(broker, &daemon, name, partition).await;
    }
    daemon.terminate().await;
    for (name, partition) in
        ["one", "two"].iter().flat_map(|n| partitions.iter().map(move |p| (n, p)))
    {
        assert_exact(&format!("{name} on {partition}"), &home.lines(name, partition), 1000);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_share_connections_also_after_they_were_lost() {
    or_skip!(one_for_all().await);
}

/// A chunk that never fits into the memory ends only the subscription of its partition.
async fn too_large() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, partitions) = streams::create_super(broker, "large", 3).await;
    let rest = "memory = \"1MiB\"\nsink = { type = \"file\", dir = \"files\" }";
    let small = consumer("files", &orders, rest)
        .replace("max_messages = 100,", "max_messages = 100, max_bytes = \"512KiB\",");
    let home = Home::new(&broker.uri(), &small);
    let daemon = home.start();
    for partition in &partitions {
        publish(broker, partition, 0, 100).await;
        until_written(broker, &daemon, "files", partition).await;
    }
    streams::publish(broker, &partitions[0], [vec![b'x'; 700_000]]).await;
    let halted =
        until_row(&daemon, ("files", &partitions[0]), "it halts", |row| row["state"] == "halted")
            .await;
    assert!(halted["reason"].as_str().unwrap().contains("memory"), "{halted}");
    for partition in &partitions[1..] {
        publish(broker, partition, 100, 200).await;
        until_written(broker, &daemon, "files", partition).await;
        assert_eq!(row(&daemon, "files", partition).await.unwrap()["restarts"], 0, "{partition}");
    }
    daemon.terminate().await;
    for partition in &partitions[1..] {
        assert_exact(partition, &home.lines("files", partition), 200);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_fails_does_not_stop_the_others() {
    or_skip!(too_large().await);
}
