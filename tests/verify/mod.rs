//! `rillway verify`: is a sink that holds everything found to be the same, whatever the messages are; and is
//! exactly what was deleted, altered or doubled found, with its offset, in each sink that can be verified?

mod altered;
mod letters;
mod moved;
mod programs;
mod same;
mod stopped;
mod streams_of;
mod times;
mod upserted;

use std::process::Output;

use serde_json::Value;

use crate::common::daemon::Home;

/// A consumer with small batches.
fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nstart = \"first\"\n\
         batch = {{ max_messages = 50, max_age = \"20ms\" }}\nsink = {{ {sink} }}\n"
    )
}

fn verify(home: &Home, arguments: &[&str]) -> Output {
    home.command(&[&["verify"], arguments].concat()).output().unwrap()
}

/// The report of the only stream, and the exit code.
fn report(home: &Home, arguments: &[&str]) -> (Value, i32) {
    let (report, code) = whole_report(home, arguments);
    let streams = report["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 1, "{report}");
    (streams[0].clone(), code)
}

fn whole_report(home: &Home, arguments: &[&str]) -> (Value, i32) {
    let output = verify(home, &[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report: Value = report.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    (report, output.status.code().unwrap())
}

/// The offsets of each kind of difference, as text.
fn differences(report: &Value) -> String {
    ["missing", "doubled", "altered", "misplaced", "extra"]
        .into_iter()
        .filter(|kind| report[kind]["count"] != 0)
        .map(|kind| format!("{kind} {}", report[kind]["ranges"]))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Fails with the report if the sink differs, or was not compared as a whole.
fn assert_same(name: &str, report: &Value, code: i32) {
    assert_eq!((code, differences(report).as_str()), (0, ""), "{name}: {report:#}");
    assert_eq!(report["unreadable"]["count"], 0, "{name}: {report:#}");
}
