//! Typed views of the two sections that are lists of known fields.
//!
//! A list may end before its last field, and any field may be null. Text fields are taken from
//! strings and symbols alike, since producers confuse them; other types must be exact.

use super::{AmqpError, Items, List, Value};

/// The `header` section, which describes the transfer of the message to the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// True if the message should survive a restart; `None` where absent.
    pub durable: Option<bool>,
    /// 0 to 255; 4 where absent.
    pub priority: Option<u8>,
    /// Time to live in milliseconds.
    pub ttl: Option<u32>,
    /// True if no other consumer acquired the message before; `None` where absent.
    pub first_acquirer: Option<bool>,
    /// Number of failed deliveries before this one.
    pub delivery_count: Option<u32>,
}

/// A message id, as its publisher chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageId<'a> {
    /// A number.
    Ulong(u64),
    /// RFC 4122, in network order.
    Uuid(&'a [u8; 16]),
    /// Bytes.
    Binary(&'a [u8]),
    /// Text.
    String(&'a str),
}

/// The `properties` section: immutable facts given by the publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// Id of the message.
    pub message_id: Option<MessageId<'a>>,
    /// User that published it.
    pub user_id: Option<&'a [u8]>,
    /// The address that it was sent to.
    pub to: Option<&'a str>,
    /// Subject; RabbitMQ keeps a routing key here.
    pub subject: Option<&'a str>,
    /// Address to answer to.
    pub reply_to: Option<&'a str>,
    /// Id of the message that this one refers to.
    pub correlation_id: Option<MessageId<'a>>,
    /// The media type of the body.
    pub content_type: Option<&'a str>,
    /// Encoding of the body, such as `gzip`.
    pub content_encoding: Option<&'a str>,
    /// Expiry time: milliseconds since the Unix epoch.
    pub absolute_expiry_time: Option<i64>,
    /// Creation time: milliseconds since the Unix epoch.
    pub creation_time: Option<i64>,
    /// The group that it belongs to.
    pub group_id: Option<&'a str>,
    /// Position in that group.
    pub group_sequence: Option<u32>,
    /// Group that an answer should go to.
    pub reply_to_group_id: Option<&'a str>,
}

impl Header {
    pub(super) fn read(list: List<'_>) -> Result<Header, AmqpError> {
        let mut f = Fields(list.items());
        let header = Header {
            durable: f.next("durable", "a boolean", |v| match v {
                Value::Bool(b) => Some(b),
                _ => None,
            })?,
            priority: f.next("priority", "a ubyte", |v| match v {
                Value::Ubyte(n) => Some(n),
                _ => None,
            })?,
            ttl: f.uint("ttl")?,
            first_acquirer: f.next("first-acquirer", "a boolean", |v| match v {
                Value::Bool(b) => Some(b),
                _ => None,
            })?,
            delivery_count: f.uint("delivery-count")?,
        };
        f.end("a header has more than 5 fields")?;
        Ok(header)
    }
}

impl<'a> Properties<'a> {
    pub(super) fn read(list: List<'a>) -> Result<Properties<'a>, AmqpError> {
        let mut f = Fields(list.items());
        let properties = Properties {
            message_id: f.id("message-id")?,
            user_id: f.next("user-id", "a binary", |v| match v {
                Value::Binary(bytes) => Some(bytes),
                Value::RawString(bytes) => Some(bytes),
                other => other.as_str().map(str::as_bytes),
            })?,
            to: f.text("to")?,
            subject: f.text("subject")?,
            reply_to: f.text("reply-to")?,
            correlation_id: f.id("correlation-id")?,
            content_type: f.text("content-type")?,
            content_encoding: f.text("content-encoding")?,
            absolute_expiry_time: f.time("absolute-expiry-time")?,
            creation_time: f.time("creation-time")?,
            group_id: f.text("group-id")?,
            group_sequence: f.uint("group-sequence")?,
            reply_to_group_id: f.text("reply-to-group-id")?,
        };
        f.end("a properties section has more than 13 fields")?;
        Ok(properties)
    }
}

/// Reads one field after the other.
struct Fields<'a>(Items<'a>);

impl<'a> Fields<'a> {
    fn next<T>(
        &mut self,
        what: &'static str,
        expected: &'static str,
        pick: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, AmqpError> {
        let at = self.0.at();
        match self.0.next().transpose()? {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match pick(v) {
                Some(field) => Ok(Some(field)),
                None => Err(AmqpError::Unexpected { at, what, expected, found: v.kind() }),
            },
        }
    }

    fn text(&mut self, what: &'static str) -> Result<Option<&'a str>, AmqpError> {
        self.next(what, "a string", |v| v.as_str())
    }

    fn time(&mut self, what: &'static str) -> Result<Option<i64>, AmqpError> {
        self.next(what, "a timestamp", |v| match v {
            Value::Timestamp(ms) => Some(ms),
            _ => None,
        })
    }

    fn uint(&mut self, what: &'static str) -> Result<Option<u32>, AmqpError> {
        self.next(what, "a uint", |v| match v {
            Value::Uint(n) => Some(n),
            _ => None,
        })
    }

    fn id(&mut self, what: &'static str) -> Result<Option<MessageId<'a>>, AmqpError> {
        self.next(what, "a ulong, a uuid, a binary or a string", |v| match v {
            Value::Ulong(n) => Some(MessageId::Ulong(n)),
            Value::Uuid(uuid) => Some(MessageId::Uuid(uuid)),
            Value::Binary(bytes) | Value::RawString(bytes) => Some(MessageId::Binary(bytes)),
            other => other.as_str().map(MessageId::String),
        })
    }

    fn end(mut self, what: &'static str) -> Result<(), AmqpError> {
        let at = self.0.at();
        match self.0.next() {
            None => Ok(()),
            Some(Err(e)) => Err(e),
            Some(Ok(_)) => Err(AmqpError::Malformed { at, what }),
        }
    }
}
