//! The node that consumers read from is killed or frozen. Consumers over AMQP 0.9.1 continue at another node, and so
//! does a consumer that is active in one of two daemons. Nothing is lost, and exactly-once sinks repeat nothing.

use std::time::Duration;

use super::torture::{exact, lines, rows};
use super::{durable, read_from};
use crate::common::cluster::{Cluster, SteadyLoad, within};
use crate::common::daemon::{Daemon, Home};
use crate::common::{eventually, streams};

/// Time limit for the cluster to serve the stream again, and for the consumers to go on.
const LONG: Duration = Duration::from_secs(240);

const FILES: &str = "file";

const ROWS: &str = "sqlite";

/// Waits until each of these consumers has, in one of the daemons, a message that was published after this call.
async fn go_on(daemons: &[&Daemon], names: &[&str], load: &SteadyLoad) {
    let before = load.confirmed();
    eventually("the stream takes messages", LONG, || async {
        (load.confirmed() > before + 100).then_some(())
    })
    .await;
    let target = load.confirmed();
    eventually("the consumers go on", LONG, || async {
        let mut furthest = vec![0; names.len()];
        for daemon in daemons {
            let rows = durable(daemon).await.unwrap_or_default();
            for (name, at) in names.iter().zip(&mut furthest) {
                let of_name = rows.iter().filter(|((n, _), _)| n == name).map(|(_, at)| *at);
                *at = (*at).max(of_name.max().unwrap_or(0));
            }
        }
        furthest.iter().all(|at| *at > target).then_some(())
    })
    .await;
}

pub(super) async fn over_amqp(cluster: &Cluster) {
    let stream = streams::create(&cluster.nodes[0], "over-amqp").await;
    cluster.until_whole(&stream).await;
    let load = SteadyLoad::on(cluster, &stream);
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.amqp_port).collect();
    let uris: Vec<_> =
        ports.iter().map(|port| format!("\"amqp://guest:guest@localhost:{port}/%2f\"")).collect();
    let consumers = format!(
        "[[consumer]]\nname = \"{FILES}\"\nstream = \"{stream}\"\n\
         sink = {{ type = \"file\", dir = \"{FILES}\" }}\n\
         [[consumer]]\nname = \"{ROWS}\"\nstream = \"{stream}\"\n\
         sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"rows\" }}\n"
    );
    let home = Home::with_broker(&format!("uris = [{}]", uris.join(", ")), &consumers);
    let daemon = home.start();
    go_on(&[&daemon], &[FILES, ROWS], &load).await;
    for is_killed in [true, false] {
        cluster.until_whole(&stream).await;
        let node = read_from(&home, &ports, ROWS).expect("it subscribed");
        match is_killed {
            true => cluster.nodes[node].kill().await,
            false => cluster.nodes[node].freeze().await,
        }
        if is_killed {
            go_on(&[&daemon], &[FILES, ROWS], &load).await;
            cluster.nodes[node].start().await;
        } else {
            // If the node led the stream, or the coordinator of all streams, no other node serves the stream before
            // the thaw: the broker does not replace a frozen leader.
            let silent = format!("broker localhost:{}: it sent nothing", ports[node]);
            eventually("its silence is noticed", LONG, || async {
                home.log().contains(&silent).then_some(())
            })
            .await;
            cluster.nodes[node].thaw().await;
        }
        go_on(&[&daemon], &[FILES, ROWS], &load).await;
    }
    cluster.until_whole(&stream).await;
    let total = load.stop().await;
    home.until_landed(&daemon, FILES, &stream, total).await;
    eventually("all rows are there", LONG, || async {
        (rows(&home.path("rows.db")).len() as u64 >= total).then_some(())
    })
    .await;
    within("the daemon ends", LONG, daemon.terminate()).await;
    exact("files over AMQP", &lines(&home, FILES, &stream), total);
    exact("rows over AMQP", &rows(&home.path("rows.db")), total);
}

pub(super) async fn as_single_active(cluster: &Cluster) {
    let stream = streams::create(&cluster.nodes[0], "one-active").await;
    cluster.until_whole(&stream).await;
    let load = SteadyLoad::on(cluster, &stream);
    let shared = tempfile::tempdir().unwrap();
    let database = shared.path().join("rows.db");
    let consumer = format!(
        "[[consumer]]\nname = \"{ROWS}\"\nstream = \"{stream}\"\nsingle_active = true\n\
         sink = {{ type = \"sqlite\", path = \"{}\", table = \"rows\" }}\n",
        database.display()
    );
    let broker = format!("uris = {}", cluster.uris());
    let homes = [(); 2].map(|()| Home::with_broker(&broker, &consumer));
    let first = homes[0].start();
    go_on(&[&first], &[ROWS], &load).await;
    let second = homes[1].start();
    eventually("the second stands by", LONG, || async {
        (second.consumer(ROWS).await?["state"] == "passive").then_some(())
    })
    .await;

    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.stream_port).collect();
    let node = read_from(&homes[0], &ports, ROWS).expect("it subscribed");
    cluster.nodes[node].kill().await;
    go_on(&[&first, &second], &[ROWS], &load).await;
    cluster.nodes[node].start().await;
    let members = cluster.until_whole(&stream).await;

    // Kill the leader, which also holds the state of the consumers' group.
    let leader = members.leader.expect("a whole stream has a leader");
    cluster.nodes[leader].kill().await;
    go_on(&[&first, &second], &[ROWS], &load).await;
    cluster.nodes[leader].start().await;
    cluster.until_whole(&stream).await;

    within("the first one ends", LONG, first.terminate()).await;
    go_on(&[&second], &[ROWS], &load).await;
    let total = load.stop().await;
    eventually("all rows are there", LONG, || async {
        (rows(&database).len() as u64 >= total).then_some(())
    })
    .await;
    within("the second one ends", LONG, second.terminate()).await;
    exact("rows of two daemons", &rows(&database), total);
}
