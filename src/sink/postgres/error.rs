//! What the server's errors mean: which of them are about single records, and what an operator can do
//! about the others.
//!
//! | SQLSTATE | meaning |
//! |---|---|
//! | 22… (data), 23… (constraints), 44000 (a view's check), 54… (a value beyond a limit), P0001 (a trigger that refuses) | a matter of single records, which are then found out |
//! | of these, 22P03 and 22P04 (rows of another form than the columns take), 23514 without a constraint's name (there is no partition for the row) | transient |
//! | everything else | transient |
//!
//! No error of the server is fatal: a wrong password, a missing table, a missing grant or a full disk is
//! repaired on the server, perhaps by someone who cannot restart this process. Fatal conditions are
//! detected elsewhere: another process has taken over, for example.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::{DbError, Error, SqlState};

use crate::sink::SinkError;

/// Errors whose messages quote values.
const MESSAGE_CHARS_MAX: usize = 300;

/// Whether the error is about the content of a record, and not about the server.
pub(super) fn is_about_records(error: &Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    let code = error.code().code();
    match code {
        "22P03" | "22P04" => false,
        "23514" => error.constraint().is_some(),
        "44000" | "P0001" => true,
        _ => matches!(code.get(..2), Some("22" | "23" | "54")),
    }
}

/// Whether the server gave up waiting for a lock.
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Whether the rows did not fit the columns' types: the table may no longer be the one that was looked
/// up. (Errors before the server takes any row, such as a missing column, are not handled here: after
/// such an error the client loses count of the answers, and the connection is unusable.)
pub(super) fn is_about_the_form(error: &Error) -> bool {
    matches!(error.code().map_or("", SqlState::code), "22P03" | "22P04")
}

/// Whether the error is about a value, and does not name the column.
pub(super) fn names_no_column(error: &Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|error| error.column().is_none() && error.code().code().starts_with("22"))
}

/// Why one record was refused.
pub(super) fn refusal(error: &Error) -> String {
    let Some(error) = error.as_db_error() else { return said(error) };
    let mut words = message(error);
    // The detail is left out: it may show the whole row.
    if let Some(column) = error.column().or_else(|| column_of(error.where_()?)) {
        words.push_str(&format!(", column {column:?}"));
    }
    words
}

/// Parses `COPY events, line 3, column amount`, in any language.
fn column_of(context: &str) -> Option<&str> {
    let first = context.lines().next()?.strip_prefix("COPY ")?;
    let part = first.split(", ").nth(2)?;
    part.split_once(' ').map(|(_column, name)| name.split(':').next().unwrap_or(name))
}

/// The line of the COPY's data that the error names, counted from 1. Only a hint.
pub(super) fn line_of(error: &Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?;
    let first = context.lines().next()?.strip_prefix("COPY ")?;
    let digits = |part: &str| -> String {
        part.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect()
    };
    digits(first.split(", ").nth(1)?).parse().ok()
}

/// A transient failure: what was tried, on what, what came back, and what to do.
pub(super) fn transient(tried: &str, place: &str, error: &Error) -> SinkError {
    let advice = error.as_db_error().and_then(advice).map(|words| format!(". {words}"));
    SinkError::transient(format!(
        "could not {tried} at {place}: {}{}",
        said(error),
        advice.unwrap_or_default()
    ))
}

/// A timeout.
pub(super) fn late(tried: &str, place: &str, limit: Duration) -> SinkError {
    SinkError::transient(format!(
        "could not {tried} at {place}: not done within {limit:?}. The connection is given up. If the \
         server is only slow, raise write_timeout, or make batches smaller"
    ))
}

/// The server's answer, as text.
fn said(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => message(error),
        None if error.is_closed() => "the connection was lost".to_owned(),
        None => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn message(error: &DbError) -> String {
    let text = error.message();
    let short = match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    format!("{short} (SQLSTATE {})", error.code().code())
}

fn advice(error: &DbError) -> Option<&'static str> {
    Some(match error.code().code() {
        "28P01" | "28000" => {
            "Correct the user and password in `url`, the role's password, or pg_hba.conf"
        }
        "3D000" => "Create the database, or name another one in `url`",
        "3F000" => "Create the schema, or set `schema`",
        "42501" => "Grant the role what it lacks; docs/guides/postgres.md lists what Rillway needs",
        "42P01" | "42703" => {
            "The table was changed or dropped while rows were written to it; it is looked up again"
        }
        "22P03" | "22P04" => "The table's columns were changed; they are looked up again",
        "23514" => "Create a partition for these rows, or a default partition",
        "25006" => {
            "This server takes no writes: name the primary in `url`, or all servers and target_session_attrs=read-write"
        }
        "53100" => "The server's disk is full, or a quota is reached: make room",
        "53200" => "The server is out of memory",
        "53300" => "Raise max_connections, or the role's or database's connection limit",
        "55P03" => {
            "Another session holds a lock on the table; pg_locks and pg_stat_activity show which one. It was waited for as long as `lock_timeout` says"
        }
        "57014" => {
            "The server cancelled it: it took longer than `write_timeout`, or somebody cancelled it"
        }
        "57P01" | "57P02" => "The server is stopping, or somebody ended this session",
        "57P03" => "The server is starting or stopping",
        _ => return None,
    })
}
