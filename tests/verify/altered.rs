//! Sinks of which one record was deleted, one altered and one doubled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rillway::wire::amqp::{Annotation, annotate};
use serde_json::Value;

use super::{consumer, differences, report, verify};
use crate::common::daemon::Home;
use crate::common::postgres::Postgres;
use crate::common::reading::{connect_options, messages, offsets};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, duckdb, streams};

const TOTAL: u64 = 600;
const MISSING: u64 = 17;
const ALTERED: u64 = 242;
const DOUBLED: u64 = 399;
const TOLD: &str = "missing [[17,17]], doubled [[399,399]], altered [[242,242]]";

/// Little of it can be compressed, so that each batch is a segment of its own.
fn body(i: u64) -> String {
    let salt =
        [1, 3, 5, 7].map(|n| format!("{:016x}", (n * i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    format!("{{\"i\":{i},\"name\":\"n{i}\",\"salt\":\"{}\"}}", salt.concat())
}

/// A daemon has written all messages with these sinks, and has ended.
async fn written(broker: &Broker, stream: &str, sinks: &[(&str, String)]) -> Home {
    let text: String = sinks.iter().map(|(name, sink)| consumer(name, stream, sink)).collect();
    let home = Home::new(&broker.uri(), &text);
    // The last message goes into a file of its own: of the file that is written to, only what was
    // committed is read, whatever its length is now.
    for messages in [0..TOTAL - 1, TOTAL - 1..TOTAL] {
        streams::publish(broker, stream, messages.map(body)).await;
        // Stored offsets take offsets too.
        let last = *offsets(broker, stream).await.last().unwrap();
        let mut daemon = home.start();
        for (name, _) in sinks {
            daemon
                .until(name, "it has read everything", Duration::from_secs(60), |c| {
                    assert_ne!(c["state"], "halted", "{name}: {c}");
                    c["received_offset"] == last
                })
                .await;
        }
        daemon.terminate().await;
    }
    home
}

/// What is reported is exactly what was done.
fn assert_told(home: &Home, name: &str, part: &str) {
    let (report, code) = report(home, &[name]);
    assert_eq!((code, differences(&report).as_str()), (65, TOLD), "{name}: {report:#}");
    assert_eq!(report["same"], TOTAL - 2, "{name}: {report:#}");
    assert_eq!(report["surplus_copies"], 1, "{name}: {report:#}");
    let example = &report["altered_examples"][0];
    assert_eq!(example["offset"], ALTERED, "{name}: {report:#}");
    assert_eq!(example["differences"][0]["part"], part, "{name}: {report:#}");
    let found = example["differences"][0]["found"].as_str().unwrap();
    assert!(found.contains("forged"), "{name}: {report:#}");
    let output = verify(home, &[name]);
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in ["missing: 1 (in the stream, but not in the sink): 17\n", "doubled: 1", "    242: "]
    {
        assert!(text.contains(line), "{name}: {text}");
    }
    assert!(said.contains("does not hold what stream"), "{name}: {said}");
    // Around what differs, it is the same.
    for (from, to) in [("18", "241"), ("243", "398"), ("400", "599")] {
        let (report, code) = super::report(home, &[name, "--from", from, "--to", to]);
        super::assert_same(name, &report, code);
    }
}

/// All files below a folder.
fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, into),
            false => into.push(path),
        }
    }
    into.sort();
}

fn offset_of(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap()
}

/// Deletes, alters and doubles lines; returns how many were touched.
fn forge(text: &str) -> (String, usize) {
    let (mut forged, mut touched) = (String::new(), 0);
    for line in text.lines() {
        touched += usize::from([MISSING, ALTERED, DOUBLED].contains(&offset_of(line)));
        match offset_of(line) {
            MISSING => {}
            ALTERED => forged.push_str(&(line.replace("n242", "forged") + "\n")),
            DOUBLED => forged.push_str(&format!("{line}\n{line}\n")),
            _ => forged.push_str(&format!("{line}\n")),
        }
    }
    (forged, touched)
}

