//! The methods that a consumer sends and receives.

use super::{Cursor, FRAME_END, long, short};
use crate::types::{Offset, Secret};
use crate::wire::error::WireError;

/// A received method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// The broker introduces itself: its version, and its login mechanisms.
    Start {
        /// The broker's version.
        version: String,
        /// Names of mechanisms, separated by blanks.
        mechanisms: String,
    },
    /// Limits that the broker proposes.
    Tune {
        /// Most channels; 0 for any number.
        channels: u16,
        /// Largest frame; 0 for any size.
        frame_max: u32,
        /// Seconds; 0 for none.
        heartbeat: u16,
    },
    /// The broker closes the connection.
    ConnectionClose(Closed),
    /// The broker closes a channel.
    ChannelClose(Closed),
    /// A message follows.
    Deliver(Delivered),
    /// The broker ends the consumer: its queue is gone.
    Cancel,
    /// A consumer has begun.
    Consuming {
        /// Its tag.
        tag: Vec<u8>,
    },
    /// Number of messages in a queue.
    Declared {
        /// As the broker counts them.
        messages: u32,
    },
    /// Any other: class and method.
    Other(u16, u16),
}

/// Reason why the broker closed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Code, as `404`.
    pub code: u16,
    /// Text.
    pub text: String,
}

/// Announcement of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Number on its channel, from 1.
    pub tag: u64,
    /// Exchange to which it was published.
    pub exchange: Vec<u8>,
    /// Routing key with which it was published.
    pub routing_key: Vec<u8>,
}

impl Method {
    /// Reads a method.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn parse(payload: &[u8]) -> Result<Method, WireError> {
        let mut c = Cursor::new("method", payload);
        let (class, method) = (c.u16()?, c.u16()?);
        Ok(match (class, method) {
            (10, 10) => {
                c.take(2)?;
                let version = super::fields::text_of(long(&mut c)?, b"version")?;
                let mechanisms = String::from_utf8_lossy(long(&mut c)?).into_owned();
                Method::Start { version, mechanisms }
            }
            (10, 30) => {
                Method::Tune { channels: c.u16()?, frame_max: c.u32()?, heartbeat: c.u16()? }
            }
            (10, 50) => Method::ConnectionClose(closed(&mut c)?),
            (20, 40) => Method::ChannelClose(closed(&mut c)?),
            (60, 60) => {
                short(&mut c)?; // The consumer's tag: there is one consumer on a channel.
                let tag = c.u64()?;
                c.u8()?; // Redelivered.
                let exchange = short(&mut c)?.to_vec();
                Method::Deliver(Delivered { tag, exchange, routing_key: short(&mut c)?.to_vec() })
            }
            (60, 21) => Method::Consuming { tag: short(&mut c)?.to_vec() },
            (60, 30) => Method::Cancel,
            (50, 11) => {
                short(&mut c)?;
                Method::Declared { messages: c.u32()? }
            }
            (class, method) => Method::Other(class, method),
        })
    }
}

fn closed(c: &mut Cursor<'_>) -> Result<Closed, WireError> {
    Ok(Closed { code: c.u16()?, text: String::from_utf8_lossy(short(c)?).into_owned() })
}

