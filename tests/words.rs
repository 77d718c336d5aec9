//! Texts that operators read when something goes wrong: do they name the node, the level and the
//! consumer, and is there a line when it is over?

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, eventually, ports, streams};

const SOON: Duration = Duration::from_secs(60);

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\n")
}

/// An address at which nobody answers.
fn nobody() -> String {
    ports::nobody().to_string()
}

/// If every seed failed, the reason and the warning name each of them.
#[tokio::test]
async fn all_seeds_that_failed_are_named() {
    let seeds = [nobody(), nobody(), nobody()];
    let uris = seeds.each_ref().map(|seed| format!("rabbitmq-stream://guest:guest@{seed}"));
    let home = Home::with_broker(
        &format!("uris = {uris:?}\nconnect_timeout = \"2s\""),
        &consumer("c", "any", "{ type = \"null\" }"),
    );
    let mut daemon = home.start();
    let waits = |c: &Value| c["state"] == "backoff" && c["reason"].is_string();
    let shown = daemon.until("c", "it says why it waits", SOON, waits).await;
    daemon.terminate().await;
    let log = home.log();
    let warning = log.lines().find(|line| line.contains("not connected; trying again")).unwrap();
    for seed in &seeds {
        for text in [shown["reason"].as_str().unwrap(), warning] {
            assert!(text.contains(seed), "{seed} is not in: {text}");
        }
    }
    assert!(warning.contains(" WARN ") && warning.contains("consumer=c"), "{warning}");
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(seeds.iter().all(|seed| told.contains(seed)), "{told}");
}

/// A connection that breaks while it is read, or on which the broker no longer answers.
async fn broken_connections() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "broken").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    for silent in [false, true] {
        let proxy = Proxy::to(broker.stream_port).await;
        let settings = format!(
            "uri = \"{}\"\nheartbeat = \"1s\"\nfollow_advertised_hosts = false\nconnect_timeout = \"2s\"",
            broker.uri_by(proxy.port)
        );
        let home = Home::with_broker(&settings, &consumer("c", &stream, "{ type = \"null\" }"));
        let mut daemon = home.start();
        daemon.until_durable("c", 9).await;
        if silent {
            proxy.silence()
        } else {
            proxy.refuse()
        }
        let node = format!("localhost:{}", proxy.port);
        let waits = |c: &Value| c["reason"].as_str().is_some_and(|reason| reason.contains(&node));
        daemon.until("c", "the reason names the node", SOON, waits).await;
        proxy.resume();
        daemon.until("c", "it runs again", SOON, |c| c["state"] == "running").await;
        daemon.terminate().await;
        let log = home.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains("not connected; ")).collect();
        assert!(!told.is_empty(), "{log}");
        for line in told {
            assert!(line.contains(&node) && line.contains("consumer=c"), "{line}");
        }
        let over = log.lines().find(|line| line.contains("connected again")).unwrap();
        assert!(over.contains(" INFO ") && over.contains("consumer=c"), "{over}");
    }
    Ok(())
}

#[tokio::test]
async fn the_node_of_a_broken_connection_is_named() {
    or_skip!(broken_connections().await);
}

/// In the journal, every line begins with its priority; elsewhere, none does.
#[tokio::test]
async fn lines_for_the_journal_begin_with_their_priority() {
    let home = Home::new(
        &format!("rabbitmq-stream://guest:guest@{}", nobody()),
        &consumer("c", "any", "{ type = \"null\" }"),
    );
    for is_journal in [true, false] {
        let path = home.path("log");
        std::fs::remove_file(&path).ok();
        let log = std::fs::File::create(&path).unwrap();
        let place = log.metadata().unwrap();
        let inode = if is_journal { place.ino() } else { place.ino() + 1 };
        let mut command = home.command(&["run"]);
        command.env("JOURNAL_STREAM", format!("{}:{inode}", place.dev()));
        let mut daemon = home.spawn(command, Stdio::null());
        daemon.until("c", "it waits", SOON, |c| c["state"] == "backoff").await;
        daemon.signal("TERM");
        daemon.ended(SOON).await;
        let log = home.log();
        assert!(log.contains(" INFO ") && log.contains(" WARN "), "{log}");
        for line in log.lines() {
            let priority = line.starts_with('<').then(|| &line[..3]);
            let expected = if line.contains(" ERROR ") {
                "<3>"
            } else if line.contains(" WARN ") {
                "<4>"
            } else if line.contains(" INFO ") {
                "<6>"
            } else {
                "<7>"
            };
            assert_eq!(priority, is_journal.then_some(expected), "{line}");
        }
    }
}

