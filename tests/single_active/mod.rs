//! Several daemons with one reference, of which the broker makes one active: is it exactly one, and does
//! the next one continue where the former stopped, with nothing lost or duplicated?

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::common::daemon::{CALM, Daemon, Home, is_to_stay_frozen};
use crate::common::load::{Load, Pace, assert_exact, assert_none_lost, number};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

/// Enough for several hand-overs, and few enough to keep the machine responsive.
const PACE: Pace = Pace { messages: 20, pause: Duration::from_millis(12) };

const NAMES: [&str; 3] = ["files", "rows", "out"];

/// The same three consumers for each daemon; only `out` writes to a destination of its own.
fn home(broker: &Broker, stream: &str, shared: &Path, heartbeat: &str) -> Home {
    let shared = shared.display();
    let sinks = [
        format!("{{ type = \"file\", dir = \"{shared}/files\" }}"),
        format!("{{ type = \"sqlite\", path = \"{shared}/rows.db\", table = \"events\" }}"),
        "{ type = \"stdout\" }".to_owned(),
    ];
    let consumers: String = NAMES
        .iter()
        .zip(sinks)
        .map(|(name, sink)| {
            format!(
                "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsingle_active = true\n\
                 batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
                 commit = {{ every_messages = 1000000, every = \"2s\" }}\n\
                 restart = {{ min_backoff = \"20ms\", max_backoff = \"200ms\" }}\nsink = {sink}\n"
            )
        })
        .collect();
    Home::with_heartbeat(&broker.uri(), heartbeat, &consumers)
}

fn durable(view: &Value) -> Option<u64> {
    view["durable_offset"].as_u64()
}

async fn until_state(daemon: &mut Daemon, state: &str) {
    for name in NAMES {
        daemon.until(name, state, LONG, |c| c["state"] == state).await;
    }
}

/// Waits until each consumer has written something more.
async fn until_it_moves(daemon: &mut Daemon) {
    for name in NAMES {
        let before = daemon.consumer(name).await.as_ref().and_then(durable);
        let moved = |c: &Value| durable(c).is_some() && durable(c) > before;
        daemon.until(name, "it moves on", LONG, |c| c["state"] == "running" && moved(c)).await;
    }
}

fn rows(path: &Path) -> Vec<u64> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all = database.prepare("SELECT body FROM events ORDER BY rowid").unwrap();
    let bodies = all.query_map([], |row| row.get::<_, String>(0)).unwrap();
    bodies.map(|body| number(&serde_json::json!({ "body": json(&body.unwrap()) }))).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn printed(homes: &[&Home]) -> Vec<Value> {
    let text = |home: &&Home| std::fs::read_to_string(home.path("stdout")).unwrap_or_default();
    homes.iter().flat_map(|home| text(home).lines().map(json).collect::<Vec<_>>()).collect()
}

async fn all_written(daemon: &mut Daemon, total: u64) {
    for name in NAMES {
        let all = |c: &Value| c["lag_messages"] == 0 && durable(c) >= Some(total - 1);
        daemon.until(name, "all is written", LONG, all).await;
    }
}

/// The numbers of all messages, in the order of the rows.
fn assert_rows(path: &Path, total: u64) {
    let rows = rows(path);
    assert_eq!(rows.len() as u64, total, "rows");
    assert!(rows.iter().copied().eq(0..total), "rows are the messages, in order");
}

async fn orderly(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "single-active").await;
    let shared = tempfile::tempdir().unwrap();
    let homes = [(); 3].map(|()| home(broker, &stream, shared.path(), CALM));
    let load = Load::on(broker, &stream, PACE);
    let mut active = homes[0].start();
    until_it_moves(&mut active).await;
    for next in &homes[1..] {
        let mut passive = next.start();
        until_state(&mut passive, "passive").await;
        assert_eq!(passive.http("GET", "/readyz").await.unwrap().0, 200, "a passive one is ready");
        let state = passive.metric("rillway_consumer_state", &["\"rows\"", "\"passive\""]).await;
        assert_eq!(state, Some(1.0));
        let lag = passive.metric("rillway_lag_messages", &["\"rows\""]).await;
        assert_eq!(lag, None, "its lag is shown by the active one");
        until_it_moves(&mut active).await;
        active.terminate().await;
        until_it_moves(&mut passive).await;
        active = passive;
    }
    let total = load.stop().await;
    all_written(&mut active, total).await;
    active.terminate().await;
    let files = Home::new(&broker.uri(), "");
    std::fs::remove_dir_all(files.path("files")).ok();
    std::os::unix::fs::symlink(shared.path().join("files"), files.path("files")).unwrap();
    assert_exact("files", &files.lines("files", &stream), total);
    assert_rows(&shared.path().join("rows.db"), total);
    let lines = printed(&[&homes[0], &homes[1], &homes[2]]);
    assert_exact("stdout of the three, one after the other", &lines, total);
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_hand_over_repeats_nothing_in_any_sink_on_4_3() {
    or_skip!(orderly(Version::V4_3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_hand_over_repeats_nothing_in_any_sink_on_4_0() {
    or_skip!(orderly(Version::V4_0).await);
}

/// The active one is killed, or frozen until another one has taken over.
async fn disorderly(signal: &str) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "single-active").await;
    let shared = tempfile::tempdir().unwrap();
    // The broker notices soon that the first one is silent.
    let heartbeats = [if signal == "STOP" { "2s" } else { CALM }, CALM];
    let homes = heartbeats.map(|heartbeat| home(broker, &stream, shared.path(), heartbeat));
    let load = Load::on(broker, &stream, PACE);
    let mut first = homes[0].start();
    until_it_moves(&mut first).await;
    let mut second = homes[1].start();
    until_state(&mut second, "passive").await;
    until_it_moves(&mut first).await;
    // A daemon that is frozen within a transaction keeps the database to itself until it wakes up.
    let outside = Connection::open(shared.path().join("rows.db")).unwrap();
    outside.busy_timeout(LONG).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    first.signal(signal);
    if signal == "STOP" {
        eventually("the first one is frozen", LONG, || async { first.is_frozen().then_some(()) })
            .await;
    }
    outside.execute_batch("ROLLBACK").unwrap();
    drop(outside);
    let since = Instant::now();
    let moved = |c: &Value| c["state"] == "running" && durable(c).is_some();
    second.until("rows", "the second takes over", LONG, moved).await;
    second.until("out", "the second takes over", LONG, moved).await;
    if signal == "STOP" {
        while is_to_stay_frozen(since).await {
            second.until("rows", "the second still runs", LONG, moved).await;
        }
        // The frozen daemon locks the folder of files until it wakes up.
        first.signal("CONT");
        first.until("rows", "it stands by", LONG, |c| c["state"] == "passive").await;
        first.until("out", "it stands by", LONG, |c| c["state"] == "passive").await;
    } else {
        until_it_moves(&mut second).await;
    }
    let total = load.stop().await;
    // Whichever daemon has the files now: in the end they are complete.
    let files = Home::new(&broker.uri(), "");
    std::os::unix::fs::symlink(shared.path().join("files"), files.path("files")).unwrap();
    second.until("rows", "all is written", LONG, |c| durable(c) >= Some(total - 1)).await;
    second.until("out", "all is written", LONG, |c| durable(c) >= Some(total - 1)).await;
    eventually("all files are written", LONG, || async {
        let lines: usize = files
            .segments("files", &stream)
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap_or_default().lines().count())
            .sum();
        (lines as u64 >= total).then_some(())
    })
    .await;
    second.terminate().await;
    match signal {
        "STOP" => first.terminate().await,
        _ => first.kill(),
    }
    assert_exact("files", &files.lines("files", &stream), total);
    assert_rows(&shared.path().join("rows.db"), total);
    let printed: Vec<u64> = printed(&[&homes[0], &homes[1]]).iter().map(number).collect();
    assert_none_lost("stdout of both", &printed, total);
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_the_next_one_goes_on_and_exactly_once_stays_so() {
    or_skip!(disorderly("KILL").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_wakes_after_another_took_over_stands_by_and_writes_nothing_twice() {
    or_skip!(disorderly("STOP").await);
}

async fn too_old() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let stream = streams::create(broker, "single-active").await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsingle_active = true\n\
             sink = {{ type = \"null\" }}\n"
        ),
    );
    let check = home.command(&["check", "--connect"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(69), "{said}");
    assert!(said.contains("single_active needs RabbitMQ 3.11") && said.contains("3.10"), "{said}");
    let mut daemon = home.start();
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("single_active needs RabbitMQ 3.11"), "{reason}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_too_old_is_named_with_the_version_needed() {
    or_skip!(too_old().await);
}
