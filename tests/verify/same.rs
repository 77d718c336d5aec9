//! Sinks that hold what they should.

use std::time::Duration;

use rillway::wire::amqp::Message;

use super::{assert_same, consumer, report, verify};
use crate::any_message::generate::message;
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::postgres::Postgres;
use crate::common::reading::put;
use crate::common::s3::{BUCKET, S3};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const MESSAGES: u64 = 3_000;

/// Every type of column; a misfit makes it null.
fn columns() -> String {
    let types = ["integer", "float", "numeric", "boolean", "timestamp", "json", "bytes", "text"];
    let columns: Vec<String> = types
        .iter()
        .map(|kind| {
            format!("c_{kind} = {{ from = \"/n\", type = \"{kind}\", on_misfit = \"null\" }}")
        })
        .collect();
    format!(
        "{{ {}, id = {{ from = \"properties.message_id\", on_misfit = \"null\" }}, \
         whole = {{ from = \"\", type = \"json\", on_misfit = \"null\" }}, n = {{ from = \"/n\", type = \
         \"integer\" }} }}",
        columns.join(", ")
    )
}

/// Generated messages of every kind, through every sink that can be verified.
async fn any_message() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let (schema, url) = (postgres.schema().await, postgres.url());
    let stream = streams::create(broker, "verified").await;
    let all: Vec<Vec<u8>> = (0..MESSAGES).map(|offset| message(11, offset)).collect();
    for piece in all.chunks(1_000) {
        put(broker, &stream, piece).await;
    }
    let columns = columns();
    let sinks = [
        ("file", "type = \"file\", dir = \"file\", rotate_bytes = \"64KiB\"".to_owned()),
        ("zstd", "type = \"file\", dir = \"zstd\", compression = \"zstd\"".to_owned()),
        (
            "gzip",
            "type = \"file\", dir = \"gzip\", compression = \"gzip\", rotate_bytes = \"64KiB\""
                .to_owned(),
        ),
        ("lite", "type = \"sqlite\", path = \"lite.db\", table = \"t\"".to_owned()),
        (
            "lite_typed",
            format!(
                "type = \"sqlite\", path = \"lite.db\", table = \"typed\", columns = {columns}"
            ),
        ),
        (
            "pg",
            format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\""),
        ),
        (
            "pg_typed",
            format!(
                "type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"typed\", columns = {columns}"
            ),
        ),
        (
            "lines",
            "type = \"object\", url = \"lines\", format = \"ndjson\", rotate_records = 700"
                .to_owned(),
        ),
        (
            "linesgz",
            "type = \"object\", url = \"linesgz\", format = \"ndjson\", compression = \"gzip\""
                .to_owned(),
        ),
        ("parquet", "type = \"object\", url = \"parquet\", rotate_records = 700".to_owned()),
        (
            "parquetb",
            "type = \"object\", url = \"parquetb\", body = \"bytes\", compression = \"none\""
                .to_owned(),
        ),
        (
            "parquet_typed",
            format!("type = \"object\", url = \"parquet_typed\", columns = {columns}"),
        ),
        (
            "copy",
            format!(
                "type = \"stream\", stream = \"{stream}-copy\", create = true, annotate = true"
            ),
        ),
        ("bare", format!("type = \"stream\", stream = \"{stream}-bare\", create = true")),
    ];
    let text: String = sinks
        .iter()
        .map(|(name, sink)| consumer(name, &stream, sink) + "on_bad_message = \"skip\"\n")
        .collect();
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    for (name, _) in &sinks {
        daemon
            .until(name, "it has read everything", Duration::from_secs(60), |c| {
                assert_ne!(c["state"], "halted", "{name}: {c}");
                c["received_offset"].as_u64().is_some_and(|o| o + 1 >= MESSAGES)
            })
            .await;
    }
    // All that it leaves out is counted by then.
    daemon.until_durable("pg_typed", MESSAGES - 1).await;
    let mut lost = 0.0;
    for reason in ["undecodable", "over_limit", "misfit", "refused"] {
        let labels = ["consumer=\"pg_typed\"", &*format!("reason=\"{reason}\"")];
        lost += daemon.metric("rillway_lost_messages_total", &labels).await.unwrap_or(0.0);
    }
    // Objects are written when it drains, and all positions stand at the end.
    daemon.terminate().await;
    let decodable =
        all.iter().filter(|m| Message::parse(m).is_ok_and(|m| m.validate().is_ok())).count() as u64;
    for (name, _) in &sinks {
        let (report, code) = report(&home, &[name]);
        let (same, left_out) = (&report["same"], &report["left_out"]["count"]);
        let sum = same.as_u64().unwrap() + left_out.as_u64().unwrap();
        if *name == "pg_typed" {
            // What the server alone refused, and was skipped, cannot be told from what is missing.
            assert_eq!((MESSAGES - same.as_u64().unwrap()) as f64, lost, "{report:#}");
            let missing = report["missing"]["count"].as_u64().unwrap();
            assert_eq!(sum + missing, MESSAGES, "{report:#}");
            for kind in ["doubled", "altered", "misplaced", "extra"] {
                assert_eq!(report[kind]["count"], 0, "{kind}: {report:#}");
            }
        } else {
            assert_same(name, &report, code);
            // A target's position is that of the last message in it: those behind it were left out.
            let upto = report["to"].as_u64().unwrap() + 1;
            let is_target = ["copy", "bare"].contains(name);
            assert!(upto == MESSAGES || is_target && upto + 10 > MESSAGES, "{name}: {report:#}");
            assert_eq!(sum, upto, "{name}: {report:#}");
        }
        if name.ends_with("typed") {
            assert!(same.as_u64() > Some(MESSAGES / 5), "{name}: {report:#}");
        } else if !["copy", "bare"].contains(name) {
            assert!(same.as_u64() >= Some(decodable), "{name}: {report:#}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn any_message_is_the_same_in_every_sink() {
    or_skip!(any_message().await);
}

/// An archive in an object store, and one over AMQP 0.9.1.
async fn in_a_store() -> Result<(), Unavailable> {
    let server = S3::start()?;
    let broker = Broker::shared(Version::V4_0).await?;
    let stream = streams::create(broker, "verified-s3").await;
    streams::publish(broker, &stream, (0..1000).map(|i| format!("{{\"i\":{i}}}"))).await;
    let options = S3::options(server.port);
    let sink = |prefix: &str, format: &str| {
        format!(
            "type = \"object\", url = \"s3://{BUCKET}/{prefix}\", options = {options}, format = \"{format}\", \
             rotate_records = 300"
        )
    };
    let text = consumer("table", &stream, &sink("a/b", "parquet"))
        + &consumer("lines", &stream, &sink("lines", "ndjson"));
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    for name in ["table", "lines"] {
        daemon
            .until(name, "it has read everything", Duration::from_secs(60), |c| {
                c["received_offset"] == 999
            })
            .await;
    }
    daemon.terminate().await;
    for name in ["table", "lines"] {
        let (report, code) = report(&home, &[name]);
        assert_same(name, &report, code);
        assert_eq!(report["same"], 1000, "{report:#}");
    }
    // The stream can be read over AMQP 0.9.1 as well.
    let amqp = format!("uri = \"amqp://guest:guest@localhost:{}/%2f\"", broker.amqp_port);
    home.configure(&amqp, &text);
    let (report, code) = report(&home, &["table", "--from", "100", "--to", "899"]);
    assert_same("over AMQP 0.9.1", &report, code);
    assert_eq!(report["same"], 800, "{report:#}");
    daemon = home.start();
    daemon.until("table", "it runs on", Duration::from_secs(60), |c| c["state"] == "running").await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn an_archive_in_a_store_is_the_same() {
    or_skip!(in_a_store().await);
}

/// The daemon writes all the time; what is behind the position at the start does not count, and nobody
/// loses anything to the audit.
async fn while_it_runs() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let (schema, url) = (postgres.schema().await, postgres.url());
    let stream = streams::create(broker, "verified-live").await;
    let load = Load::on(broker, &stream, Pace::BRISK);
    let sinks = [
        ("file", "type = \"file\", dir = \"file\", rotate_bytes = \"200KiB\"".to_owned()),
        ("lite", "type = \"sqlite\", path = \"lite.db\", table = \"t\"".to_owned()),
        (
            "pg",
            format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\""),
        ),
        ("table", "type = \"object\", url = \"table\", rotate_records = 500".to_owned()),
        (
            "copy",
            format!(
                "type = \"stream\", stream = \"{stream}-copy\", create = true, annotate = true"
            ),
        ),
    ];
    let text: String = sinks.iter().map(|(name, sink)| consumer(name, &stream, sink)).collect();
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    let mut seen = 0;
    for round in 1..=3_u64 {
        for (name, _) in &sinks {
            let what = format!("round {round}");
            daemon
                .until(name, &what, Duration::from_secs(60), |c| {
                    c["durable_offset"].as_u64() >= Some(1000 * round)
                })
                .await;
            let (report, code) = report(&home, &[name]);
            assert_same(name, &report, code);
            assert!(report["same"].as_u64() > Some(1000 * round), "{name}: {report:#}");
            seen += 1;
        }
    }
    assert_eq!(seen, 15);
    let total = load.stop().await;
    for (name, _) in &sinks {
        let labels = [&*format!("consumer=\"{name}\"")];
        let restarts = daemon.metric("rillway_restarts_total", &labels).await;
        assert_eq!(restarts.unwrap_or(0.0), 0.0, "{name}\n{}", home.log_tail());
    }
    eventually("all is in the files", Duration::from_secs(60), || async {
        (home.offsets("file", &stream).len() as u64 == total).then_some(())
    })
    .await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_running_daemon_is_not_disturbed() {
    or_skip!(while_it_runs().await);
}

/// Sinks that cannot be verified say why, and what cannot be told apart is refused.
async fn refused() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "verified-not").await;
    streams::publish(broker, &stream, (0..10).map(|i| i.to_string())).await;
    let text = [
        ("nothing", "type = \"null\"".to_owned()),
        ("printed", "type = \"stdout\"".to_owned()),
        ("raw", "type = \"file\", dir = \"raw\", format = \"raw\", delimiter = \"\"".to_owned()),
        ("unwritten", "type = \"file\", dir = \"unwritten\"".to_owned()),
        ("bare", format!("type = \"stream\", stream = \"{stream}-copy\", create = true")),
    ]
    .map(|(name, sink)| consumer(name, &stream, &sink))
    .concat();
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    for name in ["raw", "bare"] {
        daemon.until_durable(name, 9).await;
    }
    daemon.terminate().await;
    std::fs::remove_dir_all(home.path("unwritten")).unwrap();
    for (arguments, code, says) in [
        (&["nothing"][..], 64, "keeps nothing"),
        (&["printed"], 64, "cannot be read back"),
        (&["raw"], 64, "format = \"ndjson\""),
        (&["bare"], 0, ""),
        (&["unwritten"], 69, "no position"),
        (&["nobody"], 64, "there is no consumer \"nobody\""),
        (&["raw", "--stream", "other"], 64, "reads stream"),
        (&["raw", "--from", "5", "--to", "4"], 64, "--from 5 is above --to 4"),
    ] {
        let output = verify(&home, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_verified_says_why() {
    or_skip!(refused().await);
}
