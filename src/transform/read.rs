//! JSON text to values.
//!
//! Exactly what `serde_json` accepts is accepted, which a test compares: no comments, no trailing commas,
//! no half of a surrogate pair, at most 127 levels. Of a repeated key, the last value counts, at the place
//! of the first.

use std::rc::Rc;

use super::budget::take;
use super::number::Number;
use super::scan::{NotJson, Reader, Wrong};
use super::value::{Entries, Value};

/// Keys of the outermost object that are wanted. What is not wanted is checked all the same.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    All,
    Keys(Vec<String>),
}

/// Reads one JSON text.
pub(super) fn read(text: &[u8], wanted: &Wanted) -> Result<Value, NotJson> {
    Reader::whole(text, |reader| match wanted {
        Wanted::Keys(keys) if reader.peek() == Some(b'{') => reader.object(1, Some(keys)),
        _ => reader.value(0),
    })
}

impl Reader<'_> {
    /// A value, `depth` lists and objects deep.
    pub(super) fn value(&mut self, depth: u32) -> Result<Value, Wrong> {
        match self.peek() {
            Some(b'"') => Ok(Value::text(self.string()?)),
            Some(b'{') => self.object(depth + 1, None),
            Some(b'[') => self.list(depth + 1),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Num(Number::of_text(self.number()?))),
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            // It is none, which is told there.
            _ => self.skip(depth).map(|()| Value::Null),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value, Wrong> {
        let mut items = Vec::new();
        let mut more = self.open(depth, b']')?;
        while more {
            items.push(self.value(depth)?);
            more = self.more_items()?;
        }
        Ok(Value::list(items))
    }

    /// With `wanted`, only the values of these keys are kept.
    fn object(&mut self, depth: u32, wanted: Option<&[String]>) -> Result<Value, Wrong> {
        let mut entries = Entries::default();
        let mut more = self.open(depth, b'}')?;
        while more {
            self.key()?;
            let key = self.string()?;
            let is_wanted = wanted.is_none_or(|wanted| wanted.iter().any(|one| one == key));
            let key: Option<Rc<str>> = is_wanted.then(|| key.into());
            self.colon()?;
            match key {
                None => self.skip(depth)?,
                Some(key) => {
                    let value = self.value(depth)?;
                    if !take(key.len() as u64) {
                        return Ok(Value::Null);
                    }
                    entries.insert(key, value);
                }
            }
            more = self.more_members()?;
        }
        Ok(Value::object(entries))
    }
}
