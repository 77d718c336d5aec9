//! The only AMQP 1.0 that is written: message annotations, and a message that carries bytes.
//!
//! Invariants: everything that is not rewritten is copied byte for byte;
//! [`Message::parse`](super::Message::parse) reads whatever is written here, which the tests check.

use super::message::{self, spans};
use super::{AmqpError, Message, single_data};

/// The value of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Annotation<'a> {
    /// A string.
    Text(&'a str),
    /// An unsigned number (ulong).
    Number(u64),
    /// Milliseconds since 1970.
    Timestamp(i64),
}

/// A message with these annotations that carries these bytes.
///
/// The bytes go into a data section, with one exception: text with line breaks, or with blanks
/// around it, could not be one line of NDJSON and goes into an amqp-value as a binary.
pub fn carrying(annotations: &[(&str, Annotation<'_>)], bytes: &[u8]) -> Vec<u8> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let changed = blank(bytes.first())
        || blank(bytes.last())
        || bytes.iter().any(|b| matches!(b, b'\n' | b'\r'));
    let body = match changed && std::str::from_utf8(bytes).is_ok() {
        true => message::VALUE,
        false => message::DATA,
    };
    let mut out = Vec::with_capacity(bytes.len() + 512);
    section(&mut out, message::MESSAGE_ANNOTATIONS);
    map(&mut out, &[], annotations);
    section(&mut out, body);
    sized(&mut out, 0xa0, bytes);
    out
}

/// The bytes carried by a message that [`carrying`] made.
///
/// # Errors
/// If the message is not of that form.
pub fn carried<'a>(message: &Message<'a>) -> Result<std::borrow::Cow<'a, [u8]>, AmqpError> {
    match message.body() {
        super::Body::Data(data) => Ok(data.joined()),
        super::Body::Value(super::Value::Binary(bytes)) => Ok(bytes.into()),
        _ => Err(AmqpError::Malformed { at: 0, what: "the body carries no bytes" }),
    }
}

