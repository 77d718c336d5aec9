//! What can go wrong with a connection, in words that a person can act on.

use std::sync::Arc;
use std::time::Duration;

use super::options::Endpoint;
use crate::types::StreamName;
use crate::wire::commands::ResponseCode;
use crate::wire::error::WireError;

/// Why a broker did not do what it was asked, or a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// No TCP or TLS connection.
    #[error("cannot connect to {endpoint}: {what}")]
    Connect {
        /// Where to.
        endpoint: Endpoint,
        /// What came back.
        what: String,
    },
    /// TLS files or names that cannot be used.
    #[error("TLS settings: {0}")]
    Tls(String),
    /// The user was not let in.
    #[error(
        "{endpoint} refused the login ({detail}); check [broker] username, password and mechanism"
    )]
    Login {
        /// Where to.
        endpoint: Endpoint,
        /// The broker's answer.
        detail: String,
    },
    /// The virtual host was refused.
    #[error(
        "{endpoint} did not let user {user:?} into virtual host {vhost:?} ({detail}). The broker has one answer for these, and its log says which it is: there is no such virtual host, or it is down (rabbitmqctl list_vhosts); the user has no permissions in it (rabbitmqctl set_permissions -p '{vhost}' '{user}' '' '' '.*'); or a limit of connections is reached (of the virtual host: rabbitmqctl list_vhost_limits -p '{vhost}'; of the user: rabbitmqctl list_user_limits --user '{user}'; of the node: connection_max): each consumer takes one, and whatever looks at their lag one for each node"
    )]
    VirtualHost {
        /// Where to.
        endpoint: Endpoint,
        /// Who wanted in.
        user: String,
        /// Which one.
        vhost: String,
        /// The broker's answer.
        detail: String,
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
    /// The stream is not there.
    #[error("{0}")]
    StreamMissing(Missing),
    /// There is a queue of this name, and it is not a stream.
    #[error(
        "{stream:?} is no stream: virtual host {vhost:?} has a classic or a quorum queue of this name (rabbitmqctl list_queues -p '{vhost}' name type). Give the name of a stream, or delete that queue"
    )]
    NotAStream {
        /// Name of the queue.
        stream: StreamName,
        /// Virtual host of the queue.
        vhost: String,
    },
    /// The stream is there, but no node can serve it now.
    #[error("stream {stream:?} is not available: {detail}")]
    StreamUnavailable {
        /// Which one.
        stream: StreamName,
        /// Why.
        detail: String,
    },
    /// The user may not read the stream.
    #[error(
        "the broker refused to let user {user:?} read stream {stream:?} in virtual host {vhost:?} (access refused). Grant it with: rabbitmqctl set_permissions -p '{vhost}' '{user}' CONFIGURE WRITE READ, with a READ pattern that the name matches, such as '^{stream}$', and the other two as they are (rabbitmqctl list_user_permissions '{user}')"
    )]
    AccessRefused {
        /// Which one.
        stream: StreamName,
        /// Who.
        user: String,
        /// Where.
        vhost: String,
    },
    /// The user may not write to the stream, or make it.
    #[error(
        "the broker refused to let user {user:?} {permission} stream {stream:?} in virtual host {vhost:?} (access refused). Grant it with: rabbitmqctl set_permissions -p '{vhost}' '{user}' CONFIGURE WRITE READ, with a {permission} pattern that the name matches, and the other two as they are (rabbitmqctl list_user_permissions '{user}')"
    )]
    WriteRefused {
        /// Which one.
        stream: StreamName,
        /// Who.
        user: String,
        /// Where.
        vhost: String,
        /// Which of the three permissions is wanted: `configure` or `write`.
        permission: &'static str,
    },
    /// The broker did not take messages that were published.
    #[error("the broker did not take {messages} messages for stream {stream:?}, the first with publishing id {id}: {}", code.describe())]
    NotPublished {
        /// Stream that the request was about.
        stream: StreamName,
        /// How many.
        messages: usize,
        /// The first one's id.
        id: u64,
        /// Why.
        code: ResponseCode,
    },
    /// Messages that were published were not confirmed in time.
    #[error(
        "stream {stream:?} confirmed none of {messages} messages within {limit:?}: too few of its replicas are up, or the broker is out of memory or disk space and takes nothing"
    )]
    Unconfirmed {
        /// Stream that the request was about.
        stream: StreamName,
        /// How many lack their confirmation.
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
    /// Nothing was heard for too long.
    #[error("{endpoint} has been silent for {limit:?} (no data and no heartbeat): taken for gone")]
    Silent {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// For how long.
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
        /// The reason that the operating system or TLS gave, in words.
        what: Arc<str>,
    },
    /// No node of the configuration can be used.
    #[error("none of the {} brokers can be used: {}", .0.len(), list(.0))]
    NoNode(Arc<[BrokerError]>),
    /// The broker takes no publisher while it has a resource alarm.
    #[error(
        "{endpoint} takes no messages for stream {stream:?} now: the broker has a resource alarm, as a rule for its free disk space (see rabbitmq-diagnostics alarms, on the node). Free disk space there; publishing goes on by itself when the alarm is over"
    )]
    Alarm {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Stream that the request was about.
        stream: StreamName,
    },
    /// The connection is given up to begin a new one.
    #[error("the connection is given up: {0}")]
    Lost(Arc<str>),
    /// We closed it.
    #[error("the connection was closed")]
    Closed,
    /// Something was sent that the protocol does not allow.
    #[error("{endpoint} sent something that is not in the protocol: {what}")]
    NotProtocol {
        /// Node that was talked to.
        endpoint: Endpoint,
        /// Part of the frame that could not be read, and why.
        what: WireError,
    },
    /// Bytes that the protocol does not allow, from a peer or for one.
    #[error("this is not in the protocol: {0}")]
    Protocol(#[from] WireError),
    /// More chunks than credit.
    #[error("the broker sent more chunks than it had credit for")]
    CreditExceeded,
    /// A burst of chunks larger than those before did not fit the memory limit.
    #[error(
        "a chunk of {bytes} bytes did not fit into the memory that is left; it will be asked for again"
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
/// The stream protocol gives the same answers for a name that nothing bears and for a classic or quorum
/// queue (tried with metadata, declaring a publisher and asking for an offset, on RabbitMQ 4.3). Only `Create`, which
/// would make a stream where there is none, tells the two apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {stream:?} does not exist in virtual host {vhost:?}, or a classic or quorum queue has this name (the broker has one answer for both; to see which: rabbitmqctl list_queues -p '{vhost}' name type). Create the stream, or check the name and the virtual host; a classic or quorum queue cannot be read as a stream"
)]
pub struct Missing {
    /// Name that was asked for.
    pub stream: StreamName,
    /// Virtual host that was asked.
    pub vhost: String,
}

fn list(errors: &[BrokerError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl BrokerError {
    /// True if trying again, without a person acting, is useless.
    pub fn is_fatal(&self) -> bool {
        matches!(self, BrokerError::ChunkTooLarge { .. })
    }
}
