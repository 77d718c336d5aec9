//! Dates and times, in UTC: seconds since 1970, text, and the list of jq's "broken down time".

use jaq_core::native::{bome, unary, v};
use jaq_core::{Bind, Error, RunPtr};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use super::access::Failed;
use super::jq::Jq;
use super::number::Number;
use super::value::Value;

type Native = (&'static str, Box<[Bind]>, RunPtr<Jq>);

pub(super) fn natives() -> Vec<Native> {
    vec![
        ("fromdateiso8601", v(0), |cv| {
            bome(text(&cv.1).and_then(|text| {
                let at: Timestamp = text.parse().map_err(|error| not_a_time(&cv.1, error))?;
                Ok(seconds(at))
            }))
        }),
        ("todateiso8601", v(0), |cv| bome(timestamp(&cv.1).map(|at| Value::text(at.to_string())))),
        ("gmtime", v(0), |cv| bome(timestamp(&cv.1).map(broken_down))),
        ("mktime", v(0), |cv| bome(of_list(&cv.1).map(seconds))),
        ("strftime", v(1), |cv| {
            unary(cv, |value, format| {
                let at = match &value {
                    Value::Arr(_) => of_list(&value)?,
                    _ => timestamp(&value)?,
                };
                let written = BrokenDownTime::from(at).to_string(text(&format)?);
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
                    Ok(at) => at,
                    Err(_) => {
                        let date = parts.to_date().map_err(fail)?;
                        let time = parts.to_time().unwrap_or(jiff::civil::Time::midnight());
                        TimeZone::UTC.to_timestamp(date.to_datetime(time)).map_err(fail)?
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

fn seconds(at: Timestamp) -> Value {
    match at.subsec_nanosecond() {
        0 => Value::Num(Number::Int(at.as_second())),
        #[allow(clippy::cast_precision_loss)]
        _ => Value::from(at.as_microsecond() as f64 / 1e6),
    }
}

fn timestamp(value: &Value) -> Result<Timestamp, Failed> {
    let read = match value {
        Value::Num(Number::Int(seconds)) => Timestamp::from_second(*seconds),
        // Saturates, and then it is out of range.
        #[allow(clippy::cast_possible_truncation)]
        Value::Num(number) => Timestamp::from_microsecond((number.as_f64() * 1e6) as i64),
        _ => return Err(Error::typ(value.clone(), "a number of seconds")),
    };
    read.map_err(|error| not_a_time(value, error))
}

fn broken_down(at: Timestamp) -> Value {
    let at = TimeZone::UTC.to_datetime(at);
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

fn of_list(value: &Value) -> Result<Timestamp, Failed> {
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
    made.and_then(|at| TimeZone::UTC.to_timestamp(at)).map_err(|error| not_a_time(value, error))
}
