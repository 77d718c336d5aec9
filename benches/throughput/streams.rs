//! The stream of a case: created, filled, deleted.

use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Context as _, bail};
use rabbitmq_stream_client::Environment;
use rillway::wire::commands::{Create, DeclarePublisher, Delete, PublishBuilder, keys};

use crate::options::Case;
use crate::socket::{self, FRAME_MAX, ask, frame, u32_at};

/// Frames in flight if several messages share a chunk. One at a time, the broker makes chunks of half a
/// frame; with many at once, chunks of several frames.
const FRAMES_MAX: u32 = 2;

pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) messages: u64,
    port: u16,
}

impl Stream {
    /// Creates the stream, publishes, and waits until everything is confirmed. One frame holds the
    /// messages of one chunk; the broker decides how large chunks really are, which is read from their
    /// headers later.
    pub(crate) fn publish(port: u16, case: &Case) -> anyhow::Result<Stream> {
        let name = format!("bench-{}x{}-{}", case.size, case.batch, std::process::id());
        let mut socket = socket::log_in(port)?;
        let stream = name.as_str().into();
        ask(&mut socket, &Create { stream, arguments: Vec::new() })?;
        let stream = name.as_str().into();
        let reference = String::new();
        ask(&mut socket, &DeclarePublisher { publisher: 0, reference, stream })?;
        let window = if case.batch == 1 { 1 } else { FRAMES_MAX * case.batch };
        let mut unconfirmed = 0;
        let mut next = 0;
        while next < case.messages {
            let mut publish = PublishBuilder::new(0, FRAME_MAX);
            while publish.count() < case.batch && next < case.messages {
                if !publish.push(next, &message(next, case.size))? {
                    break;
                }
                next += 1;
            }
            unconfirmed += publish.count();
            socket.write_all(&publish.finish().context("an empty frame")?)?;
            while unconfirmed >= window {
                unconfirmed -= confirmed(&mut socket)?;
            }
        }
        while unconfirmed > 0 {
            unconfirmed -= confirmed(&mut socket)?;
        }
        Ok(Stream { name, messages: case.messages, port })
    }

    /// Best effort: the broker is usually the benchmark's own, and is removed afterwards.
    pub(crate) fn delete(self) {
        let deleted = socket::log_in(self.port)
            .and_then(|mut socket| ask(&mut socket, &Delete { stream: self.name.as_str().into() }));
        if let Err(error) = deleted {
            eprintln!("# deleting {}: {error:#}", self.name);
        }
    }
}

/// One message: a data section that holds JSON of exactly this size.
fn message(number: u64, size: usize) -> Vec<u8> {
    let body = match size {
        ..40 => {
            let digits = format!("{number:0>width$}", width = size.saturating_sub(2));
            format!("\"{}\"", &digits[digits.len() - size.saturating_sub(2)..])
        }
        _ => {
            let head = format!("{{\"seq\":{number},\"text\":\"");
            format!("{head}{}\"}}", "x".repeat(size.saturating_sub(head.len() + 2)))
        }
    };
    let mut message = vec![0, 0x53, 0x75, 0xb0];
    match u8::try_from(body.len()) {
        Ok(length) => {
            message[3] = 0xa0;
            message.push(length);
        }
        Err(_) => message.extend_from_slice(&(body.len() as u32).to_be_bytes()),
    }
    message.extend_from_slice(body.as_bytes());
    message
}

/// Waits for the next confirmation; returns the number of confirmed messages.
fn confirmed(socket: &mut TcpStream) -> anyhow::Result<u32> {
    let (key, payload) = frame(socket)?;
    if key != keys::PUBLISH_CONFIRM {
        bail!("no confirmation, but a frame with key {key}");
    }
    Ok(u32_at(&payload, 1))
}

pub(crate) fn uri(port: u16) -> String {
    format!("rabbitmq-stream://guest:guest@localhost:{port}/%2f")
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

pub(crate) async fn environment(port: u16) -> anyhow::Result<Environment> {
    Ok(Environment::builder().host("localhost").port(port).build().await?)
}
