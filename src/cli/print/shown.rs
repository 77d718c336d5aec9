//! Text that is safe to show, and bytes as text.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with its control characters written out, except for line breaks and tabs: a message must not
/// be able to command the terminal.
pub(in crate::cli) fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Two digits for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string always succeeds.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}
