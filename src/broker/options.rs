//! What a connection needs to know, as plain data.

use std::fmt;
use std::time::Duration;

use crate::tls::TlsOptions;
use crate::types::Secret;

/// An address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an address (without brackets).
    pub host: String,
    /// The stream port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How to prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A name and a password.
    Plain {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// The client's certificate.
    External,
}

/// Everything about how to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Addresses to begin with, tried in random order.
    pub seeds: Vec<Endpoint>,
    /// The virtual host.
    pub vhost: String,
    /// How to prove who we are.
    pub mechanism: Mechanism,
    /// TLS, where it is wanted.
    pub tls: Option<TlsOptions>,
    /// Asked of the broker; the lower of ours and its own counts. Zero turns heartbeats off.
    pub heartbeat: Duration,
    /// For everything from the first packet to an open connection.
    pub connect_timeout: Duration,
    /// For each request.
    pub request_timeout: Duration,
    /// Goes to the node that has a replica by the address that it advertises. `false`
    /// stays with the seeds: for load balancers and tunnels.
    pub follow_advertised_hosts: bool,
    /// Shown in RabbitMQ's list of connections.
    pub name: String,
}

impl ConnectOptions {
    /// Who we are, for errors.
    pub fn user(&self) -> &str {
        match &self.mechanism {
            Mechanism::Plain { username, .. } => username,
            Mechanism::External => "NAME-IN-THE-CERTIFICATE",
        }
    }
}
