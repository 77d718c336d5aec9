//! Moves that are refused: no position changes, and consumers that run continue.

use serde_json::json;

use super::{Bench, Kind, SOON, offsets, refusal, sorted};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// A consumer that runs is told by the daemon's admin server, or by the lock if there is no admin server.
async fn while_it_runs(kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..20).await;
    let mut daemon = bench.home.start();
    daemon.until("c", "it has read", SOON, |c| c["received_offset"] == 19).await;
    let told = refusal(&bench.offsets(&["set", "c", "--to", "first"]), 69);
    assert!(told.contains("rillway seek c"), "{told}");
    let mut quietly = bench.home.command(&["offsets", "set", "c", "--to", "first"]);
    let told = refusal(&quietly.env("RILLWAY__ADMIN__ENABLED", "false").output().unwrap(), 69);
    let pid = format!("pid {}", daemon.pid());
    assert!(told.contains("is in use by") && told.contains(&pid), "{told}");
    // Looking is allowed.
    assert!(bench.shown()["next_offset"].is_u64());
    let would = bench.set(&["--to", "first", "--dry-run"]);
    assert_eq!(would["to_offset"], 0, "{would}");
    daemon.terminate().await;
    assert_eq!(bench.written().await, (0..20).collect::<Vec<_>>());
    bench.set(&["--to", "first"]);
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, sorted(&[0..20, 0..20]));
    Ok(())
}

#[tokio::test]
async fn while_it_runs_with_a_file() {
    or_skip!(while_it_runs(Kind::File).await);
}

#[tokio::test]
async fn while_it_runs_with_sqlite() {
    or_skip!(while_it_runs(Kind::Sqlite).await);
}

#[tokio::test]
async fn while_it_runs_without_a_position() {
    or_skip!(while_it_runs(Kind::Stdout).await);
}

/// An offset that the stream does not have, and an empty stream.
async fn what_the_stream_does_not_have(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, Kind::File).await?;
    let empty = bench.shown();
    assert_eq!(empty["stream_first_offset"], json!(null), "{empty}");
    // On RabbitMQ 3.10, an empty stream cannot be told from a broker that is slow to answer.
    let tells = version != Version::V3_10;
    assert_eq!(empty["lag_messages"].as_u64(), tells.then_some(0), "{empty}");
    let told = refusal(&bench.offsets(&["set", "c", "--to", "offset:5"]), 69);
    assert!(told.contains("is empty"), "{told}");
    for to in ["next", "offset:0"].into_iter().chain(tells.then_some("first")) {
        // On 3.10 it is not known what would be skipped.
        let moved = bench.set(&["--to", to, "--yes"]);
        assert_eq!(moved["to_offset"], 0, "{moved}");
    }
    bench.publish(0..10).await;
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, (0..10).collect::<Vec<_>>());
    let before = bench.shown();
    let told = refusal(&bench.offsets(&["set", "c", "--to", "offset:1000", "--yes"]), 69);
    assert!(told.contains("beyond the end"), "{told}");
    refusal(&bench.offsets(&["set", "c", "--to", "nowhere"]), 64);
    let told = refusal(&bench.offsets(&["set", "d", "--to", "first"]), 64);
    assert!(told.contains("there is no consumer \"d\""), "{told}");
    assert_eq!(bench.shown(), before);
    Ok(())
}

#[tokio::test]
async fn what_the_stream_does_not_have_on_rabbitmq_3_10() {
    or_skip!(what_the_stream_does_not_have(Version::V3_10).await);
}

#[tokio::test]
async fn what_the_stream_does_not_have_on_rabbitmq_4_3() {
    or_skip!(what_the_stream_does_not_have(Version::V4_3).await);
}

/// If one position in a file is impossible, none is moved.
async fn an_import_as_a_whole() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "import").await;
    streams::publish(broker, &stream, (0..10).map(|n| format!("message {n}"))).await;
    let consumer = |name: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
             sink = {{ type = \"file\", dir = \"{name}\" }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &[consumer("a"), consumer("b")].concat());
    let mut daemon = home.start();
    for name in ["a", "b"] {
        daemon.until_durable(name, 9).await;
    }
    daemon.terminate().await;
    let show = || super::json(&offsets(&home, &["show", "--json"], None));
    let before = show();
    let one =
        |name: &str, at: u64| json!({ "consumer": name, "stream": stream, "next_offset": at });
    let file = home.path("positions.json");
    for (positions, code, says) in [
        (json!([one("a", 3), one("b", 99_999)]), 69, "beyond the end"),
        (json!([one("a", 3), one("x", 3)]), 64, "no consumer \"x\""),
        (json!([one("a", 3), one("a", 4)]), 64, "twice"),
    ] {
        let content = json!({ "layout": 1, "positions": positions });
        std::fs::write(&file, content.to_string()).unwrap();
        let told = refusal(&offsets(&home, &["import", file.to_str().unwrap()], None), code);
        assert!(told.contains(says), "{told}");
        assert_eq!(show(), before);
    }
    Ok(())
}

#[tokio::test]
async fn an_import_is_refused_as_a_whole() {
    or_skip!(an_import_as_a_whole().await);
}

/// With `single_active`, the daemon that the broker makes active makes the move.
async fn while_another_is_active() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::by(broker, &broker.uri(), Kind::Stdout, "single_active = true").await?;
    bench.publish(0..20).await;
    let mut daemon = bench.home.start();
    daemon.until("c", "it has read", SOON, |c| c["received_offset"] == 19).await;
    // The same configuration on another machine: another state_dir, and another admin server.
    let text = std::fs::read_to_string(bench.home.path("rillway.toml")).unwrap();
    let (_, consumers) = text.split_once("[[consumer]]").unwrap();
    let elsewhere = Home::new(&broker.uri(), &format!("[[consumer]]{consumers}"));
    let told = refusal(&offsets(&elsewhere, &["set", "c", "--to", "first"], None), 69);
    assert!(told.contains("another daemon is the active consumer"), "{told}");
    daemon.terminate().await;
    let told = refusal(&offsets(&elsewhere, &["set", "c", "--to", "first"], None), 69);
    assert!(told.contains("offset:1"), "{told}");
    let moved =
        super::json(&offsets(&elsewhere, &["set", "c", "--to", "offset:5", "--json"], None));
    assert_eq!(moved["moves"][0]["to_offset"], 5, "{moved}");
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, sorted(&[0..20, 5..20]));
    Ok(())
}

#[tokio::test]
async fn while_another_is_active_on_rabbitmq_4_3() {
    or_skip!(while_another_is_active().await);
}
