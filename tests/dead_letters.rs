//! Dead letters, end to end: bad messages are set aside, each once, and the others are written.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::reading::{messages, put};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};
use rillway::sink::conformance::{BAD_MESSAGE, message};
use rillway::wire::amqp::{Message, carried};

const MINUTE: Duration = Duration::from_secs(60);

/// A consumer into files, with this policy, in small batches.
fn consumer(stream: &str, policy: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"filer\"\nstream = \"{stream}\"\nsink = {sink}\n\
         batch = {{ max_messages = 7, max_age = \"20ms\" }}\n\
         commit = {{ every_messages = 10, every = \"50ms\" }}\n\
         restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n{policy}\n"
    )
}

const FILES: &str = "{ type = \"file\", dir = \"out\" }";
const TO_FILE: &str = "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead\", compression = \"zstd\", rotate_bytes = \"1KiB\" }";

/// Every tenth is bad, including the first and the last; no two bad ones are the same.
fn is_bad(offset: u64) -> bool {
    offset.is_multiple_of(10) || offset % 10 == 9
}

fn nth(offset: u64) -> Vec<u8> {
    if !is_bad(offset) {
        return message(format!("{{\"i\":{offset}}}").as_bytes());
    }
    match offset % 40 {
        0 => [BAD_MESSAGE, &offset.to_be_bytes()].concat(),
        // JSON that was published unchanged: a dead letter keeps its line breaks.
        9 => format!("{{\n  \"no\": \"AMQP\",\r\n  \"i\": {offset}\n}}").into_bytes(),
        10 => format!("plain {offset}").into_bytes(),
        _ => [0x00, 0x53, 0x75, 0xff].into_iter().chain(offset.to_be_bytes()).collect(),
    }
}

fn all(total: u64) -> Vec<Vec<u8>> {
    (0..total).map(nth).collect()
}

/// The bytes that a letter's line carries.
fn carried_by(line: &Value) -> Vec<u8> {
    let body = line["body"].as_str();
    match line["body_encoding"].as_str().unwrap() {
        "text" => body.unwrap().as_bytes().to_vec(),
        "base64" | "amqp" => {
            base64::engine::general_purpose::STANDARD.decode(body.unwrap()).unwrap()
        }
        other => panic!("{other}: {line}"),
    }
}

fn check_letters(home: &Home, stream: &str, total: u64) {
    let lines = home.lines("dead", stream);
    let offsets: Vec<u64> = lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (0..total).filter(|n| is_bad(*n)).collect::<Vec<_>>());
    for line in &lines {
        let (offset, why) = (line["offset"].as_u64().unwrap(), &line["message_annotations"]);
        assert_eq!(carried_by(line), nth(offset), "{line}");
        assert_eq!(why["x-rillway-reason"], "undecodable", "{line}");
        assert_eq!(why["x-rillway-consumer"], "filer");
        assert_eq!(why["x-rillway-stream"], stream);
        assert_eq!(why["x-rillway-offset"], offset);
        assert!(why["x-rillway-error"].as_str().unwrap().contains("AMQP"), "{line}");
        assert_eq!(why["x-rillway-timestamp"], line["timestamp"]);
    }
    let rest: Vec<u64> = (0..total).filter(|n| !is_bad(*n)).collect();
    assert_eq!(home.offsets("out", stream), rest);
}

