//! The files of `config/`: they load, and the reference leaves nothing out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::schema::Tree;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn reference() -> String {
    std::fs::read_to_string(folder().join("reference.toml")).unwrap()
}

/// What the files refer to.
fn env(credentials: &Path) -> Env {
    std::fs::write(credentials.join("rabbitmq-password"), "x").unwrap();
    Env::from([
        ("RABBITMQ_PASSWORD", "x".to_owned()),
        ("S3_SECRET", "x".to_owned()),
        ("RABBITMQ_URI", "rabbitmq-stream://h".to_owned()),
        ("INGEST_TOKEN", "x".to_owned()),
        ("CREDENTIALS_DIRECTORY", credentials.display().to_string()),
    ])
}

/// Whether the line is a key that is commented out: `#key = …`, without a space.
fn is_commented_key(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// The lines that are commented out, as runs of lines that belong together.
fn commented_runs(text: &str) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut last = None;
    for (i, _) in text.lines().enumerate().filter(|(_, line)| is_commented_key(line)) {
        match (runs.last_mut(), last) {
            (Some(run), Some(before)) if before + 1 == i => run.push(i),
            _ => runs.push(vec![i]),
        }
        last = Some(i);
    }
    runs
}

/// The text with these lines put into force. A line in force that sets the same key in the same
/// table, or that `uris` replaces, gives way.
fn put_into_force(text: &str, run: &[usize]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines[..run[0]].iter().rposition(|l| l.starts_with('[')).unwrap_or(0);
    let end =
        lines[run[0]..].iter().position(|l| l.starts_with('[')).map_or(lines.len(), |n| run[0] + n);
    let key = |line: &str| line.trim_start_matches('#').split(" =").next().unwrap_or("").to_owned();
    let mut replaced: BTreeSet<String> = run.iter().map(|i| key(lines[*i])).collect();
    if replaced.contains("uris") {
        replaced.insert("uri".to_owned());
    }
    let out = lines.iter().enumerate().map(|(i, line)| {
        if run.contains(&i) {
            &line[1..]
        } else if (start..end).contains(&i)
            && !line.starts_with('#')
            && replaced.contains(&key(line))
        {
            ""
        } else {
            line
        }
    });
    out.collect::<Vec<_>>().join("\n")
}

/// The paths of all keys, `[]` for any element of a list of tables.
fn paths(value: &serde_json::Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                paths(value, &path, out);
                out.insert(path);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| paths(value, &format!("{at}[]"), out));
        }
        _ => {}
    }
}

