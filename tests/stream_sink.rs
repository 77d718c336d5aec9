//! The `stream` sink on real brokers: the sink itself against its contract, and the daemon around it:
//! byte for byte, `kill -9`, cut connections, two daemons at once, and a target that disappears.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, body};
use crate::common::proxy::Proxy;
use crate::common::reading::{bodies, connect_options, messages, put};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, patiently, streams};
use rillway::republish::{Republisher, Target};
use rillway::sink::conformance::{self, Medium};
use rillway::sink::stream::{StreamOptions, StreamSink};
use rillway::sink::{Durability, Sink, SinkError};
use rillway::types::StreamName;

const MINUTE: Duration = Duration::from_secs(60);

/// A stream of its own, created when it is first opened.
struct Fresh {
    broker: &'static Broker,
    stream: String,
    port: u16,
}

impl Fresh {
    fn on(broker: &'static Broker) -> Fresh {
        let stream = format!("conformance-{:016x}", fastrand::u64(..));
        Fresh { broker, stream, port: broker.stream_port }
    }

    fn options(&self) -> StreamOptions {
        StreamOptions {
            source: StreamName::from(conformance::STREAM),
            publisher: "the same".to_owned(),
            annotate: false,
        }
    }

    fn publisher(&self) -> Box<Republisher> {
        Box::new(Republisher::new(Target {
            connect: connect_options(self.port),
            stream: StreamName::from(self.stream.as_str()),
            create: true,
            in_flight: 1_000,
            timeout: Duration::from_secs(20),
        }))
    }

    async fn sink(&self) -> Result<StreamSink, SinkError> {
        StreamSink::open(self.options(), self.publisher()).await
    }
}

#[async_trait]
impl Medium for Fresh {
    async fn open(&mut self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(self.sink().await?))
    }

    async fn visible(&mut self) -> Option<Vec<u64>> {
        let bodies = bodies(self.broker, &self.stream).await;
        Some(bodies.iter().map(|body| offset_in(body)).collect())
    }

    fn takes_records_one_by_one(&self) -> bool {
        true
    }

    fn decodes(&self) -> bool {
        false
    }
}

/// `takes_gaps` has bodies of its own.
fn offset_in(body: &str) -> u64 {
    match body {
        "a" => 5,
        "b" => 6,
        "c" => 90,
        body => body.strip_prefix("offset ").unwrap().parse().unwrap(),
    }
}

async fn the_contract(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    conformance::all(|| Fresh::on(broker)).await.unwrap();
    Ok(())
}

#[tokio::test]
async fn the_contract_on_rabbitmq_4_3() {
    or_skip!(the_contract(Version::V4_3).await);
}

#[tokio::test]
async fn the_contract_on_rabbitmq_3_10() {
    or_skip!(the_contract(Version::V3_10).await);
}

fn batch(range: std::ops::Range<u64>) -> Arc<rillway::flow::batch::Batch> {
    Arc::new(conformance::batch(range))
}

/// Two writers under one name, taking turns, each of them behind the other at times: the broker drops and
/// confirms what the slower one sends.
#[tokio::test]
async fn two_at_once_write_each_message_once() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let mut medium = Fresh::on(broker);
            let mut one = patiently(async || medium.sink().await).await;
            let mut two = patiently(async || medium.sink().await).await;
            for (first, from, to) in [
                (true, 0, 100),
                (false, 0, 40),
                (false, 40, 250),
                (true, 100, 260),
                (false, 250, 255),
                (true, 260, 261),
                (false, 255, 400),
            ] {
                let sink = if first { &mut one } else { &mut two };
                let written = patiently(async || sink.write(&batch(from..to)).await).await;
                assert_eq!(written, Durability::Durable);
            }
            assert_eq!(medium.visible().await, Some((0..400).collect::<Vec<_>>()));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// Offsets that begin at 0 again would count as duplicates under the same publisher name, so there is a
