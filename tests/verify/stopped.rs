//! Ctrl-C: ends at once, with what was found so far.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// The second segment is a pipe that gives nothing: the first one was read when it is opened.
async fn amid_files() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "stopped").await;
    let text = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nstart = \"first\"\n\
         sink = {{ type = \"file\", dir = \"data\", rotate_bytes = \"1MiB\" }}\n"
    );
    let home = Home::new(&broker.uri(), &text);
    let body = |i: u64| format!("{{\"i\":{i},\"filling\":\"{}\"}}", "x".repeat(500));
    for messages in [0..3_000, 3_000..3_010] {
        let last = messages.end - 1;
        streams::publish(broker, &stream, messages.map(body)).await;
        let mut daemon = home.start();
        daemon.until_durable("c", last).await;
        daemon.terminate().await;
    }
    let segments = home.segments("data", &stream);
    let last = segments.last().unwrap();
    assert!(segments.len() > 1, "{segments:?}");
    std::fs::remove_file(last).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, last, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut command = home.command(&["verify", "c", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Returns when the other side opens it.
    let writer = std::fs::OpenOptions::new().write(true).open(last).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    drop(writer);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("stopped before the end: nothing differs"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (found, complete) = (&report["streams"][0], &report["complete"]);
    assert_eq!((complete, &found["complete"]), (&false.into(), &false.into()), "{report:#}");
    // How far it got depends on the machine; what was not compared is not missing.
    assert!(found["same"].as_u64() < Some(3_010), "{report:#}");
    assert_eq!(found["missing"]["count"], 0, "{report:#}");
    Ok(())
}

#[tokio::test]
async fn an_interrupted_audit_says_how_far_it_got() {
    or_skip!(amid_files().await);
}
