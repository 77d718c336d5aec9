//! Names that are, once encoded, longer than file systems allow: every sink, before and after a restart,
//! with exact offsets and no error in the log.

use std::path::Path;

use rusqlite::Connection;

use super::object::archive;
use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::reading;
use crate::common::s3::{BUCKET, S3};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const NAMES: [&str; 7] = ["folder", "store", "files", "rows", "nothing", "letters", "longest"];
/// Folders of dead letters.
const LETTERS: [&str; 2] = ["dead-230", "dead-242"];
/// Longest name in a file system, and in an object store that keeps objects as files.
const PART_BYTES_MAX: usize = 255;

/// A unique name of this many such characters.
fn named(alphabet: &[char], characters: usize) -> String {
    (0..characters).map(|_| alphabet[fastrand::usize(..alphabet.len())]).collect()
}

/// Refuses every message. The limit of a reference with dead letters is 242 bytes.
fn with_letters(reference_bytes: usize) -> String {
    format!(
        "{{ type = \"sqlite\", path = \"none.db\", table = \"none-{reference_bytes}\", columns = {{ \
         nothing = {{ from = \"/nowhere\", required = true }} }} }}\nreference = \"{}\"\n\
         on_bad_message = \"dead_letter\"\n\
         dead_letter = {{ type = \"file\", dir = \"dead-{reference_bytes}\" }}",
        "r".repeat(reference_bytes)
    )
}

fn consumers(stream: &str, server: &S3) -> String {
    let common = format!(
        "stream = \"{stream}\"\nbatch = {{ max_messages = 50, max_age = \"50ms\" }}\n\
         commit = {{ every_messages = 10, every = \"50ms\" }}\n"
    );
    let object =
        "type = \"object\", format = \"ndjson\", compression = \"none\", rotate_age = \"200ms\"";
    let options = S3::options(server.port);
    let sinks = [
        format!("{{ {object}, url = \"archive\" }}"),
        format!("{{ {object}, url = \"s3://{BUCKET}/long\", options = {options} }}"),
        "{ type = \"file\", dir = \"files\" }".to_owned(),
        "{ type = \"sqlite\", path = \"rows.db\" }".to_owned(),
        "{ type = \"null\" }".to_owned(),
        with_letters(230),
        with_letters(242),
    ];
    let table = |(name, sink): (&str, &String)| {
        format!("[[consumer]]\nname = \"{name}\"\n{common}start = \"first\"\nsink = {sink}\n")
    };
    NAMES.into_iter().zip(&sinks).map(table).collect()
}

/// The offsets in lines of JSON, in order.
fn offsets(files: impl IntoIterator<Item = Vec<u8>>) -> Vec<u64> {
    let mut found = Vec::new();
    for bytes in files {
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            found.push(line["offset"].as_u64().unwrap());
        }
    }
    found.sort_unstable();
    found
}

/// The lines' files below a folder.
fn below(folder: &Path) -> impl Iterator<Item = Vec<u8>> {
    let files = archive::files(folder).into_iter();
    let lines = files.filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
    lines.map(|path| std::fs::read(path).unwrap())
}

fn rows(path: &Path, stream: &str) -> Vec<u64> {
    let database = Connection::open(path).unwrap();
    let table = stream.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let mut asked =
        database.prepare(&format!("SELECT \"offset\" FROM {table} ORDER BY 1")).unwrap();
    let found = asked.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    found.map(|offset| offset.unwrap() as u64).collect()
}

fn state_files(home: &Home, ending: &str) -> usize {
    let entries = std::fs::read_dir(home.path("state")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

async fn check(home: &Home, server: &S3, stream: &str, expected: &[u64]) {
    for folder in ["archive", "files"].into_iter().chain(LETTERS) {
        assert_eq!(offsets(below(&home.path(folder))), expected, "{folder}");
    }
    let stored = archive::objects(server.port, "long").await;
    for (key, _) in &stored {
        assert!(key.split('/').all(|part| part.len() <= PART_BYTES_MAX), "{key}");
    }
    let lines = stored.into_iter().filter(|(key, _)| key.ends_with(".ndjson"));
    assert_eq!(offsets(lines.map(|(_, bytes)| bytes)), expected, "store");
    assert_eq!(rows(&home.path("rows.db"), stream), expected);
    assert_eq!(state_files(home, ".json"), NAMES.len());
    assert_eq!(state_files(home, ".dead-letters"), LETTERS.len());
    let log = home.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

async fn every_sink(version: Version, stream: &str) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let server = S3::start()?;
    streams::create_named(broker, stream, &[]).await;
    let home = Home::new(&broker.uri(), &consumers(stream, &server));
    for run in 1..=3_u64 {
        let mut daemon = home.start();
        streams::publish(broker, stream, ((run - 1) * 100..run * 100).map(body)).await;
        // The offsets that consumers store take some of the stream's own offsets.
        let offsets = reading::offsets(broker, stream).await;
        assert_eq!(offsets.len() as u64, 100 * run);
        for name in NAMES {
            daemon.until_durable(name, offsets[offsets.len() - 1]).await;
        }
        daemon.terminate().await;
        check(&home, &server, stream, &offsets).await;
    }
    streams::delete(broker, stream).await;
    Ok(())
}

fn kana(characters: usize) -> String {
    named(&('\u{3042}'..='\u{3093}').collect::<Vec<_>>(), characters)
}

#[tokio::test]
async fn a_stream_of_39_japanese_characters() {
    or_skip!(every_sink(Version::V4_3, &kana(39)).await);
}

/// The broker's own limit is 255 bytes.
#[tokio::test]
async fn a_stream_of_85_japanese_characters() {
    or_skip!(every_sink(Version::V4_0, &kana(85)).await);
}

/// The broker, which keeps a stream in a folder too, finds no leader for a name of 235.
#[tokio::test]
async fn a_stream_of_230_letters() {
    or_skip!(every_sink(Version::V3_10, &named(&('a'..='z').collect::<Vec<_>>(), 230)).await);
}
