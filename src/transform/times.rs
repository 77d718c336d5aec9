//! Dates and times, in UTC: seconds since 1970, text, and the list of jq's "broken down time".

use jaq_core::native::{bome, unary, v};
use jaq_core::{Bind, Error, RunPtr, ValR};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{Offset, TimeZone};

use super::access::Failed;
use super::jq::Jq;
use super::number::Number;
use super::value::Value;
use crate::types::time;

const MICROS: i64 = 1_000_000;

type Native = (&'static str, Box<[Bind]>, RunPtr<Jq>);

pub(super) fn natives() -> Vec<Native> {
    vec![
        ("fromdateiso8601", v(0), |cv| {
            bome(text(&cv.1).and_then(|text| {
                time::parse_micros(text).map(seconds).map_err(|error| not_a_time(&cv.1, error))
            }))
        }),
        ("todateiso8601", v(0), |cv| bome(moment(&cv.1).map(|at| Value::text(format!("{at}Z"))))),
        ("gmtime", v(0), |cv| bome(moment(&cv.1).map(broken_down))),
        ("mktime", v(0), |cv| bome(of_list(&cv.1).and_then(|at| seconds_to(&cv.1, at)))),
        ("strftime", v(1), |cv| {
            unary(cv, |value, format| {
                let at = match &value {
                    Value::Arr(_) => of_list(&value)?,
                    _ => moment(&value)?,
                };
                let written = in_utc(at).to_string(text(&format)?);
                written.map(Value::text).map_err(|error| not_a_time(&value, error))
            })
        }),
        ("strptime", v(1), |cv| {
            unary(cv, |value, format| {
                let (read, format) = (text(&value)?, text(&format)?);
                let fail = |error| not_a_time(&value, error);
                let parts = BrokenDownTime::parse(format, read).map_err(fail)?;
                // With an offset from UTC, that moment; else as UTC.
                let at = match parts.to_timestamp() {
                    Ok(at) => TimeZone::UTC.to_datetime(at),
                    Err(_) => {
                        let date = parts.to_date().map_err(fail)?;
                        let time = parts.to_time().unwrap_or(jiff::civil::Time::midnight());
                        let offset = i64::from(parts.offset().map_or(0, Offset::seconds));
                        let local = date.to_datetime(time);
                        local.checked_sub(SignedDuration::from_secs(offset)).map_err(fail)?
                    }
                };
                Ok(broken_down(at))
            })
        }),
    ]
}

fn text(value: &Value) -> Result<&str, Failed> {
    match value {
        Value::Str(text) => Ok(text),
        _ => Err(Error::typ(value.clone(), "a string")),
    }
}

fn not_a_time(value: &Value, error: jiff::Error) -> Failed {
    Error::str(format_args!("{value} is not a time: {error}"))
}

/// Of microseconds.
fn seconds(micros: i64) -> Value {
    match micros % MICROS {
        0 => Value::Num(Number::Int(micros / MICROS)),
        #[allow(clippy::cast_precision_loss)]
        _ => Value::from(micros as f64 / 1e6),
    }
}

fn seconds_to(value: &Value, at: DateTime) -> ValR<Value> {
    time::micros_of(at).map(seconds).ok_or_else(|| out_of_range(value))
}

/// Date and time in UTC of a number of seconds.
fn moment(value: &Value) -> Result<DateTime, Failed> {
    let micros = match value {
        Value::Num(Number::Int(seconds)) => seconds.checked_mul(MICROS),
        // Saturates, and then it is out of range.
        #[allow(clippy::cast_possible_truncation)]
        Value::Num(number) => {
            let micros = number.as_f64() * 1e6;
            (!micros.is_nan()).then_some(micros as i64)
        }
        _ => return Err(Error::typ(value.clone(), "a number of seconds")),
    };
    micros.and_then(time::civil).ok_or_else(|| out_of_range(value))
}

fn out_of_range(value: &Value) -> Failed {
    Error::str(format_args!("{value} is not a time: it is outside of the years -9999 to 9999"))
}

/// For `strftime`: also the fields that need a moment or an offset.
fn in_utc(at: DateTime) -> BrokenDownTime {
    match TimeZone::UTC.to_timestamp(at) {
        Ok(at) => BrokenDownTime::from(at),
        // jiff's moments end a day before the end of the year 9999.
        Err(_) => {
            let mut parts = BrokenDownTime::from(at);
            parts.set_offset(Some(Offset::UTC));
            parts
        }
    }
}

fn broken_down(at: DateTime) -> Value {
    let second = match at.subsec_nanosecond() {
        0 => Value::from(isize::from(at.second())),
        nanos => Value::from(f64::from(at.second()) + f64::from(nanos) / 1e9),
    };
    let whole = |number: i16| Value::from(isize::from(number));
    Value::list(vec![
        whole(at.year()),
        whole(i16::from(at.month()) - 1),
        whole(at.day().into()),
        whole(at.hour().into()),
        whole(at.minute().into()),
        second,
        whole(at.weekday().to_sunday_zero_offset().into()),
        whole(at.day_of_year() - 1),
    ])
}

fn of_list(value: &Value) -> Result<DateTime, Failed> {
    let Value::Arr(list) = value else {
        return Err(Error::typ(
            value.clone(),
            "a list: year, month from 0, day, hour, minute, second",
        ));
    };
    let item = |nth: usize| match list.items().get(nth) {
        Some(Value::Num(number)) => Some(number.floor()),
        _ => None,
    };
    let made = (|| {
        let small = |nth: usize| i8::try_from(item(nth)?).ok();
        let year = i16::try_from(item(0)?).ok()?;
        let month = small(1)?.checked_add(1)?;
        Some(DateTime::new(year, month, small(2)?, small(3)?, small(4)?, small(5)?, 0))
    })();
    let made = made.ok_or_else(|| {
        Error::str(format_args!(
            "{value} is not a time: expected [year, month from 0, day, hour, minute, second]"
        ))
    })?;
    made.map_err(|error| not_a_time(value, error))
}
