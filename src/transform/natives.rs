//! The functions that are not defined in the language itself.
//!
//! A result depends on the message alone: there is no clock, no environment, no file and no output here.

use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::{Error, Exn, RunPtr, ValR, ValX, ValXs};
use jaq_std::ValT as _;

use super::access::{Failed, indices};
use super::budget::{is_spent, step, take};
use super::jq::Jq;
use super::number::Number;
use super::value::Value;
use super::{read, regexes, times, write};

type Native = (&'static str, Box<[jaq_core::Bind]>, RunPtr<Jq>);

/// Those of the crates that are replaced here, or that do not belong here.
const NOT_TAKEN: &[&str] = &["range", "halt"];

/// All functions.
pub(super) fn all() -> impl Iterator<Item = Fun<Jq>> {
    let theirs = jaq_core::funs::<Jq>().chain(jaq_std::base_funs::<Jq>());
    let theirs = theirs.filter(|(name, ..)| !NOT_TAKEN.contains(name));
    let ours = [ours(), numbers(), texts(), regexes::natives(), times::natives()];
    theirs.chain(ours.into_iter().flatten().map(|native| run::<Jq>(native)))
}

fn ours() -> Vec<Native> {
    vec![
        ("range", v(3), |mut cv| {
            let by = cv.0.pop_var();
            let to = cv.0.pop_var();
            Box::new(range(cv.0.pop_var(), to, by))
        }),
        ("length", v(0), |cv| bome(length(&cv.1))),
        ("contains", v(1), |cv| unary(cv, |whole, part| contains(&whole, &part).map(Value::from))),
        ("has", v(1), |cv| unary(cv, |value, key| has(&value, &key))),
        ("indices", v(1), |cv| unary(cv, |value, what| indices(&value, &what))),
        ("bsearch", v(1), |cv| {
            unary(cv, |value, what| match &value {
                Value::Arr(list) => Ok(match list.items().binary_search(&what) {
                    Ok(at) => Value::from(at),
                    Err(at) => Value::from(-1 - isize::try_from(at).unwrap_or(isize::MAX)),
                }),
                _ => Err(Error::typ(value, "a list")),
            })
        }),
        ("tojson", v(0), |cv| bome(Ok(write::text(&cv.1)))),
        ("fromjson", v(0), |cv| bome(from_json(cv.1))),
        ("tonumber", v(0), |cv| bome(to_number(cv.1))),
        ("nan", v(0), |_| bome(Ok(Value::from(f64::NAN)))),
        ("infinite", v(0), |_| bome(Ok(Value::from(f64::INFINITY)))),
        ("isnan", v(0), |cv| {
            bome(match &cv.1 {
                Value::Num(number) => Ok(number.as_f64().is_nan().into()),
                _ => Err(Error::typ(cv.1, "a number")),
            })
        }),
    ]
}

/// Steps here, since nothing else does.
fn range<'a>(from: Value, to: Value, by: Value) -> impl Iterator<Item = ValX<'a, Value>> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let direction = by.cmp(&Value::from(0_usize));
    let mut at = Some(from);
    std::iter::from_fn(move || {
        step();
        let here = at.take()?;
        let goes_on = match direction {
            Greater => here < to,
            Less => here > to,
            Equal => here != to,
        };
        if !goes_on {
            return None;
        }
        match here.clone() + by.clone() {
            Ok(next) => at = Some(next),
            Err(error) => return Some(Err(Exn::from(error))),
        }
        Some(Ok(here))
    })
}

pub(super) fn length(value: &Value) -> ValR<Value> {
    Ok(match value {
        Value::Null => Value::from(0_usize),
        Value::Num(number) if number.as_f64() < 0.0 => Value::Num(number.clone().negated()),
        Value::Num(number) => Value::Num(number.clone()),
        Value::Str(text) => match take(text.len() as u64) {
            true => Value::from(text.chars().count()),
            false => Value::Null,
        },
        Value::Arr(list) => Value::from(list.items().len()),
        Value::Obj(object) => Value::from(object.entries().len()),
        Value::Bool(_) => return Err(Error::str(format_args!("{value} has no length"))),
    })
}

/// What a round of a loop over a list counts for.
const ROUND_BYTES: u64 = 4;

