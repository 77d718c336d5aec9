//! The values of a program: JSON, with its size and depth known at each list and object.
//!
//! Invariants: no value is deeper than [`DEPTH_MAX`] or larger than [`SIZE_MAX`] (where one would be, it is
//! null, and the budget is spent); every list, object and string that is made was counted.

use std::rc::Rc;

use indexmap::IndexMap;

use super::budget::{DEPTH_MAX, Limit, SIZE_MAX, spend, take};
use super::number::Number;

/// Bytes of a list or object besides its items, and of an item.
const NODE_BYTES: u64 = 64;
pub(super) const ITEM_BYTES: u64 = 24;
const ENTRY_BYTES: u64 = 64;

/// Place of numbers in the order of all values.
pub(super) const NUMBER_RANK: u8 = 3;

/// Place of strings in the order of all values.
pub(super) const STRING_RANK: u8 = 4;

#[derive(Clone, Debug, Default)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    Num(Number),
    Str(Rc<str>),
    Arr(Rc<Array>),
    Obj(Rc<Object>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Array {
    items: Vec<Value>,
    weight: Weight,
}

pub(super) type Entries = IndexMap<Rc<str>, Value>;

#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    entries: Entries,
    weight: Weight,
}

/// Size of a value, with all that is in it, and its depth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) size: u64,
    pub(super) depth: u32,
}

impl Value {
    /// A string that is counted.
    pub(super) fn text(text: impl AsRef<str>) -> Value {
        let text = text.as_ref();
        match take(text.len() as u64 + ITEM_BYTES) {
            true => Value::Str(text.into()),
            false => Value::Null,
        }
    }

    /// A list; null if it is over a limit.
    pub(super) fn list(items: Vec<Value>) -> Value {
        let weight = Weight::around(items.iter());
        let bytes = NODE_BYTES + ITEM_BYTES * items.len() as u64;
        match weight.is_allowed() && take(bytes) {
            true => Value::Arr(Rc::new(Array { items, weight })),
            false => Value::Null,
        }
    }

    /// An object; null if it is over a limit.
    pub(super) fn object(entries: Entries) -> Value {
        let mut weight = Weight::around(entries.values());
        weight.size += entries.keys().map(|key| key.len() as u64 / 16).sum::<u64>();
        let bytes = NODE_BYTES + ENTRY_BYTES * entries.len() as u64;
        match weight.is_allowed() && take(bytes) {
            true => Value::Obj(Rc::new(Object { entries, weight })),
            false => Value::Null,
        }
    }

    pub(super) fn weight(&self) -> Weight {
        match self {
            Value::Null | Value::Bool(_) | Value::Num(_) => Weight { size: 1, depth: 0 },
            Value::Str(text) => Weight { size: 1 + text.len() as u64 / 16, depth: 0 },
            Value::Arr(array) => array.weight,
            Value::Obj(object) => object.weight,
        }
    }

    /// Place of its type in the order of all values.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(false) => 1,
            Value::Bool(true) => 2,
            Value::Num(_) => NUMBER_RANK,
            Value::Str(_) => STRING_RANK,
            Value::Arr(_) => 5,
            Value::Obj(_) => 6,
        }
    }
}

impl Weight {
    fn around<'v>(items: impl Iterator<Item = &'v Value>) -> Weight {
        items.map(Value::weight).fold(Weight { size: 1, depth: 1 }, |sum, item| Weight {
            size: sum.size.saturating_add(item.size),
            depth: sum.depth.max(item.depth + 1),
        })
    }

    fn is_allowed(self) -> bool {
        if self.depth > DEPTH_MAX {
            spend(Limit::Depth);
        } else if self.size > SIZE_MAX {
            spend(Limit::Size);
        } else {
            return true;
        }
        false
    }

    /// With an item replaced by another one.
    fn with(self, out: Weight, item: Weight) -> Weight {
        Weight {
            size: self.size.saturating_sub(out.size).saturating_add(item.size),
            depth: self.depth.max(item.depth + 1),
        }
    }
}

impl Array {
    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    /// The items, copied if others refer to them too.
    pub(super) fn into_items(this: Rc<Array>) -> Vec<Value> {
        match Rc::try_unwrap(this) {
            Ok(array) => array.items,
            Err(shared) if take(ITEM_BYTES * shared.items.len() as u64) => shared.items.clone(),
            Err(_) => Vec::new(),
        }
    }
}

impl Object {
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The entries, copied if others refer to them too.
    pub(super) fn into_entries(this: Rc<Object>) -> Entries {
        match Rc::try_unwrap(this) {
            Ok(object) => object.entries,
            Err(shared) if take(ENTRY_BYTES * shared.entries.len() as u64) => {
                shared.entries.clone()
            }
            Err(_) => Entries::default(),
        }
    }

    /// Sets, or with `None` removes, the value of a key; a change of one entry in place, if nothing else
    /// refers to the object.
    pub(super) fn set(this: Rc<Object>, key: Rc<str>, value: Option<Value>) -> Value {
        let mut weight = this.weight;
        let mut entries = Object::into_entries(this);
        match value {
            Some(value) => {
                let item = value.weight();
                let old = entries.insert(key, value);
                let out = old.map_or(Weight::default(), |old| old.weight());
                if !take(ENTRY_BYTES) {
                    return Value::Null;
                }
                weight = weight.with(out, item);
            }
            None => {
                // In order, as it was written.
                let old = entries.shift_remove(&key);
                let moved = ITEM_BYTES / 8 * entries.len() as u64;
                if !take(moved) {
                    return Value::Null;
                }
                weight.size -= old.map_or(0, |old| old.weight().size).min(weight.size);
            }
        }
        match weight.is_allowed() {
            true => Value::Obj(Rc::new(Object { entries, weight })),
            false => Value::Null,
        }
    }
}

impl Array {
    /// Sets, or with `None` removes, an item that exists.
    pub(super) fn set(this: Rc<Array>, index: usize, value: Option<Value>) -> Value {
        let mut weight = this.weight;
        let mut items = Array::into_items(this);
        match (value, items.get_mut(index)) {
            (_, None) => return Value::Null,
            (Some(value), Some(place)) => {
                weight = weight.with(place.weight(), value.weight());
                *place = value;
                if !take(ITEM_BYTES) {
                    return Value::Null;
                }
            }
            (None, Some(place)) => {
                weight.size -= place.weight().size.min(weight.size);
                items.remove(index);
                if !take(items.len() as u64) {
                    return Value::Null;
                }
            }
        }
        match weight.is_allowed() {
            true => Value::Arr(Rc::new(Array { items, weight })),
            false => Value::Null,
        }
    }

    /// Both lists, one after the other; in place, if nothing else refers to the first.
    pub(super) fn joined(this: Rc<Array>, other: &Array) -> Value {
        let (own, more) = (this.weight, other.weight);
        let mut items = Array::into_items(this);
        if !take(ITEM_BYTES * (other.items.len() as u64 + 1)) {
            return Value::Null;
        }
        items.extend(other.items.iter().cloned());
        let size = own.size.saturating_add(more.size);
        let weight = Weight { size, depth: own.depth.max(more.depth) };
        match weight.is_allowed() {
            true => Value::Arr(Rc::new(Array { items, weight })),
            false => Value::Null,
        }
    }
}
