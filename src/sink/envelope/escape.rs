//! JSON strings: finds what must be escaped eight bytes at a time, and writes bytes as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Position, from `from` on, of the first byte that a JSON string cannot contain unescaped: a
/// quote, a backslash or a control character. The length if there is none.
#[inline]
pub(super) fn next_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // Each term sets the high bit of bytes that match. A borrow can set it wrongly, but only
        // above a byte that does match, so the lowest bit that is set is right.
        let quote = word ^ (LOW * u64::from(b'"'));
        let backslash = word ^ (LOW * u64::from(b'\\'));
        let found = ((quote.wrapping_sub(LOW) & !quote)
            | (backslash.wrapping_sub(LOW) & !backslash)
            | (word.wrapping_sub(LOW * 0x20) & !word))
            & HIGH;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let special = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
    special.map_or(bytes.len(), |n| at + n)
}

/// Appends the text as a JSON string, quotes included.
#[inline]
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends the text as the content of a JSON string, without quotes.
#[inline]
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let at = next_special(bytes, from);
        out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        match bytes.get(at) {
            Some(&special) => push_special(out, special),
            None => return,
        }
        from = at + 1;
    }
}

fn push_special(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A JSON string that holds the bytes in base64.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    /// A multiple of three, so that the pieces join without padding.
    const PIECE: usize = 768;
    let mut buffer = [0; PIECE / 3 * 4];
    out.reserve(bytes.len() / 3 * 4 + 6);
    out.push(b'"');
    for piece in bytes.chunks(PIECE) {
        // The buffer is as large as the largest piece's text, so this cannot fail.
        let n = STANDARD.encode_slice(piece, &mut buffer).unwrap_or_default();
        out.extend_from_slice(buffer.get(..n).unwrap_or_default());
    }
    out.push(b'"');
}
