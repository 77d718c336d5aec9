//! `[broker]`: connection and login.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oauth::OauthKeys;
use super::problem::{Problem, join};
use super::routing;
use super::secret::{self, SecretText};
use super::tls::TlsConfig;
use super::units::{HumanDuration, OrNever};
use super::uri::{self, BrokerAddress, BrokerUri, Protocol};
use crate::oauth::{TokenOptions, TokenOrigin};
use crate::types::Secret;

const DEFAULT_URI: &str = "rabbitmq-stream://guest:guest@localhost:5552/%2f";
const DEFAULT_USER: &str = "guest";

const MOVE_BACK_AFTER: OrNever<HumanDuration> = OrNever(Some(HumanDuration::secs(300)));

/// Longest time limit for a wait on the broker.
const WAIT_MAX: HumanDuration = HumanDuration::secs(3600);

/// Connection and login of the broker, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// Protocol by which streams are read.
    pub protocol: Protocol,
    /// The nodes to try, in the order of the file. At least one.
    pub addresses: Vec<BrokerAddress>,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// Authentication mechanism.
    pub mechanism: Mechanism,
    /// Access tokens to use instead of the password; `None` if it is used.
    pub oauth: Option<TokenOptions>,
    /// Heartbeat interval to propose, in whole seconds.
    pub heartbeat: HumanDuration,
    /// Time limit for a connection and its handshake.
    pub connect_timeout: HumanDuration,
    /// Time limit for the answer to a request.
    pub request_timeout: HumanDuration,
    /// Connects to the nodes under the addresses that the broker advertises.
    pub follow_advertised_hosts: bool,
    /// The addresses are those of a load balancer: the wanted node is connected to again and again.
    pub load_balancer: bool,
    /// Time on a stream's leader after which a replica is looked for.
    pub move_back_after: OrNever<HumanDuration>,
    /// Address to connect to for an advertised one.
    pub address_map: Vec<(BrokerAddress, BrokerAddress)>,
    /// TLS settings; `None` if the connection is not encrypted.
    pub tls: Option<TlsConfig>,
}

/// Authentication mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// User and password.
    #[default]
    Plain,
    /// Client certificate (the broker needs rabbitmq_auth_mechanism_ssl).
    External,
}

/// Connection to the broker, and login.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BrokerKeys {
    /// `rabbitmq-stream://USER:PASSWORD@HOST:PORT/VHOST`, or `rabbitmq-stream+tls://…`; for AMQP
    /// 0.9.1 `amqp://…` or `amqps://…`. The ports default to 5552, 5551, 5672 and 5671; special
    /// characters are percent-encoded, as in `%2f`, the virtual host `/`. Default: guest on
    /// localhost.
    #[serde(deserialize_with = "secret::optional")]
    #[schemars(with = "Option<SecretText>")]
    pub uri: Option<Secret>,
    /// Several nodes of one broker, tried in turn; replaces `uri`.
    #[serde(deserialize_with = "secret::list")]
    #[schemars(with = "Vec<SecretText>")]
    pub uris: Vec<Secret>,
    /// The user; replaces the one in the URI.
    #[serde(deserialize_with = "secret::optional")]
    #[schemars(with = "Option<SecretText>")]
    pub username: Option<Secret>,
    /// The password; replaces the one in the URI.
    #[serde(deserialize_with = "secret::optional")]
    #[schemars(with = "Option<SecretText>")]
    pub password: Option<Secret>,
    /// Authentication: `plain` with user and password, `external` with the client certificate.
    pub mechanism: Mechanism,
    /// OAuth 2 access tokens instead of a password (the broker needs rabbitmq_auth_backend_oauth2).
    pub oauth: Option<OauthKeys>,
    /// Heartbeat interval to propose, in whole seconds. A broker that is silent for 0.9 intervals, and does
    /// not answer a probe, is gone: its connection is closed. It may choose a shorter interval.
    pub heartbeat: HumanDuration,
    /// Time limit for a connection and its handshake.
    pub connect_timeout: HumanDuration,
    /// Time limit for the answer to a request.
    pub request_timeout: HumanDuration,
    /// Connects to the nodes under the addresses that the broker advertises. `false`: always uses
    /// the addresses given here, as load balancers and tunnels require.
    pub follow_advertised_hosts: bool,
    /// The addresses given here lead to any node: connects again until the wanted one answers, which is
    /// recognised by the address that it advertises. No advertised address is connected to.
    pub load_balancer: bool,
    /// A consumer that has to read from a stream's leader, since no replica could be reached, moves to a
    /// replica after about this time; `never` leaves it there.
    pub move_back_after: OrNever<HumanDuration>,
    /// Addresses to connect to in place of advertised ones: `{ "node1:5552" = "localhost:15552" }`.
    pub address_map: BTreeMap<String, String>,
    /// Encryption; only with `rabbitmq-stream+tls`.
    pub tls: Option<TlsConfig>,
}

