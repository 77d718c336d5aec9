//! A broker by script that speaks AMQP 0.9.1, for frames that no real one sends. By default it is a small
//! healthy one: it has one stream of plain messages, under every name, and delivers by prefetch count.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Channel of the consumer itself; others are those of its questions.
const MAIN: u16 = 1;

/// What is sent in place of the messages, when the consumer begins on this connection of them; `None` for
/// the messages.
type Script = dyn Fn(usize) -> Option<Vec<u8>> + Send + Sync;

/// The broker. Dropping it ends it.
pub(crate) struct ScriptedAmqp {
    pub(crate) port: u16,
    accepting: JoinHandle<()>,
}

impl Drop for ScriptedAmqp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ScriptedAmqp {
    /// With these bodies, from offset 0 on. `script` is asked with the number of consumers before.
    pub(crate) async fn start(
        bodies: Vec<Vec<u8>>,
        script: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> ScriptedAmqp {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (bodies, script): (Arc<Vec<_>>, Arc<Script>) = (Arc::new(bodies), Arc::new(script));
        let consumers = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (bodies, script) = (Arc::clone(&bodies), Arc::clone(&script));
                let session = Session {
                    socket,
                    bodies,
                    script,
                    consumers: Arc::clone(&consumers),
                    prefetch: HashMap::new(),
                };
                tokio::spawn(session.serve());
            }
        });
        ScriptedAmqp { port, accepting }
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@localhost:{}/%2f", self.port)
    }
}

struct Session {
    socket: TcpStream,
    bodies: Arc<Vec<Vec<u8>>>,
    script: Arc<Script>,
    consumers: Arc<AtomicUsize>,
    prefetch: HashMap<u16, u16>,
}

impl Session {
    /// Until the client goes.
    async fn serve(mut self) {
        let mut greeting = [0; 8];
        if self.socket.read_exact(&mut greeting).await.is_err() {
            return;
        }
        let version = [&b"\x07version"[..], b"S", &long(b"4.3.0")].concat();
        let start = [&[0, 9][..], &long(&version), &long(b"PLAIN"), &long(b"en_US")].concat();
        if self.socket.write_all(&method(0, 10, 10, &start)).await.is_err() {
            return;
        }
        loop {
            let mut head = [0; 7];
            if self.socket.read_exact(&mut head).await.is_err() {
                return;
            }
            let channel = u16::from_be_bytes([head[1], head[2]]);
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut payload = vec![0; size as usize + 1];
            if self.socket.read_exact(&mut payload).await.is_err() {
                return;
            }
            let answer = match head[0] {
                1 => self.answer(channel, &payload),
                8 => frame(8, 0, &[]),
                _ => Vec::new(),
            };
            if self.socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, channel: u16, payload: &[u8]) -> Vec<u8> {
        match (payload[1], payload[3]) {
            (10, 11) => method(0, 10, 30, &[0, 100, 0, 2, 0, 0, 0, 0]),
            (10, 40) => method(0, 10, 41, &[0]),
            (10, 50) => method(0, 10, 51, &[]),
            (20, 10) => method(channel, 20, 11, &[0, 0, 0, 0]),
            (20, 40) => method(channel, 20, 41, &[]),
            (50, 10) => {
                let count = (self.bodies.len() as u32).to_be_bytes();
                method(channel, 50, 11, &[&b"\x01q"[..], &count, &[0; 4]].concat())
            }
            (60, 10) => {
                self.prefetch.insert(channel, u16::from_be_bytes([payload[8], payload[9]]));
                method(channel, 60, 11, &[])
            }
            (60, 20) => {
                let begun = method(channel, 60, 21, b"\x03tag");
                let scripted = (channel == MAIN)
                    .then(|| (self.script)(self.consumers.fetch_add(1, Ordering::SeqCst)))
                    .flatten();
                [begun, scripted.unwrap_or_else(|| self.messages(channel, payload))].concat()
            }
            _ => Vec::new(), // TuneOk, acknowledgements.
        }
    }

    /// The messages from where the request says, as many as were asked for.
    fn messages(&self, channel: u16, request: &[u8]) -> Vec<u8> {
        let kind = request.len() - 1 - 9;
        let from = match request[kind] {
            b'l' => {
                let offset = request[kind + 1..kind + 9].try_into().unwrap();
                usize::try_from(u64::from_be_bytes(offset)).unwrap()
            }
            _ if request.ends_with(b"last\xce") => self.bodies.len().saturating_sub(1),
            _ if request.ends_with(b"next\xce") => self.bodies.len(),
            _ => 0,
        };
        let most = usize::from(self.prefetch[&channel]);
        let all = self.bodies.iter().enumerate().skip(from).take(most);
        let messages = all.zip(1..).map(|((offset, body), tag)| {
            [
                delivery(channel, tag),
                header(channel, offset as u64, body.len() as u64),
                part(channel, body),
            ]
            .concat()
        });
        messages.collect::<Vec<_>>().concat()
    }
}

/// A whole message to the consumer.
pub(crate) fn message(tag: u64, offset: u64, body: &[u8]) -> Vec<u8> {
    [announced(tag), head(offset, body.len() as u64), body_part(body)].concat()
}

/// The method that announces a message to the consumer.
pub(crate) fn announced(tag: u64) -> Vec<u8> {
    delivery(MAIN, tag)
}

/// Its content header.
pub(crate) fn head(offset: u64, bytes: u64) -> Vec<u8> {
    header(MAIN, offset, bytes)
}

/// A part of its body.
pub(crate) fn body_part(bytes: &[u8]) -> Vec<u8> {
    part(MAIN, bytes)
}

/// A frame of this kind to the consumer.
pub(crate) fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind, MAIN, payload)
}

fn delivery(channel: u16, tag: u64) -> Vec<u8> {
    method(channel, 60, 60, &[&b"\x03tag"[..], &tag.to_be_bytes(), &[0, 0], b"\x01q"].concat())
}

fn header(channel: u16, offset: u64, bytes: u64) -> Vec<u8> {
    let table = [&b"\x0fx-stream-offset"[..], b"l", &offset.to_be_bytes()].concat();
    let flags = 1_u16 << 13;
    let payload =
        [&[0, 60, 0, 0][..], &bytes.to_be_bytes(), &flags.to_be_bytes(), &long(&table)].concat();
    frame(2, channel, &payload)
}

fn part(channel: u16, bytes: &[u8]) -> Vec<u8> {
    frame(3, channel, bytes)
}

fn method(channel: u16, class: u8, method: u8, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&[0, class, 0, method][..], arguments].concat())
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}