/// new name; and the current name is found again.
#[tokio::test]
async fn a_new_incarnation_is_written_from_its_first_message() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let mut medium = Fresh::on(broker);
            let mut expected: Vec<u64> = (0..10).collect();
            let mut sink = medium.sink().await.unwrap();
            sink.write(&batch(0..10)).await.unwrap();
            for _ in 0..7 {
                sink.restart().await.unwrap();
                assert_eq!(sink.position().await.unwrap(), None);
                sink.write(&batch(0..3)).await.unwrap();
                sink.close().await.unwrap();
                sink = medium.sink().await.unwrap();
                let position = sink.position().await.unwrap().map(|c| c.offset.0);
                assert_eq!(position, Some(2));
                sink.write(&batch(3..5)).await.unwrap();
                expected.extend(0..5);
            }
            assert_eq!(medium.visible().await, Some(expected));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// Before the first message of a new incarnation: a process that starts then must not find the old
/// position, or it would drop everything below it.
async fn begun_and_not_written(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let mut medium = Fresh::on(broker);
    let mut sink = medium.sink().await.unwrap();
    sink.write(&batch(0..10)).await.unwrap();
    for _ in 0..7 {
        sink.restart().await.unwrap();
        drop(sink);
        sink = medium.sink().await.unwrap();
        assert_eq!(sink.position().await.unwrap(), None);
        let committed =
            rillway::sink::stream::committed(&medium.options(), medium.publisher()).await;
        assert_eq!(committed.unwrap(), None);
    }
    sink.write(&batch(0..3)).await.unwrap();
    assert_eq!(medium.visible().await, Some((0..10).chain(0..3).collect::<Vec<_>>()));
    Ok(())
}

#[tokio::test]
async fn a_new_incarnation_without_a_message_is_found_again() {
    for version in [Version::V4_3, Version::V3_10] {
        or_skip!(begun_and_not_written(version).await);
    }
}

#[tokio::test]
async fn a_target_that_was_created_again_is_noticed() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let mut medium = Fresh::on(broker);
            let mut sink = medium.sink().await.unwrap();
            sink.write(&batch(0..10)).await.unwrap();
            streams::delete(broker, &medium.stream).await;
            let started = std::time::Instant::now();
            loop {
                match sink.write(&batch(10..12)).await {
                    Err(SinkError::Transient { what, .. }) if what.contains("does not exist") => {
                        break;
                    }
                    // The error of the connection, or of a node that does not know of the deletion yet,
                    // comes first.
                    Err(SinkError::Transient { .. }) => assert!(started.elapsed() < MINUTE),
                    other => panic!("written to nowhere: {other:?}"),
                }
            }
            drop(medium.sink().await.unwrap()); // Creates it again.
            match sink.write(&batch(10..12)).await {
                Err(SinkError::Fatal(what)) => {
                    assert!(what.contains("no longer holds what it confirmed"), "{what}");
                }
                other => panic!("a hole was left: {other:?}"),
            }
            assert_eq!(medium.visible().await, Some(Vec::new()));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

fn consumer(source: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"mirror\"\nstream = \"{source}\"\n\
         batch = {{ max_messages = 40, max_age = \"20ms\" }}\n\
         commit = {{ every_messages = 100, every = \"100ms\" }}\n\
         restart = {{ min_backoff = \"10ms\", max_backoff = \"100ms\" }}\n{sink}\n"
    )
}

fn numbers(total: u64) -> Vec<String> {
    (0..total).map(body).collect()
}

/// `kill -9` at random moments and at each point of a write, under load.
async fn killed(kills: u64) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let source = streams::create(broker, "mirrored").await;
    let target = format!("{source}-copy");
    let sink = format!("sink = {{ type = \"stream\", stream = \"{target}\", create = true }}");
    let home = Home::new(&broker.uri(), &consumer(&source, &sink));
    let load = Load::on(broker, &source, Pace::BRISK);
    let seed = env_or("SEED", fastrand::u64(..));
    eprintln!("{kills} kills, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for nth in 0..kills {
        let points = ["received", "written", "flushed", "committed", "offset_stored"];
        let point = usize::try_from(nth).unwrap() % (points.len() + 1);
        match points.get(point) {
            Some(point) => {
                let fault = format!("die@{point}:{}", random.u64(1..12));
                home.start_with_fault(&fault).ended(MINUTE).await;
            }
            None => {
                let mut daemon = home.start();
                daemon.until("mirror", "it runs", MINUTE, |c| c["state"] == "running").await;
                // The moment is what is tested, not something to wait for.
                tokio::time::sleep(Duration::from_micros(random.u64(0..150_000))).await;
                daemon.kill();
            }
        }
    }
    let total = load.stop().await;
    let daemon = home.start();
    eventually("every message is in the copy", MINUTE, || async {
        let found = bodies(broker, &target).await;
        assert!(found.len() as u64 <= total, "{} of {total} messages", found.len());
        (found.len() as u64 == total).then_some(())
    })
    .await;
    daemon.terminate().await;
    assert_eq!(bodies(broker, &target).await, numbers(total));
    eprintln!("{total} messages, each once");
    Ok(())
}

