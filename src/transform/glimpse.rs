//! What a simple program sees of a message.

use std::borrow::Cow;
use std::ops::Range;

use jaq_core::ValT as _;

use super::access::place;
use super::number::Number;
use super::parts::{Part, Step};
use super::simple::{Path, Source};
use super::value::Value;

/// The result is an error, or over a limit: the interpreter tells.
pub(super) struct Undecided;

/// A result, if there is one.
pub(super) type Found<T> = Result<Option<T>, Undecided>;

/// What a program reads of a message.
#[derive(Clone, Copy)]
pub(super) struct Env<'e> {
    pub(super) body: Glimpse<'e>,
    pub(super) message: Glimpse<'e>,
    pub(super) body_is_true: bool,
}

/// What a program reads of one text.
#[derive(Clone, Copy)]
pub(super) struct Glimpse<'e> {
    pub(super) source: &'e Source,
    pub(super) parts: &'e [Part],
    pub(super) text: &'e [u8],
}

/// A part of a text. What is not a value yet needs not become one to be compared or written.
#[derive(Clone, Copy)]
pub(super) enum Seen<'e> {
    Value(&'e Value),
    /// As it is written.
    Number(&'e [u8]),
    /// A string without its quotation marks: ASCII that needs no escapes.
    Text(&'e [u8]),
}

impl<'e> Glimpse<'e> {
    /// What stands at the path with this number.
    pub(super) fn read(&self, nth: usize) -> Found<Seen<'e>> {
        let read = self.source.reads.get(nth).ok_or(Undecided)?;
        let Path { steps, optional } = &read.path;
        let from = read.place.depth;
        let text = |range: &Range<usize>| self.text.get(range.clone()).unwrap_or_default();
        match self.parts.get(read.place.part).ok_or(Undecided)? {
            Part::Found(value) if from == steps.len() => Ok(Some(Seen::Value(value))),
            Part::Found(value) => {
                let steps = steps.iter().zip(optional).skip(from);
                Ok(walk(value, steps)?.map(Seen::Value))
            }
            Part::Number(range) if from == steps.len() => Ok(Some(Seen::Number(text(range)))),
            Part::Text(range) if from == steps.len() => Ok(Some(Seen::Text(text(range)))),
            // These have no parts.
            Part::Number(_) | Part::Text(_) if optional.get(from) == Some(&true) => Ok(None),
            Part::Wrong(step) if optional.get(*step) == Some(&true) => Ok(None),
            Part::Number(_) | Part::Text(_) | Part::Wrong(_) => Err(Undecided),
        }
    }
}

impl<'e> Seen<'e> {
    pub(super) fn value(self) -> Cow<'e, Value> {
        // Both are ASCII.
        let text = |text| std::str::from_utf8(text).unwrap_or_default();
        match self {
            Seen::Value(value) => Cow::Borrowed(value),
            Seen::Number(number) => Cow::Owned(Value::Num(Number::of_text(text(number)))),
            Seen::Text(string) => Cow::Owned(Value::text(text(string))),
        }
    }

    pub(super) fn is_true(self) -> bool {
        match self {
            Seen::Value(value) => value.as_bool(),
            Seen::Number(_) | Seen::Text(_) => true,
        }
    }
}

/// The part of a value at the end of some steps.
pub(super) fn walk<'v, 's>(
    value: &'v Value,
    steps: impl Iterator<Item = (&'s Step, &'s bool)>,
) -> Found<&'v Value> {
    let mut at = value;
    for (step, is_optional) in steps {
        at = match (at, step) {
            (Value::Null, _) => &Value::Null,
            (Value::Obj(object), Step::Key(key)) => {
                object.entries().get(key.as_str()).unwrap_or(&Value::Null)
            }
            (Value::Arr(list), Step::Index(index)) => {
                let items = list.items();
                place(*index, items.len()).and_then(|at| items.get(at)).unwrap_or(&Value::Null)
            }
            _ if *is_optional => return Ok(None),
            _ => return Err(Undecided),
        };
    }
    Ok(Some(at))
}
