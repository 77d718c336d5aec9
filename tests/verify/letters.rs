//! Messages that are not in the sink on purpose: dead letters, skipped ones, and those that a filter or
//! retention took.

use std::process::Stdio;

use super::{assert_same, consumer, differences, report};
use crate::common::broker::blocking;
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const TYPED: &str = "type = \"sqlite\", path = \"data.db\", columns = { n = { from = \"/n\", type = \"integer\" } }";

/// A bad message that became a dead letter is not missing, until the dead letter is gone; neither is one
/// that the destination refuses, which the sink's own code cannot know.
async fn dead_letters() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "letters").await;
    let bodies = ["{\"n\":1}", "no JSON", "{\"n\":3}", "{\"n\":-4}", "{\"n\":5}"];
    streams::publish(broker, &stream, bodies).await;
    let letters =
        "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead\" }\n";
    let text = consumer("c", &stream, &format!("{TYPED}, table = \"events\"")) + letters;
    let home = Home::new(&broker.uri(), &text);
    rusqlite::Connection::open(home.path("data.db"))
        .unwrap()
        .execute_batch(
            "CREATE TABLE events (stream TEXT, offset INTEGER, timestamp TEXT, n INTEGER CHECK (n > 0))",
        )
        .unwrap();
    let mut daemon = home.start();
    daemon.until_durable("c", 4).await;
    daemon.terminate().await;
    let (found, code) = report(&home, &["c"]);
    assert_same("with letters", &found, code);
    assert_eq!(found["dead_letters"]["ranges"], serde_json::json!([[1, 1], [3, 3]]), "{found:#}");
    assert_eq!(found["same"], 3, "{found:#}");
    std::fs::remove_dir_all(home.path("dead")).unwrap();
    let (found, code) = report(&home, &["c"]);
    assert_eq!((code, &*differences(&found)), (65, "missing [[1,1],[3,3]]"), "{found:#}");
    let why = found["missing_because"][0]["why"].as_str().unwrap();
    assert!(why.contains("no dead letter") && why.contains("column \"n\""), "{found:#}");
    // With another policy, what the sink cannot write is left out, and what it could is missing.
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace(letters, "on_bad_message = \"skip\"\nshow_values = false\n"),
    )
    .unwrap();
    let (found, code) = report(&home, &["c"]);
    assert_eq!((code, &*differences(&found)), (65, "missing [[3,3]]"), "{found:#}");
    assert_eq!(found["left_out"]["ranges"], serde_json::json!([[1, 1]]), "{found:#}");
    // Values are not shown where that is forbidden.
    rusqlite::Connection::open(home.path("data.db"))
        .unwrap()
        .execute_batch("UPDATE events SET n = 7654321 WHERE offset = 2")
        .unwrap();
    let (found, code) = report(&home, &["c"]);
    assert_eq!((code, &*differences(&found)), (65, "missing [[3,3]], altered [[2,2]]"));
    assert!(!found.to_string().contains("7654321"), "{found:#}");
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_told_apart() {
    or_skip!(dead_letters().await);
}

