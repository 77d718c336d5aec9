//! What can go wrong with a source, sorted by what a consumer does about it.

use std::sync::Arc;

use crate::types::StreamName;

/// Why a source did not do what it was asked, or ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    kind: ErrorKind,
    what: Arc<str>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no connection, or it broke or fell silent.
    Connection,
    /// The broker answered, and did not do it: a login, a permission, a request.
    Refused,
    /// The stream does not exist.
    Missing,
    /// The stream exists, and cannot be served at the moment.
    Unavailable,
    /// A chunk did not fit beside what is held; it will be asked for again.
    Overrun,
    /// A chunk is larger than the whole budget: trying again is useless.
    TooLarge,
    /// The header of a chunk that was looked at cannot be read.
    Unreadable,
    /// The peer does not keep to the protocol.
    Violation,
}

impl SourceError {
    /// An error of this kind, in words.
    pub fn new(kind: ErrorKind, what: impl Into<Arc<str>>) -> SourceError {
        SourceError { kind, what: what.into() }
    }

    /// The connection is given up, to begin a new one.
    pub fn given_up(why: impl std::fmt::Display) -> SourceError {
        SourceError::new(ErrorKind::Connection, format!("the connection is given up: {why}"))
    }

    /// The stream cannot be served at the moment.
    pub fn unavailable(stream: &StreamName, detail: impl std::fmt::Display) -> SourceError {
        let what = format!("stream {:?} is not available: {detail}", stream.as_str());
        SourceError::new(ErrorKind::Unavailable, what)
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// True if trying again, without a person acting, is useless.
    pub fn is_fatal(&self) -> bool {
        self.kind == ErrorKind::TooLarge
    }

    /// True if the broker itself said so: then it is there.
    pub fn is_an_answer(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused | ErrorKind::Missing | ErrorKind::Unavailable)
    }
}
