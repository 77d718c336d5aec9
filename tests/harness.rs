//! Do the tests' own tools work? Everything else here depends on them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::common::daemon::Home;
use crate::common::proxy::Proxy;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::scripted::{Chunk, Scripted};
use crate::common::skip::{or_skip, test_name};
use crate::common::{Broker, Options, Version, eventually, ports, streams};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_skipped_test_would_be_listed_under_the_name_that_cargo_shows() {
    assert_eq!(
        test_name!(),
        "harness::a_skipped_test_would_be_listed_under_the_name_that_cargo_shows"
    );
}

#[tokio::test]
async fn and_so_would_an_async_one() {
    assert_eq!(test_name!(), "harness::and_so_would_an_async_one");
}

async fn two_clients_agree(version: Version) -> Result<(), crate::common::skip::Unavailable> {
    let broker = Broker::shared(version).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "agree").await;
    streams::publish(broker, &stream, ["one", "two", "three"]).await;
    rstream.publish(&stream, &[Outgoing::body("four"), Outgoing::raw([0xff, 0x00])]).await;

    let stored = rstream.read(&stream, 0, 5).await;
    let offsets: Vec<u64> = stored.iter().map(|message| message.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert!(stored[1].raw.ends_with(b"two") && stored[3].raw.ends_with(b"four"));
    assert_eq!(stored[4].raw, [0xff, 0x00]);

    assert_eq!(streams::stored_offset(broker, &stream, "reader").await, None);
    assert_eq!(rstream.stored_offset(&stream, "reader").await, None);
    streams::store_offset(broker, &stream, "reader", 2).await;
    assert_eq!(rstream.stored_offset(&stream, "reader").await, Some(2));
    Ok(())
}

#[tokio::test]
async fn two_clients_agree_on_rabbitmq_3_10() {
    or_skip!(two_clients_agree(Version::V3_10).await);
}

#[tokio::test]
async fn two_clients_agree_on_rabbitmq_4_0() {
    or_skip!(two_clients_agree(Version::V4_0).await);
}

#[tokio::test]
async fn two_clients_agree_on_rabbitmq_4_3() {
    or_skip!(two_clients_agree(Version::V4_3).await);
}

#[tokio::test]
async fn every_compression_comes_back_whole() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let rstream = or_skip!(Rstream::at(broker).await);
    for compression in Compression::ALL {
        let stream = streams::create(broker, "compressed").await;
        // More than snappy puts into one chunk, and not a multiple of the batch.
        let bodies: Vec<String> = (0..250).map(|nth| format!("{nth:01000}")).collect();
        let messages: Vec<Outgoing> = bodies.iter().map(Outgoing::body).collect();
        rstream.publish_batches(&stream, compression, 100, &messages).await;
        let stored = rstream.read(&stream, 0, bodies.len()).await;
        for (message, body) in stored.iter().zip(&bodies) {
            assert!(message.raw.ends_with(body.as_bytes()), "{compression:?} {}", message.offset);
        }
    }
}

#[tokio::test]
async fn a_private_broker_keeps_its_data_and_ports_over_a_stop_and_a_crash() {
    let broker = or_skip!(Broker::private(Version::V4_3).await);
    let stream = streams::create(&broker, "kept").await;
    streams::publish(&broker, &stream, ["body"]).await;
    streams::store_offset(&broker, &stream, "reader", 0).await;
    let rstream = or_skip!(Rstream::at(&broker).await);

    broker.stop().await;
    TcpStream::connect(("127.0.0.1", broker.stream_port)).await.expect_err("it is stopped");
    broker.start().await;
    assert_eq!(rstream.stored_offset(&stream, "reader").await, Some(0));

    broker.kill().await;
    broker.start().await;
    assert_eq!(rstream.stored_offset(&stream, "reader").await, Some(0));
    assert_eq!(rstream.read(&stream, 0, 1).await.len(), 1);
}

#[tokio::test]
async fn a_frozen_broker_accepts_and_says_nothing_until_thawed() {
    let broker = or_skip!(Broker::private(Version::V4_3).await);
    broker.freeze().await;
    let mut socket = TcpStream::connect(("127.0.0.1", broker.stream_port)).await.unwrap();
    socket.write_all(PEER_PROPERTIES).await.unwrap();
    let mut answer = [0; 8];
    timeout(Duration::from_millis(500), socket.read_exact(&mut answer))
        .await
        .expect_err("it is frozen");
    broker.thaw().await;
    timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[4..6], [0x80, 0x11]);
}

