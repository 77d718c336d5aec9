//! Orders that move a position, among others: what is not asked for is not skipped, what a reload has changed is
//! not moved, a daemon that stands by takes nothing over, and what is shown is right at once.

use std::io::Read;

use serde_json::{Value, json};

use super::{LONG, SMALL, broker_lines, call, filer, post, told};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

fn bodies(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("message {n}"))
}

/// A consumer of standard output.
fn printer(stream: &str, rest: &str) -> String {
    format!(
        "[[consumer]]\nname = \"p\"\nstream = \"{stream}\"\n{SMALL}\n{rest}\nsink = {{ type = \"stdout\" }}\n"
    )
}

async fn asked_for() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "asked-for").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let home = Home::new(&broker.uri(), &printer(&stream, ""));
    let mut daemon = home.start();
    daemon.until_durable("p", 19).await;
    assert_eq!(post(&daemon, "consumers/p/pause?wait=50s").await.0, 200);
    streams::publish(broker, &stream, bodies(20..30)).await;
    let path = "/api/v1/consumers/p/seek?wait=50s";

    // Whoever does not look first is not obeyed either.
    let (status, answer) = call(&daemon, "POST", path, r#"{"to":"next"}"#).await;
    let error = answer["error"].as_str().unwrap();
    assert!(
        status == 409 && error.contains("10 messages") && error.contains("may_skip"),
        "{error}"
    );
    let (_, answer) = call(&daemon, "POST", path, r#"{"to":"next","dry_run":true}"#).await;
    assert_eq!(answer["moves"][0]["skipped"]["messages"], 10, "{answer}");

    // What is shown is where it goes on, before it runs again.
    let to = r#"{"to":{"offset":5}}"#;
    assert_eq!(call(&daemon, "POST", path, to).await.0, 200);
    let is_shown = |p: &Value| {
        let lag = p["lag_messages"].as_u64();
        // The offset that was stored takes one, too.
        p["state"] == "paused" && (Some(25)..=Some(27)).contains(&lag)
    };
    let shown = daemon.until("p", "the lag is that of the new position", LONG, is_shown).await;
    assert_eq!((&shown["durable_offset"], &shown["stored_offset"]), (&json!(null), &json!(4)));
    let (status, _) = call(&daemon, "POST", path, r#"{"to":{"offset":10}}"#).await;
    assert_eq!(status, 409, "five messages would be skipped");
    let to = r#"{"to":{"offset":10},"may_skip":true}"#;
    assert_eq!(call(&daemon, "POST", path, to).await.0, 200);
    assert_eq!(post(&daemon, "consumers/p/resume?wait=50s").await.0, 200);
    daemon.until_durable("p", 30).await;
    daemon.terminate().await;
    let printed = std::fs::read_to_string(home.path("stdout")).unwrap();
    assert_eq!(printed.lines().count(), 20 + 20);
    Ok(())
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_skipped() {
    or_skip!(asked_for().await);
}

/// What comes after the look, while the consumer is drained, nobody has allowed to skip.
async fn came_meanwhile() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "came-meanwhile").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let home = Home::new(&broker.uri(), &printer(&stream, ""));
    let mut daemon = home.start_with_fault("freeze@move_held:1");
    daemon.until_durable("p", 19).await;
    let mut seek = home.command(&["seek", "p", "--to", "next", "--wait", "50s"]);
    let seek = tokio::task::spawn_blocking(move || seek.output().unwrap());
    eventually("it is held", LONG, || async { daemon.is_frozen().then_some(()) }).await;
    streams::publish(broker, &stream, bodies(20..25)).await;
    daemon.signal("CONT");
    let output = seek.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Nothing was moved: add --yes"), "{said}");
    home.until_printed(25).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn what_comes_meanwhile_is_not_skipped() {
    or_skip!(came_meanwhile().await);
}

/// The sink cannot be opened for a while, which holds the move up.
async fn reloaded_meanwhile() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "reloaded-meanwhile").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let consumer = |rest: &str| {
        format!(
            "[[consumer]]\nname = \"rows\"\nstream = \"{stream}\"\n{SMALL}\n{rest}\n\
             sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"rows\" }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &consumer(""));
    let mut daemon = home.start();
    daemon.until_durable("rows", 19).await;
    let database = rusqlite::Connection::open(home.path("rows.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut seek = home.command(&["seek", "rows", "--to", "first", "--wait", "50s"]);
    let seek = tokio::task::spawn_blocking(move || seek.output().unwrap());
    daemon.until("rows", "it is held", LONG, |c| c["state"] == "paused").await;
    home.configure(&broker_lines(&broker.uri()), &consumer("memory = \"9MiB\""));
    let (_, answer) = post(&daemon, "reload?wait=0s").await;
    assert_eq!(answer["changed"], json!(["rows"]), "{answer}");
    database.execute_batch("COMMIT").unwrap();
    let output = seek.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("its configuration was changed"), "{said}");
    streams::publish(broker, &stream, bodies(20..30)).await;
    daemon.until_durable("rows", 29).await;
    daemon.terminate().await;
    let count: i64 = database.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 30, "nothing is read again");
    Ok(())
}

#[tokio::test]
async fn a_reload_during_a_move_is_not_told_to_have_moved() {
    or_skip!(reloaded_meanwhile().await);
}

/// The broker does not tell who stands by: nothing is handed over before an operator has said that nobody does.
async fn with_one_that_stands_by() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "stands-by").await;
    streams::publish(broker, &stream, bodies(0..20)).await;
    let consumer = printer(&stream, "single_active = true");
    let homes = [(); 2].map(|()| Home::new(&broker.uri(), &consumer));
    let mut first = homes[0].start();
    first.until_durable("p", 19).await;
    let mut second = homes[1].start();
    second.until("p", "it stands by", LONG, |c| c["state"] == "passive").await;
    let seek = ["seek", "p", "--to", "offset:5", "--wait", "50s"];
    for (home, arguments, says) in [
        (&homes[0], &seek[..], "add --alone"),
        // Where it stands, only the active one knows.
        (&homes[1], &[&seek[..], &["--yes"]].concat(), "it stands by here"),
        (&homes[1], &[&seek[..], &["--yes", "--alone"]].concat(), "it stands by here"),
    ] {
        let (code, said) = told(home, arguments).await;
        assert!(code == Some(69) && said.contains(says), "{said}");
    }
    let undisturbed = first.consumer("p").await.unwrap();
    assert_eq!((&undisturbed["state"], &undisturbed["restarts"]), (&json!("running"), &json!(0)));
    assert_eq!(second.consumer("p").await.unwrap()["state"], "passive");
    assert_eq!(post(&second, "consumers/p/pause").await.0, 200);
    let (code, said) = told(&homes[0], &[&seek[..], &["--alone"]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    homes[0].until_printed(20 + 15).await;
    first.terminate().await;
    second.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_takes_nothing_over() {
    or_skip!(with_one_that_stands_by().await);
}

/// A consumer that is removed, and drains for long; and one that a second reload gives its reference.
async fn two_reloads() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "two-reloads").await;
    // More than a pipe takes.
    streams::publish(broker, &stream, (0..5).map(|_| "x".repeat(100_000))).await;
    let beside = filer("beside", &stream, "beside", "");
    let home = Home::new(&broker.uri(), &[printer(&stream, ""), beside.clone()].concat());
    home.set("shutdown_grace = \"60s\"");
    let (mut daemon, mut pipe) = home.start_piped();
    let is_stuck = |p: &Value| p["received_offset"] == 4;
    daemon.until("p", "it has received all", LONG, is_stuck).await;
    let lines = broker_lines(&broker.uri());
    let reloaded = async |consumers: &str| {
        home.configure(&lines, consumers);
        home.set("shutdown_grace = \"60s\"");
        post(&daemon, "reload?wait=0s").await.1
    };
    let answer = reloaded(&beside).await;
    assert_eq!(answer["removed"], json!(["p"]), "{answer}");
    let heir = filer("heir", &stream, "heir", "reference = \"p\"");
    let answer = reloaded(&[beside.clone(), heir].concat()).await;
    assert_eq!(answer["added"], json!(["heir"]), "{answer}");
    let waits = |c: &Value| {
        let reason = c["reason"].as_str().unwrap_or_default();
        assert!(!reason.contains("in use"), "{c}");
        reason.contains("waiting for the end of the consumer that had its reference")
    };
    daemon.until("heir", "it waits", LONG, waits).await;
    std::thread::spawn(move || std::io::copy(&mut pipe.by_ref(), &mut std::io::sink()));
    daemon.until("heir", "it runs", LONG, |c| c["state"] == "running").await;
    assert_eq!(daemon.consumer("heir").await.unwrap()["restarts"], 0);
    assert_eq!(streams::stored_offset(broker, &stream, "p").await, Some(4));
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn the_second_reload_waits_for_what_the_first_has_ended() {
    or_skip!(two_reloads().await);
}
