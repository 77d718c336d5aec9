//! Errors of a connection, with what an operator can do.

use std::sync::Arc;
use std::time::Duration;

use super::feature::Feature;
use super::options::{Endpoint, TOKEN_USER};
use crate::types::StreamName;
use crate::wire::commands::ResponseCode;
use crate::wire::error::WireError;

/// Reason why a request failed, or a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// No TCP or TLS connection.
    #[error("cannot connect to {endpoint}: {what}")]
    Connect {
        /// Address that was tried.
        endpoint: Endpoint,
        /// Error of the system, or the peer's answer.
        what: String,
    },
    /// TLS files or names that cannot be used.
    #[error("TLS settings: {0}")]
    Tls(String),
    /// The login was refused.
    #[error(
        "{endpoint} refused the login ({detail}); check [broker] username, password and mechanism"
    )]
    Login {
        /// Address of the node.
        endpoint: Endpoint,
        /// The broker's answer.
        detail: String,
    },
    /// There is no access token to log in with.
    #[error("{0}")]
    NoToken(String),
    /// The login with an access token was refused, or the renewal of one.
    #[error("{endpoint} refused the access token ({detail}): {advice}")]
    TokenRefused {
        /// Address of the node.
        endpoint: Endpoint,
        /// The broker's answer.
        detail: String,
        /// What the token says of itself, and what to do.
        advice: String,
    },
    /// The virtual host was refused.
    #[error(
        "{endpoint} did not let user {user:?} into virtual host {vhost:?} ({detail}). The broker has one answer for these, and its log says which it is: there is no such virtual host, or it is down (rabbitmqctl list_vhosts); the user has no permissions in it (rabbitmqctl set_permissions -p '{vhost}' '{user}' '' '' '.*'); or a limit of connections is reached (of the virtual host: rabbitmqctl list_vhost_limits -p '{vhost}'; of the user: rabbitmqctl list_user_limits --user '{user}'; of the node, since RabbitMQ 4.3.1: stream.max_connections in its rabbitmq.conf; before 4.0: connection_max): each consumer takes one, and lag monitoring one for each node"
    )]
    VirtualHost {
        /// Address of the node.
        endpoint: Endpoint,
        /// The user.
        user: String,
        /// The virtual host.
        vhost: String,
        /// The broker's answer.
        detail: String,
    },
    /// The node lets no more connections in, although it works.
    #[error(
        "connection limit: {endpoint} lets no further connection in ({what}), although it works on the {open} that this process has to it. A limit of connections is reached, of the node (stream.max_connections in its rabbitmq.conf, since RabbitMQ 4.3.1; connection_max, before 4.0), the virtual host (rabbitmqctl list_vhost_limits) or the user (rabbitmqctl list_user_limits), or its file descriptors have run out (its log says so; raise LimitNOFILE in its systemd unit, or ulimit -n, to 65536). Each consumer takes one connection, and lag monitoring one for each node; where a limit refuses more, consumers share connections from the next attempt on. Raise the limit, or spread the consumers over nodes"
    )]
    ConnectionLimit {
        /// Address of the node.
        endpoint: Endpoint,
        /// Number of connections that this process has to it.
        open: usize,
        /// Error of the failed attempt.
        what: String,
    },
    /// A request was answered with an error.
    #[error("{endpoint} answered {command} with: {}", code.describe())]
    Refused {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// The request.
        command: &'static str,
        /// The answer.
        code: ResponseCode,
    },
    /// The stream does not exist.
    #[error("{0}")]
    StreamMissing(Missing),
    /// The super stream does not exist.
    #[error(
        "super stream {super_stream:?} does not exist in virtual host {vhost:?}: create it (rabbitmq-streams add_super_stream {super_stream} --vhost '{vhost}' --partitions N), or check the name and the virtual host. A stream that is not a super stream is read with `stream`"
    )]
    SuperStreamMissing {
        /// Name of the super stream.
        super_stream: StreamName,
        /// Virtual host that was searched.
        vhost: String,
    },
    /// The broker is too old for what is configured.
    #[error("{}", feature.missing(endpoint, version))]
    TooOld {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Its version.
        version: String,
        /// What it does not have.
        feature: Feature,
    },
    /// A stream or super stream could not be created.
    #[error("{kind} {name:?} could not be created in virtual host {vhost:?}: {what}")]
    NotCreated {
        /// `stream` or `super stream`.
        kind: &'static str,
        /// Its name.
        name: StreamName,
        /// Virtual host in which it was to be created.
        vhost: String,
        /// Reason, with what to do.
        what: String,
    },
    /// The name belongs to a queue that is not a stream.
    #[error(
        "{stream:?} is not a stream: virtual host {vhost:?} has a classic or a quorum queue of this name (rabbitmqctl list_queues -p '{vhost}' name type). Give the name of a stream, or delete that queue"
    )]
    NotAStream {
        /// Name of the queue.
        stream: StreamName,
        /// Virtual host of the queue.
        vhost: String,
    },
    /// The stream exists, but no node can serve it now.
    #[error("stream {stream:?} is not available: {detail}")]
    StreamUnavailable {
        /// The stream.
        stream: StreamName,
        /// Reason.
        detail: String,
    },
    /// Only the stream's leader can answer, and it cannot be reached.
    #[error("stream {stream:?} is not available: only its leader can answer now, and {why}")]
    LeaderOutOfReach {
        /// The stream.
        stream: StreamName,
        /// Reason.
        why: String,
    },
    /// The user may not read the stream.
    #[error(
        "the broker refused to let user {user:?} read stream {stream:?} in virtual host {vhost:?} (access refused). Grant it with: rabbitmqctl set_permissions -p '{vhost}' '{user}' CONFIGURE WRITE READ, with a READ pattern that the name matches, such as '^{stream}$', and the other two as they are (rabbitmqctl list_user_permissions '{user}'){}",
        scope_hint(user, "read")
    )]
    AccessRefused {
        /// The stream.
        stream: StreamName,
        /// The user.
        user: String,
        /// The virtual host.
        vhost: String,
    },
    /// The user may not write to the stream, or create it.
    #[error(
        "the broker refused to let user {user:?} {permission} stream {stream:?} in virtual host {vhost:?} (access refused). Grant it with: rabbitmqctl set_permissions -p '{vhost}' '{user}' CONFIGURE WRITE READ, with a {permission} pattern that the name matches, and the other two as they are (rabbitmqctl list_user_permissions '{user}'){}",
        scope_hint(user, permission)
    )]
    WriteRefused {
        /// The stream.
        stream: StreamName,
        /// The user.
        user: String,
        /// The virtual host.
        vhost: String,
        /// The missing permission: `configure` or `write`.
        permission: &'static str,
    },
    /// The broker refused published messages.
    #[error("the broker refused {messages} messages for stream {stream:?}, the first with publishing id {id}: {}", code.describe())]
    NotPublished {
        /// Stream that the request was about.
        stream: StreamName,
        /// Number of refused messages.
        messages: usize,
        /// Publishing id of the first one.
        id: u64,
        /// Reason.
        code: ResponseCode,
    },
    /// Published messages were not confirmed in time.
    #[error(
        "stream {stream:?} confirmed none of {messages} messages within {limit:?}: too few of its replicas are up, or the broker has a memory or disk alarm and accepts nothing"
    )]
    Unconfirmed {
        /// Stream that the request was about.
        stream: StreamName,
        /// Number of unconfirmed messages.
        messages: usize,
        /// The time limit.
        limit: Duration,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer {command} within {limit:?}")]
    Timeout {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// The request.
        command: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// Neither data nor a heartbeat arrived for too long.
    #[error(
        "{endpoint} has been silent for {limit:?} (no data and no heartbeat): the connection is closed"
    )]
    Silent {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Time without data.
        limit: Duration,
    },
    /// The broker closed the connection, with a reason.
    #[error("{endpoint} closed the connection: {} ({reason:?})", code.describe())]
    ClosedByBroker {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// The code.
        code: ResponseCode,
        /// The reason.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection to {endpoint} was lost: {what}")]
    Broken {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Reason given by the operating system or TLS.
        what: Arc<str>,
    },
    /// No node of the configuration can be used.
    #[error("none of the {} brokers can be used: {}", .0.len(), list(.0))]
    NoNode(Arc<[BrokerError]>),
    /// The broker accepts no publisher while it has a resource alarm.
    #[error(
        "{endpoint} accepts no messages for stream {stream:?} now: the broker has a resource alarm, usually for low disk space (see rabbitmq-diagnostics alarms, on the node). Free disk space there; publishing continues by itself after the alarm"
    )]
    Alarm {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Stream that the request was about.
        stream: StreamName,
    },
    /// The connection is dropped to begin a new one.
    #[error("the connection is dropped: {0}")]
    Lost(Arc<str>),
    /// This side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The broker sent something that the protocol does not allow.
    #[error("{endpoint} sent something that the protocol does not allow: {what}")]
    NotProtocol {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Part of the frame that could not be read, with the reason.
        what: WireError,
    },
    /// Bytes that the protocol does not allow, from a peer or for one.
    #[error("the protocol does not allow this: {0}")]
    Protocol(#[from] WireError),
    /// The broker sent more chunks than it had credit for.
    #[error("the broker sent more chunks than it had credit for")]
    CreditExceeded,
    /// A chunk larger than expected did not fit into the memory limit.
    #[error(
        "a chunk of {bytes} bytes did not fit into the memory that is left; it will be requested again"
    )]
    Overrun {
        /// The frame's size.
        bytes: u64,
    },
    /// One chunk alone is over the limit.
    #[error("a chunk of {bytes} bytes is larger than this consumer's whole budget for chunks, {budget} bytes (half of `memory`); raise `memory` to at least {} bytes", bytes.saturating_mul(2).saturating_add(1024))]
    ChunkTooLarge {
        /// The frame's size.
        bytes: u64,
        /// The limit.
        budget: u64,
    },
}

