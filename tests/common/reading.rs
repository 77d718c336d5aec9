//! Reads and publishes messages byte for byte, through Rillway's own connection.

use std::time::Duration;

use rillway::broker::{
    ConnectOptions, Endpoint, Mechanism, Prefer, StreamReader, connect_to_stream,
};
use rillway::types::{Secret, StreamName};
use rillway::wire::block::Record;

use super::Broker;

/// Connection options for a test's broker, through its own port or a proxy's.
pub(crate) fn connect_options(port: u16) -> ConnectOptions {
    ConnectOptions {
        seeds: vec![Endpoint { host: "localhost".to_owned(), port }],
        vhost: "/".to_owned(),
        mechanism: Mechanism::Plain {
            username: "guest".to_owned(),
            password: Secret::new("guest"),
        },
        tls: None,
        heartbeat: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
        follow_advertised_hosts: false,
        routing: Default::default(),
        name: "rillway test".to_owned(),
        sharing: None,
    }
}

/// All messages in the stream now.
pub(crate) async fn messages(broker: &Broker, stream: &str) -> Vec<Vec<u8>> {
    read(broker, stream, |record| record.message.to_vec()).await
}

/// The offsets of all messages in the stream now: not every offset belongs to a message.
pub(crate) async fn offsets(broker: &Broker, stream: &str) -> Vec<u64> {
    read(broker, stream, |record| record.offset.0).await
}

async fn read<T>(broker: &Broker, stream: &str, part: impl Fn(Record<'_>) -> T) -> Vec<T> {
    let options = connect_options(broker.stream_port);
    let mut reader = StreamReader::open(&options, &StreamName::from(stream)).await.unwrap();
    let mut found = Vec::new();
    while let Some(blocks) = reader.next().await.unwrap() {
        for block in blocks {
            found.extend(block.records().map(&part));
        }
    }
    reader.close().await;
    found
}

/// The bodies of messages that consist of one data section of text.
pub(crate) async fn bodies(broker: &Broker, stream: &str) -> Vec<String> {
    let body = |message: Vec<u8>| {
        let body = rillway::wire::amqp::single_data(&message).expect("a single data section");
        String::from_utf8(body.to_vec()).unwrap()
    };
    messages(broker, stream).await.into_iter().map(body).collect()
}

/// Publishes these bytes unchanged.
pub(crate) async fn put(broker: &Broker, stream: &str, all: &[Vec<u8>]) {
    let (options, stream) = (connect_options(broker.stream_port), StreamName::from(stream));
    let connecting = connect_to_stream(&options, &stream, Prefer::Leader);
    let connection = connecting.await.unwrap();
    let mut publisher = connection.publisher(&stream, "").await.unwrap();
    for (id, message) in all.iter().enumerate() {
        let mut frame = publisher.frame();
        assert!(frame.push(id as u64 + 1, message).unwrap());
        publisher.send(frame).await.unwrap();
    }
    publisher.until_below(0, 0, Duration::from_secs(60)).await.unwrap();
    connection.close().await;
}
