//! Log lines to standard error: text for people (coloured on a terminal only), or one JSON object
//! per line. If standard error is the journal, each event is sent to journald with its fields
//! ([`journal`]) instead, so that `journalctl CONSUMER=archiver` finds it.
//!
//! Levels: ERROR: something was lost, or an operator must act. WARN: a failure that is being
//! handled. INFO: events of normal operation. DEBUG, TRACE: details for troubleshooting. Standard
//! output is reserved for the `stdout` sink and for commands.

mod journal;
mod line;

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock};

use tracing::{Level, Span};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use journal::{JOURNALD, Output};
use line::Lines;

use super::operations;
use crate::sync::lock;
use crate::types::{ConsumerName, Reference, StreamName};

/// Variable that overrides the configured level, with a level or a list such as
/// `info,rillway::broker=debug`.
pub const FILTER_VARIABLE: &str = "RILLWAY_LOG";

/// Target of spans, which no operator's filter names.
const SPAN_TARGET: &str = "rillway::span";

/// Taker of the spans of operations.
pub type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Reason why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is invalid.
    #[error(
        "{text:?} is not a log filter: {problem}. Set RILLWAY_LOG (or [log] level) to error, warn, \
         info, debug or trace, or RILLWAY_LOG to a list such as \"info,rillway::broker=debug\""
    )]
    Filter {
        /// The filter.
        text: String,
        /// Description of the error.
        problem: String,
    },
    /// The filter could not be replaced.
    #[error("the log's filter cannot be changed: {0}")]
    Fixed(String),
    /// Logging was already set up.
    #[error("logging was set up twice in this process: {0}")]
    Twice(String),
}

/// Filter for a command without a configuration: [`FILTER_VARIABLE`], or else `otherwise`.
pub fn filter_from_env(otherwise: &str) -> String {
    match std::env::var_os(FILTER_VARIABLE) {
        Some(text) if !text.is_empty() => text.to_string_lossy().into_owned(),
        _ => otherwise.to_owned(),
    }
}

/// Sets up logging for the whole process, including panics. `filter` is a level, or a list of
/// levels for parts of the program. Does not read the environment.
///
/// `traces` gets the spans of operations, and nothing of the log. Without it they are disabled.
pub fn init(
    format: LineFormat,
    filter: &str,
    traces: Option<SpanLayer>,
) -> Result<(), LoggingError> {
    let is_traced = traces.is_some();
    let directives = parse(filter, is_traced)?;
    let output = match is_journal() {
        true => Output::to_journald(JOURNALD),
        false => Output::Lines,
    };
    let lines = Lines { format, colours: colours(), journal: output.journal() };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(output)
        // The reader of the log may be gone (`rillway run 2>&1 | head`). Reporting that on the same
        // closed pipe would panic.
        .log_internal_errors(false)
        .fmt_fields(JsonFields::new())
        .event_format(lines);
    let (directives, handle) = reload::Layer::new(directives);
    let subscriber = tracing_subscriber::registry().with(traces).with(log).with(directives);
    subscriber.try_init().map_err(|e| LoggingError::Twice(e.to_string()))?;
    let replace =
        move |filter| handle.reload(filter).map_err(|error| LoggingError::Fixed(error.to_string()));
    let filter = Mutex::new(filter.to_owned());
    // Set once: a second subscriber is refused above.
    CURRENT.get_or_init(|| Current { filter, is_traced, replace: Box::new(replace) });
    log_panics();
    Ok(())
}

/// The filter in use, and what replaces it.
struct Current {
    filter: Mutex<String>,
    is_traced: bool,
    replace: Box<dyn Fn(EnvFilter) -> Result<(), LoggingError> + Send + Sync>,
}

static CURRENT: OnceLock<Current> = OnceLock::new();

/// The filter in use, as it was given; empty if logging is not set up.
pub fn filter() -> String {
    CURRENT.get().map(|current| lock(&current.filter).clone()).unwrap_or_default()
}

/// Replaces the filter while the program runs.
///
/// # Errors
/// If it is no filter, or logging is not set up.
pub fn set_filter(filter: &str) -> Result<(), LoggingError> {
    let current = CURRENT.get();
    let directives = parse(filter, current.is_some_and(|current| current.is_traced))?;
    let Some(current) = current else {
        return Err(LoggingError::Fixed("logging is not set up".to_owned()));
    };
    // Held over the change: the text is that of the filter in use.
    let mut text = lock(&current.filter);
    (current.replace)(directives)?;
    *text = filter.to_owned();
    Ok(())
}

/// The span of everything done for one consumer: every log line in it has its name, its stream and, if it has
/// one, its reference.
pub fn consumer_span(
    consumer: &ConsumerName,
    stream: &StreamName,
    reference: Option<&Reference>,
) -> Span {
    let reference = reference.map(tracing::field::display);
    tracing::error_span!(target: SPAN_TARGET, "consumer", %consumer, %stream, reference)
}

/// True if standard error goes to the journal, which systemd identifies by device and inode.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stderr| named == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// Parses a filter. A bare word that is not a level would silence everything but a module of that
/// name, so it is an error here. `is_traced`: something takes the spans of operations.
fn parse(text: &str, is_traced: bool) -> Result<EnvFilter, LoggingError> {
    let error = |problem: String| LoggingError::Filter { text: text.to_owned(), problem };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let bare = !part.contains(['=', '[', ':']);
        if bare && *part != "off" && part.parse::<Level>().is_err() {
            return Err(error(format!("{part:?} is not a level")));
        }
    }
    let filter = EnvFilter::builder().parse(parts.join(",")).map_err(|e| error(e.to_string()))?;
    let own = |target: &str, level: &str| {
        format!("{target}={level}").parse().map_err(|_| error("internal".to_owned()))
    };
    // The span of a consumer exists whatever parts of the program are logged; those of operations exist only
    // for traces.
    let operations = own(operations::TARGET, if is_traced { "info" } else { "off" })?;
    Ok(filter.add_directive(own(SPAN_TARGET, "error")?).add_directive(operations))
}

/// The filter of the log.
#[cfg(test)]
pub(super) fn filter_for_tests(text: &str, is_traced: bool) -> EnvFilter {
    parse(text, is_traced).unwrap()
}

/// Logs a panic, an error in this program, as one ERROR line with its place.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no text)");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(%place, %thread, "panic, an error in Rillway: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "WARN", "off", "info,rillway::broker=debug", "warn, rillway=trace"] {
            assert!(parse(good, false).is_ok(), "{good}");
        }
        for bad in ["verbose", "info,debgu", "rillway=loud", ",", "rillway"] {
            let error = parse(bad, false).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is not a log filter")), "{error}");
        }
    }
}
