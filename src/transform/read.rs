//! JSON text to values.
//!
//! Exactly what `serde_json` accepts is accepted, which a test compares: no comments, no trailing commas,
//! no half of a surrogate pair, at most 127 levels. Of a repeated key, the last value counts, at the place
//! of the first.

use std::fmt;
use std::rc::Rc;

use super::budget::{DEPTH_MAX, take};
use super::number::Number;
use super::value::{Entries, Value};

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

/// Keys of the outermost object that are wanted. What is not wanted is checked all the same.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    All,
    Keys(Vec<String>),
}

/// Reads one JSON text.
pub(super) fn read(text: &[u8], wanted: &Wanted) -> Result<Value, NotJson> {
    let mut reader = Reader { text, at: 0, buffer: String::new() };
    reader.blanks();
    let value = match wanted {
        Wanted::Keys(keys) if reader.peek() == Some(b'{') => reader.object(1, Some(keys))?,
        _ => reader.value(0, true)?,
    };
    reader.blanks();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.error("there is more behind the value")),
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    /// For strings with escapes.
    buffer: String,
}

impl<'t> Reader<'t> {
    fn error(&self, what: &'static str) -> NotJson {
        NotJson { at: self.at, what }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Result<(), NotJson> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.error("a value is misspelt"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A value, `depth` lists and objects deep; null if it is only checked.
    fn value(&mut self, depth: u32, keep: bool) -> Result<Value, NotJson> {
        match self.peek() {
            Some(b'"') => match (self.string(keep)?, keep) {
                (text, true) => Ok(Value::text(text)),
                _ => Ok(Value::Null),
            },
            Some(b'{') if keep => self.object(depth + 1, None),
            Some(b'{') => self.object(depth + 1, Some(&[])),
            Some(b'[') => self.list(depth + 1, keep),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                Ok(if keep { Value::Num(Number::of_text(number)) } else { Value::Null })
            }
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            Some(_) => Err(self.error("a value is expected")),
            None => Err(self.error("the text ends where a value is expected")),
        }
    }

    fn list(&mut self, depth: u32, keep: bool) -> Result<Value, NotJson> {
        self.open(depth)?;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(if keep { Value::list(items) } else { Value::Null });
        }
        loop {
            let value = self.value(depth, keep)?;
            if keep {
                items.push(value);
            }
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("`,` or `]` is expected")),
            }
            self.blanks();
        }
        self.at += 1;
        Ok(if keep { Value::list(items) } else { Value::Null })
    }

    /// With `wanted`, only the values of these keys are kept, and the object itself if it is the outermost.
    fn object(&mut self, depth: u32, wanted: Option<&[String]>) -> Result<Value, NotJson> {
        self.open(depth)?;
        let mut entries = Entries::default();
        let is_kept = depth == 1 || wanted.is_none();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(if is_kept { Value::object(entries) } else { Value::Null });
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotation marks is expected"));
            }
            let key = self.string(true)?;
            let key: Option<Rc<str>> = match wanted {
                None => Some(key.into()),
                Some(wanted) => wanted.iter().any(|one| one == key).then(|| key.into()),
            };
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.error("`:` is expected"));
            }
            self.at += 1;
            self.blanks();
            let value = self.value(depth, key.is_some())?;
            if let Some(key) = key {
                if !take(key.len() as u64) {
                    return Ok(Value::Null);
                }
                entries.insert(key, value);
            }
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("`,` or `}` is expected")),
            }
            self.blanks();
        }
        self.at += 1;
        Ok(if is_kept { Value::object(entries) } else { Value::Null })
    }

    fn open(&mut self, depth: u32) -> Result<(), NotJson> {
        if depth > DEPTH_MAX {
            return Err(self.error("values are nested too deep"));
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    fn number(&mut self) -> Result<&'t str, NotJson> {
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
        let text = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| self.error("a number is expected"))
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
    fn string(&mut self, keep: bool) -> Result<&str, NotJson> {
        self.at += 1;
        let start = self.at;
        let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        let rest = self.text.get(start..).unwrap_or_default();
        self.at += rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
        if self.peek() == Some(b'"') {
            let text = self.text.get(start..self.at).unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|error| NotJson {
                at: start + error.valid_up_to(),
                what: "a string is not UTF-8",
            })?;
            self.at += 1;
            return Ok(text);
        }
        self.at = start;
        self.escaped(keep)
    }

    fn escaped(&mut self, keep: bool) -> Result<&str, NotJson> {
        self.buffer.clear();
        loop {
            let start = self.at;
            let rest = self.text.get(start..).unwrap_or_default();
            let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
            self.at += rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
            let text = self.text.get(start..self.at).unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|error| NotJson {
                at: start + error.valid_up_to(),
                what: "a string is not UTF-8",
            })?;
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
