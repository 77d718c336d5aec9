//! The words of JSON: blanks, strings, numbers and names, and values that are checked and not kept.
//!
//! This takes most of the time of a simple program, so it looks at several bytes at once where it can.

use std::fmt;

use super::budget::DEPTH_MAX;

/// Reason why a text is not JSON, and the byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotJson {
    pub(super) at: usize,
    what: &'static str,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// A place in a JSON text.
pub(super) struct Reader<'t> {
    text: &'t [u8],
    /// The same, if all of it is UTF-8: then no string has to be checked.
    utf8: Option<&'t str>,
    pub(super) at: usize,
    /// For strings with escapes.
    buffer: String,
}

/// Eight times the same byte.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bits of the bytes of a word that end the plain part of a string. Above the first, bits may be set
/// that mean nothing.
fn ends_of(word: u64) -> u64 {
    let below = |word: u64, limit: u8| word.wrapping_sub(eight(limit)) & !word;
    let quotes = below(word ^ eight(b'"'), 1);
    let slashes = below(word ^ eight(b'\\'), 1);
    (quotes | slashes | below(word, 0x20)) & eight(0x80)
}

fn is_end(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Bytes up to the first quotation mark, backslash or control character.
fn plain_bytes(text: &[u8]) -> usize {
    let (mut rest, mut at) = (text, 0);
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        let ends = ends_of(u64::from_le_bytes(*chunk));
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        (rest, at) = (more, at + 8);
        // Longer strings by as many bytes as the compiler makes one comparison of.
        while let Some((chunk, more)) = rest.split_first_chunk::<32>() {
            if chunk.iter().fold(false, |any, byte| any | is_end(*byte)) {
                break;
            }
            (rest, at) = (more, at + 32);
        }
    }
    at + rest.iter().position(|byte| is_end(*byte)).unwrap_or(rest.len())
}

impl<'t> Reader<'t> {
    /// At the first byte behind blanks.
    pub(super) fn new(text: &'t [u8]) -> Reader<'t> {
        let utf8 = std::str::from_utf8(text).ok();
        let mut reader = Reader { text, utf8, at: 0, buffer: String::new() };
        reader.blanks();
        reader
    }

    /// Checks that nothing but blanks follows.
    pub(super) fn end(&mut self) -> Result<(), NotJson> {
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("there is more behind the value")),
        }
    }

    pub(super) fn error(&self, what: &'static str) -> NotJson {
        NotJson { at: self.at, what }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    pub(super) fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), NotJson> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.error("a value is misspelt"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes into a list or object, `depth` of them deep. False if it is empty, which is behind it then.
    #[inline]
    pub(super) fn open(&mut self, depth: u32, close: u8) -> Result<bool, NotJson> {
        if depth > DEPTH_MAX {
            return Err(self.error("values are nested too deep"));
        }
        self.at += 1;
        self.blanks();
        let is_empty = self.peek() == Some(close);
        self.at += usize::from(is_empty);
        Ok(!is_empty)
    }

    /// Goes on behind an item of a list. False if it was the last one.
    #[inline]
    pub(super) fn more_items(&mut self) -> Result<bool, NotJson> {
        self.more(b']', "`,` or `]` is expected")
    }

    /// Goes on behind a member of an object. False if it was the last one.
    #[inline]
    pub(super) fn more_members(&mut self) -> Result<bool, NotJson> {
        self.more(b'}', "`,` or `}` is expected")
    }

    #[inline]
    fn more(&mut self, close: u8, expected: &'static str) -> Result<bool, NotJson> {
        self.blanks();
        let next = self.peek();
        if next != Some(b',') && next != Some(close) {
            return Err(self.error(expected));
        }
        self.at += 1;
        if next == Some(close) {
            return Ok(false);
        }
        self.blanks();
        Ok(true)
    }

    /// The key of a member.
    #[inline]
    pub(super) fn key(&mut self, keep: bool) -> Result<&str, NotJson> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a key in quotation marks is expected"));
        }
        self.string(keep)
    }

    /// Goes from a key to its value.
    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), NotJson> {
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.error("`:` is expected"));
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    /// Checks a value, `depth` lists and objects deep.
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), NotJson> {
        match self.peek() {
            Some(b'"') => self.string(false).map(|_| ()),
            Some(b'{') => self.skip_object(depth + 1),
            Some(b'[') => self.skip_list(depth + 1),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(self.error("a value is expected")),
            None => Err(self.error("the text ends where a value is expected")),
        }
    }

    fn skip_list(&mut self, depth: u32) -> Result<(), NotJson> {
        let mut more = self.open(depth, b']')?;
        while more {
            self.skip(depth)?;
            more = self.more_items()?;
        }
        Ok(())
    }

    fn skip_object(&mut self, depth: u32) -> Result<(), NotJson> {
        let mut more = self.open(depth, b'}')?;
        while more {
            self.key(false)?;
            self.colon()?;
            self.skip(depth)?;
            more = self.more_members()?;
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<&'t str, NotJson> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.plain(start)
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a digit is expected"));
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        Ok(())
    }

    /// The content of a string. Without `keep`, it is only checked, and the result means nothing.
    #[inline]
    pub(super) fn string(&mut self, keep: bool) -> Result<&str, NotJson> {
        self.at += 1;
        let start = self.at;
        self.at += plain_bytes(self.text.get(start..).unwrap_or_default());
        if self.peek() == Some(b'"') {
            let text = if keep || self.utf8.is_none() { self.plain(start)? } else { "" };
            self.at += 1;
            return Ok(text);
        }
        self.at = start;
        self.escaped(keep)
    }

    /// What was read from `start` on.
    #[inline]
    fn plain(&self, start: usize) -> Result<&'t str, NotJson> {
        if let Some(text) = self.utf8.and_then(|text| text.get(start..self.at)) {
            return Ok(text);
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(text).map_err(|error| NotJson {
            at: start + error.valid_up_to(),
            what: "a string is not UTF-8",
        })
    }

    fn escaped(&mut self, keep: bool) -> Result<&str, NotJson> {
        self.buffer.clear();
        loop {
            let start = self.at;
            self.at += plain_bytes(self.text.get(start..).unwrap_or_default());
            let text = self.plain(start)?;
            if keep {
                self.buffer.push_str(text);
            }
            match self.peek() {
                None => return Err(self.error("a string is not closed")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.buffer);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let char = self.escape()?;
                    if keep {
                        self.buffer.push(char);
                    }
                }
                Some(_) => return Err(self.error("a control character stands in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let char = match self.peek() {
            Some(char @ (b'"' | b'\\' | b'/')) => char.into(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("an escape is unknown")),
        };
        self.at += 1;
        Ok(char)
    }

    fn unicode(&mut self) -> Result<char, NotJson> {
        let lone = "half of a surrogate pair stands alone, which is no character,";
        let first = self.four_digits()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.error(lone));
        }
        let follows = self.text.get(self.at..self.at + 2) == Some(b"\\u");
        if first >= 0xdc00 || !follows {
            return Err(self.error(lone));
        }
        self.at += 2;
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.error(lone));
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or_else(|| self.error(lone))
    }

    fn four_digits(&mut self) -> Result<u32, NotJson> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("four hexadecimal digits are expected"))?;
        self.at += 4;
        Ok(code)
    }
}
