//! What an operator does, in each sink that keeps a position: a seek while it runs, a reset to the first message, a
//! move to offset 0, and a replay of an hour. `verify` tells exactly what is there twice by that.
//! (One record that was deleted, one altered and one doubled: [`altered`](super::altered).)

use std::time::Duration;

use serde_json::Value;

use super::{differences, report};
use crate::common::daemon::{Daemon, Home};
use crate::common::postgres::Postgres;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, next_millisecond, streams};

const SOON: Duration = Duration::from_secs(60);

/// A sink, and what is in it more than once, with the number of copies too many, after each step.
struct Case {
    name: &'static str,
    sink: String,
    /// After a seek to 40, a reset, a move to 0, and a replay of 30 to 69.
    doubled: [(&'static str, u64); 4],
    /// True if a replay goes among the consumer's own.
    appends: bool,
}

const NOTHING: (&str, u64) = ("", 0);
const SOUGHT: (&str, u64) = ("doubled [[40,99]]", 60);
const ALL: &str = "doubled [[0,99]]";

fn cases(stream: &str, url: &str, schema: &str) -> [Case; 5] {
    let again = [SOUGHT, (ALL, 160), (ALL, 260), (ALL, 300)];
    let case = |name, sink, doubled, appends| Case { name, sink, doubled, appends };
    [
        // What lies behind the new position is put aside: only the seek into the middle of a file leaves messages
        // there twice.
        case(
            "file",
            "type = \"file\", dir = \"file\"".to_owned(),
            [SOUGHT, NOTHING, NOTHING, NOTHING],
            false,
        ),
        case(
            "lite",
            "type = \"sqlite\", path = \"data.db\", table = \"t\"".to_owned(),
            again,
            true,
        ),
        case(
            "pg",
            format!("type = \"postgres\", url = \"{url}\", schema = \"{schema}\", table = \"t\""),
            again,
            true,
        ),
        case(
            "archive",
            "type = \"object\", url = \"file:archive\", rotate_records = 20".to_owned(),
            [SOUGHT, (ALL, 160), (ALL, 260), (ALL, 260)],
            false,
        ),
        case(
            "copy",
            format!(
                "type = \"stream\", stream = \"{stream}-copy\", create = true, annotate = true"
            ),
            again,
            true,
        ),
    ]
}

/// Runs a command of the program that succeeds.
fn done(home: &Home, arguments: &[&str]) {
    let output = home.command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until so many messages were received for each by this process; what it has begun, it writes at its end.
async fn until_received(daemon: &Daemon, cases: &[Case], total: u64) {
    for case in cases {
        let consumer = format!("consumer=\"{}\"", case.name);
        eventually(&format!("{total} messages are received for {}", case.name), SOON, || async {
            let counted = daemon.metric("rillway_received_messages_total", &[&*consumer]).await;
            counted.filter(|counted| *counted >= total as f64)
        })
        .await;
    }
}

#[track_caller]
fn assert_told(home: &Home, cases: &[Case], step: usize) {
    for case in cases {
        let (found, code) = report(home, &[case.name]);
        let (told, copies) = case.doubled[step];
        let expected = (if copies == 0 { 0 } else { 65 }, told.to_owned(), Value::from(copies));
        let found_is = (code, differences(&found), found["surplus_copies"].clone());
        assert_eq!(found_is, expected, "step {step}, {}: {found:#}", case.name);
        assert_eq!(found["same"], 100, "step {step}, {}: {found:#}", case.name);
    }
}

async fn each_is_exact() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let (schema, url) = (postgres.schema().await, postgres.url());
    let stream = streams::create(broker, "verified-moves").await;
    let mut times = Vec::new();
    for hour in [0..30_u64, 30..70, 70..100] {
        times.push(format!("time:{}", next_millisecond().await));
        streams::publish(broker, &stream, hour.map(|n| format!("{{\"n\":{n}}}"))).await;
    }
    let cases = cases(&stream, &url, &schema);
    // Nothing is stored before the end: a stored offset takes an offset of the stream.
    let one = |case: &Case| {
        super::consumer(case.name, &stream, &case.sink)
            + "commit = { every = \"1h\", every_messages = 1000000000 }\n"
    };
    let text: String = cases.iter().map(one).collect();
    let home = Home::new(&broker.uri(), &text);
    let daemon = home.start();
    until_received(&daemon, &cases, 100).await;
    for case in &cases {
        done(&home, &["seek", case.name, "--to", "offset:40"]);
    }
    until_received(&daemon, &cases, 160).await;
    daemon.terminate().await;
    assert_told(&home, &cases, 0);
    for (step, verb) in [(1, &["offsets", "reset"][..]), (2, &["offsets", "set"])] {
        for case in &cases {
            let to: &[&str] = if step == 2 { &["--to", "offset:0"] } else { &[] };
            done(&home, &[verb, &[case.name], to].concat());
        }
        let daemon = home.start();
        until_received(&daemon, &cases, 100).await;
        daemon.terminate().await;
        assert_told(&home, &cases, step);
    }
    for case in &cases {
        let append: &[&str] = if case.appends { &["--append"] } else { &[] };
        let hour = ["replay", case.name, "--from", &times[1], "--to", &times[2]];
        done(&home, &[&hour, append].concat());
    }
    assert_told(&home, &cases, 3);
    Ok(())
}

#[tokio::test]
async fn moves_and_replays_are_exact_in_each_sink() {
    or_skip!(each_is_exact().await);
}
