//! The broker's reply codes as errors of a source.

use crate::broker::{Endpoint, Identity};
use crate::source::{ConnectOptions, ErrorKind, SourceError};
use crate::types::{Offset, StreamName};
use crate::wire::amqp091::{Closed, INTERNAL_ERROR};

/// Error for a connection that the broker closed instead of accepting the login.
pub(super) fn login_refused(
    why: &Closed,
    endpoint: &Endpoint,
    identity: &Identity<'_>,
    options: &ConnectOptions,
    stream: &StreamName,
) -> SourceError {
    match identity.renewals() {
        Some(_) if why.code == 403 => {
            identity.refused(endpoint, format!("{} {}", why.code, why.text)).into()
        }
        _ => closed(why, options, stream),
    }
}

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
        530 if why.text.contains("secret") || why.text.contains("Secret") => {
            (ErrorKind::Refused, format!("the broker refused the renewed access token ({said})"))
        }
        530 => (
            ErrorKind::Refused,
            format!("the broker refused virtual host {vhost:?} for user {user:?} ({said})"),
        ),
        320 => (ErrorKind::Connection, format!("the broker closed the connection ({said})")),
        INTERNAL_ERROR => (
            ErrorKind::Unavailable,
            format!(
                "the broker failed while it read stream {stream:?} ({said}). If it does so again and again, there is a message that it cannot convert to AMQP 0.9.1: read the stream by rabbitmq-stream:// then"
            ),
        ),
        406 => (
            ErrorKind::Unavailable,
            format!("stream {stream:?} cannot be read on this node at the moment ({said})"),
        ),
        _ => (ErrorKind::Refused, format!("the broker refused a request ({said})")),
    };
    SourceError::new(kind, what)
}

/// Error for a message at which the broker fails, whenever it is to deliver it.
pub(super) fn undeliverable(at: Offset, why: &Closed, stream: &StreamName) -> SourceError {
    let what = format!(
        "stream {:?}: the broker fails instead of delivering what follows at offset {at} ({} {}). Most likely it cannot convert that message to AMQP 0.9.1 (RabbitMQ 3.10 fails at compressed batches too). All before it is read; to read on, use rabbitmq-stream://",
        stream.as_str(),
        why.code,
        why.text
    );
    SourceError::new(ErrorKind::Unavailable, what)
}