/// The message with these message annotations, which replace those of the same keys.
///
/// # Errors
/// If the sections up to the annotations are not well-formed.
pub fn annotate(
    encoded: &[u8],
    annotations: &[(&str, Annotation<'_>)],
) -> Result<Vec<u8>, AmqpError> {
    let parsed = Message::parse(encoded)?;
    // Where its annotations stand, or belong: behind the header and the delivery annotations.
    let (mut from, mut to) = (0, 0);
    for (code, span) in spans(encoded)? {
        match code {
            message::HEADER | message::DELIVERY_ANNOTATIONS if from == to => {
                (from, to) = (span.end, span.end);
            }
            message::MESSAGE_ANNOTATIONS => (from, to) = (span.start, span.end),
            _ => {}
        }
    }
    let mut kept = Vec::new();
    if let Some(present) = parsed.message_annotations() {
        let mut entries = present.entries();
        let mut start = entries.at();
        while let Some(entry) = entries.next() {
            let (key, _) = entry?;
            let replaced =
                key.as_str().is_some_and(|key| annotations.iter().any(|(ours, _)| *ours == key));
            if !replaced {
                kept.push(encoded.get(start..entries.at()).unwrap_or_default());
            }
            start = entries.at();
        }
    }
    let mut out = Vec::with_capacity(encoded.len() + 256);
    out.extend_from_slice(encoded.get(..from).unwrap_or_default());
    section(&mut out, message::MESSAGE_ANNOTATIONS);
    map(&mut out, &kept, annotations);
    out.extend_from_slice(encoded.get(to..).unwrap_or_default());
    Ok(out)
}

/// The message with these bytes as its body, in one data section. Everything else stays as it is.
///
/// # Errors
/// If the sections are not well-formed.
pub fn with_body(encoded: &[u8], body: &[u8]) -> Result<Vec<u8>, AmqpError> {
    let mut out = Vec::new();
    append_with_body(&mut out, encoded, body)?;
    Ok(out)
}

/// Appends what [`with_body`] makes.
///
/// # Errors
/// As [`with_body`], and nothing is appended then.
pub fn append_with_body(out: &mut Vec<u8>, encoded: &[u8], body: &[u8]) -> Result<(), AmqpError> {
    let mut footer = None;
    if single_data(encoded).is_none() {
        for (code, span) in spans(encoded)? {
            let bytes = encoded.get(span).unwrap_or_default();
            match code {
                message::DATA | message::SEQUENCE | message::VALUE => {}
                message::FOOTER => footer = Some(bytes),
                _ => out.extend_from_slice(bytes),
            }
        }
    }
    section(out, message::DATA);
    sized(out, 0xa0, body);
    out.extend_from_slice(footer.unwrap_or_default());
    Ok(())
}

pub(super) fn section(out: &mut Vec<u8>, code: u64) {
    // The codes of all sections take one byte.
    out.extend([0x00, 0x53, u8::try_from(code).unwrap_or(u8::MAX)]);
}

fn map(out: &mut Vec<u8>, kept: &[&[u8]], annotations: &[(&str, Annotation<'_>)]) {
    let mut items = kept.concat();
    for (key, value) in annotations {
        sized(&mut items, 0xa3, key.as_bytes());
        match value {
            Annotation::Text(text) => sized(&mut items, 0xa1, text.as_bytes()),
            Annotation::Number(number) => {
                items.push(0x80);
                items.extend(number.to_be_bytes());
            }
            Annotation::Timestamp(ms) => {
                items.push(0x83);
                items.extend(ms.to_be_bytes());
            }
        }
    }
    out.push(0xd1);
    out.extend(length(items.len() + 4));
    out.extend(length((kept.len() + annotations.len()) * 2));
    out.append(&mut items);
}

/// A value whose narrow constructor is `code`; the wide one is 16 above.
pub(super) fn sized(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(size) => out.extend([code, size]),
        Err(_) => {
            out.push(code + 0x10);
            out.extend(length(bytes.len()));
        }
    }
    out.extend_from_slice(bytes);
}

/// Messages are shorter than 2³¹ bytes, for that is what a stream can hold.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::amqp::Value;
    use crate::wire::amqp::tests::encode::{Tree, any_message, section as tree_section};

    const OURS: [(&str, Annotation<'_>); 3] = [
        ("x-text", Annotation::Text("täxt")),
        ("x-number", Annotation::Number(u64::MAX)),
        ("x-at", Annotation::Timestamp(-1)),
    ];

    fn check_ours(message: &Message<'_>) {
        let map = message.message_annotations().unwrap();
        assert!(matches!(map.get("x-text"), Ok(Some(Value::String("täxt")))));
        assert!(matches!(map.get("x-number"), Ok(Some(Value::Ulong(u64::MAX)))));
        assert!(matches!(map.get("x-at"), Ok(Some(Value::Timestamp(-1)))));
    }

    proptest! {
        #[test]
        fn what_is_carried_comes_back(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..700),
            "[ -~\r\n]{0,40}".prop_map(String::into_bytes),
        ]) {
            let letter = carrying(&OURS, &bytes);
            let parsed = Message::parse(&letter).unwrap();
            prop_assert!(parsed.validate().is_ok());
            check_ours(&parsed);
            prop_assert_eq!(&*carried(&parsed).unwrap(), &bytes[..]);
        }

        #[test]
        fn annotating_leaves_everything_else_as_it_was(message in any_message()) {
            let before = Message::parse(&message).unwrap();
            let annotated = annotate(&message, &OURS).unwrap();
            let after = Message::parse(&annotated).unwrap();
            prop_assert!(after.validate().is_ok());
            check_ours(&after);
            let others = |m: &[u8]| -> Vec<(u64, Vec<u8>)> {
                spans(m)
                    .unwrap()
                    .into_iter()
                    .filter(|(code, _)| *code != message::MESSAGE_ANNOTATIONS)
                    .map(|(code, span)| (code, m[span].to_vec()))
                    .collect()
            };
            prop_assert_eq!(others(&message), others(&annotated));
            let count = |m: &Message<'_>| m.message_annotations().map_or(0, |map| map.len());
            prop_assert_eq!(count(&after), count(&before) + 3);
            // Once more: ours are replaced, not repeated.
            prop_assert_eq!(annotate(&annotated, &OURS).unwrap(), annotated);
        }
    }

    proptest! {
        #[test]
        fn another_body_leaves_everything_else_as_it_was(
            message in any_message(),
            body in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            let changed = with_body(&message, &body).unwrap();
            let after = Message::parse(&changed).unwrap();
            prop_assert!(after.validate().is_ok());
            prop_assert_eq!(&*carried(&after).unwrap(), &body[..]);
            let others = |m: &[u8]| -> Vec<(u64, Vec<u8>)> {
                let bodies = [message::DATA, message::SEQUENCE, message::VALUE];
                let mut others: Vec<_> = spans(m)
                    .unwrap()
                    .into_iter()
                    .filter(|(code, _)| !bodies.contains(code))
                    .map(|(code, span)| (code, m[span].to_vec()))
                    .collect();
                others.sort();
                others
            };
            prop_assert_eq!(others(&message), others(&changed));
        }
    }

    /// Programs make many short messages out of long ones.
    #[test]
    fn a_message_of_a_body_alone_takes_the_room_of_that_body() {
        let data = tree_section(0x75, Tree::Binary(b"x".to_vec()), true);
        let long = with_body(&data, &[b'x'; 4000]).unwrap();
        let short = with_body(&long, b"short").unwrap();
        assert!(short.capacity() < 64, "{}", short.capacity());
    }

    #[test]
    fn annotations_go_behind_the_header_where_there_were_none() {
        let header = tree_section(0x70, Tree::List(vec![Tree::Bool(true)]), true);
        let data = tree_section(0x75, Tree::Binary(b"x".to_vec()), true);
        let annotated = annotate(&[header.clone(), data.clone()].concat(), &OURS).unwrap();
        assert!(annotated.starts_with(&header) && annotated.ends_with(&data));
        let codes: Vec<u64> = spans(&annotated).unwrap().into_iter().map(|(c, _)| c).collect();
        assert_eq!(codes, [0x70, 0x72, 0x75]);
    }

    #[test]
    fn a_message_that_cannot_be_read_is_not_annotated() {
        assert!(annotate(b"not AMQP", &OURS).is_err());
    }
}