impl Default for BrokerKeys {
    fn default() -> Self {
        Self {
            uri: None,
            uris: Vec::new(),
            username: None,
            password: None,
            mechanism: Mechanism::Plain,
            oauth: None,
            heartbeat: HumanDuration::secs(10),
            connect_timeout: HumanDuration::secs(10),
            request_timeout: HumanDuration::secs(10),
            follow_advertised_hosts: true,
            load_balancer: false,
            move_back_after: MOVE_BACK_AFTER,
            address_map: BTreeMap::new(),
            tls: None,
        }
    }
}

impl BrokerConfig {
    /// The broker at this URI, with defaults for the rest, to publish to.
    pub fn from_uri(uri: Secret) -> Result<BrokerConfig, Problem> {
        Self::at_uri(uri, "")
    }

    /// The same to read from: also over AMQP 0.9.1.
    pub fn from_uri_to_read(uri: Secret) -> Result<BrokerConfig, Problem> {
        Self::at_uri(uri, "broker")
    }

    fn at_uri(uri: Secret, at: &str) -> Result<BrokerConfig, Problem> {
        let keys = BrokerKeys { uri: Some(uri), ..BrokerKeys::default() };
        let mut problems = Vec::new();
        match Self::from_keys(keys, at, Path::new(""), &mut problems) {
            Some(config) => Ok(config),
            None => Err(problems.swap_remove(0)),
        }
    }

    /// The address to connect to for an advertised one.
    pub fn mapped(&self, advertised: BrokerAddress) -> BrokerAddress {
        let found = self.address_map.iter().find(|(from, _)| *from == advertised);
        found.map_or(advertised, |(_, to)| to.clone())
    }

