//! Lists, maps, arrays and described values: walked one item at a time.
//!
//! An iterator ends after its first error. It also checks, at its end, that the items filled the
//! size that the compound declared; bytes left over are an error, not ignored.

use super::cursor::{Cursor, payload_width};
use super::{AmqpError, DEPTH_MAX, Value, ZERO_WIDTH_MAX};

/// Values of any types.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    items: Cursor<'a>,
    count: u32,
    depth: u8,
}

/// Pairs of values of any types, in the order in which they were written.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a>(List<'a>);

/// Values of one type, whose constructor is written once.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    items: List<'a>,
    constructor: usize,
}

/// A value with a descriptor that says what it means.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// Byte at which the descriptor starts.
    descriptor: usize,
    /// Byte at which the constructor behind it starts.
    constructor: usize,
    payload: Cursor<'a>,
    depth: u8,
}

/// The depth inside a compound that `depth` compounds surround.
fn deeper(depth: u8, at: usize) -> Result<u8, AmqpError> {
    if depth >= DEPTH_MAX {
        return Err(AmqpError::OverLimit {
            at,
            what: "values nested too deep",
            limit: DEPTH_MAX.into(),
        });
    }
    Ok(depth + 1)
}

impl<'a> List<'a> {
    /// The empty list, encoded as its format code alone.
    pub(super) fn empty() -> Self {
        List { items: Cursor::new(&[]), count: 0, depth: 0 }
    }

    #[inline]
    pub(super) fn read(c: &mut Cursor<'a>, wide: bool, depth: u8) -> Result<Self, AmqpError> {
        let depth = deeper(depth, c.at())?;
        let size = c.length(wide, "a size")?;
        let mut items = c.region(size, "a compound value")?;
        let at = items.at();
        let count = items.length(wide, "a count")?;
        if count as usize > items.left() {
            return Err(AmqpError::Malformed { at, what: "a count exceeds the bytes there are" });
        }
        Ok(List { items, count, depth })
    }

    /// Number of items that the list declares. Its bytes are enough for that many.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// True if the list declares no items.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Byte of the message at which the first item starts, for errors.
    pub fn at(&self) -> usize {
        self.items.at()
    }

    /// The items, in order.
    pub fn items(&self) -> Items<'a> {
        Items { cursor: self.items, left: self.count, depth: self.depth, shared: None, done: false }
    }
}

impl<'a> Map<'a> {
    #[inline]
    pub(super) fn read(c: &mut Cursor<'a>, wide: bool, depth: u8) -> Result<Self, AmqpError> {
        let at = c.at();
        let list = List::read(c, wide, depth)?;
        if !list.count.is_multiple_of(2) {
            return Err(AmqpError::Malformed { at, what: "a map has a key without a value" });
        }
        Ok(Map(list))
    }

    /// Number of pairs that the map declares. Its bytes are enough for that many.
    pub fn len(&self) -> u32 {
        self.0.count / 2
    }

    /// True if the map declares no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// The pairs, in order.
    pub fn entries(&self) -> Entries<'a> {
        Entries(self.0.items())
    }

    /// The value of the first key equal to `key`, as a string or a symbol.
    pub fn get(&self, key: &str) -> Result<Option<Value<'a>>, AmqpError> {
        for entry in self.entries() {
            let (found, value) = entry?;
            if found.as_str() == Some(key) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl<'a> Array<'a> {
    pub(super) fn read(c: &mut Cursor<'a>, wide: bool, depth: u8) -> Result<Self, AmqpError> {
        let depth = deeper(depth, c.at())?;
        let size = c.length(wide, "a size")?;
        let mut items = c.region(size, "an array")?;
        let count_at = items.at();
        let count = items.length(wide, "a count")?;
        let constructor = items.at();
        // Some encoders leave the constructor out of an empty array.
        if count > 0 || items.left() > 0 {
            let code = items.constructor()?;
            let at = items.at() - 1;
            let width = payload_width(code).ok_or(AmqpError::UnknownType { at, code })?.least();
            if width == 0 && count > ZERO_WIDTH_MAX {
                return Err(AmqpError::OverLimit {
                    at: count_at,
                    what: "an array of too many elements that take no bytes",
                    limit: ZERO_WIDTH_MAX as usize,
                });
            }
            if u64::from(count) * u64::from(width) > items.left() as u64 {
                let what = "an array's count exceeds the bytes there are";
                return Err(AmqpError::Malformed { at: count_at, what });
            }
        }
        Ok(Array { items: List { items, count, depth }, constructor })
    }

    /// Number of elements. The bytes are enough for that many.
    pub fn len(&self) -> u32 {
        self.items.count
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.items.count == 0
    }

    /// The elements, in order.
    pub fn items(&self) -> Items<'a> {
        Items { shared: Some(self.constructor), ..self.items.items() }
    }
}

impl<'a> Described<'a> {
    /// Reads the payload at the cursor; its constructor is at `constructor` and starts with a
    /// descriptor.
    pub(super) fn read(
        c: &mut Cursor<'a>,
        constructor: usize,
        depth: u8,
    ) -> Result<Self, AmqpError> {
        let depth = deeper(depth, constructor)?;
        let descriptor = constructor + 1;
        let mut inner = c.moved_to(descriptor);
        inner.skip_value()?;
        let constructor = inner.at();
        let code = inner.constructor()?;
        let payload = *c;
        c.skip_payload(code, inner.at() - 1)?;
        Ok(Described { descriptor, constructor, payload, depth })
    }

    /// The descriptor, which gives the value's meaning: mostly a symbol or a ulong.
    pub fn descriptor(&self) -> Result<Value<'a>, AmqpError> {
        Value::read(&mut self.payload.moved_to(self.descriptor), self.depth)
    }

    /// The value.
    pub fn value(&self) -> Result<Value<'a>, AmqpError> {
        let mut payload = self.payload;
        Value::payload(&mut payload, self.constructor, self.depth)
    }
}

/// Walks a [`List`] or an [`Array`].
#[derive(Clone, Debug)]
pub struct Items<'a> {
    cursor: Cursor<'a>,
    left: u32,
    depth: u8,
    /// Byte of the constructor that all items share; `None` where each item has its own.
    shared: Option<usize>,
    done: bool,
}

impl Items<'_> {
    /// Byte of the message at which the next item starts.
    pub(super) fn at(&self) -> usize {
        self.cursor.at()
    }

    fn end(&mut self) -> Option<AmqpError> {
        if self.done || self.cursor.left() == 0 {
            return None;
        }
        self.done = true;
        let what = "bytes are left over behind the last item";
        Some(AmqpError::Malformed { at: self.cursor.at(), what })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Value<'a>, AmqpError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(left) = self.left.checked_sub(1) else { return self.end().map(Err) };
        self.left = left;
        let item = match self.shared {
            None => Value::read(&mut self.cursor, self.depth),
            Some(constructor) => Value::payload(&mut self.cursor, constructor, self.depth),
        };
        if item.is_err() {
            self.left = 0;
            self.done = true;
        }
        Some(item)
    }
}

/// Walks a [`Map`].
#[derive(Clone, Debug)]
pub struct Entries<'a>(Items<'a>);

impl Entries<'_> {
    /// Byte of the message at which the next pair starts.
    pub(super) fn at(&self) -> usize {
        self.0.at()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(Value<'a>, Value<'a>), AmqpError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let key = match self.0.next()? {
            Ok(key) => key,
            Err(e) => return Some(Err(e)),
        };
        // The count is even, so a key is never the last item.
        Some(self.0.next()?.map(|value| (key, value)))
    }
}
