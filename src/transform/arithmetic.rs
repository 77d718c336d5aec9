//! `+`, `-`, `*`, `/` and `%` of values, as in jq.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::ops::Math;
use jaq_core::{Error, ValR};

use super::budget::{is_spent, take};
use super::number::Number;
use super::value::{Array, Object, Value};

impl Add for Value {
    type Output = ValR<Value>;

    fn add(self, other: Value) -> ValR<Value> {
        Ok(match (self, other) {
            (Value::Null, value) | (value, Value::Null) => value,
            (Value::Num(a), Value::Num(b)) => {
                Value::Num(a.calculate(&b, i64::checked_add, |a, b| a + b))
            }
            (Value::Str(a), Value::Str(b)) => match take((a.len() + b.len()) as u64) {
                true => Value::text([&*a, &*b].concat()),
                false => Value::Null,
            },
            (Value::Arr(a), Value::Arr(b)) => Array::joined(a, &b),
            (Value::Obj(a), Value::Obj(b)) => {
                let mut all = Object::into_entries(a);
                all.extend(Object::into_entries(b));
                Value::object(all)
            }
            (a, b) => return Err(Error::math(a, Math::Add, b)),
        })
    }
}

impl Sub for Value {
    type Output = ValR<Value>;

    fn sub(self, other: Value) -> ValR<Value> {
        Ok(match (self, other) {
            (Value::Num(a), Value::Num(b)) => {
                Value::Num(a.calculate(&b, i64::checked_sub, |a, b| a - b))
            }
            (Value::Arr(a), Value::Arr(b)) => {
                if !take(16 * (a.items().len() + b.items().len()) as u64) {
                    return Ok(Value::Null);
                }
                let mut items = Array::into_items(a);
                let mut out: Vec<&Value> = b.items().iter().collect();
                out.sort();
                items.retain(|item| !is_spent() && out.binary_search(&item).is_err());
                Value::list(items)
            }
            (a, b) => return Err(Error::math(a, Math::Sub, b)),
        })
    }
}

impl Mul for Value {
    type Output = ValR<Value>;

    fn mul(self, other: Value) -> ValR<Value> {
        Ok(match (self, other) {
            (Value::Num(a), Value::Num(b)) => {
                Value::Num(a.calculate(&b, i64::checked_mul, |a, b| a * b))
            }
            (Value::Str(text), Value::Num(times)) | (Value::Num(times), Value::Str(text)) => {
                repeated(&text, &times)
            }
            (Value::Obj(a), Value::Obj(b)) => merged(a, b),
            (a, b) => return Err(Error::math(a, Math::Mul, b)),
        })
    }
}

/// The text so many times; null if that is not positive.
fn repeated(text: &Rc<str>, times: &Number) -> Value {
    if times.as_f64().is_nan() || times.as_f64() <= 0.0 {
        return Value::Null;
    }
    let times = usize::try_from(times.floor()).unwrap_or(usize::MAX).max(1);
    match text.len().checked_mul(times) {
        // Asked before it is made.
        Some(bytes) if take(bytes as u64) => Value::text(text.repeat(times)),
        Some(_) => Value::Null,
        None => {
            take(u64::MAX);
            Value::Null
        }
    }
}

/// Objects in both are merged in turn. The recursion is as deep as the values are.
fn merged(a: Rc<Object>, b: Rc<Object>) -> Value {
    let mut all = Object::into_entries(a);
    for (key, value) in Object::into_entries(b) {
        let both = match (all.get(&key), &value) {
            (Some(Value::Obj(a)), Value::Obj(b)) => Some(merged(Rc::clone(a), Rc::clone(b))),
            _ => None,
        };
        all.insert(key, both.unwrap_or(value));
    }
    Value::object(all)
}

impl Div for Value {
    type Output = ValR<Value>;

    fn div(self, other: Value) -> ValR<Value> {
        match (self, other) {
            (Value::Num(_), Value::Num(b)) if b.as_f64() == 0.0 => {
                Err(Error::str("cannot divide by zero"))
            }
            (Value::Num(a), Value::Num(b)) => Ok(Value::Num(a.calculate(
                &b,
                |a, b| (a.checked_rem(b)? == 0).then(|| a.checked_div(b)).flatten(),
                |a, b| a / b,
            ))),
            (Value::Str(text), Value::Str(separator)) => Ok(split(&text, &separator)),
            (a, b) => Err(Error::math(a, Math::Div, b)),
        }
    }
}

/// The parts between the separators; all characters if it is empty.
fn split(text: &str, separator: &str) -> Value {
    if !take(2 * text.len() as u64) {
        return Value::Null;
    }
    match (text.is_empty(), separator.is_empty()) {
        (true, _) => Value::list(Vec::new()),
        (false, true) => text.chars().map(|char| Value::text(String::from(char))).collect(),
        (false, false) => text.split(separator).map(Value::text).collect(),
    }
}

impl Rem for Value {
    type Output = ValR<Value>;

    fn rem(self, other: Value) -> ValR<Value> {
        match (self, other) {
            (Value::Num(_), Value::Num(b)) if b.as_f64().trunc() == 0.0 => {
                Err(Error::str("cannot divide by zero"))
            }
            (Value::Num(a), Value::Num(b)) => {
                let exact = |a: i64, b: i64| Some(a.checked_rem(b).unwrap_or(0));
                let float = |a: f64, b: f64| a.trunc() % b.trunc();
                Ok(Value::Num(a.calculate(&b, exact, float)))
            }
            (a, b) => Err(Error::math(a, Math::Rem, b)),
        }
    }
}

impl Neg for Value {
    type Output = ValR<Value>;

    fn neg(self) -> ValR<Value> {
        match self {
            Value::Num(number) => Ok(Value::Num(number.negated())),
            other => Err(Error::typ(other, "a number")),
        }
    }
}
