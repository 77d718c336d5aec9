//! Errors of a source, by the consumer's reaction.

use std::sync::Arc;

use crate::types::StreamName;

/// Reason why a request to a source failed, or the link ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    kind: ErrorKind,
    what: Arc<str>,
}

/// Kind of error, by the consumer's reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no connection, or it broke or fell silent.
    Connection,
    /// The broker did not answer in time; the connection may be alive.
    Overdue,
    /// The broker lets no more connections in.
    Full,
    /// The broker refused a login, a permission or a request.
    Refused,
    /// The stream does not exist.
    Missing,
    /// The stream exists but cannot be served at the moment.
    Unavailable,
    /// The stream is read from another node from now on: nothing failed.
    Moved,
    /// A chunk did not fit into the free budget; it is requested again.
    Overrun,
    /// A chunk is larger than the whole budget: a retry is useless.
    TooLarge,
    /// The header of an inspected chunk cannot be read.
    Unreadable,
    /// The peer violates the protocol.
    Violation,
    /// The broker is too old for what is configured: a retry is useless.
    Unsupported,
}

impl SourceError {
    /// An error of this kind, with its text.
    pub fn new(kind: ErrorKind, what: impl Into<Arc<str>>) -> SourceError {
        SourceError { kind, what: what.into() }
    }

    /// The connection is dropped, to begin a new one.
    pub fn given_up(why: impl std::fmt::Display) -> SourceError {
        SourceError::new(ErrorKind::Connection, format!("the connection is dropped: {why}"))
    }

    /// The stream cannot be served at the moment.
    pub fn unavailable(stream: &StreamName, detail: impl std::fmt::Display) -> SourceError {
        let what = format!("stream {:?} is not available: {detail}", stream.as_str());
        SourceError::new(ErrorKind::Unavailable, what)
    }

    /// Kind of error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// True if a retry is useless before an operator acts.
    pub fn is_fatal(&self) -> bool {
        matches!(self.kind, ErrorKind::TooLarge | ErrorKind::Unsupported)
    }

    /// True if a command that reads once need not try again: an operator has to act first.
    pub fn is_final(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused | ErrorKind::Missing)
    }

    /// True if the broker itself answered, so it can be reached.
    pub fn is_an_answer(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused | ErrorKind::Missing | ErrorKind::Unavailable)
    }
}
