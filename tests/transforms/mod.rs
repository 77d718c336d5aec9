//! `where` and `map` against real brokers: do exactly the messages kept arrive, as they were made, in every
//! kind of sink, whatever the policy for those on which a program fails; and is nothing else kept waiting by
//! a program without an end?

mod cases;
mod kills;
mod kinds;
mod skipping;

use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::reading::put;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};
use rillway::sink::conformance::message;

const LONG: Duration = Duration::from_secs(60);

const PROGRAMS: &str =
    "where = '.region == \"eu\"'\nmap = '{n, price: .price, at: $message.offset}'\n";

/// A consumer of this sink, in small batches.
fn consumer(name: &str, stream: &str, keys: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n{keys}\n\
         batch = {{ max_messages = 50, max_age = \"50ms\" }}\n\
         commit = {{ every = \"100ms\" }}\n\
         restart = {{ min_backoff = \"20ms\", max_backoff = \"200ms\" }}\nsink = {sink}\n"
    )
}

fn is_kept(offset: u64) -> bool {
    offset % 3 == 1
}

/// Every third is of the region that is kept. The price has digits that no float has.
fn nth(offset: u64) -> Vec<u8> {
    let region = if is_kept(offset) { "eu" } else { "us" };
    let body = format!(
        "{{\"region\":{region:?},\"n\":{offset},\"price\":{offset}.10000000000000000001,\"x\":[1]}}"
    );
    message(body.as_bytes())
}

fn all(total: u64) -> Vec<Vec<u8>> {
    (0..total).map(nth).collect()
}

/// The body that `PROGRAMS` makes.
fn made(offset: u64) -> String {
    format!("{{\"n\":{offset},\"price\":{offset}.10000000000000000001,\"at\":{offset}}}")
}

fn kept(total: u64) -> Vec<u64> {
    (0..total).filter(|offset| is_kept(*offset)).collect()
}

/// What each policy does with messages on which the program fails, and what the log and the API say.
#[tokio::test]
async fn policies_for_what_a_program_fails_on() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "programs").await;
            let mut messages = all(20);
            messages[7] = message(b"no JSON");
            messages[10] = message(b"{\"region\":\"eu\",\"n\":\"ten\"}");
            put(broker, &stream, &messages).await;
            let programs = "where = '.region == \"eu\"'\nmap = '{n: (.n + 1)}'\n";
            let file = |name: &str| format!("{{ type = \"file\", dir = \"{name}\" }}");
            let policy = |policy: &str| format!("{programs}on_bad_message = \"{policy}\"");
            let letters = format!("{}\ndead_letter = {}", policy("dead_letter"), file("dead"));
            let consumers = [
                consumer("halts", &stream, programs, &file("halts")),
                consumer("skips", &stream, &policy("skip"), &file("skips")),
                consumer("letters", &stream, &letters, &file("letters")),
            ];
            let home = Home::new(&broker.uri(), &consumers.concat());
            let mut daemon = home.start();
            for name in ["skips", "letters"] {
                daemon.until_durable(name, 19).await;
            }
            let reason = daemon.until_halted("halts").await;
            assert!(
                reason.contains("offset 7 cannot be written: `where`: the body is not JSON"),
                "{reason}"
            );
            let wanted = [1, 4, 13, 16, 19];
            assert_eq!(home.offsets("skips", &stream), wanted);
            assert_eq!(home.offsets("letters", &stream), wanted);
            assert_eq!(home.offsets("halts", &stream), [1, 4]);
            assert_eq!(home.lines("skips", &stream)[1]["body"], serde_json::json!({"n": 5}));
            // As they were published, with the program's own error.
            let dead = home.lines("dead", &stream);
            let says: Vec<_> = dead
                .iter()
                .map(|line| {
                    let why = line["message_annotations"]["x-rillway-error"].as_str().unwrap();
                    assert_eq!(line["message_annotations"]["x-rillway-reason"], "program");
                    (line["offset"].as_u64().unwrap(), published(line), why.to_owned())
                })
                .collect();
            assert_eq!(says[0].0, 7);
            assert!(
                says[0].1.contains("no JSON")
                    && says[0].2.starts_with("`where`: the body is not JSON")
            );
            assert_eq!(says[1].0, 10);
            assert_eq!(says[1].2, "`map`: cannot calculate \"ten\" + 1");
            let dropped = "rillway_where_dropped_messages_total";
            assert_eq!(daemon.metric(dropped, &["consumer=\"skips\""]).await, Some(13.0));
            let lost = ["consumer=\"skips\"", "reason=\"program\""];
            assert_eq!(daemon.metric("rillway_lost_messages_total", &lost).await, Some(2.0));
            daemon.terminate().await;
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// Programs without an end, on every message: another consumer, the heartbeats, the API and the shutdown do
/// not wait for them.
#[tokio::test]
async fn an_endless_program_keeps_nothing_else_waiting() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "endless").await;
            put(broker, &stream, &all(3_000)).await;
            let endless = "where = 'def f: f; f'\non_bad_message = \"skip\"\n";
            let greedy = "map = '[range(1e18)] | \"x\" * 1e12'\non_bad_message = \"skip\"\n";
            let consumers = [
                consumer("endless", &stream, endless, "{ type = \"file\", dir = \"endless\" }"),
                consumer("greedy", &stream, greedy, "{ type = \"file\", dir = \"greedy\" }"),
                consumer("other", &stream, PROGRAMS, "{ type = \"file\", dir = \"other\" }"),
            ];
            let home = Home::new(&broker.uri(), &consumers.concat());
            home.set("shutdown_grace = \"4s\"");
            let mut daemon = home.start();
            daemon.until_durable("other", 2_999).await;
            assert_eq!(home.offsets("other", &stream), kept(3_000));
            // They go on, and each message is a bad one. On a busy machine each takes long.
            for name in ["endless", "greedy"] {
                eventually("a message is over the limit", 5 * LONG, || async {
                    let over = [&*format!("consumer=\"{name}\""), "reason=\"over_limit\""];
                    let lost = daemon.metric("rillway_lost_messages_total", &over).await;
                    (lost > Some(0.0)).then_some(())
                })
                .await;
            }
            assert_eq!(daemon.http("GET", "/livez").await.unwrap().0, 200);
            // Of a debug build, with all that the program takes for itself.
            let (most, bound) = (daemon.memory_bytes("VmHWM"), home.memory_bound_bytes());
            assert!(most < bound + (128 << 20), "{most} of {bound} bytes");
            // Within the grace: the test's own limit is longer.
            daemon.terminate().await;
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// The body of the message that a dead letter carries.
fn published(line: &serde_json::Value) -> String {
    use base64::Engine as _;
    let text = line["body"].as_str().unwrap();
    let encoded = match line["body_encoding"].as_str() {
        Some("text") => text.as_bytes().to_vec(),
        _ => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
    };
    let parsed = rillway::wire::amqp::Message::parse(&encoded).unwrap();
    let body = rillway::wire::amqp::carried(&parsed).unwrap();
    String::from_utf8(body.into_owned()).unwrap()
}