/// Changes the content of each file, packed or not.
fn forge_files(paths: &[PathBuf]) {
    let mut changed = 0;
    for path in paths {
        let bytes = std::fs::read(path).unwrap();
        let name = path.to_string_lossy();
        let plain = if name.ends_with(".zst") {
            zstd::decode_all(bytes.as_slice()).unwrap()
        } else if name.ends_with(".gz") {
            let mut plain = Vec::new();
            let mut members = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            std::io::Read::read_to_end(&mut members, &mut plain).unwrap();
            plain
        } else {
            bytes
        };
        let text = String::from_utf8(plain).unwrap();
        let (forged, touched) = forge(&text);
        changed += touched;
        let packed = if name.ends_with(".zst") {
            zstd::encode_all(forged.as_bytes(), 3).unwrap()
        } else if name.ends_with(".gz") {
            let level = flate2::Compression::default();
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), level);
            std::io::Write::write_all(&mut packer, forged.as_bytes()).unwrap();
            packer.finish().unwrap()
        } else {
            forged.into_bytes()
        };
        std::fs::write(path, packed).unwrap();
    }
    assert_eq!(changed, 3, "{paths:?}");
}

async fn lines() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "forged").await;
    let sinks = [
        ("plain", "type = \"file\", dir = \"plain\", rotate_bytes = \"1KiB\"".to_owned()),
        ("zstd", "type = \"file\", dir = \"zstd\", compression = \"zstd\", rotate_bytes = \"1KiB\"".to_owned()),
        ("gzip", "type = \"file\", dir = \"gzip\", compression = \"gzip\", rotate_bytes = \"1KiB\"".to_owned()),
        ("objects", "type = \"object\", url = \"objects\", format = \"ndjson\", compression = \"none\", rotate_records = 50".to_owned()),
        ("packed", "type = \"object\", url = \"packed\", format = \"ndjson\", rotate_records = 50".to_owned()),
    ];
    let home = written(broker, &stream, &sinks).await;
    for name in ["plain", "zstd", "gzip"] {
        forge_files(&home.segments(name, &stream));
        assert_told(&home, name, "body");
    }
    for name in ["objects", "packed"] {
        let mut paths = Vec::new();
        files_below(&home.path(name).join(&stream), &mut paths);
        forge_files(&paths);
        assert_told(&home, name, "body");
    }
    torn(&home, &stream);
    Ok(())
}

/// A segment that ends in the middle, one that is damaged, one that is gone, and a line of somebody else.
fn torn(home: &Home, stream: &str) {
    let segments = home.segments("plain", stream);
    // How far it reaches depends on how much was read at once: not up to what was forged further on.
    let text = std::fs::read_to_string(&segments[0]).unwrap();
    let lines = text.lines().filter(|line| offset_of(line) < ALTERED);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let first: Vec<u64> = text.lines().map(offset_of).collect();
    let (last, before) = (*first.last().unwrap(), first[first.len() - 2]);
    std::fs::write(&segments[0], &text[..text.len() - 5]).unwrap();
    let to = last.to_string();
    let (report, code) = report(home, &["plain", "--to", &to]);
    let told = format!("missing [[17,17]], altered [[{last},{last}]]");
    assert_eq!((code, differences(&report)), (65, told), "{report:#}");
    std::fs::write(&segments[0], text.replace("{\"stream\"", "x")).unwrap();
    let (report, code) = super::report(home, &["plain", "--to", &before.to_string()]);
    assert_eq!(code, 65, "{report:#}");
    assert_eq!(report["missing"]["ranges"], serde_json::json!([[0, before]]), "{report:#}");
    let place = report["unreadable"]["places"][0].as_str().unwrap();
    assert!(place.contains("line 1: not a record of this stream"), "{report:#}");
    std::fs::remove_file(&segments[0]).unwrap();
    let (report, code) = super::report(home, &["plain", "--to", &to]);
    let told = format!("missing [[0,{last}]]");
    assert_eq!((code, differences(&report)), (65, told), "{report:#}");

    // A packed one that is damaged in its middle: what comes before and in other segments counts.
    let segments = home.segments("zstd", stream);
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    std::fs::write(&segments[1], bytes).unwrap();
    let (report, code) = super::report(home, &["zstd"]);
    assert_eq!((code, &report["unreadable"]["count"]), (65, &Value::from(1)), "{report:#}");
    let place = report["unreadable"]["places"][0].as_str().unwrap();
    assert!(place.contains(segments[1].to_str().unwrap()), "{report:#}");
    assert!(report["same"].as_u64() > Some(0), "{report:#}");
}

