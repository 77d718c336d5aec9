//! Checks whether a text is one JSON document that can be embedded in a line.
//!
//! RFC 8259, and stricter where common parsers are, so that every line can be read back: nesting of
//! at most [`DEPTH_MAX`], no lone surrogate in an escape, no number beyond binary64's range. A text
//! that fails is written as a string, so nothing is lost.
//!
//! One pass in a loop, without allocation: one bit of a word stores whether a level is an object.

use super::escape::next_special;

/// Deepest nesting of a document. With the envelope's own level this makes 64, the default limit of
/// some parsers.
pub(super) const DEPTH_MAX: u32 = 63;

/// Numbers of surely smaller magnitude are kept. Slightly below the largest binary64, because
/// imprecise parsers overflow just below it.
const MAGNITUDE_MAX: f64 = 1e308;
/// Numbers of at most this many bytes, without an exponent, are below it.
const SHORT_NUMBER_BYTES: usize = 300;

/// A JSON document's text.
pub(super) struct Document<'a> {
    text: &'a [u8],
    /// True if there are line breaks between the tokens (inside a token there can be none).
    breaks: bool,
}

impl Document<'_> {
    /// Appends the text on one line.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        if !self.breaks {
            out.extend_from_slice(self.text);
            return;
        }
        for piece in self.text.split(|b| matches!(b, b'\n' | b'\r')) {
            out.extend_from_slice(piece);
        }
    }
}

/// The document, if the text is one.
#[inline]
pub(super) fn find(text: &str) -> Option<Document<'_>> {
    let text = text.as_bytes();
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'))?;
    match text.get(start)? {
        b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
            let mut scan = Scan { text, at: start, depth: 0, objects: 0, breaks: false };
            scan.document()?;
            let text = text.get(start..)?.trim_ascii_end();
            Some(Document { text, breaks: scan.breaks })
        }
        _ => None,
    }
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    /// Lowest bit: 1 if the innermost level is an object; the next bit is the level around it; …
    objects: u64,
    breaks: bool,
}

impl Scan<'_> {
    fn document(&mut self) -> Option<()> {
        loop {
            if self.value()? {
                continue; // A level was opened, and its first value comes.
            }
            loop {
                self.space();
                if self.depth == 0 {
                    return (self.at == self.text.len()).then_some(());
                }
                let object = self.objects & 1 == 1;
                match self.next()? {
                    b',' if object => {
                        self.key()?;
                        break;
                    }
                    b',' => break,
                    b'}' if object => self.close(),
                    b']' if !object => self.close(),
                    _ => return None,
                }
            }
        }
    }

    /// Reads one scalar or empty level (false), or the start of a level with content (true).
    #[inline]
    fn value(&mut self) -> Option<bool> {
        self.space();
        match self.next()? {
            b'"' => self.string()?,
            b'{' => {
                self.open(1)?;
                self.space();
                if self.peek()? != b'}' {
                    self.key()?;
                    return Some(true);
                }
                self.at += 1;
                self.close();
            }
            b'[' => {
                self.open(0)?;
                self.space();
                if self.peek()? != b']' {
                    return Some(true);
                }
                self.at += 1;
                self.close();
            }
            b't' => self.word(b"rue")?,
            b'f' => self.word(b"alse")?,
            b'n' => self.word(b"ull")?,
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                self.number()?;
            }
            _ => return None,
        }
        Some(false)
    }

    fn open(&mut self, object: u64) -> Option<()> {
        self.depth += 1;
        self.objects = self.objects << 1 | object;
        (self.depth <= DEPTH_MAX).then_some(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.breaks = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    fn key(&mut self) -> Option<()> {
        self.space();
        if self.next()? != b'"' {
            return None;
        }
        self.string()?;
        self.space();
        (self.next()? == b':').then_some(())
    }

    /// Reads from after the opening quote to after the closing one.
    #[inline]
    fn string(&mut self) -> Option<()> {
        loop {
            self.at = next_special(self.text, self.at);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex()? {
                0xd800..0xdc00 => {
                    self.word(b"\\u")?;
                    matches!(self.hex()?, 0xdc00..0xe000).then_some(())
                }
                0xdc00..0xe000 => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |n, _| Some(n << 4 | char::from(self.next()?).to_digit(16)?))
    }

    #[inline]
    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let end = self.at + rest.len();
        (self.text.get(self.at..end)? == rest).then_some(())?;
        self.at = end;
        Some(())
    }

    #[inline]
    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.one_digit_or_more()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.one_digit_or_more()?;
        }
        if !exponent && self.at - start <= SHORT_NUMBER_BYTES {
            return Some(());
        }
        let number = std::str::from_utf8(self.text.get(start..self.at)?).ok()?;
        (number.parse::<f64>().ok()?.abs() < MAGNITUDE_MAX).then_some(())
    }

    #[inline]
    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn one_digit_or_more(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then_some(())?;
        self.digits();
        Some(())
    }
}
