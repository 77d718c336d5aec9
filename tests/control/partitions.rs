//! A consumer of a super stream: orders for all of its partitions, for one, and for those that come later.

use serde_json::{Value, json};

use super::{LONG, SMALL, broker_lines, post, told};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, amqp091, eventually, streams};
use crate::super_stream::rows;

fn consumer(super_stream: &str, rest: &str) -> String {
    format!(
        "[[consumer]]\nname = \"all\"\nsuper_stream = \"{super_stream}\"\n{SMALL}\n{rest}\n\
         sink = {{ type = \"file\", dir = \"all\" }}\n"
    )
}

/// Waits until the partitions have these states.
async fn until_states(daemon: &Daemon, wanted: &[(&str, &str)]) {
    let mut wanted: Vec<_> =
        wanted.iter().map(|(stream, state)| ((*stream).to_owned(), (*state).to_owned())).collect();
    wanted.sort();
    eventually(&format!("{wanted:?}"), LONG, || async {
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        let rows = rows(daemon, "all").await;
        let mut states: Vec<_> =
            rows.iter().map(|row| (text(row, "stream"), text(row, "state"))).collect();
        states.sort();
        (states == wanted).then_some(())
    })
    .await;
}

async fn of_partitions() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (orders, parts) = streams::create_super(broker, "ordered", 2).await;
    let (zero, one) = (parts[0].as_str(), parts[1].as_str());
    let home = Home::new(&broker.uri(), &consumer(&orders, ""));
    let daemon = home.start();
    until_states(&daemon, &[(zero, "running"), (one, "running")]).await;

    // One partition alone.
    let (status, answer) = post(&daemon, &format!("consumers/all/pause?stream={one}")).await;
    assert_eq!((status, answer["streams"].as_array().unwrap().len()), (200, 1), "{answer}");
    until_states(&daemon, &[(zero, "running"), (one, "paused")]).await;
    let (code, said) = told(&home, &["pause", "all", "--stream", "elsewhere"]).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(&format!("it reads {zero:?}, {one:?}")), "{said}");

    // A reload that changes the consumer keeps that.
    home.configure(&broker_lines(&broker.uri()), &consumer(&orders, "memory = \"9MiB\""));
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!((status, &answer["changed"]), (200, &json!(["all"])), "{answer}");
    until_states(&daemon, &[(zero, "running"), (one, "paused")]).await;

    // All, and one that comes later.
    let (code, said) = told(&home, &["pause", "all"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), "all is paused (2 streams)"));
    let late = format!("{orders}-late");
    streams::create_named(broker, &late, &[]).await;
    streams::publish(broker, &late, (0..100).map(body)).await;
    amqp091::bind(broker, &late, &orders, "late").await;
    until_states(&daemon, &[(zero, "paused"), (one, "paused"), (&late, "paused")]).await;
    assert!(!home.path("all").join(&late).exists(), "nothing of it is read");
    home.configure(&broker_lines(&broker.uri()), &consumer(&orders, "memory = \"8MiB\""));
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!(status, 200, "{answer}");
    until_states(&daemon, &[(zero, "paused"), (one, "paused"), (&late, "paused")]).await;

    // One of the paused goes on, then all.
    let (status, answer) = post(&daemon, &format!("consumers/all/resume?stream={late}")).await;
    assert_eq!(status, 200, "{answer}");
    until_states(&daemon, &[(zero, "paused"), (one, "paused"), (&late, "running")]).await;
    let (code, said) = told(&home, &["resume", "all"]).await;
    assert_eq!((code, said.trim_end()), (Some(0), "all runs again (3 streams)"));
    for (partition, from) in [(zero, 0), (one, 0), (late.as_str(), 100)] {
        streams::publish(broker, partition, (from..200).map(body)).await;
    }
    eventually("all is written", LONG, || async {
        let all = rows(&daemon, "all").await;
        all.iter().all(|row| row["durable_offset"].as_u64() >= Some(199)).then_some(())
    })
    .await;
    let (status, answer) = post(&daemon, &format!("consumers/all/commit?stream={zero}")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["stored"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["stored"][0]["stream"], zero, "{answer}");

    // The consumer goes, with all of its partitions.
    let other = format!(
        "[[consumer]]\nname = \"other\"\nstream = \"{zero}\"\nsink = {{ type = \"null\" }}\n"
    );
    home.configure(&broker_lines(&broker.uri()), &other);
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!((status, &answer["removed"]), (200, &json!(["all"])), "{answer}");
    until_states(&daemon, &[]).await;
    for partition in [zero, one, &late] {
        assert!(streams::stored_offset(broker, partition, "all").await.is_some(), "{partition}");
    }
    // It comes again, as a new consumer of its name, and under another one with its reference.
    let renamed =
        consumer(&orders, "reference = \"all\"").replace("\"all\"\nsuper", "\"again\"\nsuper");
    home.configure(&broker_lines(&broker.uri()), &renamed);
    let (status, answer) = post(&daemon, "reload?wait=50s").await;
    assert_eq!((status, &answer["added"]), (200, &json!(["again"])), "{answer}");
    eventually("it runs on all partitions", LONG, || async {
        let all = rows(&daemon, "again").await;
        (all.len() == 3 && all.iter().all(|row| row["ready"] == true)).then_some(())
    })
    .await;
    for partition in [zero, one, &late] {
        streams::publish(broker, partition, (200..300).map(body)).await;
    }
    eventually("all is written", LONG, || async {
        let all = rows(&daemon, "again").await;
        all.iter().all(|row| row["durable_offset"].as_u64() >= Some(299)).then_some(())
    })
    .await;
    daemon.terminate().await;
    for partition in [zero, one, &late] {
        assert_exact(partition, &home.lines("all", partition), 300);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_paused_together_and_alone() {
    or_skip!(of_partitions().await);
}

/// A super stream that does not exist yet: its consumer can be paused, and says why it does not run.
async fn without_partitions() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let orders = streams::unique("not-yet");
    let home = Home::new(&broker.uri(), &consumer(&orders, ""));
    let mut daemon = home.start();
    daemon.until("all", "it is shown", LONG, |c| c["state"] == "backoff").await;
    let (status, answer) = post(&daemon, "consumers/all/restart?wait=1s").await;
    assert_eq!((status, &answer["finished"]), (202, &json!(false)), "{answer}");
    assert_eq!(answer["streams"][0]["stream"], orders, "{answer}");
    let (status, answer) = post(&daemon, "consumers/all/pause").await;
    assert_eq!((status, &answer["finished"]), (200, &json!(true)), "{answer}");
    let (status, _) = post(&daemon, &format!("consumers/all/pause?stream={orders}")).await;
    assert_eq!(status, 404, "it is no partition");
    let parts = streams::create_super_named(broker, &orders, 1).await;
    until_states(&daemon, &[(&parts[0], "paused")]).await;
    assert_eq!(post(&daemon, "consumers/all/resume").await.0, 200);
    until_states(&daemon, &[(&parts[0], "running")]).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_for_partitions_that_do_not_exist_yet() {
    or_skip!(without_partitions().await);
}
