//! Three nodes under load: faults of nodes, and ways to reach them.
//!
//! - [`torture`]: nodes are killed, frozen, drained and restarted; is anything lost or duplicated, and how
//!   soon do consumers go on?
//! - [`leader`]: what counts as the leader, by a scripted broker
//! - [`losses`]: retention takes messages while the leader is out of reach
//! - [`moving_back`]: consumers leave the leader again
//! - [`ways`]: load balancers, mapped addresses
//! - [`going_on`]: over AMQP 0.9.1, and one active of two daemons, while nodes are killed
//! - [`siblings`]: what the partitions of a super stream notice of a frozen node

mod going_on;
mod leader;
mod losses;
mod moving_back;
mod siblings;
mod torture;
mod ways;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::Version;
use crate::common::cluster::Cluster;
use crate::common::daemon::{Daemon, Home};
use crate::common::skip::or_skip;

/// Highest durable offset of each consumer and stream; `None` while the daemon does not answer.
async fn durable(daemon: &Daemon) -> Option<HashMap<(String, String), u64>> {
    let (_, body) = daemon.http("GET", "/api/v1/consumers").await?;
    let all: Value = serde_json::from_str(&body).ok()?;
    let mut found = HashMap::new();
    for row in all["consumers"].as_array()? {
        assert!(row["state"] != "halted", "{row}");
        let key = (row["name"].as_str()?.to_owned(), row["stream"].as_str()?.to_owned());
        found.insert(key, row["durable_offset"].as_u64().unwrap_or(0));
    }
    Some(found)
}

/// How long consumers did not move on while their streams grew: a machine that stalls publishes nothing either.
struct Pauses {
    looked: Instant,
    of: Vec<Pause>,
}

#[derive(Clone, Default)]
struct Pause {
    /// When it last moved on.
    published: u64,
    at: u64,
    now: Duration,
    longest: Duration,
}

impl Pauses {
    /// Longest time between two looks that counts.
    const STEP_MAX: Duration = Duration::from_secs(1);

    fn of(consumers: usize) -> Pauses {
        Pauses { looked: Instant::now(), of: vec![Pause::default(); consumers] }
    }

    /// Takes what has been published for each consumer, and the offset up to which it has written.
    fn look(&mut self, figures: impl IntoIterator<Item = (u64, u64)>) {
        let step = self.looked.elapsed().min(Self::STEP_MAX);
        self.looked = Instant::now();
        for (pause, (published, at)) in self.of.iter_mut().zip(figures) {
            if published > pause.published {
                pause.now += step;
            }
            pause.longest = pause.longest.max(pause.now);
            if at > pause.at {
                *pause = Pause { published, at, now: Duration::ZERO, ..*pause };
            }
        }
    }

    fn longest(&self) -> Vec<Duration> {
        self.of.iter().map(|pause| pause.longest).collect()
    }
}

#[test]
fn only_what_was_published_meanwhile_makes_a_pause() {
    let mut pauses = Pauses::of(2);
    pauses.look([(10, 10), (10, 10)]);
    pauses.looked = Instant::now().checked_sub(Duration::from_millis(30)).unwrap();
    // One does not move on; of the other one's stream, nothing is known to have grown.
    pauses.look([(20, 10), (10, 10)]);
    assert!(pauses.of[0].now >= Duration::from_millis(30), "{:?}", pauses.of[0].now);
    assert_eq!(pauses.of[1].now, Duration::ZERO);
    pauses.look([(30, 30), (20, 20)]);
    assert!(pauses.of.iter().all(|pause| pause.now.is_zero()));
    assert!(pauses.longest()[0] >= Duration::from_millis(30));
}

/// Number of subscriptions that the daemon has begun on this port.
fn subscribed(home: &Home, port: u16) -> usize {
    let node = format!("localhost:{port}");
    home.log().lines().filter(|l| l.contains("subscribed") && l.contains(&node)).count()
}

/// Index of the node in the last line about a subscription to this stream, or of this consumer.
fn read_from(home: &Home, ports: &[u16], of: &str) -> Option<usize> {
    let log = home.log();
    let line = log.lines().rfind(|line| line.contains("subscribed") && line.contains(of))?;
    ports.iter().position(|port| line.contains(&format!("localhost:{port}")))
}

/// All with one cluster: starting one takes longer than most of this.
#[tokio::test]
async fn nodes_are_reached_and_losses_decided_whatever_can_be_reached() {
    let cluster = or_skip!(Cluster::start(Version::V4_3).await);
    ways::lead_to_the_wanted_nodes(&cluster).await;
    ways::never_take_another_node_for_the_leader(&cluster).await;
    moving_back::is_orderly(&cluster).await;
    losses::are_decided_without_the_leader(&cluster).await;
    siblings::go_on_while_a_node_is_frozen(&cluster).await;
}

#[tokio::test]
async fn consumers_go_on_at_another_node_over_amqp_and_as_the_active_one() {
    let cluster = or_skip!(Cluster::start(Version::V4_3).await);
    going_on::over_amqp(&cluster).await;
    going_on::as_single_active(&cluster).await;
}
