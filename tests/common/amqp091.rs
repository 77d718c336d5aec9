//! A minimal AMQP 0.9.1 publisher on a bare socket: properties and headers of any bytes, which client
//! libraries would refuse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::Broker;

/// One message to publish. Short strings are at most 255 bytes, of any kind.
#[derive(Default)]
pub(crate) struct Basic {
    pub(crate) correlation_id: Option<Vec<u8>>,
    pub(crate) message_id: Option<Vec<u8>>,
    pub(crate) app_id: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub(crate) timestamp: Option<i64>,
    /// Header names, with their values as long strings, as short strings are encoded in a table.
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// More headers, encoded as in a table.
    pub(crate) raw_headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Publishes these messages into a stream, each confirmed, as into any queue.
pub(crate) async fn publish(broker: &Broker, queue: &str, all: Vec<Basic>) {
    let (port, queue) = (broker.amqp_port, queue.to_owned());
    super::broker::blocking(move || Session::open(port).publish(&queue, &all)).await;
}

/// Declares a durable queue of this type: `classic` or `quorum`.
pub(crate) async fn declare_queue(broker: &Broker, queue: &str, kind: &str) {
    let arguments = table(&[(b"x-queue-type".to_vec(), kind.as_bytes().to_vec())]);
    // Ticket, name, flags (durable), arguments.
    let declare = [&[0, 0][..], &short(queue.as_bytes()), &[0b10], &arguments].concat();
    call(broker, 10, declare).await;
}

/// Deletes a queue, whatever its type.
pub(crate) async fn delete_queue(broker: &Broker, queue: &str) {
    call(broker, 40, [&[0, 0][..], &short(queue.as_bytes()), &[0]].concat()).await;
}

/// Binds a stream to an exchange: it becomes a partition of the super stream of that name.
pub(crate) async fn bind(broker: &Broker, queue: &str, exchange: &str, key: &str) {
    let names = [queue, exchange, key].map(|name| short(name.as_bytes())).concat();
    call(broker, 20, [&[0, 0][..], &names, &[0], &table(&[])].concat()).await;
}

/// Unbinds a partition, with the arguments with which a super stream is created: its position among the
/// partitions.
pub(crate) async fn unbind(
    broker: &Broker,
    queue: &str,
    exchange: &str,
    (key, place): (&str, i64),
) {
    let names = [queue, exchange, key].map(|name| short(name.as_bytes())).concat();
    let argument = [&short(b"x-stream-partition-order")[..], b"l", &place.to_be_bytes()].concat();
    call(broker, 50, [&[0, 0][..], &names, &long(&argument)].concat()).await;
}

/// A method of the class Queue, which is answered by the method with the next number.
async fn call(broker: &Broker, method: u16, arguments: Vec<u8>) {
    let port = broker.amqp_port;
    super::broker::blocking(move || {
        let mut session = Session::open(port);
        session.method(1, 50, method, &arguments);
        session.until(50, method + 1);
        session.close();
    })
    .await;
}

struct Session(TcpStream);

impl Session {
    fn open(port: u16) -> Session {
        let stream = TcpStream::connect(("localhost", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut session = Session(stream);
        session.0.write_all(b"AMQP\0\0\x09\x01").unwrap();
        session.until(10, 10);
        let start = [&table(&[])[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"C")];
        session.method(0, 10, 11, &start.concat());
        let tune = session.until(10, 30);
        session.method(0, 10, 31, &tune);
        session.method(0, 10, 40, &[&short(b"/")[..], &[0, 0]].concat());
        session.until(10, 41);
        session.method(1, 20, 10, &[0]);
        session.until(20, 11);
        session.method(1, 85, 10, &[0]);
        session.until(85, 11);
        session
    }

    fn publish(mut self, queue: &str, all: &[Basic]) {
        for (nth, message) in all.iter().enumerate() {
            self.method(1, 60, 40, &[&[0, 0, 0][..], &short(queue.as_bytes()), &[0]].concat());
            let (mut flags, mut properties) = (0_u16, Vec::new());
            if !message.headers.is_empty() || !message.raw_headers.is_empty() {
                flags |= 1 << 13;
                let entries = [&entries(&message.headers)[..], &message.raw_headers].concat();
                properties.extend(long(&entries));
            }
            let timestamp = message.timestamp.map(|seconds| seconds.to_be_bytes().to_vec());
            let text = |value: &Option<Vec<u8>>| value.as_deref().map(short);
            for (bit, value) in [
                (10, text(&message.correlation_id)),
                (7, text(&message.message_id)),
                (6, timestamp),
                (3, text(&message.app_id)),
            ] {
                if let Some(value) = value {
                    flags |= 1 << bit;
                    properties.extend(value);
                }
            }
            let mut header = vec![0, 60, 0, 0];
            header.extend((message.body.len() as u64).to_be_bytes());
            header.extend(flags.to_be_bytes());
            header.extend(properties);
            self.frame(2, 1, &header);
            if !message.body.is_empty() {
                self.frame(3, 1, &message.body);
            }
            let ack = self.until(60, 80);
            assert_eq!(ack[..8], (nth as u64 + 1).to_be_bytes());
        }
        self.close();
    }

    fn close(mut self) {
        self.method(0, 10, 50, &[&200_u16.to_be_bytes()[..], &[0, 0, 0, 0, 0]].concat());
        self.until(10, 51);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let head = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(1, channel, &[&head, arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        self.0.write_all(&frame).unwrap();
    }

    /// The arguments of the awaited method.
    fn until(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).unwrap();
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = vec![0; size + 1];
            self.0.read_exact(&mut payload).unwrap();
            if head[0] == 8 {
                continue; // A heartbeat.
            }
            let code = (
                u16::from_be_bytes([payload[0], payload[1]]),
                u16::from_be_bytes([payload[2], payload[3]]),
            );
            assert_eq!(code, (class, method), "{}", String::from_utf8_lossy(&payload));
            return payload[4..size].to_vec();
        }
    }
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn table(all: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    long(&entries(all))
}

fn entries(all: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| [short(name), vec![b'S'], long(value)].concat()).collect()
}

/// A header with this value, of the type that the first byte gives.
pub(crate) fn raw_header(name: &str, value: &[u8]) -> Vec<u8> {
    [&short(name.as_bytes())[..], value].concat()
}

/// This many tables, each inside the next.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![b't', 1], |inner, _| {
        [&b"F"[..], &long(&[&short(b"k")[..], &inner].concat())].concat()
    })
}
