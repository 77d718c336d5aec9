//! A node freezes. The partitions of a super stream that are read from other nodes go on meanwhile.

use std::time::{Duration, Instant};

use super::{Pauses, durable, read_from, subscribed};
use crate::common::cluster::{Cluster, SteadyLoad, within};
use crate::common::daemon::Home;
use crate::common::streams;

const NAME: &str = "siblings";

const PARTITIONS: usize = 6;

/// Time for which the node is frozen and the partitions are watched.
const WATCHED: Duration = Duration::from_secs(25);

/// Longest pause of a partition that has nothing to do with the frozen node. A node that is asked where a
/// stream is, while another one is frozen, does nothing else on that connection for 10 to 40 s.
const PAUSE_MAX: Duration = Duration::from_secs(6);

pub(super) async fn go_on_while_a_node_is_frozen(cluster: &Cluster) {
    let (super_stream, partitions) =
        streams::create_super(&cluster.nodes[0], "siblings", PARTITIONS).await;
    let mut leaders = Vec::new();
    for partition in &partitions {
        leaders.push(cluster.until_whole(partition).await.leader.unwrap());
    }
    let loads: Vec<_> = partitions.iter().map(|p| SteadyLoad::on(cluster, p)).collect();
    let consumer = format!(
        "[[consumer]]\nname = \"{NAME}\"\nsuper_stream = \"{super_stream}\"\n\
         sink = {{ type = \"null\" }}\nbatch = {{ max_age = \"50ms\" }}\n"
    );
    let home = Home::with_broker(&format!("uris = {}", cluster.uris()), &consumer);
    let daemon = home.start();
    let key = |partition: &String| (NAME.to_owned(), partition.clone());
    crate::common::eventually("all partitions are read", Duration::from_secs(60), || async {
        let rows = durable(&daemon).await?;
        partitions.iter().all(|p| rows.get(&key(p)).is_some_and(|at| *at > 500)).then_some(())
    })
    .await;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.stream_port).collect();
    let from: Vec<_> =
        partitions.iter().map(|p| read_from(&home, &ports, p).expect("it subscribed")).collect();
    // A node that leaves something to watch, leads others of the partitions, whose stored offsets it keeps,
    // and that as many as can be are read from.
    let disturbed = |node: usize| from.iter().filter(|at| **at == node).count();
    let innocent = |node: usize| {
        let both = leaders.iter().zip(&from);
        both.filter(|(leader, at)| **leader != node && **at != node).count()
    };
    let node = (0..cluster.nodes.len())
        .max_by_key(|node| (innocent(*node) > 0, leaders.contains(node), disturbed(*node)))
        .expect("a cluster has nodes");
    println!(
        "leaders {leaders:?}, read from {from:?}; node {node} freezes ({} subscriptions so far)",
        subscribed(&home, cluster.nodes[node].stream_port)
    );
    assert!(innocent(node) > 0, "nothing to watch: {leaders:?} {from:?}");

    cluster.nodes[node].freeze().await;
    let froze = Instant::now();
    let mut pauses = Pauses::of(PARTITIONS);
    while froze.elapsed() < WATCHED {
        if let Some(rows) = durable(&daemon).await {
            let at = |partition: &String| rows.get(&key(partition)).copied().unwrap_or(0);
            let both = partitions.iter().zip(&loads);
            pauses.look(both.map(|(partition, load)| (load.confirmed(), at(partition))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.nodes[node].thaw().await;
    let longest = pauses.longest();
    println!("longest pauses: {longest:.1?}");
    for nth in 0..PARTITIONS {
        if leaders[nth] != node && from[nth] != node {
            let pause = longest[nth];
            assert!(pause <= PAUSE_MAX, "partition {nth}: {pause:?}\n{}", home.log_tail());
        }
    }
    for partition in &partitions {
        cluster.until_whole(partition).await;
    }
    for load in loads {
        load.stop().await;
    }
    within("the daemon ends", Duration::from_secs(60), daemon.terminate()).await;
}
