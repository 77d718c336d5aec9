//! The words of JSON: blanks, strings, numbers and names, and values that are checked and not kept.
//!
//! This takes most of the time of a simple program, so it looks at several bytes at once where it can.

use std::fmt;

use super::budget::DEPTH_MAX;

/// Reason why a text is not JSON, and the byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotJson {
    pub(super) at: usize,
    what: Wrong,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what.text(), self.at)
    }
}

/// What is wrong where a reader stands. As small as can be, since every step returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Value,
    NoValue,
    Misspelt,
    More,
    Nested,
    List,
    Object,
    Key,
    Colon,
    Digit,
    Utf8,
    Open,
    Control,
    Escape,
    Hex,
    Lone,
}

impl Wrong {
    fn text(self) -> &'static str {
        match self {
            Wrong::Value => "a value is expected",
            Wrong::NoValue => "the text ends where a value is expected",
            Wrong::Misspelt => "a value is misspelt",
            Wrong::More => "there is more behind the value",
            Wrong::Nested => "values are nested too deep",
            Wrong::List => "`,` or `]` is expected",
            Wrong::Object => "`,` or `}` is expected",
            Wrong::Key => "a key in quotation marks is expected",
            Wrong::Colon => "`:` is expected",
            Wrong::Digit => "a digit is expected",
            Wrong::Utf8 => "a string is not UTF-8",
            Wrong::Open => "a string is not closed",
            Wrong::Control => "a control character stands in a string",
            Wrong::Escape => "an escape is unknown",
            Wrong::Hex => "four hexadecimal digits are expected",
            Wrong::Lone => "half of a surrogate pair stands alone, which is no character,",
        }
    }
}

/// A place in a JSON text.
pub(super) struct Reader<'t> {
    text: &'t [u8],
    pub(super) at: usize,
    /// For strings with escapes.
    buffer: String,
}

/// Eight times the same byte.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bits of the bytes of a word that are not plain: quotation marks, backslashes, control characters, and
/// what is not ASCII. Above the first, bits may be set that mean nothing.
#[inline(always)]
fn ends_of(word: u64) -> u64 {
    let below = |word: u64, limit: u8| word.wrapping_sub(eight(limit));
    let quotes = below(word ^ eight(b'"'), 1);
    let slashes = below(word ^ eight(b'\\'), 1);
    (quotes | slashes | below(word, 0x20) | word) & eight(0x80)
}

/// True for what ends a part of a string that stands for itself.
#[inline(always)]
fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Bytes up to the first that is special or not ASCII.
#[inline(always)]
fn plain_bytes(text: &[u8]) -> usize {
    // Most keys, and many values, end within these.
    if let Some(chunk) = text.first_chunk::<8>() {
        let ends = ends_of(u64::from_le_bytes(*chunk));
        if ends != 0 {
            return ends.trailing_zeros() as usize / 8;
        }
    }
    long_plain_bytes(text)
}

#[inline(never)]
fn long_plain_bytes(text: &[u8]) -> usize {
    // As a signed number, what is not ASCII is below zero: one comparison for it and control characters.
    let is_not_plain = |byte: u8| (byte.cast_signed() < 0x20) | (byte == b'"') | (byte == b'\\');
    let mut rest = behind_chunks(text, is_not_plain);
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        let ends = ends_of(u64::from_le_bytes(*chunk));
        if ends != 0 {
            return text.len() - rest.len() + ends.trailing_zeros() as usize / 8;
        }
        rest = more;
    }
    let last = rest.iter().position(|byte| is_special(*byte) || !byte.is_ascii());
    text.len() - rest.len() + last.unwrap_or(rest.len())
}

/// Bytes up to the first that is special.
fn unescaped_bytes(text: &[u8]) -> usize {
    let rest = behind_chunks(text, is_special);
    let last = rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len());
    text.len() - rest.len() + last
}

/// What is left behind all chunks without such a byte.
#[inline(always)]
fn behind_chunks(text: &[u8], is_it: impl Fn(u8) -> bool) -> &[u8] {
    let mut rest = text;
    // The compiler looks at sixteen bytes at a time here, since nothing is decided for a single one.
    while let Some((chunk, more)) = rest.split_first_chunk::<32>() {
        let mut marks = [0; 32];
        marks.iter_mut().zip(chunk).for_each(|(mark, byte)| *mark = u8::from(is_it(*byte)));
        let words = marks.as_chunks::<8>().0.iter();
        if words.fold(0, |all, mark| all | u64::from_le_bytes(*mark)) != 0 {
            break;
        }
        rest = more;
    }
    rest
}

