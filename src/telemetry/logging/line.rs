//! Formats a log line: text for people, or one JSON object.
//!
//! Invariants:
//! - an event is one line: control characters in values are escaped;
//! - the fields of the spans around an event (consumer, stream) are beside its own, at the same
//!   level;
//! - a value is a number, true or false, or a string.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::LineFormat;
use super::journal::{self, Journal};

/// Field in which tracing passes an event's message.
const MESSAGE: &str = "message";

/// Fields of a consumer's span, in the order in which they are shown. The span's formatter sorts by name.
const SPAN_FIELDS: [&str; 3] = ["consumer", "stream", "reference"];

/// Formats events as lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) format: LineFormat,
    pub(super) colours: bool,
    /// The journal's form, if the log goes there.
    pub(super) journal: Option<Journal>,
}

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    JsonFields: for<'w> FormatFields<'w>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let recorded = extensions.get::<FormattedFields<JsonFields>>();
            let of_span: Option<Map<String, Value>> =
                recorded.and_then(|recorded| serde_json::from_str(&recorded.fields).ok());
            let mut of_span = of_span.unwrap_or_default();
            let first = SPAN_FIELDS.iter().filter_map(|name| of_span.shift_remove_entry(*name));
            for (name, value) in first.collect::<Vec<_>>().into_iter().chain(of_span) {
                fields.0.entry(name).or_insert(value);
            }
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self.journal {
            None => {}
            Some(Journal::Line) => write!(writer, "<{}>", priority(level))?,
            Some(Journal::Fields) => write!(writer, "MESSAGE=")?,
        }
        let message = fields.0.shift_remove(MESSAGE).unwrap_or_default();
        match self.format {
            LineFormat::Json => {
                let mut line = Map::new();
                line.insert("timestamp".to_owned(), time.into());
                line.insert("level".to_owned(), level.as_str().into());
                line.insert(MESSAGE.to_owned(), message);
                line.extend(fields.0.clone());
                line.insert("target".to_owned(), target.into());
                writeln!(writer, "{}", Value::Object(line))?;
            }
            LineFormat::Text => {
                let (dim, colour, reset) = match self.colours {
                    true => ("\x1b[2m", colour(level), "\x1b[0m"),
                    false => ("", "", ""),
                };
                // journald has its own time and level, and shows them.
                if self.journal != Some(Journal::Fields) {
                    write!(writer, "{dim}{time}{reset} {colour}{level:>5}{reset} ")?;
                    write!(writer, "{dim}{target}:{reset} ")?;
                }
                write_value(&mut writer, &message)?;
                for (name, value) in &fields.0 {
                    write!(writer, " {dim}{name}={reset}")?;
                    write_value(&mut writer, value)?;
                }
                writeln!(writer)?;
            }
        }
        match self.journal {
            Some(Journal::Fields) => {
                journal::write_fields(&mut writer, priority(level), target, &fields.0, write_value)
            }
            _ => Ok(()),
        }
    }
}

/// Priority as in sd-daemon(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn write_value(writer: &mut dyn fmt::Write, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => text.chars().try_for_each(|c| match c.is_control() {
            true => write!(writer, "{}", c.escape_default()),
            false => writer.write_char(c),
        }),
        Value::Null => Ok(()),
        other => write!(writer, "{other}"),
    }
}

/// The fields of an event, in their order.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        self.0.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    /// Milliseconds of a `Duration`.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
