//! A delivered message as the AMQP 1.0 message of the stream, as RabbitMQ converts it.
//!
//! Its own conversion is `rabbit_msg_record` before 3.13, and `mc_amqpl` from then on. What it drops
//! on the way to AMQP 0.9.1 is not here any more: docs/guides/amqp.md lists it.

use super::fields::{self, Field, put_compound, put_sized, put_value};
use super::{Cursor, Delivered, long, short};
use crate::types::Offset;
use crate::wire::error::{WireError, WireProblem};

/// The `type` of a message whose body is AMQP 1.0 itself.
const ENCODED: &[u8] = b"amqp-1.0";

/// Header in which the broker gives the offset.
const OFFSET: &[u8] = b"x-stream-offset";

/// Form of conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Before 3.13.
    Record,
    /// From 3.13 on.
    Container,
}

impl Style {
    /// The conversion of a broker of this version.
    pub fn of(version: &str) -> Style {
        if release(version) < (3, 13) { Style::Record } else { Style::Container }
    }
}

/// Number of this conversion: to be raised with every change of what it writes, up to 15.
const CONVERSION: u16 = 0;

/// Number of the form that messages have here, from a broker of this version: they may be encoded
/// otherwise by another release, or by another conversion of ours.
pub fn form(version: &str) -> u16 {
    let (major, minor) = release(version);
    let of = |number: u32, most: u32| u16::try_from(number.min(most)).unwrap_or(u16::MAX);
    CONVERSION << 12 | of(major, 15) << 8 | of(minor, 255)
}

fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX));
    (parts.next().unwrap_or(u32::MAX), parts.next().unwrap_or(u32::MAX))
}

/// Properties of a message that are known before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its offset in the stream.
    pub offset: Offset,
    /// Its own time in milliseconds, if its publisher gave one.
    pub timestamp: Option<i64>,
}

/// Most bytes of the converted message.
pub fn bound(body_bytes: u64, properties: usize, delivered: &Delivered) -> u64 {
    // Each element takes at most twice its size; sections and annotations have heads of their own.
    let names = delivered.exchange.len() + delivered.routing_key.len();
    body_bytes.saturating_add(2 * (properties + names) as u64 + 256)
}

#[derive(Default)]
struct Basic<'a> {
    content_type: Option<&'a [u8]>,
    content_encoding: Option<&'a [u8]>,
    headers: &'a [u8],
    delivery_mode: Option<u8>,
    priority: Option<u8>,
    correlation_id: Option<&'a [u8]>,
    reply_to: Option<&'a [u8]>,
    expiration: Option<&'a [u8]>,
    message_id: Option<&'a [u8]>,
    timestamp: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    user_id: Option<&'a [u8]>,
    app_id: Option<&'a [u8]>,
}

