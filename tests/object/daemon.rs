//! The whole daemon with an archive: read by DuckDB, killed, frozen, started twice.
//!
//! `KILLS=100 cargo test --test all object::` is the long form.

use std::time::Duration;

use super::archive;
use crate::common::daemon::Home;
use crate::common::load::{Load, Pace};
use crate::common::s3::{BUCKET, S3};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, duckdb, env_or, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

const SMALL: &str = r#"
batch = { max_messages = 40, max_age = "20ms" }
commit = { every_messages = 100, every = "100ms" }
restart = { min_backoff = "10ms", max_backoff = "100ms" }
"#;

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\nsink = {sink}\n"
    )
}

fn remote(server: &S3, prefix: &str, more: &str) -> String {
    let options = S3::options(server.port);
    format!(
        "{{ type = \"object\", url = \"s3://{BUCKET}/{prefix}\", options = {options}, {more} }}"
    )
}

async fn a_table_for_others(version: Version) -> Result<(), Unavailable> {
    let server = S3::start()?;
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "archive").await;
    let body = |i: u32| match i {
        500 => "not JSON".to_owned(),
        501 => "{\"i\":501,\"user\":{\"id\":\"u1\"},\"amount\":\"much\"}".to_owned(),
        i => format!("{{\"i\":{i},\"user\":{{\"id\":\"u{}\"}},\"amount\":{i}.25}}", i % 3),
    };
    streams::publish(broker, &stream, (0..1000).map(body)).await;
    let age = "rotate_age = \"200ms\"";
    let columns = "columns = { user_id = \"/user/id\", amount = { from = \"/amount\", type = \
                   \"float\" }, at = { from = \"timestamp\", type = \"timestamp\" } }";
    let home = Home::new(
        &broker.uri(),
        &[
            consumer(
                "table",
                &stream,
                &format!("{{ type = \"object\", url = \"table\", {age}, rotate_records = 300 }}"),
            ),
            SMALL.to_owned(),
            consumer(
                "lines",
                &stream,
                &format!(
                    "{{ type = \"object\", url = \"file:lines\", format = \"ndjson\", {age} }}"
                ),
            ),
            consumer(
                "typed",
                &stream,
                &format!("{{ type = \"object\", url = \"typed\", {columns}, {age} }}"),
            ),
            "on_bad_message = \"skip\"\n".to_owned(),
            consumer("remote", &stream, &remote(&server, "deep/down", age)),
        ]
        .concat(),
    );
    let mut daemon = home.start();
    for name in ["table", "lines", "typed", "remote"] {
        // Nothing more is published: an object does not wait for more messages.
        daemon.until_durable(name, 999).await;
    }
    daemon.terminate().await;

    let table = home.path("table").join(&stream);
    // Declared, not guessed: DuckDB by itself reads `hour=09` as text and `hour=10` as a number.
    let types = duckdb::ask(&format!(
        "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM \
         read_parquet('{}/**/*.parquet', hive_types = {{'date': DATE, 'hour': BIGINT}}))",
        table.display()
    ))?;
    let types: Vec<_> = types
        .iter()
        .map(|row| format!("{} {}", row[0].as_str().unwrap(), row[1].as_str().unwrap()))
        .collect();
    assert_eq!(
        types,
        [
            "stream VARCHAR",
            "offset BIGINT",
            "timestamp TIMESTAMP WITH TIME ZONE",
            "message_id VARCHAR",
            "subject VARCHAR",
            "application_properties VARCHAR",
            "body VARCHAR",
            "date DATE",
            "hour BIGINT",
        ]
    );
    let counts = |folder: &std::path::Path, what: &str| {
        duckdb::ask(&format!(
            "SELECT count(*), min(\"offset\"), max(\"offset\"), count(DISTINCT \"offset\"){what} \
             FROM read_parquet('{}/**/*.parquet', hive_partitioning = true)",
            folder.display()
        ))
    };
    assert_eq!(counts(&table, "")?, [[1000, 0, 999, 1000]]);
    assert!(archive::files(&table).len() >= 3, "rotated by records");
    let by_partition = duckdb::ask(&format!(
        "SELECT count(*) FROM read_parquet('{}/**/*.parquet', hive_partitioning = true) \
         WHERE date = CAST(timezone('UTC', timestamp) AS DATE) AND hour = extract(hour FROM timezone('UTC', timestamp))",
        table.display()
    ))?;
    assert_eq!(by_partition, [[1000]], "the partition is the chunk's");

    let lines = duckdb::ask(&format!(
        "SELECT count(*), sum(CASE WHEN body_encoding = 'json' THEN 1 ELSE 0 END)::BIGINT FROM \
         read_json('{}/**/*.ndjson.zst', columns = {{body: 'JSON', body_encoding: 'VARCHAR'}})",
        home.path("lines").join(&stream).display()
    ))?;
    assert_eq!(lines, [[1000, 999]]);
    // Two do not fit the columns, and are left out; the rest of their batch is written.
    assert_eq!(
        counts(&home.path("typed").join(&stream), ", count(user_id), count(amount), sum(amount)")?,
        [[
            serde_json::json!(998),
            0.into(),
            999.into(),
            998.into(),
            998.into(),
            998.into(),
            498_748.5.into()
        ]]
    );
    archive::fetch(server.port, "deep/down", &home.path("fetched")).await;
    assert_eq!(counts(&home.path("fetched/deep/down").join(&stream), "")?, [[1000, 0, 999, 1000]]);
    let plan = home.command(&["check", "--json"]).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(!plan.contains("secret_access_key"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn a_table_for_others_from_rabbitmq_3_10() {
    or_skip!(a_table_for_others(Version::V3_10).await);
}

#[tokio::test]
async fn a_table_for_others_from_rabbitmq_4_3() {
    or_skip!(a_table_for_others(Version::V4_3).await);
}

const QUICK: &str = "rotate_records = 150, rotate_age = \"100ms\"";

async fn killed(in_cloud: bool) -> Result<(), Unavailable> {
    let server = if in_cloud { Some(S3::start()?) } else { None };
    let broker = Broker::shared(Version::V4_3).await?;
    let (kills, seed) = (env_or("KILLS", 8), env_or("SEED", fastrand::u64(..)));
    eprintln!("{kills} kills, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = streams::create(broker, "crash").await;
    let sink = match &server {
        Some(server) => remote(server, "archive", QUICK),
        None => format!("{{ type = \"object\", url = \"archive\", {QUICK} }}"),
    };
    let home = Home::new(&broker.uri(), &[&consumer("archiver", &stream, &sink), SMALL].concat());
    let load = Load::on(broker, &stream, Pace::BRISK);
    let points = ["received", "written", "flushed", "committed", "offset_stored"];
    for round in 0..kills {
        // At each point in turn, and now and then at any moment.
        let point = points.get(usize::try_from(round % 7).unwrap());
        match point {
            Some(point) => {
                let fault = format!("die@{point}:{}", random.u64(1..4));
                let daemon = home.start_with_fault(&fault);
                daemon.ended(LONG).await;
            }
            None => {
                let daemon = home.start();
                // The moment is part of the test, not something to wait for.
                tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
                daemon.kill();
            }
        }
    }
    let total = load.stop().await;
    let archive = archive::finished(&home, total, "archive", server.as_ref()).await;
    let table = archive.join(&stream);
    archive::assert_exact(&table, total)
}

#[tokio::test]
async fn killed_over_a_folder() {
    or_skip!(killed(false).await);
}

#[tokio::test]
async fn killed_over_a_store() {
    or_skip!(killed(true).await);
}

/// One daemon is frozen after its claim, before its upload or before the upload is settled; the other one
/// takes over and continues; then the first one wakes up.
async fn doubled(fault: &str) -> Result<(), Unavailable> {
    let server = S3::start()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "double").await;
    let config =
        [&consumer("archiver", &stream, &remote(&server, "archive", QUICK)), SMALL].concat();
    let (former, latter) = (Home::new(&broker.uri(), &config), Home::new(&broker.uri(), &config));
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut frozen = former.start_with_fault(fault);
    let pid = frozen.pid();
    eventually("the first is frozen", LONG, || async move {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tT").then_some(())
    })
    .await;
    let mut daemon = latter.start();
    let before = load.confirmed();
    daemon.until_durable("archiver", before + 2000).await;
    frozen.signal("CONT");
    let reason = frozen.until_halted("archiver").await;
    assert!(reason.contains("has taken over"), "{reason}");
    let total = load.stop().await;
    daemon.until_durable("archiver", total - 1).await;
    daemon.terminate().await;
    archive::fetch(server.port, "archive", &latter.path("fetched")).await;
    archive::assert_exact(&latter.path("fetched/archive").join(&stream), total)
}

#[tokio::test]
async fn frozen_before_the_upload() {
    or_skip!(doubled("freeze@written:3").await);
}

#[tokio::test]
async fn frozen_before_it_is_settled() {
    or_skip!(doubled("freeze@flushed:3").await);
}
