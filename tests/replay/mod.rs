//! `rillway replay`: is exactly the range written, each message once however often the replay is killed,
//! and does the consumer notice nothing?

mod places;
mod refusals;
mod upserted;
mod whole;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::common::broker::blocking;
use crate::common::daemon::Home;
use crate::common::skip::Unavailable;
use crate::common::{Broker, Version, streams};

const SOON: Duration = Duration::from_secs(60);

/// Messages before, within and behind the hour that is replayed.
const BEFORE: u64 = 300;
const HOUR: u64 = 1_200;
const BEHIND: u64 = 300;
const TOTAL: u64 = BEFORE + HOUR + BEHIND;

fn body(nth: u64) -> String {
    format!(
        "{{\"nth\":{nth},\"kind\":\"{}\"}}",
        if nth.is_multiple_of(3) { "third" } else { "other" }
    )
}

fn hour() -> Vec<u64> {
    (BEFORE..BEFORE + HOUR).collect()
}

/// A stream whose parts are written at different times.
async fn stream(broker: &Broker, label: &str) -> String {
    let stream = streams::create(broker, label).await;
    let now = rillway::types::Timestamp::now;
    for part in [0..BEFORE, BEFORE..BEFORE + HOUR, BEFORE + HOUR..TOTAL] {
        streams::publish(broker, &stream, part.map(body)).await;
        let done = now();
        while now().0 <= done.0 + 2 {
            tokio::task::yield_now().await;
        }
    }
    stream
}

/// A consumer with small batches, which commits often.
fn consumer(stream: &str, sink: &str, more: &str) -> String {
    format!(
        "[[consumer]]\nname = \"it\"\nstream = \"{stream}\"\nsink = {sink}\n\
         batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
         commit = {{ every_messages = 100, every = \"50ms\" }}\n\
         restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n{more}\n"
    )
}

async fn output(mut command: Command) -> Output {
    blocking(move || command.output()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `rillway replay it ARGUMENTS`.
async fn replay(home: &Home, arguments: &[&str]) -> Output {
    output(home.command(&[&["replay", "it"], arguments].concat())).await
}

/// The summary of a run that ended well.
fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs it until it is done, and kills it at every stage of a write on the way. Returns how often.
async fn killed(home: &Home, arguments: &[&str]) -> usize {
    // Not every sink passes all of them.
    const POINTS: [&str; 6] =
        ["committed:1", "received:2", "committed:1", "written:2", "flushed:2", "received:3"];
    for kills in 0..100 {
        let mut command = home.command(&[&["replay", "it"], arguments].concat());
        command.env("RILLWAY_FAULT", format!("die@{}", POINTS[kills % 6]));
        let output = output(command).await;
        if output.status.success() {
            return kills;
        }
        assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
    }
    panic!("not done after 100 kills");
}

/// The times of the first and the last message of the hour.
async fn times(broker: &Broker, stream: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rillway"));
    command.args(["tail", stream, "--until", "end", "--json", "--broker", &broker.uri()]);
    let output = output(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let time = |offset: u64| {
        let line = text.lines().nth(usize::try_from(offset).unwrap()).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["offset"], offset);
        format!("time:{}", line["timestamp"].as_str().unwrap())
    };
    let (first, last) = (time(BEFORE), time(BEFORE + HOUR - 1));
    assert!(time(BEFORE - 1) < first && last < time(BEFORE + HOUR), "{first} {last}");
    (first, last)
}

/// The files below a folder with their content.
fn files(folder: PathBuf) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = crate::object::archive::files(&folder).into_iter();
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The folder in the home whose name begins like this.
fn folder(home: &Home, prefix: &str) -> String {
    let names = std::fs::read_dir(home.path(".")).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix))
        .collect();
    assert_eq!(names.len(), 1, "{prefix}: {names:?}");
    names.remove(0)
}

/// An hour is replayed, with kills, beside the consumer, which runs. `more` are further arguments;
/// `prepare` runs before, and `landed` gives the offsets that are in the replay's place.
async fn beside_the_consumer(
    version: Version,
    sink: impl Fn(&str) -> String,
    more: &[&str],
    prepare: impl AsyncFn(&Home, &str),
    landed: impl AsyncFn(&Home, &str) -> Vec<u64>,
) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = stream(broker, "replay").await;
    let (from, to) = times(broker, &stream).await;
    let home = Home::new(&broker.uri(), &consumer(&stream, &sink(&stream), ""));
    let mut daemon = home.start();
    daemon.until_durable("it", TOTAL - 1).await;
    let stored = crate::common::eventually("the offset is stored", SOON, || async {
        streams::stored_offset(broker, &stream, "it").await.filter(|at| *at == TOTAL - 1)
    })
    .await;
    prepare(&home, &stream).await;
    // It is written behind the offset.
    let state = crate::common::eventually("the position is in the state file", SOON, || async {
        let files = files(home.path("state"));
        let is_there = |text: &Vec<u8>| String::from_utf8_lossy(text).contains("\"offset\": 1799");
        files.values().any(is_there).then_some(files)
    })
    .await;
    let arguments = [&["--from", from.as_str(), "--to", to.as_str()], more].concat();
    let kills = killed(&home, &arguments).await;
    assert!(kills >= 3, "only {kills} kills");
    assert_eq!(landed(&home, &stream).await, hour());
    // Nothing of the consumer has changed, and nothing of the replay is left.
    assert_eq!(files(home.path("state")), state);
    assert_eq!(streams::stored_offset(broker, &stream, "it").await, Some(stored));
    let own = daemon.consumer("it").await.unwrap();
    assert_eq!((&own["state"], &own["restarts"]), (&"running".into(), &0.into()), "{own}");
    daemon.terminate().await;
    Ok(())
}
