//! The same in the daemon: a real broker, a service that misbehaves, kills.

use std::time::Instant;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, assert_none_lost, number, publish_evenly};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, env_or, eventually, streams};

use super::{Arc, Duration};

const LONG: Duration = Duration::from_secs(60);

fn consumer(stream: &str, web: &Web, keys: &str, sink_keys: &str) -> String {
    format!(
        "[[consumer]]\nname = \"poster\"\nstream = \"{stream}\"\nstart = \"first\"\n\
         batch = {{ max_messages = 200, max_age = \"20ms\" }}\n\
         commit = {{ every_messages = 100, every = \"100ms\" }}\n\
         restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n{keys}\n\
         [consumer.sink]\ntype = \"http\"\nurl = \"{}\"\n{sink_keys}\n",
        web.url()
    )
}

fn bodies(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|i| format!("{{\"i\":{i}}}"))
}

fn numbers(web: &Web) -> Vec<u64> {
    web.seen()
        .iter()
        .filter(|seen| seen.kept)
        .flat_map(|s| s.records.clone())
        .map(|r| number(&r))
        .collect()
}

/// `kill -9` at random moments, and a service of which every tenth answer is an error or is lost.
async fn killed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let kills = env_or("KILLS", 8);
    let stream = streams::create(broker, "http-kill").await;
    let web = Web::start(|_| match fastrand::u32(0..40) {
        0 | 1 => Reply::status(503),
        2 => Reply::KeepAndHangUp,
        3 => Reply::KeepAndTear,
        _ => Reply::Keep,
    })
    .await;
    let keys = "max_records = 64\ncompression = \"gzip\"\nformat = \"ndjson\"\n";
    let home = Home::new(&broker.uri(), &consumer(&stream, &web, "", keys));
    let load = Load::on(broker, &stream, Pace::BRISK);
    for _ in 0..kills {
        let mut daemon = home.start();
        let before = web.seen().len();
        daemon.until("poster", "it writes", LONG, |_| web.seen().len() > before + 5).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..150_000))).await;
        daemon.kill();
    }
    let total = load.stop().await;
    let daemon = home.start();
    eventually("everything has arrived", LONG, || async {
        numbers(&web).contains(&(total - 1)).then_some(())
    })
    .await;
    daemon.terminate().await;
    let found = numbers(&web);
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_none_lost("the service", &sorted, total);
    // A receiver removes duplicates: each record is known by its stream and offset.
    let offsets: std::collections::BTreeSet<u64> = web.kept().into_iter().collect();
    assert_eq!(offsets.len() as u64, total);
    eprintln!(
        "{total} messages, {} came again, {} requests",
        found.len() as u64 - total,
        web.seen().len()
    );
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_by_kills_and_lost_answers() {
    or_skip!(killed().await);
}

async fn waiting() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "http-wait").await;
    let came: Arc<std::sync::Mutex<Vec<Instant>>> = Arc::default();
    let web = Web::start({
        let came = Arc::clone(&came);
        move |seen| {
            came.lock().unwrap().push(Instant::now());
            match seen.nth {
                0 => Reply::Answer(429, vec![("retry-after", "2".to_owned())], String::new()),
                _ => Reply::Keep,
            }
        }
    })
    .await;
    let home = Home::new(&broker.uri(), &consumer(&stream, &web, "", ""));
    streams::publish(broker, &stream, bodies(0..10)).await;
    let mut daemon = home.start();
    daemon.until_durable("poster", 9).await;
    let came = came.lock().unwrap().clone();
    let waited = came[1] - came[0];
    assert!(waited >= Duration::from_secs(2), "it waited {waited:?}");
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn retry_after_is_honoured() {
    or_skip!(waiting().await);
}

