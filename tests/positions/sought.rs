//! A running consumer that its daemon moves: drained, moved in all places, and gone on from exactly there; also
//! one that has halted, and one that is paused.

use std::process::Output;

use serde_json::{Value, json};

use super::{Bench, Kind, SOON, json as answer_of, refusal, sorted};
use crate::common::daemon::Daemon;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

impl Bench {
    #[track_caller]
    fn seek(&self, arguments: &[&str]) -> Output {
        let seek = ["seek", "c", "--wait", "50s"];
        self.home.command(&[&seek[..], arguments].concat()).output().unwrap()
    }

    /// The move that `seek --json` made, or would make.
    #[track_caller]
    fn sought(&self, arguments: &[&str]) -> Value {
        let answer = answer_of(&self.seek(&[arguments, &["--json"]].concat()));
        assert_eq!(answer["finished"], true, "{answer}");
        answer["moves"][0].clone()
    }
}

/// Waits until so many messages were written by this process.
async fn until_written(daemon: &mut Daemon, total: u64) {
    let written = || async {
        let counted = daemon.metric("rillway_written_messages_total", &["consumer=\"c\""]).await;
        counted.filter(|counted| *counted >= total as f64)
    };
    let what = format!("{total} messages are written");
    crate::common::eventually(&what, SOON, written).await;
}

async fn while_it_runs(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..100).await;
    let mut daemon = bench.home.start();
    until_written(&mut daemon, 100).await;
    let restarts = daemon.consumer("c").await.unwrap()["restarts"].clone();
    let would = bench.sought(&["--to", "offset:40", "--dry-run"]);
    assert_eq!((&would["moved"], &would["to_offset"]), (&json!(false), &json!(40)), "{would}");
    let beyond = refusal(&bench.seek(&["--to", "offset:100000"]), 69);
    assert!(beyond.contains("beyond the end"), "{beyond}");
    let undisturbed = daemon.consumer("c").await.unwrap();
    assert_eq!((&undisturbed["restarts"], &undisturbed["state"]), (&restarts, &json!("running")));

    let moved = bench.sought(&["--to", "offset:40"]);
    assert_eq!((&moved["moved"], &moved["from_offset"]), (&json!(true), &json!(100)), "{moved}");
    assert_eq!(moved["read_again"]["messages"], 60, "{moved}");
    until_written(&mut daemon, 160).await;
    // The first message: nothing can be stored for that, and less is stored than the broker has.
    assert_eq!(bench.sought(&["--to", "first"])["to_offset"], 0);
    until_written(&mut daemon, 260).await;
    // What comes next, and what is skipped.
    bench.sought(&["--to", "next", "--yes"]);
    daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    bench.publish(100..110).await;
    until_written(&mut daemon, 270).await;
    daemon.terminate().await;
    assert_eq!(bench.written().await, sorted(&[0..100, 40..100, 0..100, 100..110]));
    assert_eq!(bench.shown()["mark"], "agree", "{}", bench.shown());
    Ok(())
}

#[tokio::test]
async fn a_file_while_it_runs_on_rabbitmq_3_10() {
    or_skip!(while_it_runs(Version::V3_10, Kind::File).await);
}

#[tokio::test]
async fn rows_while_it_runs_on_rabbitmq_4_3() {
    or_skip!(while_it_runs(Version::V4_3, Kind::Sqlite).await);
}

#[tokio::test]
async fn rows_on_a_server_while_it_runs_on_rabbitmq_4_0() {
    or_skip!(while_it_runs(Version::V4_0, Kind::Postgres).await);
}

#[tokio::test]
async fn no_position_while_it_runs_on_rabbitmq_4_3() {
    or_skip!(while_it_runs(Version::V4_3, Kind::Stdout).await);
}

/// A consumer whose stream was created again has halted: it is told where to go on, and does, without a
/// restart of the daemon.
async fn after_it_has_halted(kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..50).await;
    bench.run_to_the_end().await;
    streams::delete(broker, &bench.stream).await;
    streams::create_named(broker, &bench.stream, &[]).await;
    bench.publish(50..60).await;
    let mut daemon = bench.home.start();
    daemon.until_halted("c").await;
    let shown = bench.shown();
    assert_eq!((&shown["mark"], &shown["next_offset"]), (&json!("halts"), &json!(null)), "{shown}");
    // What is skipped is not known: it is another stream.
    let told = refusal(&bench.seek(&["--to", "first"]), 64);
    assert!(told.contains("it would halt") && told.contains("--yes"), "{told}");
    let moved = bench.sought(&["--to", "first", "--yes"]);
    assert_eq!((&moved["to_offset"], &moved["from_offset"]), (&json!(0), &json!(null)), "{moved}");
    until_written(&mut daemon, 10).await;
    daemon.until("c", "it runs again", SOON, |c| c["state"] == "running").await;
    daemon.terminate().await;
    assert_eq!(bench.written().await, (0..60).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_file_after_it_has_halted() {
    or_skip!(after_it_has_halted(Kind::File).await);
}

#[tokio::test]
async fn rows_after_it_has_halted() {
    or_skip!(after_it_has_halted(Kind::Sqlite).await);
}

/// A pause of an operator outlives the move; and while it lasts, the position can be moved from outside too.
async fn while_it_is_paused() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, Kind::File).await?;
    bench.publish(0..20).await;
    let mut daemon = bench.home.start();
    until_written(&mut daemon, 20).await;
    let order = async |verb: &str| {
        daemon.http("POST", &format!("/api/v1/consumers/c/{verb}?wait=50s")).await
    };
    assert_eq!(order("pause").await.unwrap().0, 200);
    assert_eq!(bench.sought(&["--to", "offset:5"])["to_offset"], 5);
    assert_eq!(daemon.consumer("c").await.unwrap()["state"], "paused");
    assert_eq!(bench.set(&["--to", "offset:15", "--yes"])["to_offset"], 15);
    assert_eq!(order("resume").await.unwrap().0, 200);
    until_written(&mut daemon, 25).await;
    daemon.terminate().await;
    assert_eq!(bench.written().await, sorted(&[0..20, 15..20]));
    Ok(())
}

#[tokio::test]
async fn while_it_is_paused_it_stays_so() {
    or_skip!(while_it_is_paused().await);
}
