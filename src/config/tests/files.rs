//! The files of `config/`: they load, and the reference leaves nothing out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::keys::RootKeys;
use crate::config::schema::Tree;
use crate::otlp::IS_BUILT;
use crate::sink::declaration::About;
use crate::sink::registry::SINKS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn reference() -> String {
    std::fs::read_to_string(folder().join("reference.toml")).unwrap()
}

/// Files that the configurations refer to.
fn env(credentials: &Path) -> Env {
    std::fs::write(credentials.join("rabbitmq-password"), "x").unwrap();
    Env::from([
        ("RABBITMQ_PASSWORD", "x".to_owned()),
        ("S3_SECRET", "x".to_owned()),
        ("RABBITMQ_URI", "rabbitmq-stream://h".to_owned()),
        ("INGEST_TOKEN", "x".to_owned()),
        ("ADMIN_TOKEN", "x".repeat(64)),
        ("CREDENTIALS_DIRECTORY", credentials.display().to_string()),
    ])
}

/// True if the line is a key that is commented out: `#key = …`, without a space.
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
/// table, or that `uris`, `super_stream` or `references` replaces, gives way.
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
    if replaced.contains("super_stream") {
        replaced.insert("stream".to_owned());
    }
    if replaced.contains("references") {
        replaced.insert("reference".to_owned());
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
        match file.load(&env(creds.path())) {
            Ok(_) => {}
            Err(error) if !IS_BUILT && error.to_string().contains("without OpenTelemetry") => {}
            Err(error) => panic!("{error}\n{variant}"),
        }
    }
    // Where a secret may come from is told once, in the head of the file.
    let secret =
        |path: &String| [".env", ".file", ".credential"].iter().any(|end| path.ends_with(end));
    // The keys of `dead_letter` are those of any sink.
    let again = |path: &String| path.starts_with("consumer[].dead_letter.");
    listed.retain(|path| !secret(path) && !again(path));
    let mut known = Tree::of::<RootKeys>().paths();
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

/// The least that the consumer of a sink's part of the reference could be written as.
fn least(about: &About) -> String {
    let name = about.reference.lines().find(|line| line.starts_with("name = ")).unwrap();
    let stream = about.reference.lines().find(|line| line.starts_with("stream = ")).unwrap();
    let (kind, least) = (about.kind, about.least);
    format!("[[consumer]]\n{name}\n{stream}\n[consumer.sink]\ntype = {kind:?}\n{least}\n")
}

#[test]
fn the_reference_shows_the_defaults() {
    let file = File::new(&reference());
    let shown = file.load(&Env::default()).unwrap();
    let first = "[[watch]]\nstream = \"events\"\nreference = \"billing\"\n\
                 [[consumer]]\nname = \"everything\"\nstream = \"events\"\n\
                 sink = { type = \"null\" }\n";
    let sinks: String = SINKS.iter().map(|about| least(about())).collect();
    std::fs::write(file.path(), format!("{first}{sinks}")).unwrap();
    let defaults = file.load(&Env::default()).unwrap();
    assert_eq!(shown, Config { sha256: shown.sha256.clone(), ..defaults });
    assert_eq!(shown.consumers.len(), 1 + SINKS.len());
}

/// The text before the parts of the sinks in the reference.
const PARTS: &str = "put together from src/sink/*/reference.toml.\n\n";

#[test]
fn the_reference_has_each_sinks_own_part() {
    let text = reference();
    let head = &text
        [..text.find(PARTS).expect("the line that tells where the parts come from") + PARTS.len()];
    let parts: Vec<&str> = SINKS.iter().map(|about| about().reference).collect();
    let wanted = format!("{head}{}", parts.join("\n"));
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(folder().join("reference.toml"), &wanted).unwrap();
        return;
    }
    assert!(
        text == wanted,
        "config/reference.toml differs from the parts in src/sink/*/reference.toml: put it together with \
         UPDATE_REFERENCE=1 cargo test --lib reference"
    );
}

#[test]
fn each_sinks_part_is_of_that_sink() {
    for about in SINKS.iter().map(|about| about()) {
        let kind = format!("\ntype = {:?}\n", about.kind);
        assert!(about.reference.contains(&kind), "{}", about.kind);
        let guarantee = about.guarantee.to_string();
        let told = about.reference.to_ascii_lowercase();
        assert!(told.contains(&guarantee), "the part of {} does not say {guarantee}", about.kind);
    }
}

#[test]
fn the_files_that_are_shipped_load() {
    let mut files = vec![folder().join("rillway.toml"), folder().join("super.toml")];
    files.extend(std::fs::read_dir(folder().join("examples")).unwrap().map(|e| e.unwrap().path()));
    assert!(files.len() >= 5, "{files:?}");
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
                for (key, value) in map {
                    let at = format!("{at}/{key}");
                    match value.as_object().filter(|_| key == "properties") {
                        // One of them may have this name too.
                        Some(keys) => {
                            keys.values().for_each(|schema| undescribed(schema, &at, out))
                        }
                        None => undescribed(value, &at, out),
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| undescribed(v, at, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    undescribed(&document(), "", &mut out);
    assert_eq!(out, Vec::<String>::new());
}
