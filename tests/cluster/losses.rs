//! Retention takes messages that a consumer has not read, while the stream's leader is out of reach: its
//! address is not configured, or its node is in maintenance. The policy applies all the same.

use std::time::Duration;

use rillway::broker::{Connection, Endpoint, stream_bounds};
use rillway::types::{Offset, StreamName};

use crate::common::cluster::{Cluster, within};
use crate::common::daemon::Home;
use crate::common::load::publish_evenly;
use crate::common::reading::connect_options;
use crate::common::{eventually, streams};

const LONG: Duration = Duration::from_secs(90);

/// Messages before the consumers stop, and after that.
const READ: u64 = 1_000;
const UNREAD: u64 = 20_000;

/// In small chunks: a segment that is full after one of them would be dropped with the next.
async fn publish(cluster: &Cluster, node: usize, stream: &str, total: u64) {
    publish_evenly(&cluster.nodes[node], stream, (total, 50), |i| format!("{i:0100}")).await;
}

/// One consumer that goes on after a loss, and one that halts.
fn consumers(stream: &str, names: [&str; 2]) -> String {
    let [goes_on, halts] = names;
    format!(
        "[[consumer]]\nname = \"{goes_on}\"\nstream = \"{stream}\"\non_offset_lost = \"first\"\n\
         sink = {{ type = \"file\", dir = \"{goes_on}\" }}\n\
         [[consumer]]\nname = \"{halts}\"\nstream = \"{stream}\"\n\
         sink = {{ type = \"null\" }}\n"
    )
}

/// First offset on this node; `None` if it does not answer.
async fn first(cluster: &Cluster, node: usize, stream: &str) -> Option<Offset> {
    let port = cluster.nodes[node].stream_port;
    let endpoint = Endpoint { host: "localhost".to_owned(), port };
    let connection = Connection::open(&endpoint, &connect_options(port)).await.ok()?;
    stream_bounds(&connection, &StreamName::from(stream)).await.ok()?.first
}

/// The daemon notices the loss; one consumer goes on, and the other one halts.
async fn the_policies_apply(home: &Home, names: [&str; 2]) {
    let [goes_on, halts] = names;
    let mut daemon = home.start();
    daemon
        .until(goes_on, "it waits for the leader's word", LONG, |c| {
            let reason = c["reason"].as_str().unwrap_or_default();
            reason.contains("says a node that is not the leader") && reason.contains("within 30 s")
        })
        .await;
    daemon
        .until(goes_on, "it goes on", LONG, |c| {
            c["state"] == "running" && c["durable_offset"].as_u64() > Some(READ)
        })
        .await;
    let (_, metrics) = daemon.http("GET", "/metrics").await.unwrap();
    let of_consumer = format!("consumer=\"{goes_on}\"");
    let lost: f64 = metrics
        .lines()
        .filter(|l| l.starts_with("rillway_lost_messages_total{") && l.contains(&of_consumer))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    println!("{goes_on}: up to {lost} messages lost");
    assert!(lost >= 1.0, "{}", daemon.tail());
    let reason = daemon.until_halted(halts).await;
    assert!(reason.contains("is lost"), "{reason}");
    within("the daemon ends", LONG, daemon.terminate()).await;
}

pub(super) async fn are_decided_without_the_leader(cluster: &Cluster) {
    let limits = [("max-length-bytes", "200000"), ("stream-max-segment-size-bytes", "100000")];
    let stream = streams::create_with(&cluster.nodes[0], "evicted", &limits).await;
    let members = cluster.until_whole(&stream).await;
    let leader = members.leader.unwrap();
    publish(cluster, leader, &stream, READ).await;

    let uri = cluster.nodes[members.replicas[0]].uri();
    let [behind, halts_behind] = ["one-address", "one-address-halts"];
    let one_address = Home::with_broker(
        &format!("uri = \"{uri}\"\nfollow_advertised_hosts = false"),
        &consumers(&stream, [behind, halts_behind]),
    );
    let [drained, halts_drained] = ["drained", "drained-halts"];
    let all_addresses = Home::with_broker(
        &format!("uris = {}", cluster.uris()),
        &consumers(&stream, [drained, halts_drained]),
    );
    for (home, names) in
        [(&one_address, [behind, halts_behind]), (&all_addresses, [drained, halts_drained])]
    {
        let mut daemon = home.start();
        for name in names {
            daemon.until_durable(name, READ - 1).await;
        }
        within("the daemon ends", LONG, daemon.terminate()).await;
    }

    publish(cluster, leader, &stream, UNREAD).await;
    for node in [leader, members.replicas[0], members.replicas[1]] {
        eventually("retention has taken what was not read", LONG, || async {
            first(cluster, node, &stream).await.filter(|at| at.0 > READ + 100)
        })
        .await;
    }

    the_policies_apply(&one_address, [behind, halts_behind]).await;

    cluster.nodes[leader].ctl(&["rabbitmq-upgrade", "drain"]).await;
    eventually("the leader is not listed", LONG, || async {
        let asked = members.replicas[0];
        cluster.members(&stream, asked).await.filter(|members| members.leader.is_none())
    })
    .await;
    the_policies_apply(&all_addresses, [drained, halts_drained]).await;
    cluster.nodes[leader].ctl(&["rabbitmq-upgrade", "revive"]).await;
    cluster.until_whole(&stream).await;
}