    /// Checks the keys. `None` only if a problem was added.
    pub fn from_keys(
        keys: BrokerKeys,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<BrokerConfig> {
        let before = problems.len();
        let mut bad =
            |key: &str, message: &str| problems.push(Problem::new(join(at, key), message));
        if keys.uri.is_some() && !keys.uris.is_empty() {
            bad("uris", "`uri` and `uris` are both given: remove one of them");
        }
        let default = Secret::new(DEFAULT_URI);
        let texts: Vec<(String, &Secret)> = match (&keys.uri, keys.uris.as_slice()) {
            (Some(uri), _) => vec![("uri".to_owned(), uri)],
            (None, []) => vec![("uri".to_owned(), &default)],
            (None, uris) => {
                uris.iter().enumerate().map(|(i, uri)| (format!("uris[{i}]"), uri)).collect()
            }
        };
        let mut uris = Vec::new();
        for (key, text) in &texts {
            match uri::parse(text) {
                // Only streams that are read have a second protocol.
                Ok(uri) if uri.protocol == Protocol::Amqp && at != "broker" => bad(
                    key,
                    "the scheme `amqp` cannot be used here: publishing needs the stream protocol, rabbitmq-stream://…",
                ),
                Ok(uri) => uris.push((key, uri)),
                Err(message) => bad(key, &message),
            }
        }
        let (_, first) = uris.first()?;
        for (key, uri) in &uris {
            if let Some(what) = disagreement(first, uri) {
                bad(
                    key,
                    &format!(
                        "its {what} is not the same as that of the first: all URIs have \
                    to be of one broker, user and virtual host"
                    ),
                );
            }
        }
        for (key, time) in [
            ("heartbeat", keys.heartbeat),
            ("connect_timeout", keys.connect_timeout),
            ("request_timeout", keys.request_timeout),
        ] {
            if time.0.is_zero() || time > WAIT_MAX {
                bad(key, &format!("{time} is out of range: more than 0s, at most {WAIT_MAX}"));
            }
        }
        if keys.move_back_after.0.is_some_and(|after| after < HumanDuration::secs(1)) {
            bad(
                "move_back_after",
                "at least 1s: each look for a replica costs a connection. \"never\" turns it off",
            );
        }
        if keys.heartbeat.0.subsec_nanos() != 0 {
            bad(
                "heartbeat",
                &format!(
                    "{} is not a whole number of seconds, as the protocol requires",
                    keys.heartbeat
                ),
            );
        }
        let address_map = routing::check(
            first.protocol,
            keys.follow_advertised_hosts,
            keys.load_balancer,
            &keys.address_map,
            &mut bad,
        );
        let tls = tls(&keys, first.tls, folder, &mut bad);
        let is_default = keys.uri.is_none() && keys.uris.is_empty();
        let has_password = !is_default && first.password.is_some();
        let oauth = oauth(&keys, has_password, folder, &mut bad);
        if problems.len() > before {
            return None;
        }
        let text = |secret: &Secret| secret.reveal().to_owned();
        Some(BrokerConfig {
            protocol: first.protocol,
            vhost: first.vhost.clone(),
            username: keys
                .username
                .as_ref()
                .map(text)
                .or_else(|| first.username.clone().filter(|_| !is_default || oauth.is_none()))
                .or_else(|| oauth.as_ref().map(client))
                .unwrap_or_else(|| DEFAULT_USER.to_owned()),
            password: keys
                .password
                .or_else(|| first.password.clone())
                .unwrap_or_else(|| Secret::new(DEFAULT_USER)),
            mechanism: keys.mechanism,
            oauth,
            heartbeat: keys.heartbeat,
            connect_timeout: keys.connect_timeout,
            request_timeout: keys.request_timeout,
            follow_advertised_hosts: keys.follow_advertised_hosts,
            load_balancer: keys.load_balancer,
            move_back_after: keys.move_back_after,
            address_map,
            tls,
            addresses: uris.into_iter().map(|(_, uri)| uri.address).collect(),
        })
    }
}

fn disagreement(a: &BrokerUri, b: &BrokerUri) -> Option<&'static str> {
    [
        (a.tls != b.tls || a.protocol != b.protocol, "scheme"),
        (a.username != b.username, "user"),
        (a.password != b.password, "password"),
        (a.vhost != b.vhost, "virtual host"),
    ]
    .into_iter()
    .find_map(|(differs, what)| differs.then_some(what))
}

/// The user's name where none is given. RabbitMQ takes the name in the token.
fn client(tokens: &TokenOptions) -> String {
    match &tokens.origin {
        TokenOrigin::Endpoint(endpoint) => endpoint.client_id.clone(),
        TokenOrigin::File(_) => "rillway".to_owned(),
    }
}

fn oauth(
    keys: &BrokerKeys,
    has_password: bool,
    folder: &Path,
    bad: &mut impl FnMut(&str, &str),
) -> Option<TokenOptions> {
    let oauth = keys.oauth.as_ref()?;
    if keys.mechanism == Mechanism::External {
        bad("oauth", "it has no effect with the mechanism `external`: remove one of them");
    }
    if keys.password.is_some() || has_password {
        bad("oauth", "a password is given too, in `password` or in the URI: remove it");
    }
    let mut of_oauth = |key: &str, what: &str| match key {
        "" => bad("oauth", what),
        key => bad(&join("oauth", key), what),
    };
    oauth.options(folder, &mut of_oauth)
}

fn tls(
    keys: &BrokerKeys,
    encrypted: bool,
    folder: &Path,
    bad: &mut impl FnMut(&str, &str),
) -> Option<TlsConfig> {
    if !encrypted {
        // Accepted silently, these would suggest that the connection is encrypted.
        if keys.tls.is_some() {
            bad(
                "tls",
                "the URI's scheme is not rabbitmq-stream+tls or amqps, so nothing is encrypted",
            );
        }
        if keys.mechanism == Mechanism::External {
            bad(
                "mechanism",
                "`external` needs a client certificate: use rabbitmq-stream+tls://… \
                 and give tls.cert and tls.key",
            );
        }
        return None;
    }
    let mut tls = keys.tls.clone().unwrap_or_default();
    tls.locate(folder);
    if tls.is_half_an_identity() {
        bad("tls", "`cert` and `key` go together: one of them is missing");
    } else if let Some(what) = tls.contradiction() {
        bad("tls", what);
    } else if keys.mechanism == Mechanism::External && tls.cert.is_none() {
        bad("mechanism", "`external` needs a client certificate: give tls.cert and tls.key");
    }
    Some(tls)
}