#[tokio::test]
async fn a_private_broker_takes_configuration_and_tools_reach_it() {
    let options = Options::default().conf("stream.frame_max = 65536");
    let broker = or_skip!(Broker::private_with(Version::V4_0, options).await);
    let value = "application:get_env(rabbitmq_stream, frame_max).";
    let printed = broker.ctl(&["rabbitmqctl", "eval", value]).await;
    assert_eq!(printed.trim(), "{ok,65536}");
}

#[tokio::test]
async fn a_stream_can_be_made_to_truncate_soon() {
    let broker = or_skip!(Broker::shared(Version::V4_3).await);
    let rstream = or_skip!(Rstream::at(broker).await);
    let arguments = [("max-length-bytes", "100000"), ("stream-max-segment-size-bytes", "50000")];
    let stream = streams::create_with(broker, "truncated", &arguments).await;
    for _ in 0..10 {
        streams::publish(broker, &stream, (0..50).map(|_| vec![b'x'; 1_000])).await;
    }
    // Truncation follows some time after the message that fills the segment.
    eventually("the stream's start is gone", SOON, || async {
        (rstream.read(&stream, 0, 1).await[0].offset > 0).then_some(())
    })
    .await;
}

/// Also not while the first one's server is away.
#[test]
fn a_port_is_given_to_one_test_at_a_time() {
    let kept: Vec<_> = (0..200).map(|_| ports::reserve()).collect();
    let numbers: std::collections::BTreeSet<u16> = kept.iter().map(|port| port.number).collect();
    assert_eq!(numbers.len(), kept.len());
    let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = outgoing.split_whitespace().next().unwrap().parse().unwrap();
    // Where the kernel's range begins lower, no port is safe.
    assert!(numbers.last() < Some(&first) || first < 20_000, "{numbers:?}");
    for port in &kept {
        drop(std::net::TcpListener::bind(port.address()).unwrap());
    }
}

/// A frame of the stream protocol that any broker answers.
const PEER_PROPERTIES: &[u8] = &[0, 0, 0, 12, 0, 0x11, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    port
}

#[tokio::test]
async fn the_proxy_forwards_goes_silent_and_goes_on_with_nothing_lost() {
    let proxy = Proxy::to(echo().await).await;
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let mut answer = [0; 3];
    socket.write_all(b"one").await.unwrap();
    timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"one");

    proxy.silence();
    socket.write_all(b"two").await.unwrap();
    timeout(Duration::from_millis(200), socket.read_exact(&mut answer))
        .await
        .expect_err("it is silent");
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));

    proxy.resume();
    timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"two");
}

#[tokio::test]
async fn the_proxy_cuts_what_is_open_and_refuses_while_told_to() {
    let proxy = Proxy::to(echo().await).await;
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    socket.write_all(b"one").await.unwrap();
    socket.read_exact(&mut [0; 3]).await.unwrap();
    proxy.cut();
    assert_eq!(timeout(SOON, socket.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);

    proxy.refuse();
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    assert_eq!(timeout(SOON, socket.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);

    proxy.resume();
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    socket.write_all(b"two").await.unwrap();
    timeout(SOON, socket.read_exact(&mut [0; 3])).await.unwrap().unwrap();
    assert_eq!((proxy.accepted(), proxy.open()), (3, 1));
}

#[tokio::test]
async fn the_scripted_broker_is_a_healthy_one_until_told_otherwise() {
    for version in Version::ALL {
        let broker = Scripted::start(version).await;
        broker.append(Chunk::plain(0, &["one", "two"]));
        let consumer = "[[consumer]]\nname = \"c\"\nstream = \"s\"\nstart = \"first\"\nsink = { type = \"file\", dir = \"out\" }";
        let home = Home::new(&broker.uri(), consumer);
        let mut daemon = home.start();
        daemon.until_durable("c", 1).await;
        broker.append(Chunk::plain(5, &["three"]));
        daemon.until_durable("c", 5).await;
        daemon.terminate().await;
        assert_eq!(home.offsets("out", "s"), [0, 1, 5], "{version:?}");
        assert_eq!(broker.stored("c"), Some(5), "{version:?}");
    }
}
