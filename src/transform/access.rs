//! What the interpreter asks of values: their parts, and changes of them.
//!
//! As in jq, null is an empty list or object for whoever reads from it or sets a part of it.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use jaq_core::path::Opt;
use jaq_core::{Error, Exn, ValR, ValT, ValX};

use super::budget::{is_spent, take};
use super::number::Number;
use super::value::{Array, Entries, Object, Value};
use super::write;

/// Largest index that may be set in a list.
const INDEX_MAX: usize = 1 << 20;

/// Most bytes of a value in an error's text.
const SHOWN_BYTES_MAX: usize = 80;

pub(super) type Failed = Error<Value>;

type Values = Box<dyn Iterator<Item = ValR<Value>>>;

fn once<T: 'static>(item: T) -> Box<dyn Iterator<Item = T>> {
    Box::new(std::iter::once(item))
}

impl ValT for Value {
    fn from_num(text: &str) -> ValR<Self> {
        // A program may write what JSON does not allow, such as `1.`.
        Ok(match serde_json::from_str::<&serde_json::value::RawValue>(text) {
            Ok(_) => Value::Num(Number::of_text(text)),
            Err(_) => Value::Num(Number::of_float(text.parse().unwrap_or(f64::NAN))),
        })
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(entries: I) -> ValR<Self> {
        let mut object = Entries::default();
        for (key, value) in entries {
            match key {
                Value::Str(key) => object.insert(key, value),
                other => return Err(Error::typ(other, "a key, which is a string")),
            };
        }
        Ok(Value::object(object))
    }

    fn key_values(self) -> Box<dyn Iterator<Item = ValR<(Self, Self), Self>>> {
        match self {
            Value::Arr(array) => Box::new(
                Array::into_items(array)
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| Ok((Value::from(index), item))),
            ),
            Value::Obj(object) => Box::new(
                Object::into_entries(object)
                    .into_iter()
                    .map(|(key, item)| Ok((Value::Str(key), item))),
            ),
            other => once(Err(no_parts(other))),
        }
    }

    fn values(self) -> Values {
        match self {
            Value::Arr(array) => Box::new(Array::into_items(array).into_iter().map(Ok)),
            Value::Obj(object) => {
                Box::new(Object::into_entries(object).into_iter().map(|(_, item)| Ok(item)))
            }
            other => once(Err(no_parts(other))),
        }
    }

    fn index(self, index: &Self) -> ValR<Self> {
        match (&self, index) {
            (Value::Null, Value::Null | Value::Str(_) | Value::Num(_) | Value::Obj(_)) => {
                Ok(Value::Null)
            }
            (Value::Obj(object), Value::Str(key)) => {
                Ok(object.entries().get(key).cloned().unwrap_or_default())
            }
            (Value::Arr(array), Value::Num(number)) => {
                let items = array.items();
                let at = place(number.floor(), items.len());
                Ok(at.and_then(|at| items.get(at)).cloned().unwrap_or_default())
            }
            (Value::Arr(_), Value::Arr(_)) => indices(&self, index),
            (Value::Arr(_) | Value::Str(_), Value::Obj(slice)) => {
                let slice = slice.entries();
                self.clone().range(slice.get("start")..slice.get("end"))
            }
            _ => Err(Error::index(self, index.clone())),
        }
    }

