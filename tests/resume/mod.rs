//! Where does a consumer with a position continue? Exactly after it; if the stream does not confirm the
//! position, nowhere, unless a policy allows it.
//!
//! - [`beginnings`]: no position yet
//! - [`positions`]: which of the positions counts, and what both independent clients read
//! - [`doubt`]: a stream that seems to end below the position
//! - [`figures`]: what is shown of a re-created stream
//! - [`lost`]: retention, an end that is too low, re-created streams
//! - [`restarted`]: a sink that dies before its first commit
//! - [`unanswered`]: a broker that does not answer what is stored

mod beginnings;
mod doubt;
mod figures;
mod lost;
mod positions;
mod restarted;
mod unanswered;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::daemon::Home;

const FILE: &str = r#"{ type = "file", dir = "out" }"#;
const STDOUT: &str = r#"{ type = "stdout" }"#;
const NULL: &str = r#"{ type = "null" }"#;

/// A consumer that stores its offset only when it ends: a stored offset takes an offset of the stream.
/// `more` are further keys.
fn consumer(name: &str, stream: &str, sink: &str, more: &str) -> String {
    format!(
        r#"
        [[consumer]]
        name = "{name}"
        stream = "{stream}"
        commit = {{ every = "1h", every_messages = 1000000000 }}
        batch = {{ max_age = "50ms" }}
        restart = {{ min_backoff = "20ms", max_backoff = "100ms" }}
        sink = {sink}
        {more}
        "#
    )
}

fn bodies(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|nth| format!("message {nth}")).collect()
}

/// The lines that a stdout sink printed, over all runs.
fn printed(home: &Home) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path("stdout")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn offsets(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect()
}

fn body_texts(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["body"].as_str().unwrap().to_owned()).collect()
}

/// Where each consumer would resume according to `rillway check --connect`, by its name. Also checks that
/// this changed nothing in the folder.
async fn forecast(home: &Home) -> BTreeMap<String, String> {
    let before = everything_in(home);
    let mut command = home.command(&["check", "--connect", "--json"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(before, everything_in(home), "check changed something");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |consumer: &Value| {
        let text = |key: &str| consumer["resume"][key].as_str().unwrap().to_owned();
        let name = consumer["name"].as_str().unwrap().to_owned();
        (name, format!("{} ({})", text("position"), text("why")))
    };
    plan["consumers"].as_array().unwrap().iter().map(of).collect()
}

/// Every file and folder with its content.
fn everything_in(home: &Home) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                found.insert(path, None);
            } else {
                found.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&home.path(""), &mut found);
    found
}

/// Checks that each of these words is in the text.
#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}
