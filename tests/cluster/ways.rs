//! Ways to nodes that cannot be reached at the addresses that they advertise.

use std::time::Duration;

use rillway::broker::{ConnectOptions, Endpoint, Routing, connect_to_authority};
use rillway::types::StreamName;

use super::subscribed;
use crate::common::balancer::Balancer;
use crate::common::cluster::{Cluster, within};
use crate::common::daemon::Home;
use crate::common::proxy::Proxy;
use crate::common::reading::connect_options;
use crate::common::{eventually, streams};

const LONG: Duration = Duration::from_secs(90);

const MESSAGES: u64 = 2_000;

const CONSUMERS: [&str; 4] = ["way-0", "way-1", "way-2", "way-3"];

fn consumers(stream: &str) -> String {
    CONSUMERS
        .iter()
        .map(|name| {
            format!(
                "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
            )
        })
        .collect()
}

async fn until_all_is_read(home: &Home) {
    let mut daemon = home.start();
    for name in CONSUMERS {
        daemon.until_durable(name, MESSAGES - 1).await;
    }
    within("the daemon ends", LONG, daemon.terminate()).await;
}

/// Behind a load balancer, and with addresses that stand for the advertised ones.
pub(super) async fn lead_to_the_wanted_nodes(cluster: &Cluster) {
    let stream = streams::create(&cluster.nodes[0], "ways").await;
    let members = cluster.until_whole(&stream).await;
    let leader = members.leader.unwrap();
    let bodies = (0..MESSAGES).map(|i| i.to_string());
    streams::publish(&cluster.nodes[leader], &stream, bodies).await;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.stream_port).collect();

    let balancer = Balancer::between(ports.clone()).await;
    let uri = cluster.nodes[0].uri_by(balancer.port);
    let broker = format!("uri = \"{uri}\"\nload_balancer = true");
    let home = Home::with_broker(&broker, &consumers(&stream));
    until_all_is_read(&home).await;
    let on: Vec<usize> = ports.iter().map(|port| subscribed(&home, *port)).collect();
    println!(
        "behind a load balancer: {on:?} subscriptions, {leader} leads, {} connections in all",
        balancer.accepted()
    );
    assert_eq!(on[leader], 0, "nobody reads from the leader\n{}", home.log_tail());
    assert_eq!(on.iter().sum::<usize>(), CONSUMERS.len(), "{}", home.log_tail());
    // At most twelve for each search, one for asking, and those of the lag.
    assert!(balancer.accepted() <= CONSUMERS.len() * 13 + 4, "{}", balancer.accepted());

    let mut proxies = Vec::new();
    for port in &ports {
        proxies.push(Proxy::to(*port).await);
    }
    let map: Vec<String> = ports
        .iter()
        .zip(&proxies)
        .map(|(port, proxy)| format!("\"localhost:{port}\" = \"localhost:{}\"", proxy.port))
        .collect();
    let broker = format!(
        "uri = \"{}\"\naddress_map = {{ {} }}",
        cluster.nodes[leader].uri(),
        map.join(", ")
    );
    let home = Home::with_broker(&broker, &consumers(&stream));
    until_all_is_read(&home).await;
    let on: Vec<usize> = proxies.iter().map(|proxy| subscribed(&home, proxy.port)).collect();
    println!("by mapped addresses: {on:?} subscriptions, {leader} leads");
    assert_eq!(on.iter().sum::<usize>(), CONSUMERS.len(), "{}", home.log_tail());
    assert_eq!(on[leader], 0, "{}", home.log_tail());
}

/// Where the leader's address leads to another node, that one is not taken for the leader; a load balancer
/// leads to the leader in the end.
pub(super) async fn never_take_another_node_for_the_leader(cluster: &Cluster) {
    let stream = streams::create(&cluster.nodes[0], "ways").await;
    let members = cluster.until_whole(&stream).await;
    let leader = members.leader.unwrap();
    let port = |node: usize| cluster.nodes[node].stream_port;
    let at = |port: u16| Endpoint { host: "localhost".to_owned(), port };
    let replica = Proxy::to(port(members.replicas[0])).await;
    let name = StreamName::from(stream.as_str());

    let plain = connect_options(port(members.replicas[1]));
    let address_map = vec![(at(port(leader)), at(replica.port))];
    let options = ConnectOptions {
        follow_advertised_hosts: true,
        routing: Routing { address_map, ..Routing::default() },
        ..plain.clone()
    };
    let reached = connect_to_authority(&options, &name).await.unwrap();
    let why = reached.no_leader.expect("the leader was not reached");
    assert!(why.contains("leads to the node that advertises"), "{why}");
    assert_ne!(reached.connection.advertised(), Some(&at(port(leader))));

    let balancer = Balancer::between((0..3).map(port).collect()).await;
    let options = ConnectOptions {
        seeds: vec![at(balancer.port)],
        routing: Routing { load_balancer: true, ..Routing::default() },
        ..plain
    };
    for _ in 0..3 {
        let reached = connect_to_authority(&options, &name).await.unwrap();
        assert_eq!(reached.no_leader, None);
        assert_eq!(reached.connection.advertised(), Some(&at(port(leader))));
    }
    let only_replicas =
        Balancer::between(members.replicas.iter().copied().map(port).collect()).await;
    let options = ConnectOptions { seeds: vec![at(only_replicas.port)], ..options };
    let reached = connect_to_authority(&options, &name).await.unwrap();
    let why = reached.no_leader.expect("the leader is not behind it");
    assert!(why.contains("load_balancer") && why.contains("and not to"), "{why}");
    eventually("what is not needed is closed", LONG, || async {
        (only_replicas.accepted() >= 12).then_some(())
    })
    .await;
}