/// The service hangs: other consumers continue, memory stays within its bound, the daemon still ends in
/// time, and the records in flight are sent again.
async fn hanging() -> Result<(), Unavailable> {
    const TOTAL: u64 = 60_000;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "http-hang").await;
    // In chunks of one size, which fit.
    let body = |i| format!("{{\"i\":{i},\"x\":\"{:0500}\"}}", 0);
    publish_evenly(broker, &stream, (TOTAL, 1000), body).await;
    let awake = Arc::new(tokio::sync::Semaphore::new(0));
    let web = Web::start({
        let awake = Arc::clone(&awake);
        move |_| Reply::When(Arc::clone(&awake), Box::new(Reply::Keep))
    })
    .await;
    let keys = "memory = \"8MiB\"\nbatch = { max_bytes = \"4MiB\" }\n";
    let toml = consumer(&stream, &web, keys, "timeout = \"10m\"\n").replacen(
        "batch = { max_messages = 200, max_age = \"20ms\" }\n",
        "",
        1,
    ) + &format!(
        "[[consumer]]\nname = \"other\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
    );
    let home = Home::new(&broker.uri(), &toml);
    let bound = home.memory_bound_bytes() + (32 << 20);
    let mut daemon = home.start();
    daemon.until_durable("other", TOTAL - 1).await;
    let full = |c: &serde_json::Value| c["buffered_bytes"].as_u64() > Some(2 << 20);
    daemon.until("poster", "its memory is full", LONG, full).await;
    // The first batches are small: a few requests are answered, so that the next batch holds all that
    // waits.
    let mut answered = 0;
    while web.busy() < 4 {
        assert!(answered < 100, "all that may fly");
        awake.add_permits(1);
        answered += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let most = daemon.memory_bytes("VmHWM");
    assert!(most <= bound, "{most} of {bound} bytes");
    assert_eq!(daemon.http("GET", "/livez").await.unwrap().0, 200);
    // Not a graceful end, because nothing could be written; but in time.
    daemon.signal("TERM");
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(75), "{}", home.log_tail());
    let accepted = web.seen().iter().filter(|seen| seen.kept).count();
    assert!(accepted <= answered, "{accepted} of {answered} requests");
    awake.add_permits(100_000);
    let mut daemon = home.start();
    daemon.until_durable("poster", TOTAL - 1).await;
    let most = most.max(daemon.memory_bytes("VmHWM"));
    assert!(most <= bound, "{most} of {bound} bytes");
    eprintln!("{} MiB at the most, of {} MiB", most >> 20, bound >> 20);
    daemon.terminate().await;
    let mut found = web.kept();
    found.dedup();
    assert_eq!(found.len() as u64, TOTAL);
    Ok(())
}

#[tokio::test]
async fn a_service_that_hangs_harms_nobody_else() {
    or_skip!(hanging().await);
}

/// A message that the service refuses, and a token that it does not accept.
async fn refused() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "http-bad").await;
    streams::publish(broker, &stream, bodies(0..300)).await;
    let web = Web::start(|seen| {
        if seen.header("authorization") != "Bearer right-token" {
            // Some services quote the refused credentials.
            let text = format!("no such token: {}", seen.header("authorization"));
            return Reply::Answer(401, Vec::new(), text);
        }
        match seen.records.iter().any(|record| record["body"]["i"] == 123) {
            true => Reply::Answer(422, Vec::new(), "123 is an unlucky number".to_owned()),
            false => Reply::Keep,
        }
    })
    .await;
    let headers = "headers = { Authorization = { file = \"token\" } }\n";
    let home = Home::new(&broker.uri(), &consumer(&stream, &web, "", headers));
    std::fs::write(home.path("token"), "Bearer wrong-token\n").unwrap();
    let mut daemon = home.start();
    let says = |c: &serde_json::Value| {
        c["reason"].as_str().is_some_and(|r| r.contains("401 Unauthorized"))
    };
    daemon.until("poster", "it says why it does not go on", LONG, says).await;
    daemon.kill();

    std::fs::write(home.path("token"), "Bearer right-token\n").unwrap();
    let mut daemon = home.start();
    let reason = daemon.until_halted("poster").await;
    assert!(reason.contains("offset 123") && reason.contains("unlucky number"), "{reason}");
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(broker, &stream, "poster").await, Some(122));
    let log = home.log();
    assert!(log.contains("no such token: ***"), "{log}");
    assert!(!log.contains("wrong-token") && !log.contains("right-token"), "{log}");

    let toml = consumer(&stream, &web, "on_bad_message = \"skip\"\n", headers);
    home.configure(&format!("uri = \"{}\"", broker.uri()), &toml);
    let mut daemon = home.start();
    // The stored offset at the end of the earlier run may take an offset in between.
    daemon.until("poster", "the rest", LONG, |_| web.kept().contains(&299)).await;
    eventually("the lost one is counted", LONG, || async {
        let lost = daemon.metric("rillway_lost_messages_total", &["poster", "reason=\"refused\""]);
        (lost.await == Some(1.0)).then_some(())
    })
    .await;
    daemon.terminate().await;
    let mut kept = numbers(&web);
    kept.sort_unstable();
    kept.dedup();
    assert_eq!(kept, (0..300).filter(|i| *i != 123).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_refused_and_a_token_that_is_wrong() {
    or_skip!(refused().await);
}