#[tokio::test]
async fn killed_at_any_point_each_message_lands_once() {
    or_skip!(killed(env_or("KILLS", 18)).await);
}

/// Whatever a publisher sent: no AMQP, damaged AMQP, several sections, nothing at all.
#[tokio::test]
async fn messages_go_on_byte_for_byte() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let source = streams::create(broker, "odd").await;
            let target = streams::create(broker, "odd-copy").await;
            let odd: Vec<Vec<u8>> = vec![
                conformance::message(b"well-formed"),
                conformance::BAD_MESSAGE.to_vec(),
                Vec::new(),
                vec![0xff; 3],
                b"{\n \"json\": 1\r\n}".to_vec(),
                [conformance::message(b"two"), conformance::message(b"sections")].concat(),
                (0..=255).cycle().take(300_000).collect(),
            ];
            put(broker, &source, &odd).await;
            let sink =
                format!("sink = {{ type = \"stream\", stream = \"{target}\", in_flight = 3 }}");
            let home = Home::new(&broker.uri(), &consumer(&source, &sink));
            let mut daemon = home.start();
            daemon.until_durable("mirror", odd.len() as u64 - 1).await;
            daemon.terminate().await;
            assert_eq!(messages(broker, &source).await, odd, "what was published");
            assert_eq!(messages(broker, &target).await, odd);
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// With `annotate`, the annotations name the source; the rest is unchanged.
#[tokio::test]
async fn annotations_name_the_source_on_request() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let source = streams::create(broker, "annotated").await;
            let target = streams::create(broker, "annotated-copy").await;
            let good = conformance::message(b"body");
            put(broker, &source, &[good.clone(), conformance::BAD_MESSAGE.to_vec(), good]).await;
            let sink = format!(
                "on_bad_message = \"skip\"\nsink = {{ type = \"stream\", stream = \"{target}\", annotate = true }}"
            );
            let home = Home::new(&broker.uri(), &consumer(&source, &sink));
            let mut daemon = home.start();
            daemon.until_durable("mirror", 2).await;
            daemon.terminate().await;
            let found = messages(broker, &target).await;
            assert_eq!(found.len(), 2);
            for (message, offset) in found.iter().zip([0, 2]) {
                let parsed = rillway::wire::amqp::Message::parse(message).unwrap();
                let map = parsed.message_annotations().unwrap();
                let from = map.get("x-rillway-source-stream").unwrap().unwrap();
                assert_eq!(from.as_str(), Some(source.as_str()));
                let at = map.get("x-rillway-source-offset").unwrap().unwrap();
                assert!(matches!(at, rillway::wire::amqp::Value::Ulong(n) if n == offset));
                assert!(message.ends_with(b"body"));
            }
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// Connections that break in the middle of a batch, and a broker that is stopped for a while.
#[tokio::test]
async fn cut_connections_lose_and_repeat_nothing() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let proxy = Proxy::to(broker.stream_port).await;
            let source = streams::create(broker, "cut").await;
            let target = streams::create(broker, "cut-copy").await;
            let uri = broker.uri_by(proxy.port);
            let home = Home::with_broker(
                &format!(
                    "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
                    broker.uri()
                ),
                &consumer(
                    &source,
                    &format!(
                        "sink = {{ type = \"stream\", stream = \"{target}\", uri = \"{uri}\" }}"
                    ),
                ),
            );
            let load = Load::on(broker, &source, Pace::BRISK);
            let mut daemon = home.start();
            for _ in 0..15 {
                let before = daemon.consumer("mirror").await.map(|c| c["durable_offset"].clone());
                daemon
                    .until("mirror", "progress", MINUTE, |c| {
                        Some(&c["durable_offset"]) != before.as_ref()
                    })
                    .await;
                proxy.cut();
            }
            proxy.refuse();
            daemon
                .until("mirror", "trouble", MINUTE, |c| {
                    c.to_string().contains("publishing to stream")
                })
                .await;
            proxy.resume();
            let total = load.stop().await;
            daemon.until_durable("mirror", total - 1).await;
            daemon.terminate().await;
            assert_eq!(bodies(broker, &target).await, numbers(total));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn a_message_larger_than_a_frame_is_refused_with_its_offset() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let medium = Fresh::on(broker);
            let mut sink = medium.sink().await.unwrap();
            // The broker's own default, less a frame's overhead around a message.
            let most = (1 << 20) - 21;
            for (bytes, fits) in [(most + 1, false), (most, true)] {
                let messages = [vec![b'x'; 10], vec![b'y'; bytes], vec![b'z'; bytes]];
                let part = conformance::part(20, &messages).unwrap();
                let stream = StreamName::from(conformance::STREAM);
                let batch = rillway::flow::batch::Batch::new(stream, vec![part]).unwrap();
                match sink.write(&Arc::new(batch)).await {
                    Ok(Durability::Durable) if fits => {}
                    Err(SinkError::Poison(bad)) if !fits => {
                        let offsets: Vec<u64> = bad.iter().map(|b| b.offset.0).collect();
                        assert_eq!(offsets, [21, 22]);
                        assert!(bad[0].detail.contains("frame_max"), "{}", bad[0].detail);
                    }
                    other => panic!("{bytes} bytes: {other:?}"),
                }
            }
            let lengths: Vec<usize> =
                messages(broker, &medium.stream).await.iter().map(Vec::len).collect();
            assert_eq!(lengths, [10, most, most]);
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn a_target_that_is_missing_is_waited_for() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let source = streams::create(broker, "waiting").await;
            streams::publish(broker, &source, (0..10).map(body)).await;
            let target = format!("{source}-copy");
            let sink = format!("sink = {{ type = \"stream\", stream = \"{target}\" }}");
            let home = Home::new(&broker.uri(), &consumer(&source, &sink));
            let mut daemon = home.start();
            let waiting = daemon
                .until("mirror", "it says what is missing", MINUTE, |c| {
                    c.to_string().contains("does not exist") && c["state"] == "backoff"
                })
                .await;
            assert!(waiting.to_string().contains("create = true"), "{waiting}");
            streams::create_named(broker, &target, &[]).await;
            daemon.until_durable("mirror", 9).await;
            daemon.terminate().await;
            assert_eq!(bodies(broker, &target).await, numbers(10));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}

