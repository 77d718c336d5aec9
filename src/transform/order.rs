//! The order of values: null, false, true, numbers, strings, lists, objects, as in jq.

use std::cmp::Ordering;
use std::rc::Rc;

use super::budget::{is_spent, take};
use super::value::Value;

/// What a comparison counts for: a list is sorted by many.
const COMPARISON_BYTES: u64 = 1;

impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Num(left), Value::Num(right)) => {
                take(COMPARISON_BYTES);
                left.order(right)
            }
            (Value::Str(left), Value::Str(right)) => {
                // When nothing is left, the result is not used.
                take(COMPARISON_BYTES + left.len().min(right.len()) as u64 / 16);
                left.cmp(right)
            }
            (Value::Arr(left), Value::Arr(right)) => {
                if Rc::ptr_eq(left, right) || !may_look(self, other) {
                    return Ordering::Equal;
                }
                left.items().iter().cmp(right.items())
            }
            (Value::Obj(left), Value::Obj(right)) => {
                if Rc::ptr_eq(left, right) || !may_look(self, other) {
                    return Ordering::Equal;
                }
                let sorted = |object: &super::value::Object| {
                    let mut entries: Vec<_> =
                        object.entries().iter().map(|(k, v)| (Rc::clone(k), v.clone())).collect();
                    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
                    entries
                };
                let (left, right) = (sorted(left), sorted(right));
                let keys = left.iter().map(|(key, _)| key).cmp(right.iter().map(|(key, _)| key));
                keys.then_with(|| left.iter().map(|(_, v)| v).cmp(right.iter().map(|(_, v)| v)))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Counts the comparison. When nothing is left, its result is not used, and it ends early.
fn may_look(left: &Value, right: &Value) -> bool {
    let items = |value: &Value| match value {
        Value::Arr(array) => array.items().len() as u64,
        Value::Obj(object) => 4 * object.entries().len() as u64,
        _ => 0,
    };
    !is_spent() && take(8 * items(left).min(items(right)) + 8)
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}
