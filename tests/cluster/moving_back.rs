//! Consumers that had to read from a stream's leader go back to replicas, one after the other, without a
//! loss or a duplicate.

use std::time::{Duration, Instant};

use super::{Pauses, durable, subscribed};
use crate::common::cluster::{Cluster, SteadyLoad, within};
use crate::common::daemon::Home;
use crate::common::load::assert_exact;
use crate::common::proxy::Proxy;
use crate::common::{eventually, streams};

const LONG: Duration = Duration::from_secs(90);

const CONSUMERS: [&str; 4] = ["back-0", "back-1", "back-2", "back-3"];

/// Longest pause of a consumer that moves. Its new connection is open before it leaves the old one.
const PAUSE_MAX: Duration = Duration::from_secs(3);

pub(super) async fn is_orderly(cluster: &Cluster) {
    let stream = streams::create(&cluster.nodes[0], "back").await;
    let members = cluster.until_whole(&stream).await;
    let port = |node: usize| cluster.nodes[node].stream_port;
    let leader = members.leader.unwrap();
    let mut proxies = Vec::new();
    for replica in &members.replicas {
        let proxy = Proxy::to(port(*replica)).await;
        proxy.refuse();
        proxies.push(proxy);
    }
    let map: Vec<String> = members
        .replicas
        .iter()
        .zip(&proxies)
        .map(|(node, proxy)| {
            format!("\"localhost:{}\" = \"localhost:{}\"", port(*node), proxy.port)
        })
        .collect();
    let broker = format!(
        "uri = \"{}\"\nmove_back_after = \"4s\"\naddress_map = {{ {} }}",
        cluster.nodes[leader].uri(),
        map.join(", ")
    );
    let consumers: String = CONSUMERS
        .iter()
        .map(|name| {
            format!(
                "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
                 batch = {{ max_age = \"50ms\" }}\nsink = {{ type = \"file\", dir = \"{name}\" }}\n"
            )
        })
        .collect();
    let home = Home::with_broker(&broker, &consumers);
    let load = SteadyLoad::on(cluster, &stream);
    let daemon = home.start();
    eventually("all read from the leader", LONG, || async {
        let rows = durable(&daemon).await?;
        let reads = rows.len() == CONSUMERS.len() && rows.values().all(|at| *at > 500);
        (reads && subscribed(&home, port(leader)) >= CONSUMERS.len()).then_some(())
    })
    .await;

    proxies.iter().for_each(Proxy::resume);
    let began = Instant::now();
    let mut pauses = Pauses::of(CONSUMERS.len());
    let mut moved = Vec::new();
    while moved.len() < CONSUMERS.len() || began.elapsed() < Duration::from_secs(8) {
        assert!(began.elapsed() < LONG, "{} moved back\n{}", moved.len(), home.log_tail());
        if let Some(rows) = durable(&daemon).await {
            let at = |name: &&str| rows.get(&((*name).to_owned(), stream.clone())).copied();
            pauses.look(CONSUMERS.iter().map(|name| (load.confirmed(), at(name).unwrap_or(0))));
        }
        let there: usize = proxies.iter().map(|proxy| subscribed(&home, proxy.port)).sum();
        moved.resize(there.max(moved.len()), began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let longest = pauses.longest();
    println!("moved back after {moved:.1?}, with pauses of at most {longest:.2?}");
    assert!(longest.iter().all(|pause| *pause <= PAUSE_MAX), "{longest:?}\n{}", home.log_tail());
    assert!(moved.first() < moved.last(), "all at once: {moved:?}");
    let (_, metrics) = daemon.http("GET", "/metrics").await.unwrap();
    let counted = metrics
        .lines()
        .filter(|l| l.starts_with("rillway_restarts_total{") && l.contains("reason=\"moved\""))
        .filter(|line| line.ends_with(" 1"))
        .count();
    assert_eq!(counted, CONSUMERS.len(), "moves are counted");

    let total = load.stop().await;
    for name in CONSUMERS {
        home.until_landed(&daemon, name, &stream, total).await;
    }
    within("the daemon ends", LONG, daemon.terminate()).await;
    for name in CONSUMERS {
        assert_exact(name, &home.lines(name, &stream), total);
    }
}