#[tokio::test]
async fn forged_lines_are_told() {
    or_skip!(lines().await);
}

const COLUMNS: &str = "columns = { i = { from = \"/i\", type = \"integer\" }, name = \"/name\", \
                       doc = { from = \"\", type = \"json\" }, half = { from = \"/i\", type = \"numeric\" } }";

async fn rows_of_sqlite() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "forged").await;
    let sinks = [
        ("all", "type = \"sqlite\", path = \"data.db\", table = \"whole\"".to_owned()),
        ("typed", format!("type = \"sqlite\", path = \"data.db\", table = \"typed\", {COLUMNS}")),
    ];
    let home = written(broker, &stream, &sinks).await;
    let database = rusqlite::Connection::open(home.path("data.db")).unwrap();
    for (table, set) in
        [("whole", "body = replace(body, 'n242', 'forged')"), ("typed", "name = 'forged'")]
    {
        database
            .execute_batch(&format!(
                "DELETE FROM {table} WHERE offset = {MISSING}; \
                 UPDATE {table} SET {set} WHERE offset = {ALTERED}; \
                 INSERT INTO {table} SELECT * FROM {table} WHERE offset = {DOUBLED}"
            ))
            .unwrap();
    }
    // Also while somebody has it open, and when nobody has.
    assert_told(&home, "all", "body");
    drop(database);
    assert_told(&home, "all", "body");
    assert_told(&home, "typed", "name");
    Ok(())
}

#[tokio::test]
async fn forged_rows_of_sqlite_are_told() {
    or_skip!(rows_of_sqlite().await);
}

async fn rows_of_postgres() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let (schema, url) = (postgres.schema().await, postgres.url());
    let stream = streams::create(broker, "forged").await;
    let sink = format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\"");
    // Columns in which the server stores a value otherwise than it is sent.
    postgres
        .run(&format!(
            "CREATE TABLE {schema}.typed (stream varchar(300), \"offset\" numeric, \"timestamp\" timestamp, \
             i integer, name char(20), doc jsonb, half numeric(12,3), own text DEFAULT 'x')"
        ))
        .await;
    let sinks = [
        ("all", format!("{sink}, table = \"whole\"")),
        ("typed", format!("{sink}, table = \"typed\", {COLUMNS}")),
    ];
    let home = written(broker, &stream, &sinks).await;
    for (table, set) in
        [("whole", "body = replace(body, 'n242', 'forged')"), ("typed", "name = 'forged'")]
    {
        postgres
            .run(&format!(
                "DELETE FROM {schema}.{table} WHERE \"offset\" = {MISSING}; \
                 UPDATE {schema}.{table} SET {set} WHERE \"offset\" = {ALTERED}; \
                 INSERT INTO {schema}.{table} SELECT * FROM {schema}.{table} WHERE \"offset\" = {DOUBLED}"
            ))
            .await;
    }
    assert_told(&home, "all", "body");
    assert_told(&home, "typed", "name");
    // Whoever may only read can verify.
    postgres
        .run(&format!(
            "DROP ROLE IF EXISTS auditor_{schema}; CREATE ROLE auditor_{schema} LOGIN; \
             GRANT USAGE ON SCHEMA {schema} TO auditor_{schema}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO auditor_{schema}"
        ))
        .await;
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let reader = postgres.url_of(&format!("auditor_{schema}"), postgres.port);
    std::fs::write(&path, text.replace(&url, &reader)).unwrap();
    assert_told(&home, "typed", "name");
    Ok(())
}

#[tokio::test]
async fn forged_rows_of_postgres_are_told() {
    or_skip!(rows_of_postgres().await);
}

