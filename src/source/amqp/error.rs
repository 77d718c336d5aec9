//! The broker's reply codes as errors of a source.

use crate::broker::{Endpoint, Feature, Identity};
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
        406 if why.text.contains("Filtering is not supported") => (
            ErrorKind::Unsupported,
            format!(
                "the broker does not filter stream {stream:?} ({said}): {}",
                Feature::Filter.instead()
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

/// Error for a message at which the broker fails, whenever it is to deliver it. With a filter, the message is
/// in the next chunk that the filter selects.
pub(super) fn undeliverable(
    at: Offset,
    is_filtered: bool,
    why: &Closed,
    stream: &StreamName,
) -> SourceError {
    let place = if is_filtered { "at or behind" } else { "at" };
    let what = format!(
        "stream {:?}: the broker fails instead of delivering what follows {place} offset {at} ({} {}). Most likely it cannot convert that message to AMQP 0.9.1 (RabbitMQ 3.10 fails at compressed batches too). All before it is read; to read on, use rabbitmq-stream://",
        stream.as_str(),
        why.code,
        why.text
    );
    SourceError::new(ErrorKind::Unavailable, what)
}

/// The same for one that it was asked for besides, at the beginning or the end of the stream.
pub(super) fn unanswerable(why: &Closed, stream: &StreamName) -> SourceError {
    let what = format!(
        "stream {:?}: the broker fails while it is asked for the first message, or another one that shows where the stream stands ({} {}). If it does so again and again, it cannot convert that message to AMQP 0.9.1. Use rabbitmq-stream:// then, or wait until retention has taken that message",
        stream.as_str(),
        why.code,
        why.text
    );
    SourceError::new(ErrorKind::Unavailable, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_whose_feature_flag_is_off_is_told_with_what_to_do() {
        let options = ConnectOptions::testing();
        let text = "PRECONDITION_FAILED - Filtering is not supported".to_owned();
        let why = Closed { code: 406, text };
        let error = closed(&why, &options, &StreamName::from("s"));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("enable_feature_flag stream_filtering"), "{error}");
    }
}