#[test]
fn the_reference_lists_every_key_and_no_other() {
    let text = reference();
    let runs = commented_runs(&text);
    assert!(runs.len() >= 5, "the commented keys were not found: {runs:?}");
    let variants = runs.iter().map(|run| put_into_force(&text, run)).chain([text.clone()]);
    let mut listed = BTreeSet::new();
    let creds = tempfile::tempdir().unwrap();
    for variant in variants {
        paths(&toml::from_str(&variant).unwrap(), "", &mut listed);
        let file = File::new(&variant);
        if let Err(error) = file.load(&env(creds.path())) {
            panic!("{error}\n{variant}");
        }
    }
    // Where a secret may come from is told once, in the head of the file.
    let secret =
        |path: &String| [".env", ".file", ".credential"].iter().any(|end| path.ends_with(end));
    // The keys of `dead_letter` are those of any sink.
    let again = |path: &String| path.starts_with("consumer[].dead_letter.");
    listed.retain(|path| !secret(path) && !again(path));
    let mut known = Tree::new().paths();
    known.retain(|path| !secret(path) && !again(path));
    // Of tables whose keys are the user's own, there has to be an example.
    let own: BTreeSet<String> =
        known.iter().filter_map(|path| path.strip_suffix('*').map(str::to_owned)).collect();
    let listed: BTreeSet<String> = listed
        .into_iter()
        .map(|path| match own.iter().find(|table| path.starts_with(table.as_str())) {
            Some(table) => format!("{table}*"),
            None => path,
        })
        .collect();
    assert!(known.len() > 40, "the schema was not walked: {known:?}");
    assert_eq!(
        (
            known.difference(&listed).collect::<Vec<_>>(),
            listed.difference(&known).collect::<Vec<_>>()
        ),
        (vec![], vec![]),
        "(keys that the reference leaves out, keys that it makes up)"
    );
    for place in ["{ env = ", "{ file = ", "{ credential = "] {
        assert!(text.contains(place), "{place}");
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let shown = File::new(&reference()).load(&Env::default()).unwrap();
    let least = r#"
        [[consumer]]
        name = "everything"
        stream = "events"
        sink = { type = "null" }
        [[consumer]]
        name = "to-stdout"
        stream = "events"
        sink = { type = "stdout" }
        [[consumer]]
        name = "to-files"
        stream = "events"
        sink = { type = "file", dir = "data" }
        [[consumer]]
        name = "to-sqlite"
        stream = "events"
        sink = { type = "sqlite", path = "data.db" }
        [[consumer]]
        name = "to-postgres"
        stream = "events"
        sink = { type = "postgres", url = "postgres://rillway@localhost/events", table = "events" }

        [[consumer]]
        name = "to-http"
        stream = "events"
        sink = { type = "http", url = "https://ingest.example/v1/events" }
        [[consumer]]
        name = "to-metrics"
        stream = "events"
        [consumer.sink]
        type = "metrics"
        [[consumer.sink.metrics]]
        name = "orders_total"
        type = "counter"
        help = "Orders received."
        labels = { region = "/region", channel = "application_properties.channel" }
        when = { "/type" = "order" }
        [[consumer.sink.metrics]]
        name = "order_amount"
        type = "histogram"
        help = "What orders are worth."
        value = "/amount"
        buckets = [10, 50, 100, 500, 1000]

        [[consumer]]
        name = "to-another-stream"
        stream = "events"
        sink = { type = "stream", stream = "events-copy" }

        [[consumer]]
        name = "to-objects"
        stream = "events"
        sink = { type = "object", url = "archive" }
    "#;
    let least = File::new(least);
    let mut defaults = least.load(&Env::default()).unwrap();
    // They come from different folders; nothing else may differ.
    let root = shown.path.as_ref().unwrap().parent().unwrap();
    defaults.state_dir = root.join(defaults.state_dir.strip_prefix(least.0.path()).unwrap());
    let moved = |path: &Path| root.join(path.strip_prefix(least.0.path()).unwrap());
    for consumer in &mut defaults.consumers {
        match &mut consumer.sink {
            SinkConfig::File(file) => file.dir = moved(&file.dir),
            SinkConfig::Sqlite(sqlite) => sqlite.path = moved(&sqlite.path),
            SinkConfig::Object(object) => {
                object.url = format!("file://{}", root.join("archive").display());
            }
            _ => {}
        }
    }
    defaults.path.clone_from(&shown.path);
    assert_eq!(shown, defaults);
}

#[test]
fn the_files_that_are_shipped_load() {
    let mut files = vec![folder().join("rillway.toml")];
    files.extend(std::fs::read_dir(folder().join("examples")).unwrap().map(|e| e.unwrap().path()));
    assert!(files.len() >= 4, "{files:?}");
    let creds = tempfile::tempdir().unwrap();
    for file in files {
        assert_eq!(file.extension().unwrap(), "toml", "{file:?}");
        if let Err(error) = Config::load(Some(&file), &env(creds.path())) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_demo_has_its_three_consumers() {
    let config = Config::load(Some(&folder().join("rillway.toml")), &Env::default()).unwrap();
    let seen: Vec<_> = config
        .consumers
        .iter()
        .map(|c| (c.name.as_str(), c.stream.as_str(), c.sink.kind(), c.start))
        .collect();
    assert_eq!(
        seen,
        [
            ("analytics", "events", "sqlite", Start::First),
            ("monitoring", "events", "metrics", Start::First),
            ("archiver", "events", "object", Start::First),
        ]
    );
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn undescribed(schema: &serde_json::Value, at: &str, out: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                if let Some(keys) = map.get("properties").and_then(|p| p.as_object()) {
                    for (key, schema) in keys {
                        let constant = schema.get("const").is_some();
                        if !constant && schema.get("description").is_none() {
                            out.push(format!("{at}.{key}"));
                        }
                    }
                }
                map.iter().for_each(|(key, value)| undescribed(value, &format!("{at}/{key}"), out));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| undescribed(v, at, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    undescribed(&schema::document(), "", &mut out);
    assert_eq!(out, Vec::<String>::new());
}