/// A method's frame.
pub fn call(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let size = u32::try_from(arguments.len() + 4).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(arguments.len() + 12);
    out.push(1);
    out.extend(channel.to_be_bytes());
    out.extend(size.to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(method.to_be_bytes());
    out.extend_from_slice(arguments);
    out.push(FRAME_END);
    out
}

/// Cut off at 255 bytes: callers check names before.
fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(text.get(..length.into()).unwrap_or_default());
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Login. Without a password, by the client's certificate.
pub fn start_ok(name: &str, login: Option<(&str, &Secret)>) -> Vec<u8> {
    let mut capabilities = Vec::new();
    for capability in ["authentication_failure_close", "consumer_cancel_notify", "basic.nack"] {
        put_short(&mut capabilities, capability.as_bytes());
        capabilities.extend(*b"t\x01");
    }
    let mut properties = Vec::new();
    for (key, value) in [("product", "Rillway"), ("connection_name", name)] {
        put_short(&mut properties, key.as_bytes());
        properties.push(b'S');
        put_long(&mut properties, value.as_bytes());
    }
    put_short(&mut properties, b"capabilities");
    properties.push(b'F');
    put_long(&mut properties, &capabilities);
    let mut out = Vec::new();
    put_long(&mut out, &properties);
    match login {
        Some((user, password)) => {
            put_short(&mut out, b"PLAIN");
            let response = [b"\0", user.as_bytes(), b"\0", password.reveal().as_bytes()].concat();
            put_long(&mut out, &response);
        }
        None => {
            put_short(&mut out, b"EXTERNAL");
            put_long(&mut out, b"");
        }
    }
    put_short(&mut out, b"en_US");
    call(0, 10, 11, &out)
}

/// Replaces the secret of the login, on an open connection. Answered by (10, 71).
pub fn update_secret(secret: &Secret) -> Vec<u8> {
    let mut out = Vec::new();
    put_long(&mut out, secret.reveal().as_bytes());
    put_short(&mut out, b"renewed");
    call(0, 10, 70, &out)
}

/// The agreed limits.
pub fn tune_ok(channels: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    let arguments =
        [&channels.to_be_bytes()[..], &frame_max.to_be_bytes(), &heartbeat.to_be_bytes()];
    call(0, 10, 31, &arguments.concat())
}

/// Opens a virtual host.
pub fn open_connection(vhost: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_short(&mut out, vhost.as_bytes());
    out.extend([0, 0]);
    call(0, 10, 40, &out)
}

/// Most messages that may be outstanding to the next consumer of this channel.
pub fn qos(channel: u16, prefetch: u16) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(prefetch.to_be_bytes());
    out.push(0);
    call(channel, 60, 10, &out)
}

/// Acknowledges all messages up to this one.
pub fn ack(channel: u16, tag: u64) -> Vec<u8> {
    let mut out = tag.to_be_bytes().to_vec();
    out.push(1);
    call(channel, 60, 80, &out)
}

/// Ends a consumer.
pub fn cancel(channel: u16, tag: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_short(&mut out, tag);
    out.push(0);
    call(channel, 60, 30, &out)
}

/// Asks whether a queue exists.
pub fn passive_declare(channel: u16, queue: &str) -> Vec<u8> {
    let mut out = vec![0, 0];
    put_short(&mut out, queue.as_bytes());
    out.push(1);
    put_long(&mut out, &[]);
    call(channel, 50, 10, &out)
}

/// Start of a consumer, as `x-stream-offset` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// `first`, `last` or `next`.
    Word(&'static str),
    /// An offset; what lies below it is not delivered.
    Offset(Offset),
    /// Seconds since 1970.
    Seconds(u64),
}

/// Begins to consume, with acknowledgements. `filter` has the filter values that the broker selects by,
/// and whether it also selects what has none; without values there is no filter.
pub fn consume(channel: u16, queue: &str, start: StartAt, filter: (&[String], bool)) -> Vec<u8> {
    let mut arguments = Vec::new();
    let (values, match_unfiltered) = filter;
    if !values.is_empty() {
        let mut items = Vec::new();
        for value in values {
            items.push(b'S');
            put_long(&mut items, value.as_bytes());
        }
        put_short(&mut arguments, b"x-stream-filter");
        arguments.push(b'A');
        put_long(&mut arguments, &items);
        put_short(&mut arguments, b"x-stream-match-unfiltered");
        arguments.extend([b't', u8::from(match_unfiltered)]);
    }
    put_short(&mut arguments, b"x-stream-offset");
    match start {
        StartAt::Word(word) => {
            arguments.push(b'S');
            put_long(&mut arguments, word.as_bytes());
        }
        StartAt::Offset(offset) => {
            arguments.push(b'l');
            arguments.extend(i64::try_from(offset.0).unwrap_or(i64::MAX).to_be_bytes());
        }
        StartAt::Seconds(seconds) => {
            arguments.push(b'T');
            arguments.extend(seconds.to_be_bytes());
        }
    }
    let mut out = vec![0, 0];
    put_short(&mut out, queue.as_bytes());
    put_short(&mut out, b"");
    out.push(0);
    put_long(&mut out, &arguments);
    call(channel, 60, 20, &out)
}