#[tokio::test]
async fn bad_messages_go_into_files_and_the_rest_goes_on() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "dead").await;
            put(broker, &stream, &all(100)).await;
            let home = Home::new(&broker.uri(), &consumer(&stream, TO_FILE, FILES));
            let mut daemon = home.start();
            daemon.until_durable("filer", 99).await;
            let count = daemon
                .metric("rillway_dead_letter_messages_total", &["reason=\"undecodable\""])
                .await;
            assert_eq!(count, Some(20.0));
            let lost = daemon.metric("rillway_lost_messages_total", &["undecodable"]).await;
            assert_eq!(lost, Some(0.0));
            daemon.terminate().await;
            check_letters(&home, &stream, 100);
            let check = home.command(&["check"]).output().unwrap();
            let check = String::from_utf8(check.stdout).unwrap();
            assert!(check.contains("dead:       file, "), "{check}");
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn bad_messages_go_into_a_stream() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "dead-to-stream").await;
            put(broker, &stream, &all(500)).await;
            let target = format!("{stream}-dead");
            let policy = format!(
                "on_bad_message = \"dead_letter\"\ndead_letter = {{ type = \"stream\", stream = \"{target}\", create = true }}"
            );
            let home = Home::new(&broker.uri(), &consumer(&stream, &policy, FILES));
            let mut deaths = 0;
            for point in ["written:2", "flushed:3", "committed:1"] {
                let daemon = home.start_with_fault(&format!("die@{point}"));
                deaths += usize::from(daemon.died_or_done(&["filer"], 499).await);
            }
            assert!(deaths >= 1, "the first point is always reached");
            let mut daemon = home.start();
            daemon.until_durable("filer", 499).await;
            daemon.terminate().await;
            let letters = messages(broker, &target).await;
            let bad: Vec<u64> = (0..500).filter(|n| is_bad(*n)).collect();
            assert_eq!(letters.len(), bad.len());
            for (letter, offset) in letters.iter().zip(bad) {
                let letter = Message::parse(letter).unwrap();
                assert_eq!(&*carried(&letter).unwrap(), nth(offset));
            }
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// At each point, in the sink and in the dead letters' own sink, early and late.
#[tokio::test]
async fn killed_at_any_point_each_bad_message_is_set_aside_once() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "dead-crash").await;
            let total = 600;
            put(broker, &stream, &all(total)).await;
            let home = Home::new(&broker.uri(), &consumer(&stream, TO_FILE, FILES));
            for nth in [1, 2, 3, 6] {
                for point in ["received", "written", "flushed", "committed", "offset_stored"] {
                    // If the point is not passed that often, the daemon ends with the work done, or is
                    // ended here.
                    let daemon = home.start_with_fault(&format!("die@{point}:{nth}"));
                    eventually("it died, or is done", MINUTE, || async {
                        let written = home.segments("out", &stream).pop();
                        let text = written.map(|path| std::fs::read_to_string(path).unwrap());
                        let last = format!("\"offset\":{},", total - 2);
                        // It may still be writing: a line without an end does not count.
                        let done = text.is_some_and(|text| {
                            text.rsplit_once('\n').is_some_and(|(whole, _)| whole.contains(&last))
                        });
                        let gone = !std::path::Path::new(&format!("/proc/{}/stat", daemon.pid()))
                            .exists()
                            || std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))
                                .unwrap_or_default()
                                .contains(") Z ");
                        (done || gone).then_some(())
                    })
                    .await;
                }
            }
            let mut daemon = home.start();
            daemon.until_durable("filer", total - 1).await;
            daemon.terminate().await;
            check_letters(&home, &stream, total);
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn a_consumer_waits_for_the_sink_of_its_letters() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "dead-waits").await;
            put(broker, &stream, &all(20)).await;
            let target = format!("{stream}-dead");
            let policy = format!(
                "on_bad_message = \"dead_letter\"\ndead_letter = {{ type = \"stream\", stream = \"{target}\" }}"
            );
            let other = format!("[[consumer]]\nname = \"other\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n");
            let text = consumer(&stream, &policy, FILES) + &other;
            let home = Home::new(&broker.uri(), &text);
            let mut daemon = home.start();
            daemon
                .until("filer", "it says what it waits for", MINUTE, |c| {
                    c.to_string().contains("dead letters: publishing to stream")
                })
                .await;
            daemon.until_durable("other", 19).await;
            assert_eq!(home.offsets("out", &stream), [] as [u64; 0]);
            streams::create_named(broker, &target, &[]).await;
            daemon.until_durable("filer", 19).await;
            daemon.terminate().await;
            assert_eq!(messages(broker, &target).await.len(), 4);
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// The output of `rillway dead-letters …`, as JSON.
fn ask(home: &Home, verb: &str) -> Value {
    let output = home.command(&["dead-letters", verb, "filer", "--json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer: Value = serde_json::from_slice(&output.stdout).expect(&told);
    let stay = answer["still_bad"].as_array().is_some_and(|bad| !bad.is_empty());
    assert_eq!(output.status.code(), Some(if stay { 69 } else { 0 }), "{told}");
    assert_eq!(told.contains("the sink still refuses"), stay, "{told}");
    answer
}

/// Makes dead letters: a consumer into files, with this policy, reads the stream to its end.
async fn letters_of(home: &Home, total: u64) {
    let mut daemon = home.start();
    daemon.until_durable("filer", total - 1).await;
    daemon.terminate().await;
}

fn configure(home: &Home, broker: &Broker, consumers: &str) {
    home.configure(&format!("uri = \"{}\"\nheartbeat = \"30s\"", broker.uri()), consumers);
}

/// Dead letters in files and in a stream are replayed into a sink that takes anything, and interrupted at
/// each point: each message arrives once, unchanged, and a repeated replay does nothing.
async fn replayed(policy: &str, label: &str, keys: &str) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, label).await;
    put(broker, &stream, &all(60)).await;
    let policy = policy.replace("LETTERS", &format!("{stream}-dead"));
    let home = Home::new(&broker.uri(), &consumer(&stream, &policy, FILES));
    letters_of(&home, 60).await;
    let listed = ask(&home, "list");
    assert_eq!((&listed["letters"], &listed["reasons"]["undecodable"]), (&12.into(), &12.into()));
    assert_eq!((&listed["first_offset"], &listed["last_offset"]), (&0.into(), &59.into()));

    // The sink that refused them still does: that is reported, and they stay.
    let refused = ask(&home, "replay");
    let bad: Vec<u64> = (0..60).filter(|n| is_bad(*n)).collect();
    assert_eq!(refused["replayed"], 0);
    assert_eq!(refused["still_bad"], serde_json::json!(bad));
    assert!(refused["first_error"].as_str().unwrap().contains("AMQP"), "{refused}");

    let target = format!("{stream}-mended");
    let sink = format!(
        "{{ type = \"stream\", stream = \"{target}\", create = true, in_flight = 6{keys} }}"
    );
    configure(&home, broker, &consumer(&stream, &policy, &sink));
    for point in ["written:1", "written:2", "flushed:1"] {
        let mut replay = home.command(&["dead-letters", "replay", "filer"]);
        let died = replay.env("RILLWAY_FAULT", format!("die@{point}")).output().unwrap();
        assert!(!died.status.success(), "{point}: {}", String::from_utf8_lossy(&died.stdout));
    }
    let done = ask(&home, "replay");
    assert_eq!(done["still_bad"], serde_json::json!([]), "{done}");
    let counted = done["replayed"].as_u64().unwrap() + done["done_before"].as_u64().unwrap();
    assert_eq!(counted, 12, "{done}");
    let expected: Vec<Vec<u8>> = bad.iter().map(|offset| nth(*offset)).collect();
    assert_eq!(messages(broker, &target).await, expected);
    let again = ask(&home, "replay");
    assert_eq!((&again["replayed"], &again["done_before"]), (&0.into(), &0.into()));
    assert_eq!(messages(broker, &target).await.len(), 12);

    // Later dead letters are for a later replay; the daemon runs all the time.
    configure(&home, broker, &consumer(&stream, &policy, FILES));
    put(broker, &stream, &(60..80).map(nth).collect::<Vec<_>>()).await;
    let mut daemon = home.start();
    let end = daemon
        .until("filer", "all is read", MINUTE, |c| {
            c["lag_messages"] == 0 && c["durable_offset"].as_u64() > Some(75)
        })
        .await;
    assert_eq!(end["state"], "running");
    configure(&home, broker, &consumer(&stream, &policy, &sink));
    assert_eq!(ask(&home, "replay")["replayed"], 4);
    assert_eq!(messages(broker, &target).await.len(), 16);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn letters_in_files_are_replayed() {
    or_skip!(replayed(TO_FILE, "replay-files", "").await);
}

#[tokio::test]
async fn letters_in_a_stream_are_replayed() {
    let policy = "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"stream\", stream = \"LETTERS\", create = true }";
    // The longest name that `check` accepts; the replay's own name is longer.
    let keys = format!(", publisher = \"{}\"", "p".repeat(244));
    or_skip!(replayed(policy, "replay-stream", &keys).await);
}

#[tokio::test]
async fn what_cannot_be_replayed_says_why() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let home = Home::new(&broker.uri(), &consumer("any", "", FILES));
            for (name, says) in
                [("filer", "has no dead letters"), ("nobody", "there is no consumer \"nobody\"")]
            {
                let output = home.command(&["dead-letters", "replay", name]).output().unwrap();
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(64), "{told}");
                assert!(told.contains(says), "{told}");
            }
            Ok::<(), Unavailable>(())
        }
        .await
    );
}