/// Two daemons with one configuration, one of them frozen in the middle of a write and woken much later.
#[tokio::test]
async fn a_daemon_that_slept_through_a_take_over_writes_nothing_twice() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let source = streams::create(broker, "frozen").await;
            let target = streams::create(broker, "frozen-copy").await;
            let sink = format!("sink = {{ type = \"stream\", stream = \"{target}\" }}");
            let text = consumer(&source, &sink);
            let (one, two) = (Home::new(&broker.uri(), &text), Home::new(&broker.uri(), &text));
            let load = Load::on(broker, &source, Pace::BRISK);
            let mut sleeper = one.start_with_fault("freeze@written:20");
            eventually("one of them is frozen", MINUTE, || async {
                let stat =
                    std::fs::read_to_string(format!("/proc/{}/stat", sleeper.pid())).unwrap();
                stat.contains(") T ").then_some(())
            })
            .await;
            let mut other = two.start();
            let then = load.confirmed() + 2_000;
            other.until_durable("mirror", then).await;
            sleeper.signal("CONT");
            let total = load.stop().await;
            other.until_durable("mirror", total - 1).await;
            sleeper.until_durable("mirror", total - 1).await;
            sleeper.terminate().await;
            other.terminate().await;
            assert_eq!(bodies(broker, &target).await, numbers(total));
            Ok::<(), Unavailable>(())
        }
        .await
    );
}
