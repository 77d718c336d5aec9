//! Field tables, and their values in AMQP 1.0.

use super::{Cursor, long, short};
use crate::wire::error::{WireError, WireProblem};

/// Most arrays and tables within one another that are converted. More than a reader of AMQP 1.0 takes
/// here, so a message with deeper ones is a bad message, like any other.
const DEPTH_MAX: u8 = crate::wire::amqp::DEPTH_MAX + 4;

/// A value as it is encoded in a table.
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) value: &'a [u8],
}

/// The fields of a table, in order.
pub(super) fn each<'a>(
    table: &'a [u8],
    mut visit: impl FnMut(Field<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut c = Cursor::new("field table", table);
    while !c.is_empty() {
        let name = short(&mut c)?;
        let (kind, value) = value(&mut c)?;
        visit(Field { name, kind, value })?;
    }
    Ok(())
}

/// Kind and bytes of the next value: the content of a string, array or table.
fn value<'a>(c: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), WireError> {
    let start = c.clone();
    let kind = c.u8()?;
    let bytes = match kind {
        b't' | b'b' | b'B' => c.take(1)?,
        b's' | b'u' => c.take(2)?,
        b'I' | b'i' | b'f' => c.take(4)?,
        b'l' | b'L' | b'd' | b'T' => c.take(8)?,
        b'D' => c.take(5)?,
        b'S' | b'x' | b'A' | b'F' => long(c)?,
        b'V' => c.take(0)?,
        other => {
            let problem = WireProblem::Unknown { what: "field type", value: other.into() };
            return Err(start.error(problem));
        }
    };
    Ok((kind, bytes))
}

/// A text in a table; empty if there is none.
pub(super) fn text_of(table: &[u8], name: &[u8]) -> Result<String, WireError> {
    let mut found = String::new();
    each(table, |field| {
        if field.name == name && field.kind == b'S' {
            found = String::from_utf8_lossy(field.value).into_owned();
        }
        Ok(())
    })?;
    Ok(found)
}

/// An integer field.
pub(super) fn integer(field: &Field<'_>) -> Option<u64> {
    let bytes: [u8; 8] = field.value.try_into().ok()?;
    matches!(field.kind, b'l' | b'L').then(|| u64::from_be_bytes(bytes))
}

/// A value of variable size; `code` is its narrow constructor, and the wide one is 16 above.
pub(super) fn put_sized(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(size) => out.extend([code, size]),
        Err(_) => {
            out.push(code + 0x10);
            out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// Writes the items of a list or map (`code` is its wide constructor), which `fill` counts.
pub(super) fn put_compound(
    out: &mut Vec<u8>,
    code: u8,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<u32, WireError>,
) -> Result<(), WireError> {
    out.push(code);
    let at = out.len();
    out.extend([0; 8]);
    let count = fill(out)?;
    let size = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(head) = out.get_mut(at..at + 8) {
        head[..4].copy_from_slice(&size.to_be_bytes());
        head[4..].copy_from_slice(&count.to_be_bytes());
    }
    Ok(())
}

/// Whether text is what RabbitMQ stores as a string, and not as binary.
fn is_text(bytes: &[u8]) -> bool {
    bytes.len() <= 4096 && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Writes the value that RabbitMQ stores for a field. `checks`: strings that are not UTF-8 become
/// binary, as from 3.13 on.
pub(super) fn put_value(
    out: &mut Vec<u8>,
    kind: u8,
    value: &[u8],
    checks: bool,
    depth: u8,
) -> Result<(), WireError> {
    let fixed = |out: &mut Vec<u8>, code: u8| {
        out.push(code);
        out.extend_from_slice(value);
    };
    match kind {
        b't' => out.push(if value == [0] { 0x42 } else { 0x41 }),
        b'b' => fixed(out, 0x51),
        b'B' => fixed(out, 0x50),
        b's' => fixed(out, 0x61),
        b'u' => fixed(out, 0x60),
        b'I' => fixed(out, 0x71),
        b'i' => fixed(out, 0x70),
        b'l' | b'L' => fixed(out, 0x81),
        b'f' => fixed(out, 0x72),
        b'd' => fixed(out, 0x82),
        b'T' => {
            out.push(0x83);
            out.extend(milliseconds(value).to_be_bytes());
        }
        b'S' if !checks || is_text(value) => put_sized(out, 0xa1, value),
        b'S' | b'x' => put_sized(out, 0xa0, value),
        b'A' | b'F' if depth >= DEPTH_MAX => out.push(0x40),
        b'A' => put_compound(out, 0xd0, |out| {
            let mut c = Cursor::new("field array", value);
            let mut count = 0;
            while !c.is_empty() {
                let (kind, bytes) = self::value(&mut c)?;
                put_value(out, kind, bytes, checks, depth + 1)?;
                count += 1;
            }
            Ok(count)
        })?,
        b'F' => put_compound(out, 0xd1, |out| {
            let mut count = 0;
            each(value, |field| {
                put_sized(out, 0xa3, field.name);
                put_value(out, field.kind, field.value, checks, depth + 1)?;
                count += 2;
                Ok(())
            })?;
            Ok(count)
        })?,
        // Void, and the decimal, which RabbitMQ does not convert either.
        _ => out.push(0x40),
    }
    Ok(())
}

/// The milliseconds of a time in seconds.
pub(super) fn milliseconds(seconds: &[u8]) -> i64 {
    let seconds = seconds.try_into().map_or(0, i64::from_be_bytes);
    seconds.saturating_mul(1000)
}
