//! Writes a message with properties, for what was never on a stream: the cases of `rillway test`.

use super::message;
use super::write::{section, sized};

/// A value that needs no others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Long(i64),
    /// An unsigned number.
    Ulong(u64),
    /// An unsigned number of 32 bits.
    Uint(u32),
    /// A floating-point number.
    Double(f64),
    /// A string.
    Text(&'a str),
    /// A symbol.
    Symbol(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Milliseconds since 1970.
    Timestamp(i64),
}

/// A message with these properties, in the standard's order, these application properties, and this body
/// in a data section. Sections without values are left out.
pub fn compose(
    properties: &[Plain<'_>],
    application_properties: &[(&str, Plain<'_>)],
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 256);
    if properties.iter().any(|value| *value != Plain::Null) {
        section(&mut out, message::PROPERTIES);
        let mut items = Vec::new();
        properties.iter().for_each(|value| write(&mut items, *value));
        compound(&mut out, 0xd0, properties.len(), &items);
    }
    if !application_properties.is_empty() {
        section(&mut out, message::APPLICATION_PROPERTIES);
        let mut items = Vec::new();
        for (key, value) in application_properties {
            write(&mut items, Plain::Text(key));
            write(&mut items, *value);
        }
        compound(&mut out, 0xd1, 2 * application_properties.len(), &items);
    }
    section(&mut out, message::DATA);
    sized(&mut out, 0xa0, body);
    out
}

fn compound(out: &mut Vec<u8>, code: u8, count: usize, items: &[u8]) {
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    out.push(code);
    out.extend(short(items.len() + 4));
    out.extend(short(count));
    out.extend_from_slice(items);
}

fn write(out: &mut Vec<u8>, value: Plain<'_>) {
    let mut fixed = |code: u8, bytes: &[u8]| {
        out.push(code);
        out.extend_from_slice(bytes);
    };
    match value {
        Plain::Null => fixed(0x40, &[]),
        Plain::Bool(true) => fixed(0x41, &[]),
        Plain::Bool(false) => fixed(0x42, &[]),
        Plain::Long(number) => fixed(0x81, &number.to_be_bytes()),
        Plain::Ulong(number) => fixed(0x80, &number.to_be_bytes()),
        Plain::Uint(number) => fixed(0x70, &number.to_be_bytes()),
        Plain::Double(number) => fixed(0x82, &number.to_be_bytes()),
        Plain::Timestamp(ms) => fixed(0x83, &ms.to_be_bytes()),
        Plain::Binary(bytes) => sized(out, 0xa0, bytes),
        Plain::Text(text) => sized(out, 0xa1, text.as_bytes()),
        Plain::Symbol(text) => sized(out, 0xa3, text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::amqp::{Message, Value};

    #[test]
    fn what_is_composed_is_read() {
        let properties = [Plain::Ulong(7), Plain::Null, Plain::Null, Plain::Text("subject")];
        let custom = [("a", Plain::Long(-1)), ("b", Plain::Bool(true)), ("c", Plain::Double(1.5))];
        let encoded = compose(&properties, &custom, b"body");
        let message = Message::parse(&encoded).unwrap();
        assert!(message.validate().is_ok());
        assert_eq!(message.properties().unwrap().unwrap().subject, Some("subject"));
        let map = message.application_properties().unwrap();
        assert!(matches!(map.get("a"), Ok(Some(Value::Long(-1)))));
        assert!(matches!(map.get("b"), Ok(Some(Value::Bool(true)))));
        assert_eq!(compose(&[Plain::Null], &[], b"x"), [0, 0x53, 0x75, 0xa0, 1, b'x']);
    }
}
