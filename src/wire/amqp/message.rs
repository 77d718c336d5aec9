//! The sections of a message, found in one pass.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::{AmqpError, Header, List, Map, Properties, Value};

/// A message whose sections were located. Their content is decoded when it is asked for.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    encoded: &'a [u8],
    header: Option<List<'a>>,
    delivery_annotations: Option<Map<'a>>,
    message_annotations: Option<Map<'a>>,
    properties: Option<List<'a>>,
    application_properties: Option<Map<'a>>,
    body: Body<'a>,
    footer: Option<Map<'a>>,
}

/// The body of a message.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// No body section. The standard requires one; some producers leave it out.
    Absent,
    /// One or more `data` sections.
    Data(Data<'a>),
    /// One or more `amqp-sequence` sections.
    Sequence(Sequences<'a>),
    /// An `amqp-value` section.
    Value(Value<'a>),
}

/// The `data` sections of a body.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    first: &'a [u8],
    /// Behind the first section.
    rest: Cursor<'a>,
    more: bool,
}

/// The `amqp-sequence` sections of a body.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    first: List<'a>,
    rest: Cursor<'a>,
    more: bool,
}

/// The bytes of a message that consists of one `data` section with a numeric descriptor, as most
/// publishers send it. `None` says nothing about other messages.
#[inline]
pub fn single_data(encoded: &[u8]) -> Option<&[u8]> {
    match encoded {
        [0, 0x53, 0x75, 0xa0, size, body @ ..] => (body.len() == *size as usize).then_some(body),
        [0, 0x53, 0x75, 0xb0, a, b, c, d, body @ ..] => {
            (body.len() == u32::from_be_bytes([*a, *b, *c, *d]) as usize).then_some(body)
        }
        _ => None,
    }
}

impl<'a> Message<'a> {
    /// Locates the sections. See the [module](super) for what is checked here and what later.
    pub fn parse(encoded: &'a [u8]) -> Result<Message<'a>, AmqpError> {
        let mut cursor = Cursor::new(encoded);
        let mut message = Message {
            encoded,
            header: None,
            delivery_annotations: None,
            message_annotations: None,
            properties: None,
            application_properties: None,
            body: Body::Absent,
            footer: None,
        };
        if let Some(first) = single_data(encoded) {
            let rest = cursor.moved_to(encoded.len());
            message.body = Body::Data(Data { first, rest, more: false });
            return Ok(message);
        }
        while cursor.left() > 0 {
            message.section(&mut cursor)?;
        }
        Ok(message)
    }

    fn section(&mut self, c: &mut Cursor<'a>) -> Result<(), AmqpError> {
        let at = c.at();
        match section_code(c)? {
            HEADER => once(&mut self.header, at, list(c, "a header")?),
            DELIVERY_ANNOTATIONS => {
                once(&mut self.delivery_annotations, at, map(c, "a delivery-annotations section")?)
            }
            MESSAGE_ANNOTATIONS => {
                once(&mut self.message_annotations, at, map(c, "a message-annotations section")?)
            }
            PROPERTIES => once(&mut self.properties, at, list(c, "a properties section")?),
            APPLICATION_PROPERTIES => once(
                &mut self.application_properties,
                at,
                map(c, "an application-properties section")?,
            ),
            FOOTER => once(&mut self.footer, at, map(c, "a footer")?),
            DATA => {
                let first = binary(c)?;
                match &mut self.body {
                    Body::Absent => self.body = Body::Data(Data { first, rest: *c, more: false }),
                    Body::Data(data) => data.more = true,
                    _ => return Err(mixed(at)),
                }
                Ok(())
            }
            SEQUENCE => {
                let first = sequence(c)?;
                match &mut self.body {
                    Body::Absent => {
                        self.body = Body::Sequence(Sequences { first, rest: *c, more: false });
                    }
                    Body::Sequence(sequences) => sequences.more = true,
                    _ => return Err(mixed(at)),
                }
                Ok(())
            }
            VALUE => match self.body {
                Body::Absent => {
                    self.body = Body::Value(Value::read(c, 0)?);
                    Ok(())
                }
                _ => Err(mixed(at)),
            },
            code => Err(AmqpError::UnknownSection { at, code }),
        }
    }

    /// The encoded message, unchanged.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// The header's fields, in the standard's order.
    pub fn header_list(&self) -> Option<List<'a>> {
        self.header
    }

    /// The header.
    pub fn header(&self) -> Result<Option<Header>, AmqpError> {
        self.header.map(Header::read).transpose()
    }

    /// The delivery annotations.
    pub fn delivery_annotations(&self) -> Option<Map<'a>> {
        self.delivery_annotations
    }

    /// The message annotations.
    pub fn message_annotations(&self) -> Option<Map<'a>> {
        self.message_annotations
    }

    /// The properties' fields, in the standard's order.
    pub fn properties_list(&self) -> Option<List<'a>> {
        self.properties
    }

    /// The properties.
    pub fn properties(&self) -> Result<Option<Properties<'a>>, AmqpError> {
        self.properties.map(Properties::read).transpose()
    }

    /// The application properties.
    pub fn application_properties(&self) -> Option<Map<'a>> {
        self.application_properties
    }

    /// The body.
    pub fn body(&self) -> Body<'a> {
        self.body
    }

    /// The footer.
    pub fn footer(&self) -> Option<Map<'a>> {
        self.footer
    }
}