/// A stream that the broker does not know.
///
/// The stream protocol gives the same answers for a name that does not exist and for a classic or
/// quorum queue (tested with metadata, declaring a publisher and asking for an offset, on RabbitMQ
/// 4.3). Only `Create`, which would create a missing stream, distinguishes the two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {stream:?} does not exist in virtual host {vhost:?}, or a classic or quorum queue has this name (the broker has one answer for both; to see which: rabbitmqctl list_queues -p '{vhost}' name type). Create the stream, or check the name and the virtual host; a classic or quorum queue cannot be read as a stream"
)]
pub struct Missing {
    /// Name of the stream.
    pub stream: StreamName,
    /// Virtual host that was searched.
    pub vhost: String,
}

/// What grants a permission to a user that logs in with an access token.
fn scope_hint(user: &str, permission: &str) -> String {
    match user == TOKEN_USER {
        true => format!(
            ". With an access token, its scopes grant it: RESOURCE_SERVER_ID.{permission}:VHOST/STREAM"
        ),
        false => String::new(),
    }
}

fn list(errors: &[BrokerError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl BrokerError {
    /// True if the node may not be there, or not work.
    pub(super) fn is_silence(&self) -> bool {
        use BrokerError::{Broken, Connect, Silent, Timeout};
        matches!(self, Connect { .. } | Broken { .. } | Silent { .. } | Timeout { .. })
    }

    /// True if a retry is useless before an operator acts.
    pub fn is_fatal(&self) -> bool {
        matches!(self, BrokerError::ChunkTooLarge { .. })
    }
}