async fn parquet() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "forged").await;
    let sinks = [
        ("whole", "type = \"object\", url = \"whole\", rotate_records = 100".to_owned()),
        ("typed", "type = \"object\", url = \"typed\", columns = { i = { from = \"/i\", type = \"integer\" }, name = \"/name\" }".to_owned()),
    ];
    let home = written(broker, &stream, &sinks).await;
    for (name, column, value) in
        [("whole", "body", "replace(body, 'n242', 'forged')"), ("typed", "name", "'forged'")]
    {
        let mut paths = Vec::new();
        files_below(&home.path(name).join(&stream), &mut paths);
        for path in &paths {
            let (from, to) = (path.display(), path.with_extension("new"));
            let rows = format!(
                "SELECT * REPLACE (CASE WHEN \"offset\" = {ALTERED} THEN {value} ELSE {column} END AS {column}) FROM read_parquet('{from}', hive_partitioning = false) WHERE \"offset\" <> {MISSING}"
            );
            let copies = format!(
                "SELECT * FROM read_parquet('{from}', hive_partitioning = false) WHERE \"offset\" = {DOUBLED}"
            );
            duckdb::ask(&format!(
                "COPY (SELECT * FROM ({rows} UNION ALL {copies}) ORDER BY \"offset\") TO '{}' (FORMAT parquet, COMPRESSION zstd)",
                to.display()
            ))?;
            std::fs::rename(to, path).unwrap();
        }
        assert_told(&home, name, column);
    }
    Ok(())
}

#[tokio::test]
async fn forged_parquet_is_told() {
    or_skip!(parquet().await);
}

/// A target to which somebody else has published, under the sink's name, what it would have published: but
/// for one message, with another one altered, and one twice.
async fn target(annotated: bool) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (stream, copy) =
        (streams::create(broker, "forged").await, streams::create(broker, "forged-copy").await);
    streams::publish(broker, &stream, (0..TOTAL).map(body)).await;
    let options = connect_options(broker.stream_port);
    let name = copy.as_str().into();
    let leader = rillway::broker::Prefer::Leader;
    let connection = rillway::broker::connect_to_stream(&options, &name, leader).await.unwrap();
    let publisher_name = format!("rillway/{stream}/all");
    let mut publisher = connection.publisher(&name, &publisher_name).await.unwrap();
    for (offset, message) in (0..).zip(messages(broker, &stream).await) {
        if offset == MISSING {
            continue;
        }
        let message = if offset == ALTERED { forged_message() } else { message };
        let annotations = [
            ("x-rillway-source-stream", Annotation::Text(&stream)),
            ("x-rillway-source-offset", Annotation::Number(offset)),
        ];
        let message = match annotated {
            true => annotate(&message, &annotations).unwrap(),
            false => message,
        };
        let mut frame = publisher.frame();
        assert!(frame.push(offset + 1, &message).unwrap());
        publisher.send(frame).await.unwrap();
        if offset == DOUBLED {
            publisher.until_below(0, 0, Duration::from_secs(60)).await.unwrap();
            crate::common::reading::put(broker, &copy, &[message]).await;
        }
    }
    publisher.until_below(0, 0, Duration::from_secs(60)).await.unwrap();
    connection.close().await;
    // A message of somebody else at the end is none of the sink's business.
    crate::common::reading::put(broker, &copy, &[forged_message()]).await;
    let sink = format!("type = \"stream\", stream = \"{copy}\", annotate = {annotated}");
    let home = Home::new(&broker.uri(), &consumer("all", &stream, &sink));
    assert_told(&home, "all", "body");
    Ok(())
}

fn forged_message() -> Vec<u8> {
    let body = b"{\"i\":242,\"name\":\"forged\"}";
    [&[0, 0x53, 0x75, 0xa0, body.len() as u8][..], body].concat()
}

#[tokio::test]
async fn forged_messages_in_a_target_are_told() {
    or_skip!(target(true).await);
}

#[tokio::test]
async fn forged_messages_in_a_target_without_annotations_are_told() {
    or_skip!(target(false).await);
}
