//! Several streams that are moved together: all of them, or none.

use std::fs::File;

use rillway::faults::Point;
use serde_json::Value;

use super::{SOON, json, offsets, refusal};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};
use crate::super_stream::rows;

/// A consumer `c` of a super stream with three partitions of ten messages each, all read.
struct Partitions {
    home: Home,
    partitions: Vec<String>,
}

impl Partitions {
    async fn new(broker: &'static Broker) -> Partitions {
        let (name, partitions) = streams::create_super(broker, "several", 3).await;
        for partition in &partitions {
            streams::publish(broker, partition, (0..10).map(|n| format!("message {n}"))).await;
        }
        let consumer = format!(
            "[[consumer]]\nname = \"c\"\nsuper_stream = \"{name}\"\nstart = \"first\"\n\
             commit = {{ every = \"1h\", every_messages = 1000000000 }}\nbatch = {{ max_age = \"20ms\" }}\n\
             sink = {{ type = \"file\", dir = \"c\" }}\n"
        );
        let several = Partitions { home: Home::new(&broker.uri(), &consumer), partitions };
        several.run().await;
        several
    }

    /// Runs the daemon until all is written. What is written again takes the place of what was there: there are
    /// ten lines of each partition.
    async fn run(&self) {
        let daemon = self.home.start();
        let all = || async {
            let rows = rows(&daemon, "c").await;
            let is_written = |row: &Value| row["durable_offset"].as_u64() >= Some(9);
            (rows.len() == 3 && rows.iter().all(is_written)).then_some(())
        };
        eventually("all is written", SOON, all).await;
        daemon.terminate().await;
        let counts = self.partitions.iter().map(|one| self.home.lines("c", one).len());
        assert_eq!(counts.collect::<Vec<_>>(), [10; 3]);
    }

    /// The next message that is wanted of each partition.
    fn nexts(&self) -> Vec<u64> {
        let shown = json(&offsets(&self.home, &["show", "c", "--json"], None));
        let rows = shown["consumers"].as_array().unwrap().iter();
        rows.map(|row: &Value| row["next_offset"].as_u64().unwrap()).collect()
    }
}

/// A kill between any two writes: all are where they were, or all are where they were moved.
async fn killed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let several = Partitions::new(broker).await;
    let set = |fault: &str| {
        let output = offsets(&several.home, &["set", "c", "--to", "first"], Some(fault));
        assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
        several.nexts()
    };
    assert_eq!(set("die@moves_pledged:1"), [10; 3]);
    several.run().await;
    for (point, nth) in [
        (Point::MovesDecided, 1),
        (Point::MoveNoted, 1),
        (Point::MoveNoted, 3),
        (Point::SinkMoved, 2),
        (Point::MoveKept, 2),
        (Point::OffsetMoved, 3),
    ] {
        assert_eq!(set(&format!("die@{}:{nth}", point.name())), [0; 3], "{point:?}");
        let left = std::fs::read_dir(several.home.path("state")).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pledges = left.filter(|name| name.contains(".move") || name.starts_with('@')).count();
        assert_eq!(pledges > 0, point == Point::MovesDecided, "{point:?}: {pledges} are left");
        several.run().await;
        assert_eq!(several.nexts(), [10; 3]);
    }
    let state = std::fs::read_dir(several.home.path("state")).unwrap();
    let names: Vec<_> = state.map(|entry| entry.unwrap().file_name()).collect();
    let left = names.iter().filter(|name| {
        let name = name.to_string_lossy();
        name.contains(".move") || name.starts_with('@')
    });
    assert_eq!(left.count(), 0, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn partitions_whose_move_is_killed() {
    or_skip!(killed().await);
}

/// One partition that another process holds: none is moved.
async fn one_in_use() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let several = Partitions::new(broker).await;
    let last = several.partitions.last().unwrap();
    let held = File::open(several.home.path(format!("state/c@{last}.lock"))).unwrap();
    held.lock().unwrap();
    let told = refusal(&offsets(&several.home, &["set", "c", "--to", "first"], None), 69);
    assert!(told.contains("is in use") && told.contains("Nothing was moved"), "{told}");
    assert_eq!(several.nexts(), [10; 3]);
    // The daemon's own move, too: it is told, and all go on from where they were.
    let mut daemon = several.home.start();
    let reads = |c: &Value| c["state"] == "running" || c["state"] == "backoff";
    daemon.until("c", "it runs", SOON, reads).await;
    let output =
        several.home.command(&["seek", "c", "--to", "first", "--wait", "50s"]).output().unwrap();
    let told = refusal(&output, 69);
    assert!(told.contains("is in use") && told.contains("Nothing was moved"), "{told}");
    held.unlock().unwrap();
    let output =
        several.home.command(&["seek", "c", "--to", "first", "--wait", "50s"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.terminate().await;
    several.run().await;
    Ok(())
}

#[tokio::test]
async fn partitions_of_which_one_is_in_use() {
    or_skip!(one_in_use().await);
}
