//! Faults of nodes, one after the other, while a stream and a super stream are written and read. In the
//! end: is anything lost or duplicated?
//!
//! By default a few faults, in about a minute. All of them, with a table at the end:
//!
//! ```text
//! FAULTS=30 make torture-cluster
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{durable, subscribed};
use crate::common::cluster::{Cluster, NODES, SteadyLoad, within};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{assert_none_lost, number};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, env_or, eventually, streams};

/// Consumers of the stream with a `file` sink: more than there are replicas.
const FILES: [&str; 3] = ["file-0", "file-1", "file-2"];

const SQLITE: &str = "sqlite";

/// The consumer of the super stream.
const SUPER: &str = "super";

const PARTITIONS: usize = 3;

/// Time limit for the consumers of a frozen node to continue on another one. Promised are 15 s, which
/// `make torture-cluster` measures; beside other tests on two cores, it takes as long as they let it.
const AFTER_FREEZE: Duration = Duration::from_secs(60);

/// Time limit for consumers to continue once their stream accepts messages again. Promised are 10 s.
const AFTER_RETURN: Duration = Duration::from_secs(40);

/// The longest that the broker itself may take to serve a stream again.
const RETURN_MAX: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ReplicaFreezes,
    LeaderIsKilled,
    LeaderIsDrained,
    ReplicaIsKilled,
    OneByOne,
    AllAtOnce,
}

use Fault::{
    AllAtOnce, LeaderIsDrained, LeaderIsKilled, OneByOne, ReplicaFreezes, ReplicaIsKilled,
};

/// A stream or a partition, and its producer.
struct Lane {
    stream: String,
    load: SteadyLoad,
}

/// How soon a lane went on.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// The stream took messages, after the fault.
    returned: Duration,
    /// All consumers had messages of that time, after the fault.
    consumed: Duration,
}

/// Measured times of one fault.
struct Measured {
    fault: Fault,
    /// Consumers after the fault; of a freeze, without what waits for the frozen node itself.
    since_fault: Duration,
    /// Consumers after the return of their stream.
    since_return: Duration,
}

struct Stage {
    cluster: Cluster,
    home: Home,
    daemon: Daemon,
    lanes: Vec<Lane>,
    measured: Vec<Measured>,
}

