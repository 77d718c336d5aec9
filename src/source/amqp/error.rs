//! The broker's reply codes as errors of a source.

use crate::source::{ConnectOptions, ErrorKind, SourceError};
use crate::types::StreamName;
use crate::wire::amqp091::Closed;

/// Error for a connection or channel that the broker closed.
pub(super) fn closed(why: &Closed, options: &ConnectOptions, stream: &StreamName) -> SourceError {
    let (stream, user, vhost) = (stream.as_str(), options.user(), &options.vhost);
    let said = format!("{} {}", why.code, why.text);
    let is_of_offset = why.text.contains("x-stream-offset");
    let (kind, what) = match why.code {
        404 => (
            ErrorKind::Missing,
            format!("there is no stream {stream:?} in virtual host {vhost:?} ({said})"),
        ),
        406 | 540 if is_of_offset => (
            ErrorKind::Missing,
            format!("queue {stream:?} in virtual host {vhost:?} is not a stream ({said})"),
        ),
        403 if why.text.contains("Login was refused") || why.text.contains("login") => (
            ErrorKind::Refused,
            format!(
                "the broker refused the login of user {user:?}: check user, password and mechanism ({said})"
            ),
        ),
        403 => (
            ErrorKind::Refused,
            format!(
                "user {user:?} may not read stream {stream:?}: grant it with rabbitmqctl set_permissions -p {vhost} {user} \"\" \"\" \"^{stream}$\" ({said})"
            ),
        ),
        530 => (
            ErrorKind::Refused,
            format!("the broker refused virtual host {vhost:?} for user {user:?} ({said})"),
        ),
        320 => (ErrorKind::Connection, format!("the broker closed the connection ({said})")),
        406 | 541 => (
            ErrorKind::Unavailable,
            format!("stream {stream:?} cannot be read on this node at the moment ({said})"),
        ),
        _ => (ErrorKind::Refused, format!("the broker refused a request ({said})")),
    };
    SourceError::new(kind, what)
}
