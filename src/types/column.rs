//! Typed columns: the source of a value, and its type. The configuration parses them, sinks apply
//! them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One column: a name for a value that is taken from each message.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Name of the column in the destination.
    pub name: String,
    /// Source of the value.
    pub from: Source,
    /// Type of the column.
    pub kind: ColumnType,
    /// True if a message without the value is bad; else the column is null there.
    pub required: bool,
    /// Treatment of a value of another type.
    pub on_misfit: OnMisfit,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text. Numbers and booleans are written as text.
    #[default]
    Text,
    /// A whole number of 64 bits with a sign.
    Integer,
    /// A binary floating-point number of 64 bits.
    Float,
    /// A decimal number, with all its digits.
    Numeric,
    /// True or false.
    Boolean,
    /// A point in time: a text as in RFC 3339, a whole number of milliseconds since 1970, or an AMQP
    /// timestamp.
    Timestamp,
    /// Any value, as JSON.
    Json,
    /// Bytes; of a text, its UTF-8.
    Bytes,
}

/// Treatment of a value whose type differs from the column's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMisfit {
    /// The message is bad: `on_bad_message` decides.
    #[default]
    BadMessage,
    /// The column is null there.
    Null,
}

/// Source of a column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The name of the stream.
    Stream,
    /// The message's offset.
    Offset,
    /// The chunk's timestamp.
    Timestamp,
    /// The whole body.
    Body,
    /// The value that a JSON pointer (RFC 6901) selects in a JSON body.
    Json(Pointer),
    /// A field of the properties section.
    Property(Property),
    /// All application properties, as JSON.
    ApplicationProperties,
    /// One application property.
    ApplicationProperty(String),
    /// One message annotation.
    MessageAnnotation(String),
}

/// A JSON pointer (RFC 6901), split into its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub Vec<String>);

macro_rules! properties {
    ($($(#[$doc:meta])* $id:ident = $name:literal,)*) => {
        /// A field of the properties section.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property { $($(#[$doc])* $id,)* }

        impl Property {
            /// All of them, in the standard's order.
            pub const ALL: &[Property] = &[$(Property::$id),*];

            /// Name in the configuration and in the envelope.
            pub fn name(self) -> &'static str {
                match self { $(Property::$id => $name,)* }
            }
        }
    };
}

properties! {
    /// Id of the message.
    MessageId = "message_id",
    /// User that published it.
    UserId = "user_id",
    /// The address that it was sent to.
    To = "to",
    /// Subject.
    Subject = "subject",
    /// Address to answer to.
    ReplyTo = "reply_to",
    /// Id of the message that this one refers to.
    CorrelationId = "correlation_id",
    /// The media type of the body.
    ContentType = "content_type",
    /// Encoding of the body, such as `gzip`.
    ContentEncoding = "content_encoding",
    /// Expiry time.
    AbsoluteExpiryTime = "absolute_expiry_time",
    /// Creation time.
    CreationTime = "creation_time",
    /// The group that it belongs to.
    GroupId = "group_id",
    /// Position in that group.
    GroupSequence = "group_sequence",
    /// The group that answers belong to.
    ReplyToGroupId = "reply_to_group_id",
}

/// Error in a column's source, for the author of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSource(String);

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Source, BadSource> {
        match text {
            "stream" => return Ok(Source::Stream),
            "offset" => return Ok(Source::Offset),
            "timestamp" => return Ok(Source::Timestamp),
            "body" => return Ok(Source::Body),
            "application_properties" => return Ok(Source::ApplicationProperties),
            _ => {}
        }
        if text.is_empty() || text.starts_with('/') {
            return pointer(text).map(Source::Json);
        }
        let Some((section, name)) = text.split_once('.') else { return Err(unknown(text)) };
        if name.is_empty() {
            return Err(BadSource(format!("{text:?} has no name after the dot")));
        }
        match section {
            "application_properties" => Ok(Source::ApplicationProperty(name.to_owned())),
            "message_annotations" => Ok(Source::MessageAnnotation(name.to_owned())),
            "properties" => {
                let found = Property::ALL.iter().find(|property| property.name() == name);
                found.copied().map(Source::Property).ok_or_else(|| {
                    let names = Property::ALL.iter().map(|property| property.name());
                    BadSource(format!(
                        "there is no property {name:?}: expected one of {}",
                        names.collect::<Vec<_>>().join(", ")
                    ))
                })
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> BadSource {
    BadSource(format!(
        "{text:?} is not a source: expected a pointer into a JSON body, as in \"/user/id\" (\"\" is the \
         whole document), or one of stream, offset, timestamp, body, properties.NAME, \
         application_properties, application_properties.NAME, message_annotations.NAME"
    ))
}

fn pointer(text: &str) -> Result<Pointer, BadSource> {
    let unescape = |token: &str| {
        let mut out = String::with_capacity(token.len());
        let mut rest = token.chars();
        while let Some(c) = rest.next() {
            match c {
                '~' => match rest.next() {
                    Some('0') => out.push('~'),
                    Some('1') => out.push('/'),
                    _ => {
                        return Err(BadSource(format!(
                            "{text:?} is not a JSON pointer: `~` is allowed only in `~0` (for `~`) and \
                             `~1` (for `/`)"
                        )));
                    }
                },
                c => out.push(c),
            }
        }
        Ok(out)
    };
    text.split('/').skip(1).map(unescape).collect::<Result<_, _>>().map(Pointer)
}

/// The text that the configuration uses.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stream => f.write_str("stream"),
            Source::Offset => f.write_str("offset"),
            Source::Timestamp => f.write_str("timestamp"),
            Source::Body => f.write_str("body"),
            Source::Json(Pointer(tokens)) => tokens.iter().try_for_each(|token| {
                write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))
            }),
            Source::Property(property) => write!(f, "properties.{}", property.name()),
            Source::ApplicationProperties => f.write_str("application_properties"),
            Source::ApplicationProperty(name) => write!(f, "application_properties.{name}"),
            Source::MessageAnnotation(name) => write!(f, "message_annotations.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_what_they_say() {
        let pointer = |tokens: &[&str]| {
            Source::Json(Pointer(tokens.iter().map(|t| (*t).to_owned()).collect()))
        };
        for (text, source) in [
            ("", pointer(&[])),
            ("/", pointer(&[""])),
            ("/user/id", pointer(&["user", "id"])),
            ("/a~1b/m~0n/~01/0", pointer(&["a/b", "m~n", "~1", "0"])),
            ("stream", Source::Stream),
            ("body", Source::Body),
            ("properties.group_sequence", Source::Property(Property::GroupSequence)),
            ("application_properties", Source::ApplicationProperties),
            ("application_properties.a.b", Source::ApplicationProperty("a.b".to_owned())),
            ("message_annotations.x-n", Source::MessageAnnotation("x-n".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(source.clone()), "{text}");
            assert_eq!(source.to_string(), text);
        }
        for text in
            ["user", "/a~", "/a~2", "properties", "properties.", "properties.name", "header.ttl"]
        {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