/// The only line of a JSON log with this message.
fn line(log: &str, consumer: &str, message: &str) -> Value {
    let all = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = all.filter(|line| line["message"].as_str().unwrap().contains(message));
    let first = found.next().unwrap_or_else(|| panic!("no {message:?} in\n{log}"));
    assert_eq!(first["consumer"], consumer, "{first}");
    assert!(first["stream"].is_string(), "{first}");
    first
}

/// The end of a failure, a write and a removal are logged too, with the consumer's name and numbers.
async fn good_news() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "news").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let fails = Arc::new(AtomicBool::new(true));
    let web = {
        let fails = Arc::clone(&fails);
        Web::start(move |_| match fails.load(Ordering::SeqCst) {
            true => Reply::status(503),
            false => Reply::Keep,
        })
        .await
    };
    let archive = "{ type = \"object\", url = \"archive\", rotate_age = \"200ms\" }";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer("archiver", &stream, archive),
            consumer("poster", &stream, &format!("{{ type = \"http\", url = \"{}\" }}", web.url())),
            consumer("filer", &stream, "{ type = \"file\", dir = \"filer\" }"),
        ]
        .concat(),
    );
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[log]", "[log]\nformat = \"json\"")).unwrap();
    let mut daemon = home.start();
    daemon.until("poster", "its sink fails", SOON, |c| c["state"] == "degraded").await;
    fails.store(false, Ordering::SeqCst);
    for name in ["archiver", "poster", "filer"] {
        daemon.until_durable(name, 9).await;
    }
    daemon.terminate().await;

    let log = home.log();
    let written = line(&log, "archiver", "object written");
    // The first one; a slow reader may get its messages in two.
    let (first, last) = (written["first_offset"].as_u64(), written["last_offset"].as_u64());
    assert_eq!(first, Some(0), "{written}");
    assert_eq!(written["records"].as_u64(), last.map(|last| last + 1), "{written}");
    assert!(written["bytes"].is_u64() && written["took_ms"].is_u64(), "{written}");
    assert!(written["object"].as_str().unwrap().ends_with(".parquet"), "{written}");
    let works = line(&log, "poster", "the sink works again");
    assert!(works["attempts"].as_u64() >= Some(1) && works["lasted_ms"].is_u64(), "{works}");
    assert_eq!((&written["level"], &works["level"]), (&"INFO".into(), &"INFO".into()));

    // The torn end of the file after a crash.
    let segment = home.segments("filer", &stream).pop().unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&segment).unwrap();
    file.write_all(b"{\"offset\":10,").unwrap();
    let mut daemon = home.start();
    daemon.until("filer", "it runs", SOON, |c| c["state"] == "running").await;
    daemon.terminate().await;
    let removed = line(&home.log(), "filer", "removing uncommitted bytes");
    assert_eq!(removed["bytes"], 13, "{removed}");
    assert_eq!(removed["segment"], segment.display().to_string().as_str(), "{removed}");
    Ok(())
}

#[tokio::test]
async fn ends_of_failures_and_finished_work_are_logged() {
    or_skip!(good_news().await);
}

/// A service that refuses connections has not received the request, so its fate is not in doubt.
async fn nobody_listens() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "nobody").await;
    streams::publish(broker, &stream, (0..3).map(body)).await;
    let address = nobody();
    let dead = format!("{{ type = \"http\", url = \"http://{address}/in\" }}");
    let home = Home::new(&broker.uri(), &consumer("poster", &stream, &dead));
    let mut daemon = home.start();
    let shown = daemon.until("poster", "its sink fails", SOON, |c| c["state"] == "degraded").await;
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains(&address) && reason.contains("onnection refused"), "{reason}");
    assert!(!reason.contains("known"), "{reason}");
    eventually("/readyz says so too", SOON, || async {
        let (status, text) = daemon.http("GET", "/readyz").await?;
        (status == 503 && text.contains(&address)).then_some(())
    })
    .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_is_no_doubt() {
    or_skip!(nobody_listens().await);
}