impl<'a> Basic<'a> {
    fn parse(properties: &'a [u8]) -> Result<Basic<'a>, WireError> {
        let mut c = Cursor::new("properties", properties);
        let flags = c.u16()?;
        let has = |bit: u32| flags & (1 << bit) != 0;
        let mut all = Basic::default();
        macro_rules! shorts {
            ($($bit:literal $field:ident),*) => {
                $(if has($bit) { all.$field = Some(short(&mut c)?); })*
            };
        }
        shorts!(15 content_type, 14 content_encoding);
        if has(13) {
            all.headers = long(&mut c)?;
        }
        if has(12) {
            all.delivery_mode = Some(c.u8()?);
        }
        if has(11) {
            all.priority = Some(c.u8()?);
        }
        shorts!(10 correlation_id, 9 reply_to, 8 expiration, 7 message_id);
        if has(6) {
            all.timestamp = Some(c.take(8)?);
        }
        shorts!(5 kind, 4 user_id, 3 app_id);
        Ok(all)
    }
}

/// Writes all of the message that comes before the bytes of its body, which follow as they are.
///
/// # Errors
/// If the properties cannot be read, or have no offset.
pub fn begin_message(
    out: &mut Vec<u8>,
    properties: &[u8],
    body_bytes: u64,
    delivered: &Delivered,
    queue: &str,
    style: Style,
) -> Result<Incoming, WireError> {
    let basic = Basic::parse(properties)?;
    let offset = offset_in(&basic, properties)?;
    if style == Style::Container {
        put_header(out, &basic);
    }
    put_annotations(out, &basic, delivered, queue, style)?;
    put_properties(out, &basic, style);
    put_application(out, &basic, style)?;
    if basic.kind != Some(ENCODED) || style == Style::Record {
        out.extend([0x00, 0x53, 0x75]);
        match u8::try_from(body_bytes) {
            Ok(size) => out.extend([0xa0, size]),
            Err(_) => {
                out.push(0xb0);
                out.extend(u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
    }
    Ok(Incoming { offset, timestamp: basic.timestamp.map(fields::milliseconds) })
}

/// The offset of a message with these properties.
///
/// # Errors
/// If the properties cannot be read, or have no offset.
pub fn offset_of(properties: &[u8]) -> Result<Offset, WireError> {
    offset_in(&Basic::parse(properties)?, properties)
}

fn offset_in(basic: &Basic<'_>, properties: &[u8]) -> Result<Offset, WireError> {
    let mut offset = None;
    fields::each(basic.headers, |field| {
        if field.name == OFFSET && offset.is_none() {
            // RabbitMQ puts its own before one that the publisher has set.
            offset = Some(fields::integer(&field));
        }
        Ok(())
    })?;
    let offset = offset.flatten().filter(|offset| i64::try_from(*offset).is_ok());
    offset.map(Offset).ok_or_else(|| {
        let c = Cursor::new("properties", properties);
        c.error(WireProblem::Unknown { what: "message without x-stream-offset", value: 0 })
    })
}

/// That a message is durable is what the broker assumes without a header, so it is not written.
fn put_header(out: &mut Vec<u8>, basic: &Basic<'_>) {
    let ttl = basic.expiration.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
    if basic.priority.is_none() && ttl.is_none() && basic.delivery_mode != Some(1) {
        return;
    }
    let mut items = vec![if basic.delivery_mode == Some(2) { 0x41 } else { 0x42 }];
    let mut count = 1;
    if basic.priority.is_some() || ttl.is_some() {
        count = 2;
        match basic.priority {
            Some(priority) => items.extend([0x50, priority]),
            None => items.push(0x40),
        }
    }
    if let Some(ttl) = ttl {
        count = 3;
        items.push(0x70);
        items.extend(ttl.to_be_bytes());
    }
    let size = u8::try_from(items.len() + 1).unwrap_or(u8::MAX);
    out.extend([0x00, 0x53, 0x70, 0xc0, size, count]);
    out.append(&mut items);
}

/// A map's section, left out if it is empty.
fn put_map(
    out: &mut Vec<u8>,
    section: u8,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<u32, WireError>,
) -> Result<(), WireError> {
    let before = out.len();
    out.extend([0x00, 0x53, section]);
    let mut count = 0;
    put_compound(out, 0xd1, |out| {
        count = fill(out)?;
        Ok(count)
    })?;
    if count == 0 {
        out.truncate(before);
    }
    Ok(())
}

fn put_annotations(
    out: &mut Vec<u8>,
    basic: &Basic<'_>,
    delivered: &Delivered,
    queue: &str,
    style: Style,
) -> Result<(), WireError> {
    let (exchange, key) = (&delivered.exchange[..], &delivered.routing_key[..]);
    put_map(out, 0x72, |out| {
        let mut count = 0;
        let mut text = |out: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            put_sized(out, 0xa3, name);
            put_sized(out, 0xa1, value);
            count += 2;
        };
        // What is published to the stream itself has these too, or not: nothing tells.
        if !(exchange.is_empty() && key == queue.as_bytes()) {
            text(out, b"x-exchange", exchange);
            text(out, b"x-routing-key", key);
        }
        match style {
            Style::Record => {
                if let Some(expiration) = basic.expiration {
                    text(out, b"x-basic-expiration", expiration);
                }
                for (name, value) in [
                    (&b"x-basic-delivery-mode"[..], basic.delivery_mode),
                    (b"x-basic-priority", basic.priority),
                ] {
                    if let Some(value) = value {
                        put_sized(out, 0xa3, name);
                        out.extend([0x50, value]);
                        count += 2;
                    }
                }
            }
            Style::Container => {
                if let Some(kind) = basic.kind.filter(|kind| *kind != ENCODED) {
                    text(out, b"x-basic-type", kind);
                }
                fields::each(basic.headers, |field| {
                    let name = match field.name {
                        OFFSET => return Ok(()),
                        b"CC" if field.kind == b'A' => &b"x-cc"[..],
                        name if name.starts_with(b"x-") => name,
                        _ => return Ok(()),
                    };
                    put_sized(out, 0xa3, name);
                    put_value(out, field.kind, field.value, true, 0)?;
                    count += 2;
                    Ok(())
                })?;
            }
        }
        Ok(count)
    })
}

fn put_id(out: &mut Vec<u8>, id: &[u8], style: Style) {
    match (style, uuid(id)) {
        (Style::Container, Some(uuid)) => {
            out.push(0x98);
            out.extend(uuid);
        }
        _ => put_sized(out, 0xa1, id),
    }
}

/// The bytes of `urn:uuid:…`.
fn uuid(id: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(id).ok()?.strip_prefix("urn:uuid:")?;
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] {
        return None;
    }
    let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    Some(number.to_be_bytes())
}

fn put_properties(out: &mut Vec<u8>, basic: &Basic<'_>, style: Style) {
    let group = basic.app_id.filter(|_| style == Style::Container);
    let all = [
        basic.message_id,
        basic.user_id,
        basic.reply_to,
        basic.correlation_id,
        basic.content_type,
        basic.content_encoding,
        basic.timestamp,
        group,
    ];
    if all.iter().all(Option::is_none) {
        return;
    }
    let mut items = Vec::new();
    let (mut count, mut last) = (0, 0);
    let mut written = 0;
    let mut item = |present: bool, put: &mut dyn FnMut(&mut Vec<u8>)| {
        count += 1;
        match present {
            true => {
                put(&mut items);
                (last, written) = (count, items.len());
            }
            false => items.push(0x40),
        }
    };
    let plain = |code: u8, value: Option<&[u8]>| {
        let value = value.unwrap_or_default().to_vec();
        move |out: &mut Vec<u8>| put_sized(out, code, &value)
    };
    item(basic.message_id.is_some(), &mut |out| {
        put_id(out, basic.message_id.unwrap_or_default(), style);
    });
    item(basic.user_id.is_some(), &mut plain(0xa0, basic.user_id));
    item(false, &mut |_| {}); // to
    item(false, &mut |_| {}); // subject
    item(basic.reply_to.is_some(), &mut plain(0xa1, basic.reply_to));
    item(basic.correlation_id.is_some(), &mut |out| {
        put_id(out, basic.correlation_id.unwrap_or_default(), style);
    });
    item(basic.content_type.is_some(), &mut plain(0xa3, basic.content_type));
    item(basic.content_encoding.is_some(), &mut plain(0xa3, basic.content_encoding));
    item(false, &mut |_| {}); // absolute-expiry-time
    item(basic.timestamp.is_some(), &mut |out| {
        out.push(0x83);
        out.extend(fields::milliseconds(basic.timestamp.unwrap_or_default()).to_be_bytes());
    });
    item(group.is_some(), &mut plain(0xa1, group));
    if last == 0 {
        return;
    }
    items.truncate(written);
    out.extend([0x00, 0x53, 0x73, 0xd0]);
    out.extend(u32::try_from(items.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(u32::from(u8::try_from(last).unwrap_or(u8::MAX)).to_be_bytes());
    out.append(&mut items);
}

fn put_application(out: &mut Vec<u8>, basic: &Basic<'_>, style: Style) -> Result<(), WireError> {
    put_map(out, 0x74, |out| {
        let mut count = 0;
        if style == Style::Record {
            for (name, value) in
                [(&b"x-basic-type"[..], basic.kind), (b"x-basic-app-id", basic.app_id)]
            {
                if let Some(value) = value {
                    put_sized(out, 0xa1, name);
                    put_sized(out, 0xa1, value);
                    count += 2;
                }
            }
        }
        fields::each(basic.headers, |Field { name, kind, value }| {
            let is_annotation = style == Style::Container && name.starts_with(b"x-");
            if name == OFFSET || is_annotation || matches!(kind, b'A' | b'F') {
                return Ok(());
            }
            put_sized(out, 0xa1, name);
            put_value(out, kind, value, style == Style::Container, 0)?;
            count += 2;
            Ok(())
        })?;
        Ok(count)
    })
}
