//! Three nodes under load: a replica that consumers read from freezes, and the leader is killed. How soon
//! do the consumers continue, and is anything lost or duplicated?

use std::time::{Duration, Instant};

use crate::common::cluster::{Cluster, SteadyLoad, within};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::assert_exact;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, eventually, streams};

/// More consumers than replicas.
const CONSUMERS: [&str; 4] = ["file-0", "file-1", "file-2", "file-3"];

/// Time limit for the consumers of a frozen node to continue on another one.
const AFTER_FREEZE: Duration = Duration::from_secs(20);

/// Time limit for consumers to continue once the stream accepts messages again.
const AFTER_RETURN: Duration = Duration::from_secs(15);

/// Longest time that the broker itself may take to serve the stream again.
const RETURN_MAX: Duration = Duration::from_secs(120);

fn home(cluster: &Cluster, stream: &str) -> Home {
    let consumers: String = CONSUMERS
        .iter()
        .map(|name| {
            format!(
                "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
                 sink = {{ type = \"file\", dir = \"{name}\" }}\n"
            )
        })
        .collect();
    // Heartbeats and time limits are the defaults: the limits above are promised for those.
    Home::with_broker(&format!("uris = {}", cluster.uris()), &consumers)
}

/// Offset up to which each consumer is durable.
async fn durable(daemon: &Daemon) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    for name in CONSUMERS {
        let consumer = daemon.consumer(name).await?;
        assert!(consumer["state"] != "halted", "{consumer}");
        all.push(consumer["durable_offset"].as_u64().unwrap_or(0));
    }
    Some(all)
}

/// Waits until the stream accepts messages, and each consumer has one that was published after the call.
/// Returns how long the consumers took after the stream accepted messages.
async fn until_all_go_on(daemon: &Daemon, load: &SteadyLoad) -> Duration {
    let confirmed = load.confirmed();
    // Messages in flight at that time may still be confirmed.
    eventually("the stream takes messages", RETURN_MAX, || async {
        (load.confirmed() > confirmed + 100).then_some(())
    })
    .await;
    let back = Instant::now();
    // There are at least as many offsets as messages, and a consumer that reads soon passes the first
    // one.
    let now = eventually("the daemon answers", AFTER_RETURN, || durable(daemon)).await;
    let target = now.into_iter().max().unwrap().max(load.confirmed());
    eventually("all consumers go on", Duration::from_secs(60), || async {
        durable(daemon).await.filter(|all| all.iter().all(|at| *at > target))
    })
    .await;
    back.elapsed()
}

/// Number of subscriptions that the daemon has begun on this port.
fn subscribed(home: &Home, port: u16) -> usize {
    let log = std::fs::read_to_string(home.path("log")).unwrap();
    let node = format!("localhost:{port}");
    log.lines().filter(|line| line.contains("subscribed") && line.contains(&node)).count()
}

async fn tried() -> Result<(), Unavailable> {
    let cluster = Cluster::start(Version::V4_3).await?;
    let stream = streams::create(&cluster.nodes[0], "cluster").await;
    let members = cluster.until_whole(&stream).await;
    let home = home(&cluster, &stream);
    let load = SteadyLoad::on(&cluster, &stream);
    let mut daemon = home.start();
    for name in CONSUMERS {
        daemon.until(name, "it reads", Duration::from_secs(30), |c| c["state"] == "running").await;
    }
    until_all_go_on(&daemon, &load).await;

    let on = |node: usize| subscribed(&home, cluster.nodes[node].stream_port);
    let leader = members.leader.expect("a whole stream has a leader");
    let mut replicas = members.replicas.clone();
    replicas.sort_by_key(|replica| on(*replica));
    let [.., other, frozen] = replicas[..] else { panic!("{members:?}") };
    println!("subscriptions: {} on the leader, {} and {}", on(leader), on(other), on(frozen));
    assert!(on(frozen) > 0, "nobody reads from a replica\n{}", home.log_tail());
    let elsewhere = || on(other) + on(leader);
    let before = elsewhere();
    let froze = Instant::now();
    cluster.nodes[frozen].freeze().await;
    until_all_go_on(&daemon, &load).await;
    let took = froze.elapsed();
    println!("a replica froze: all go on {took:.1?} later");
    assert!(elsewhere() > before, "nobody read from the frozen replica\n{}", home.log_tail());
    assert!(took <= AFTER_FREEZE, "{took:?}\n{}", home.log_tail());
    cluster.nodes[frozen].thaw().await;

    let members = cluster.until_whole(&stream).await;
    let leader = &cluster.nodes[members.leader.expect("a whole stream has a leader")];
    leader.kill().await;
    let took = until_all_go_on(&daemon, &load).await;
    println!("the leader was killed: all go on {took:.1?} after the stream");
    assert!(took <= AFTER_RETURN, "{took:?}\n{}", home.log_tail());
    leader.start().await;

    cluster.until_whole(&stream).await;
    let total = load.stop().await;
    for name in CONSUMERS {
        home.until_landed(&daemon, name, &stream, total).await;
    }
    within("the daemon ends", Duration::from_secs(60), daemon.terminate()).await;
    for name in CONSUMERS {
        assert_exact(name, &home.lines(name, &stream), total);
    }
    Ok(())
}

#[tokio::test]
async fn consumers_go_on_after_faults_of_nodes_and_nothing_is_lost_or_duplicated() {
    let limit = Duration::from_secs(400);
    or_skip!(within("the whole test", limit, tried()).await);
}