    fn range(self, range: Range<Option<&Self>>) -> ValR<Self> {
        match &self {
            Value::Null => Ok(Value::Null),
            Value::Arr(array) => {
                let items = array.items();
                let (from, to) = bounds(&range, items.len())?;
                match take(super::value::ITEM_BYTES * (to - from) as u64) {
                    true => Ok(Value::list(items.get(from..to).unwrap_or_default().to_vec())),
                    false => Ok(Value::Null),
                }
            }
            Value::Str(text) => {
                if !take(text.len() as u64) {
                    return Ok(Value::Null);
                }
                let (from, to) = bounds(&range, text.chars().count())?;
                let part: String = text.chars().skip(from).take(to - from).collect();
                Ok(Value::text(part))
            }
            _ => Err(Error::typ(self, "a list or a string, which have slices")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Value::Arr(array) => {
                let items = Array::into_items(array).into_iter().flat_map(f);
                Ok(Value::list(items.collect::<Result<_, _>>()?))
            }
            Value::Obj(object) => {
                let entries = Object::into_entries(object).into_iter();
                let entries = entries.filter_map(|(key, v)| Some(f(v).next()?.map(|v| (key, v))));
                Ok(Value::object(entries.collect::<Result<_, _>>()?))
            }
            other => opt.fail(other, |v| Exn::from(no_parts(v))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match (self, index) {
            (Value::Null, Value::Str(_)) => Value::Obj(Rc::default()).map_index(index, opt, f),
            (Value::Null, Value::Num(_)) => Value::Arr(Rc::default()).map_index(index, opt, f),
            (Value::Obj(object), Value::Str(key)) => {
                let old = object.entries().get(key).cloned().unwrap_or_default();
                let new = f(old).next().transpose()?;
                Ok(Object::set(object, Rc::clone(key), new))
            }
            (Value::Arr(array), Value::Num(number)) => {
                let length = array.items().len();
                let Some(at) = place(number.floor(), length) else {
                    let what = Error::str(format_args!("the index {number} is before the list"));
                    return opt.fail(Value::Arr(array), |_| Exn::from(what));
                };
                let old = array.items().get(at).cloned().unwrap_or_default();
                let new = f(old).next().transpose()?;
                match new {
                    None if at >= length => Ok(Value::Arr(array)),
                    Some(_) if at > INDEX_MAX.max(length) => {
                        let what = format_args!("the index {at} is too large: at most {INDEX_MAX}");
                        Err(Exn::from(Error::str(what)))
                    }
                    Some(value) if at >= length => {
                        let mut items = Array::into_items(array);
                        items.resize(at, Value::Null);
                        items.push(value);
                        Ok(Value::list(items))
                    }
                    value => Ok(Array::set(array, at, value)),
                }
            }
            (value @ (Value::Arr(_) | Value::Null), Value::Obj(slice)) => {
                let slice = slice.entries();
                value.map_range(slice.get("start")..slice.get("end"), opt, f)
            }
            (value, _) => opt.fail(value, |v| Exn::from(Error::index(v, index.clone()))),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<Option<&Self>>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let array = match self {
            Value::Arr(array) => array,
            Value::Null => Rc::default(),
            other => {
                return opt
                    .fail(other, |v| Exn::from(Error::typ(v, "a list, whose slices can be set")));
            }
        };
        let (from, to) = match bounds(&range, array.items().len()) {
            Ok(bounds) => bounds,
            Err(error) => return opt.fail(Value::Arr(array), |_| Exn::from(error)),
        };
        let old = Value::list(array.items().get(from..to).unwrap_or_default().to_vec());
        let new = match f(old).next().transpose()? {
            None => Vec::new(),
            Some(Value::Arr(new)) => Array::into_items(new),
            Some(other) => return Err(Exn::from(Error::typ(other, "a list, to replace a slice"))),
        };
        let mut items = Array::into_items(array);
        if !is_spent() {
            items.splice(from..to, new);
        }
        Ok(Value::list(items))
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Value::Null | Value::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            Value::Str(_) => self,
            other => write::text(&other),
        }
    }
}

fn no_parts(value: Value) -> Failed {
    Error::typ(value, "a list or an object, which have parts")
}

/// Place of an index in a list; negative ones count from its end. `None` before its beginning.
pub(super) fn place(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// The places from which and up to which a slice goes.
fn bounds(range: &Range<Option<&Value>>, length: usize) -> Result<(usize, usize), Failed> {
    let bound = |value: Option<&Value>, end: bool| match value {
        None | Some(Value::Null) => Ok(if end { length } else { 0 }),
        Some(Value::Num(number)) => {
            let floor = number.floor();
            // A slice ends behind a part of an item.
            let is_part = end && !number.is_int() && number.as_f64().fract() != 0.0;
            let index = if is_part { floor.saturating_add(1) } else { floor };
            Ok(place(index, length).unwrap_or(0).min(length))
        }
        Some(other) => Err(Error::typ(other.clone(), "the end of a slice, which is a number")),
    };
    let (from, to) = (bound(range.start, false)?, bound(range.end, true)?);
    Ok((from, to.max(from)))
}

/// Where `what` occurs.
pub(super) fn indices(value: &Value, what: &Value) -> ValR<Value> {
    let found: Vec<Value> = match (value, what) {
        (Value::Null, _) => return Ok(Value::Null),
        (Value::Str(text), Value::Str(part)) => {
            if part.is_empty() || !take((text.len() as u64 + 1) * (part.len() as u64 / 8 + 1)) {
                return Ok(Value::list(Vec::new()));
            }
            let starts = text.char_indices().enumerate();
            let here = |at: usize| text.get(at..).is_some_and(|rest| rest.starts_with(&**part));
            starts.filter(|(_, (at, _))| here(*at)).map(|(nth, _)| Value::from(nth)).collect()
        }
        (Value::Arr(list), Value::Arr(part)) => {
            let (items, part) = (list.items(), part.items());
            if part.is_empty() || !take(8 * (items.len() * part.len()) as u64) {
                return Ok(Value::list(Vec::new()));
            }
            let windows = items.windows(part.len()).enumerate();
            windows.filter(|(_, window)| *window == part).map(|(nth, _)| Value::from(nth)).collect()
        }
        (Value::Arr(list), item) => {
            if !take(8 * list.items().len() as u64) {
                return Ok(Value::list(Vec::new()));
            }
            let items = list.items().iter().enumerate();
            items.filter(|(_, one)| *one == item).map(|(nth, _)| Value::from(nth)).collect()
        }
        _ => return Err(Error::index(value.clone(), what.clone())),
    };
    Ok(Value::list(found))
}

impl From<bool> for Value {
    fn from(bool: bool) -> Value {
        Value::Bool(bool)
    }
}

impl From<isize> for Value {
    fn from(int: isize) -> Value {
        Value::Num(Number::Int(int as i64))
    }
}

impl From<usize> for Value {
    fn from(int: usize) -> Value {
        Value::Num(Number::Int(i64::try_from(int).unwrap_or(i64::MAX)))
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Value {
        Value::Num(Number::of_float(float))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::text(text)
    }
}

impl From<Range<Option<Value>>> for Value {
    fn from(range: Range<Option<Value>>) -> Value {
        let mut entries = Entries::default();
        for (key, bound) in [("start", range.start), ("end", range.end)] {
            entries.insert(key.into(), bound.unwrap_or_default());
        }
        Value::object(entries)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Value {
        let mut list = Vec::new();
        for item in items {
            // More than that is never allowed.
            if is_spent() || !take(super::value::ITEM_BYTES) {
                return Value::Null;
            }
            list.push(item);
        }
        Value::list(list)
    }
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Value::Arr(array) => Ok(Array::into_items(array).into_iter().collect()),
            other => Err(other),
        }
    }

    fn is_int(&self) -> bool {
        matches!(self, Value::Num(number) if number.is_int())
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Value::Num(Number::Int(int)) => isize::try_from(*int).ok(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Num(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Value::Str(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Str(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Value::text(String::from_utf8_lossy(part))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Value::text(String::from_utf8_lossy(bytes.as_ref()))
    }
}

/// As JSON, and only its beginning if it is long: for the text of errors.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write::beginning(self, SHOWN_BYTES_MAX))
    }
}