impl<'a> Data<'a> {
    /// The bytes, if there is exactly one section; else `None`.
    #[inline]
    pub fn single(&self) -> Option<&'a [u8]> {
        (!self.more).then_some(self.first)
    }

    /// The bytes of each section, in order.
    pub fn sections(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = if self.more { self.rest } else { self.rest.moved_to(usize::MAX) };
        std::iter::once(self.first).chain(std::iter::from_fn(move || next(&mut rest, DATA, binary)))
    }

    /// The bytes of all sections together; copied only if there are several.
    pub fn joined(&self) -> Cow<'a, [u8]> {
        match self.single() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(self.sections().flatten().copied().collect()),
        }
    }
}

impl<'a> Sequences<'a> {
    /// The list of each section, in order.
    pub fn lists(&self) -> impl Iterator<Item = List<'a>> + use<'a> {
        let mut rest = if self.more { self.rest } else { self.rest.moved_to(usize::MAX) };
        std::iter::once(self.first)
            .chain(std::iter::from_fn(move || next(&mut rest, SEQUENCE, sequence)))
    }
}

pub(super) const HEADER: u64 = 0x70;
pub(super) const DELIVERY_ANNOTATIONS: u64 = 0x71;
pub(super) const MESSAGE_ANNOTATIONS: u64 = 0x72;
pub(super) const PROPERTIES: u64 = 0x73;
pub(super) const APPLICATION_PROPERTIES: u64 = 0x74;
pub(super) const DATA: u64 = 0x75;
pub(super) const SEQUENCE: u64 = 0x76;
pub(super) const VALUE: u64 = 0x77;
pub(super) const FOOTER: u64 = 0x78;

/// The next section of this kind. All were read without error when the message was parsed.
fn next<'a, T>(
    c: &mut Cursor<'a>,
    kind: u64,
    read: impl Fn(&mut Cursor<'a>) -> Result<T, AmqpError>,
) -> Option<T> {
    while c.left() > 0 {
        if section_code(c).ok()? == kind {
            return read(c).ok();
        }
        c.skip_value().ok()?;
    }
    None
}

/// The sections, each with its code and its byte range.
pub(super) fn spans(encoded: &[u8]) -> Result<Vec<(u64, std::ops::Range<usize>)>, AmqpError> {
    let mut cursor = Cursor::new(encoded);
    let mut spans = Vec::new();
    while cursor.left() > 0 {
        let start = cursor.at();
        let code = section_code(&mut cursor)?;
        cursor.skip_value()?;
        spans.push((code, start..cursor.at()));
    }
    Ok(spans)
}

fn section_code(c: &mut Cursor<'_>) -> Result<u64, AmqpError> {
    let at = c.at();
    if c.byte("a section")? != 0 {
        return Err(AmqpError::Malformed { at, what: "a message's section must start with 0x00" });
    }
    match Value::read(c, 0)? {
        Value::Ulong(code) => Ok(code),
        Value::Symbol(name) => match name {
            "amqp:header:list" => Ok(HEADER),
            "amqp:delivery-annotations:map" => Ok(DELIVERY_ANNOTATIONS),
            "amqp:message-annotations:map" => Ok(MESSAGE_ANNOTATIONS),
            "amqp:properties:list" => Ok(PROPERTIES),
            "amqp:application-properties:map" => Ok(APPLICATION_PROPERTIES),
            "amqp:data:binary" => Ok(DATA),
            "amqp:amqp-sequence:list" => Ok(SEQUENCE),
            "amqp:amqp-value:*" => Ok(VALUE),
            "amqp:footer:map" => Ok(FOOTER),
            _ => Err(AmqpError::Malformed { at, what: "a section's symbolic name is unknown" }),
        },
        other => Err(AmqpError::Unexpected {
            at: at + 1,
            what: "a section's descriptor",
            expected: "a ulong or a symbol",
            found: other.kind(),
        }),
    }
}

fn once<T>(slot: &mut Option<T>, at: usize, value: Option<T>) -> Result<(), AmqpError> {
    if slot.is_some() {
        return Err(AmqpError::Malformed { at, what: "a section comes twice" });
    }
    *slot = value;
    Ok(())
}

fn mixed(at: usize) -> AmqpError {
    AmqpError::Malformed { at, what: "a second body of another kind, or a second amqp-value" }
}

fn list<'a>(c: &mut Cursor<'a>, what: &'static str) -> Result<Option<List<'a>>, AmqpError> {
    let at = c.at();
    match Value::read(c, 0)? {
        Value::List(list) => Ok(Some(list)),
        Value::Null => Ok(None),
        v => Err(AmqpError::Unexpected { at, what, expected: "a list", found: v.kind() }),
    }
}

fn map<'a>(c: &mut Cursor<'a>, what: &'static str) -> Result<Option<Map<'a>>, AmqpError> {
    let at = c.at();
    match Value::read(c, 0)? {
        Value::Map(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        v => Err(AmqpError::Unexpected { at, what, expected: "a map", found: v.kind() }),
    }
}

fn binary<'a>(c: &mut Cursor<'a>) -> Result<&'a [u8], AmqpError> {
    let at = c.at();
    match Value::read(c, 0)? {
        Value::Binary(bytes) => Ok(bytes),
        v => Err(AmqpError::Unexpected {
            at,
            what: "a data section",
            expected: "a binary",
            found: v.kind(),
        }),
    }
}

fn sequence<'a>(c: &mut Cursor<'a>) -> Result<List<'a>, AmqpError> {
    let at = c.at();
    match Value::read(c, 0)? {
        Value::List(list) => Ok(list),
        v => Err(AmqpError::Unexpected {
            at,
            what: "an amqp-sequence section",
            expected: "a list",
            found: v.kind(),
        }),
    }
}
