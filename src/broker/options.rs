//! Connection options, as plain data.

use std::fmt;
use std::time::Duration;

use crate::oauth::TokenOptions;
use crate::tls::TlsOptions;
use crate::types::Secret;

/// Name of a user that is known to the broker only, in errors.
pub(super) const TOKEN_USER: &str = "NAME-IN-THE-TOKEN";

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

/// Authentication mechanism.
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
    /// An OAuth 2 access token, as the password of PLAIN.
    Token {
        /// The user; RabbitMQ takes the name in the token instead.
        username: String,
        /// Where the token comes from.
        tokens: TokenOptions,
    },
}

/// Use of shared connections for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Number of the pool that has them.
    pub pool: u64,
    /// Number of a connection that is not to be used again if it is not known which node it leads
    /// to: behind a load balancer, another connection may reach another node.
    pub avoid: Option<u64>,
}

impl Sharing {
    /// The number to avoid for a new connection, whichever there are.
    pub(super) const ALL: u64 = u64::MAX;
}

/// How the addresses that the broker gives for its nodes are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// The configured addresses may lead to any node: connections are opened until the wanted one
    /// answers. Advertised addresses are then names of nodes, and not dialled.
    pub load_balancer: bool,
    /// Address to dial for an advertised one.
    pub address_map: Vec<(Endpoint, Endpoint)>,
    /// Time on a stream's leader after which a replica is looked for; `None` for never.
    pub move_back_after: Option<Duration>,
    /// Never uses another one's connection, also if the node lets no further one in.
    pub exclusive: bool,
}

/// All options of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Addresses to begin with, tried in random order.
    pub seeds: Vec<Endpoint>,
    /// The virtual host.
    pub vhost: String,
    /// Authentication mechanism and credentials.
    pub mechanism: Mechanism,
    /// TLS options; `None` for a connection without TLS.
    pub tls: Option<TlsOptions>,
    /// Heartbeat interval proposed to the broker; the lower of both counts. Zero turns heartbeats
    /// off.
    pub heartbeat: Duration,
    /// Time limit from the first packet to an open connection.
    pub connect_timeout: Duration,
    /// Time limit of each request.
    pub request_timeout: Duration,
    /// Connects to the advertised address of a node that has a replica. `false` connects to the
    /// seeds only, for load balancers and tunnels.
    pub follow_advertised_hosts: bool,
    /// How the addresses that the broker gives for its nodes are used.
    pub routing: Routing,
    /// Name shown in RabbitMQ's list of connections.
    pub name: String,
    /// Connections that are shared with other streams; `None` for a connection of its own.
    pub sharing: Option<Sharing>,
}

impl ConnectOptions {
    /// The address to dial for an advertised one.
    pub(super) fn mapped(&self, advertised: &Endpoint) -> Endpoint {
        let found = self.routing.address_map.iter().find(|(from, _)| from == advertised);
        found.map_or(advertised, |(_, to)| to).clone()
    }

    /// Name of the user, for errors.
    pub fn user(&self) -> &str {
        match &self.mechanism {
            Mechanism::Plain { username, .. } => username,
            Mechanism::External => "NAME-IN-THE-CERTIFICATE",
            Mechanism::Token { .. } => TOKEN_USER,
        }
    }
}

#[cfg(test)]
impl ConnectOptions {
    /// Options that lead nowhere, for tests that do not connect.
    pub(crate) fn testing() -> ConnectOptions {
        let second = Duration::from_secs(1);
        ConnectOptions {
            seeds: Vec::new(),
            vhost: String::new(),
            mechanism: Mechanism::External,
            tls: None,
            heartbeat: second,
            connect_timeout: second,
            request_timeout: second,
            follow_advertised_hosts: false,
            routing: Routing::default(),
            name: String::new(),
            sharing: None,
        }
    }
}