/// The daemon goes on: what becomes a dead letter while the dead letters are read lies behind the position that is
/// compared. The first of their files is a pipe that gives nothing until then.
async fn written_meanwhile() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "letters-live").await;
    let bodies = |n: std::ops::Range<u32>| {
        n.map(|n| if n % 2 == 0 { format!("{{\"n\":{n}}}") } else { format!("no JSON {n}") })
    };
    streams::publish(broker, &stream, bodies(0..40)).await;
    let letters = "on_bad_message = \"dead_letter\"\n\
                   dead_letter = { type = \"file\", dir = \"dead\", rotate_bytes = \"1KiB\" }\n";
    let text = consumer("c", &stream, &format!("{TYPED}, table = \"events\"")) + letters;
    // Several batches, however many messages come at once: a file is not ended within a batch.
    let text = text.replace("max_messages = 50", "max_messages = 5");
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    daemon.until_durable("c", 39).await;
    let first = home.segments("dead", &stream).remove(0);
    assert!(home.segments("dead", &stream).len() > 1, "the first one is written to");
    let content = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &first, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut command = home.command(&["verify", "c", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Returns when the other side opens it: it has listed the files by then.
    let mut pipe =
        blocking(move || std::fs::OpenOptions::new().write(true).open(first)).await.unwrap();
    streams::publish(broker, &stream, bodies(40..80)).await;
    daemon.until_durable("c", 79).await;
    std::io::Write::write_all(&mut pipe, &content).unwrap();
    drop(pipe);
    let output = blocking(move || child.wait_with_output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &report["streams"][0];
    assert_same(&said, found, output.status.code().unwrap());
    assert_eq!(
        (&found["to"], &found["dead_letters"]["count"]),
        (&39.into(), &20.into()),
        "{found:#}"
    );
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn dead_letters_that_are_written_meanwhile_are_not_missed() {
    or_skip!(written_meanwhile().await);
}

/// What the consumer's own filter leaves out is not missing; and it is not expected where it is.
async fn filtered() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "sieved").await;
    let body =
        |i: u32| format!("{{\"region\":\"{}\",\"i\":{i}}}", ["eu", "us", "asia"][i as usize % 3]);
    streams::publish(broker, &stream, (0..300).map(body)).await;
    let filter = |values: &str| {
        format!("filter = {{ values = [{values}], by = \"/region\", client_side = true }}\n")
    };
    let sink = "type = \"file\", dir = \"data\"";
    let text =
        consumer("c", &stream, sink).replace("start =", &(filter("\"eu\", \"us\"") + "start ="));
    let home = Home::new(&broker.uri(), &text);
    let daemon = home.start();
    // The broker may leave chunks out, so the position need not reach the end.
    home.until_landed(&daemon, "data", &stream, 200).await;
    daemon.terminate().await;
    let (found, code) = report(&home, &["c"]);
    assert_same("filtered", &found, code);
    assert_eq!(found["same"], 200, "{found:#}");
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"eu\", \"us\"", "\"eu\"")).unwrap();
    let (found, code) = report(&home, &["c"]);
    assert_eq!((code, &found["extra"]["count"]), (65, &100.into()), "{found:#}");
    assert!(found["extra_because"][0]["why"].as_str().unwrap().contains("filter"), "{found:#}");
    Ok(())
}

#[tokio::test]
async fn what_a_filter_leaves_out_is_not_missing() {
    or_skip!(filtered().await);
}

/// Retention took the beginning of the stream: that is said, and the rest is compared.
async fn without_beginning() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let arguments = [("max-length-bytes", "100000"), ("stream-max-segment-size-bytes", "50000")];
    let stream = streams::create_with(broker, "shortened", &arguments).await;
    let text = consumer("c", &stream, "type = \"file\", dir = \"data\"");
    let home = Home::new(&broker.uri(), &text);
    let mut daemon = home.start();
    let body = |i: u64| format!("{{\"i\":{i},\"filling\":{:?}}}", "x".repeat(1000));
    let mut total = 0;
    // Until retention has taken something that is in the sink.
    loop {
        streams::publish(broker, &stream, (total..total + 50).map(body)).await;
        total += 50;
        daemon.until_durable("c", total - 1).await;
        let first = crate::common::reading::offsets(broker, &stream).await[0];
        if first > 0 {
            break;
        }
        assert!(total < 5_000, "retention takes nothing");
    }
    daemon.terminate().await;
    let (found, code) = report(&home, &["c"]);
    assert_same("shortened", &found, code);
    let from = found["from"].as_u64().unwrap();
    assert!(from > 0 && found["same"] == total - from, "{found:#}");
    let note = found["notes"][0].as_str().unwrap();
    assert!(note.contains("retention has taken them"), "{found:#}");
    Ok(())
}

#[tokio::test]
async fn what_retention_took_is_said() {
    or_skip!(without_beginning().await);
}