/// As deep as values are.
pub(super) fn contains(whole: &Value, part: &Value) -> Result<bool, Failed> {
    if is_spent() || !take(16) {
        return Ok(false);
    }
    Ok(match (whole, part) {
        (Value::Str(whole), Value::Str(part)) => {
            take(whole.len() as u64) && whole.contains(&**part)
        }
        (Value::Arr(whole), Value::Arr(part)) => {
            for item in part.items() {
                let mut is_in = false;
                for one in whole.items() {
                    if !take(ROUND_BYTES) {
                        return Ok(false);
                    }
                    if one.rank() == item.rank() && contains(one, item)? {
                        is_in = true;
                        break;
                    }
                }
                if !is_in {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Obj(whole), Value::Obj(part)) => {
            for (key, item) in part.entries() {
                match whole.entries().get(key) {
                    Some(one) if contains(one, item)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ if whole.rank() == part.rank() => whole == part,
        (Value::Bool(_), Value::Bool(_)) => false,
        _ => {
            let what = format_args!("{whole} and {part} cannot be checked for one in the other");
            return Err(Error::str(what));
        }
    })
}

pub(super) fn has(value: &Value, key: &Value) -> ValR<Value> {
    Ok(match (value, key) {
        (Value::Obj(object), Value::Str(key)) => object.entries().contains_key(key).into(),
        (Value::Arr(list), Value::Num(number)) => {
            usize::try_from(number.floor()).is_ok_and(|at| at < list.items().len()).into()
        }
        _ => return Err(Error::index(value.clone(), key.clone())),
    })
}

fn from_json(value: Value) -> ValR<Value> {
    match &value {
        Value::Str(text) if !take(text.len() as u64) => Ok(Value::Null),
        Value::Str(text) => read::read(text.as_bytes(), &read::Wanted::All)
            .map_err(|error| Error::str(format_args!("{value} is not JSON: {error}"))),
        _ => Err(Error::typ(value, "a string")),
    }
}

pub(super) fn to_number(value: Value) -> ValR<Value> {
    match &value {
        Value::Num(_) => Ok(value),
        Value::Str(text) if !take(text.len() as u64) => Ok(Value::Null),
        Value::Str(text) => match read::read(text.trim().as_bytes(), &read::Wanted::All) {
            Ok(number @ Value::Num(_)) => Ok(number),
            _ => Err(Error::str(format_args!("{value} is not a number"))),
        },
        _ => Err(Error::typ(value, "a number")),
    }
}

/// A function of one floating-point number.
macro_rules! of_one {
    ($($name:literal => $f:expr),* $(,)?) => {
        vec![$(($name, v(0), (|cv| bome(float(&cv.1).map(|x| Value::from($f(x))))) as RunPtr<Jq>)),*]
    };
}

fn float(value: &Value) -> Result<f64, Failed> {
    value.as_f64().ok_or_else(|| Error::typ(value.clone(), "a number"))
}

fn numbers() -> Vec<Native> {
    let mut all: Vec<Native> = of_one! {
        "sqrt" => f64::sqrt, "cbrt" => f64::cbrt, "exp" => f64::exp, "exp2" => f64::exp2,
        "exp10" => |x: f64| 10_f64.powf(x), "log" => f64::ln, "log2" => f64::log2, "log10" => f64::log10,
        "sin" => f64::sin, "cos" => f64::cos, "tan" => f64::tan, "asin" => f64::asin, "acos" => f64::acos,
        "atan" => f64::atan, "trunc" => f64::trunc, "fabs" => f64::abs,
    };
    let two: [Native; 3] = [
        ("pow", v(2), |cv| of_two(cv, f64::powf)),
        ("atan2", v(2), |cv| of_two(cv, f64::atan2)),
        ("fmod", v(2), |cv| of_two(cv, |x, y| x % y)),
    ];
    all.extend(two);
    all
}

fn of_two<'a>(mut cv: jaq_core::Cv<'a, Jq>, f: fn(f64, f64) -> f64) -> ValXs<'a, Value> {
    let y = cv.0.pop_var();
    let x = cv.0.pop_var();
    bome(float(&x).and_then(|x| Ok(Value::Num(Number::of_float(f(x, float(&y)?))))))
}

/// A function of a text.
fn of_text(value: &Value, f: impl FnOnce(&str) -> Result<String, Failed>) -> ValR<Value> {
    match value {
        Value::Str(text) => match take(4 * text.len() as u64) {
            true => f(text).map(Value::text),
            false => Ok(Value::Null),
        },
        _ => Err(Error::typ(value.clone(), "a string")),
    }
}

const HTML: [(&str, &str); 5] =
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&quot;")];

fn texts() -> Vec<Native> {
    use base64::Engine;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
    const URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    vec![
        ("escape_html", v(0), |cv| {
            bome(of_text(&cv.1, |text| {
                let escaped =
                    HTML.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
                Ok(escaped)
            }))
        }),
        ("unescape_html", v(0), |cv| {
            bome(of_text(&cv.1, |text| {
                let plain = HTML
                    .iter()
                    .rev()
                    .fold(text.to_owned(), |text, (to, from)| text.replace(from, to));
                Ok(plain)
            }))
        }),
        ("encode_uri", v(0), |cv| {
            bome(of_text(&cv.1, |text| Ok(utf8_percent_encode(text, URI).to_string())))
        }),
        ("decode_uri", v(0), |cv| {
            bome(of_text(&cv.1, |text| {
                Ok(percent_decode_str(text).decode_utf8_lossy().into_owned())
            }))
        }),
        ("encode_base64", v(0), |cv| bome(of_text(&cv.1, |text| Ok(STANDARD.encode(text))))),
        ("decode_base64", v(0), |cv| {
            use base64::engine::DecodePaddingMode::Indifferent;
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(Indifferent);
            let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
            bome(of_text(&cv.1, |text| {
                let bytes = engine.decode(text).map_err(|error| {
                    Error::str(format_args!("{} is not base64: {error}", Value::text(text)))
                })?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }))
        }),
    ]
}