impl<'t> Reader<'t> {
    /// Reads one value, behind which nothing but blanks follows.
    pub(super) fn whole<T>(
        text: &'t [u8],
        read: impl FnOnce(&mut Reader<'t>) -> Result<T, Wrong>,
    ) -> Result<T, NotJson> {
        let mut reader = Reader { text, at: 0, buffer: String::new() };
        reader.blanks();
        let read = read(&mut reader).and_then(|value| {
            reader.blanks();
            if reader.peek().is_none() { Ok(value) } else { Err(Wrong::More) }
        });
        read.map_err(|what| NotJson { at: reader.at, what })
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

    #[inline(always)]
    pub(super) fn word(&mut self, word: &str) -> Result<(), Wrong> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(Wrong::Misspelt);
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes into a list or object, `depth` of them deep. False if it is empty, which is behind it then.
    #[inline]
    pub(super) fn open(&mut self, depth: u32, close: u8) -> Result<bool, Wrong> {
        if depth > DEPTH_MAX {
            return Err(Wrong::Nested);
        }
        self.at += 1;
        self.blanks();
        let is_empty = self.peek() == Some(close);
        self.at += usize::from(is_empty);
        Ok(!is_empty)
    }

    /// Goes on behind an item of a list. False if it was the last one.
    #[inline]
    pub(super) fn more_items(&mut self) -> Result<bool, Wrong> {
        self.more(b']', Wrong::List)
    }

    /// Goes on behind a member of an object. False if it was the last one.
    #[inline]
    pub(super) fn more_members(&mut self) -> Result<bool, Wrong> {
        self.more(b'}', Wrong::Object)
    }

    #[inline]
    fn more(&mut self, close: u8, expected: Wrong) -> Result<bool, Wrong> {
        let mut next = self.peek();
        if next != Some(b',') && next != Some(close) {
            self.blanks();
            next = self.peek();
            if next != Some(b',') && next != Some(close) {
                return Err(expected);
            }
        }
        self.at += 1;
        if next == Some(close) {
            return Ok(false);
        }
        self.blanks();
        Ok(true)
    }

    /// What follows the quotation mark of the key at which the reader stands.
    #[inline(always)]
    pub(super) fn key(&self) -> Result<&'t [u8], Wrong> {
        self.quoted().ok_or(Wrong::Key)
    }

    /// What follows the quotation mark at which the reader stands; `None` if there is none.
    #[inline(always)]
    pub(super) fn quoted(&self) -> Option<&'t [u8]> {
        match self.text.get(self.at..) {
            Some([b'"', rest @ ..]) => Some(rest),
            _ => None,
        }
    }

    /// Goes from a key to its value.
    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), Wrong> {
        if self.peek() != Some(b':') {
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(Wrong::Colon);
            }
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    /// Checks a value, `depth` lists and objects deep.
    #[inline]
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), Wrong> {
        match self.quoted() {
            Some(rest) if self.skip_plain_string(rest) => Ok(()),
            _ => self.skip_other(depth),
        }
    }

    fn skip_other(&mut self, depth: u32) -> Result<(), Wrong> {
        match self.peek() {
            Some(b'"') => self.odd_string(false),
            Some(b'{') => self.skip_object(depth + 1),
            Some(b'[') => self.skip_list(depth + 1),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(Wrong::Value),
            None => Err(Wrong::NoValue),
        }
    }

    fn skip_list(&mut self, depth: u32) -> Result<(), Wrong> {
        let mut more = self.open(depth, b']')?;
        while more {
            self.skip(depth)?;
            more = self.more_items()?;
        }
        Ok(())
    }

    fn skip_object(&mut self, depth: u32) -> Result<(), Wrong> {
        let mut more = self.open(depth, b'}')?;
        while more {
            let rest = self.key()?;
            if !self.skip_plain_string(rest) {
                self.odd_string(false)?;
            }
            self.colon()?;
            self.skip(depth)?;
            more = self.more_members()?;
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<&'t str, Wrong> {
        let start = self.at;
        self.skip_number()?;
        let text = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| Wrong::Digit)
    }

    pub(super) fn skip_number(&mut self) -> Result<(), Wrong> {
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
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Wrong> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += digits;
        if digits > 0 { Ok(()) } else { Err(Wrong::Digit) }
    }

    /// The content of a string.
    pub(super) fn string(&mut self) -> Result<&str, Wrong> {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let plain = plain_bytes(rest);
        if rest.get(plain) == Some(&b'"') {
            let text = rest.get(..plain).unwrap_or_default();
            self.at += plain + 2;
            // It is ASCII.
            return std::str::from_utf8(text).map_err(|_| Wrong::Utf8);
        }
        self.odd_string(true)?;
        Ok(&self.buffer)
    }

    /// Goes behind a string, if it is ASCII without escapes. Else goes nowhere. `rest` is what follows its
    /// quotation mark.
    #[inline(always)]
    pub(super) fn skip_plain_string(&mut self, rest: &[u8]) -> bool {
        let plain = plain_bytes(rest);
        let is_plain = rest.get(plain) == Some(&b'"');
        if is_plain {
            self.at += plain + 2;
        }
        is_plain
    }

    /// True if a string is written like this, and goes behind it. `rest` is what follows its quotation mark.
    #[inline(always)]
    pub(super) fn is_string(&mut self, rest: &[u8], plain: &str) -> bool {
        let is_it = rest.get(plain.len()) == Some(&b'"') && rest.starts_with(plain.as_bytes());
        if is_it {
            self.at += plain.len() + 2;
        }
        is_it
    }

    /// Goes behind a string of any kind, and keeps its content in the buffer or checks it only.
    fn odd_string(&mut self, keep: bool) -> Result<(), Wrong> {
        self.at += 1;
        self.buffer.clear();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let text = rest.get(..unescaped_bytes(rest)).unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|error| {
                self.at += error.valid_up_to();
                Wrong::Utf8
            })?;
            self.at += text.len();
            if keep {
                self.buffer.push_str(text);
            }
            match self.peek() {
                None => return Err(Wrong::Open),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    let char = self.escape()?;
                    if keep {
                        self.buffer.push(char);
                    }
                }
                Some(_) => return Err(Wrong::Control),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Wrong> {
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
            _ => return Err(Wrong::Escape),
        };
        self.at += 1;
        Ok(char)
    }

    fn unicode(&mut self) -> Result<char, Wrong> {
        let first = self.four_digits()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or(Wrong::Lone);
        }
        let follows = self.text.get(self.at..self.at + 2) == Some(b"\\u");
        if first >= 0xdc00 || !follows {
            return Err(Wrong::Lone);
        }
        self.at += 2;
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(Wrong::Lone);
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or(Wrong::Lone)
    }

    fn four_digits(&mut self) -> Result<u32, Wrong> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or(Wrong::Hex)?;
        self.at += 4;
        Ok(code)
    }
}