impl Stage {
    async fn set(version: Version) -> Result<Stage, Unavailable> {
        let cluster = Cluster::start(version).await?;
        let stream = streams::create(&cluster.nodes[0], "cluster").await;
        let (super_stream, partitions) =
            streams::create_super(&cluster.nodes[0], "cluster-super", PARTITIONS).await;
        let mut consumers: String = FILES
            .iter()
            .map(|name| {
                format!(
                    "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
                     sink = {{ type = \"file\", dir = \"{name}\" }}\n"
                )
            })
            .collect();
        consumers += &format!(
            "[[consumer]]\nname = \"{SQLITE}\"\nstream = \"{stream}\"\n\
             sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"rows\" }}\n\
             [[consumer]]\nname = \"{SUPER}\"\nsuper_stream = \"{super_stream}\"\n\
             sink = {{ type = \"file\", dir = \"{SUPER}\" }}\n"
        );
        // Heartbeats and time limits are the defaults: the times above are promised for those.
        let home = Home::with_broker(&format!("uris = {}", cluster.uris()), &consumers);
        let lanes: Vec<Lane> = std::iter::once(stream)
            .chain(partitions)
            .map(|stream| Lane { load: SteadyLoad::on(&cluster, &stream), stream })
            .collect();
        let daemon = home.start();
        let stage = Stage { cluster, home, daemon, lanes, measured: Vec::new() };
        stage.recovered(Instant::now(), |_| true).await;
        Ok(stage)
    }

    /// Waits until the wanted streams take messages, and all of their consumers have some of those.
    async fn recovered(&self, since: Instant, wanted: impl Fn(&Lane) -> bool) -> Vec<Recovery> {
        struct Waiting<'a> {
            lane: &'a Lane,
            confirmed: u64,
            returned: Option<(Duration, u64)>,
            consumed: Option<Duration>,
        }
        let mut all: Vec<Waiting<'_>> = self
            .lanes
            .iter()
            .filter(|lane| wanted(lane))
            .map(|lane| Waiting {
                lane,
                confirmed: lane.load.confirmed(),
                returned: None,
                consumed: None,
            })
            .collect();
        while all.iter().any(|waiting| waiting.consumed.is_none()) {
            let rows = durable(&self.daemon).await.unwrap_or_default();
            for waiting in all.iter_mut().filter(|waiting| waiting.consumed.is_none()) {
                let stream = &waiting.lane.stream;
                let of_lane: Vec<u64> =
                    rows.iter().filter(|((_, s), _)| s == stream).map(|(_, at)| *at).collect();
                let confirmed = waiting.lane.load.confirmed();
                match waiting.returned {
                    // What was under way at the time may still be confirmed.
                    None if confirmed > waiting.confirmed + 100 => {
                        // Offsets are at least as many as messages, and whoever reads on passes the
                        // first one soon.
                        let target = of_lane.iter().copied().max().unwrap_or(0).max(confirmed);
                        waiting.returned = Some((since.elapsed(), target));
                    }
                    None => assert!(
                        since.elapsed() < RETURN_MAX,
                        "{stream} does not come back\n{}",
                        self.home.log_tail()
                    ),
                    Some((returned, target)) => {
                        if !of_lane.is_empty() && of_lane.iter().all(|at| *at > target) {
                            waiting.consumed = Some(since.elapsed());
                        }
                        assert!(
                            since.elapsed() < returned + Duration::from_secs(90),
                            "consumers of {stream} do not go on\n{}",
                            self.home.log_tail()
                        );
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        all.iter()
            .filter_map(|waiting| {
                let (returned, _) = waiting.returned?;
                Some(Recovery { returned, consumed: waiting.consumed? })
            })
            .collect()
    }

    /// The same for all streams after a fault; notes how long it took.
    async fn measure(&mut self, fault: Fault, since: Instant) {
        let all = self.recovered(since, |_| true).await;
        let since_return =
            all.iter().map(|r| r.consumed.saturating_sub(r.returned)).max().unwrap_or_default();
        let since_fault = all.iter().map(|r| r.consumed).max().unwrap_or_default();
        println!(
            "{fault:?}: consumers go on {since_fault:.1?} after it, {since_return:.1?} after their stream"
        );
        self.measured.push(Measured { fault, since_fault, since_return });
        assert!(since_return <= AFTER_RETURN, "{since_return:?}\n{}", self.home.log_tail());
    }

    async fn until_whole(&self) {
        for lane in &self.lanes {
            self.cluster.until_whole(&lane.stream).await;
        }
    }

    async fn suffer(&mut self, fault: Fault) {
        self.until_whole().await;
        let members = self.cluster.until_whole(&self.lanes[0].stream).await;
        let leader = members.leader.expect("a whole stream has a leader");
        // The one that more consumers have read from.
        let mut replicas = members.replicas.clone();
        let port = |node: usize| self.cluster.nodes[node].stream_port;
        replicas.sort_by_key(|node| subscribed(&self.home, port(*node)));
        let [.., replica] = replicas[..] else { panic!("{members:?}") };
        let began = Instant::now();
        match fault {
            ReplicaFreezes => return self.freeze(replica).await,
            LeaderIsKilled | ReplicaIsKilled => {
                let node = if fault == LeaderIsKilled { leader } else { replica };
                self.cluster.nodes[node].kill().await;
                self.measure(fault, began).await;
                self.cluster.nodes[node].start().await;
            }
            LeaderIsDrained => {
                self.cluster.nodes[leader].ctl(&["rabbitmq-upgrade", "drain"]).await;
                self.measure(fault, began).await;
                self.cluster.nodes[leader].ctl(&["rabbitmq-upgrade", "revive"]).await;
            }
            OneByOne => {
                for node in 0..NODES {
                    self.until_whole().await;
                    let began = Instant::now();
                    self.cluster.nodes[node].stop().await;
                    self.measure(fault, began).await;
                    self.cluster.nodes[node].start().await;
                }
            }
            AllAtOnce => {
                let nodes = &self.cluster.nodes;
                futures_util::future::join_all(nodes.iter().map(|node| node.kill())).await;
                futures_util::future::join_all(nodes.iter().map(|node| node.start())).await;
                self.measure(fault, began).await;
            }
        }
        self.measure_end().await;
    }

    /// Everything is as before.
    async fn measure_end(&self) {
        self.until_whole().await;
        self.recovered(Instant::now(), |_| true).await;
    }

    async fn freeze(&mut self, node: usize) {
        let mut led_there = Vec::new();
        for lane in &self.lanes {
            if self.cluster.until_whole(&lane.stream).await.leader == Some(node) {
                led_there.push(lane.stream.clone());
            }
        }
        let before = subscribed(&self.home, self.cluster.nodes[node].stream_port);
        let froze = Instant::now();
        self.cluster.nodes[node].freeze().await;
        // Streams that the frozen node leads wait for it.
        let all = self.recovered(froze, |lane| !led_there.contains(&lane.stream)).await;
        let since_fault = all.iter().map(|r| r.consumed).max().unwrap_or_default();
        println!(
            "{ReplicaFreezes:?}: {before} subscriptions so far on the node; consumers go on {since_fault:.1?} after it"
        );
        assert!(before > 0, "nobody reads from a replica\n{}", self.home.log_tail());
        assert!(since_fault <= AFTER_FREEZE, "{since_fault:?}\n{}", self.home.log_tail());
        self.cluster.nodes[node].thaw().await;
        let since_return = Duration::ZERO;
        self.measured.push(Measured { fault: ReplicaFreezes, since_fault, since_return });
        self.measure_end().await;
    }

    /// Ends it all, and compares what was published with what landed.
    async fn compared(self, version: Version, faults: u64) {
        let Stage { cluster, home, daemon, lanes, measured } = self;
        let mut totals = Vec::new();
        for lane in lanes {
            totals.push((lane.stream, lane.load.stop().await));
        }
        let (stream, total) = totals[0].clone();
        for name in FILES {
            home.until_landed(&daemon, name, &stream, total).await;
        }
        for (partition, total) in &totals[1..] {
            eventually("all of the partition has landed", Duration::from_secs(60), || async {
                (lines(&home, SUPER, partition).len() as u64 >= *total).then_some(())
            })
            .await;
        }
        eventually("all rows are there", Duration::from_secs(60), || async {
            let there = rows(&home.path("rows.db")).len() as u64;
            println!("{there} of {total} rows");
            (there >= total).then_some(())
        })
        .await;
        within("the daemon ends", Duration::from_secs(60), daemon.terminate()).await;
        for name in FILES {
            exact(name, &lines(&home, name, &stream), total);
        }
        for (partition, total) in &totals[1..] {
            exact(partition, &lines(&home, SUPER, partition), *total);
        }
        exact(SQLITE, &rows(&home.path("rows.db")), total);
        let messages: u64 = totals.iter().map(|(_, total)| total).sum();
        report(version, faults, messages, &measured);
        drop(cluster);
    }
}

/// Numbers of the messages in these segments, in order.
pub(super) fn lines(home: &Home, dir: &str, stream: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    for path in home.segments(dir, stream) {
        for line in BufReader::new(std::fs::File::open(path).unwrap()).lines() {
            // The last one may still be written.
            if let Ok(line) = serde_json::from_str(&line.unwrap()) {
                numbers.push(number(&line));
            }
        }
    }
    numbers
}

/// Numbers of the messages in the table, in order.
pub(super) fn rows(path: &Path) -> Vec<u64> {
    let read = || -> rusqlite::Result<Vec<u64>> {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut all = database.prepare("SELECT body FROM rows ORDER BY \"offset\"")?;
        let body = all.query_map([], |row| row.get::<_, String>(0))?;
        body.map(|body| {
            let body: serde_json::Value = serde_json::from_str(&body?).unwrap();
            Ok(body["i"].as_u64().unwrap())
        })
        .collect()
    };
    read().unwrap_or_else(|error| {
        println!("{error}");
        Vec::new()
    })
}

pub(super) fn exact(what: &str, numbers: &[u64], total: u64) {
    assert_none_lost(what, numbers, total);
    let twice = numbers.len() as u64 - total;
    assert!(twice == 0, "{what}: {twice} duplicated, and none lost of {total}");
    assert!(numbers.is_sorted(), "{what}: out of order");
}

/// A line for each kind of fault, printed, and appended to the file that `RILLWAY_CLUSTER_TABLE` names.
fn report(version: Version, faults: u64, messages: u64, measured: &[Measured]) {
    let mut table = String::new();
    let all =
        [ReplicaFreezes, LeaderIsKilled, LeaderIsDrained, ReplicaIsKilled, OneByOne, AllAtOnce];
    for fault in all {
        let of_kind: Vec<_> = measured.iter().filter(|m| m.fault == fault).collect();
        let worst = |time: fn(&Measured) -> Duration| {
            of_kind.iter().map(|m| time(m).as_secs_f64()).fold(0.0, f64::max)
        };
        if !of_kind.is_empty() {
            let (since_fault, since_return) = (worst(|m| m.since_fault), worst(|m| m.since_return));
            table += &format!(
                "{}\t{fault:?}\t{}\t{since_fault:.1}\t{since_return:.1}\n",
                version.as_str(),
                of_kind.len()
            );
        }
    }
    table += &format!(
        "{}\tall {faults} faults: {messages} messages, 0 lost, 0 duplicated\n",
        version.as_str()
    );
    println!("{table}");
    let Some(path) = std::env::var_os("RILLWAY_CLUSTER_TABLE") else { return };
    // One write: lines of tests that run at the same time stay whole.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(table.as_bytes()))
        .expect("the table can be written");
}

async fn tortured(version: Version, faults: &[Fault]) -> Result<(), Unavailable> {
    let total = env_or("FAULTS", faults.len() as u64);
    let mut stage = Stage::set(version).await?;
    for (nth, fault) in (1..=total).zip(faults.iter().cycle()) {
        println!("fault {nth} of {total}: {fault:?}");
        let limit = Duration::from_secs(600);
        within("the cluster recovers from a fault", limit, stage.suffer(*fault)).await;
    }
    stage.compared(version, total).await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_or_duplicated_by_faults_of_nodes_on_4_3() {
    // In this order the first two or three are the short form.
    let faults = match std::env::var_os("FAULTS") {
        None => vec![ReplicaFreezes, LeaderIsKilled, LeaderIsDrained],
        Some(_) => vec![
            ReplicaFreezes,
            LeaderIsKilled,
            LeaderIsDrained,
            ReplicaIsKilled,
            OneByOne,
            AllAtOnce,
        ],
    };
    or_skip!(tortured(Version::V4_3, &faults).await);
}

#[tokio::test]
async fn nothing_is_lost_or_duplicated_by_faults_of_nodes_on_4_0() {
    // All at once comes last: RabbitMQ 4.0, stopped so, may wait for itself without an end.
    let faults = match std::env::var_os("FAULTS") {
        None => vec![LeaderIsKilled],
        Some(_) => vec![
            LeaderIsKilled,
            ReplicaFreezes,
            ReplicaIsKilled,
            LeaderIsDrained,
            OneByOne,
            AllAtOnce,
        ],
    };
    or_skip!(tortured(Version::V4_0, &faults).await);
}
