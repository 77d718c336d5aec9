//! Parses `rabbitmq-stream://user:password@host:port/vhost`.
//!
//! No error shows the text, because it may contain a password.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::types::Secret;

const SCHEME: &str = "rabbitmq-stream";
const SCHEME_TLS: &str = "rabbitmq-stream+tls";
const PORT: u16 = 5552;
const PORT_TLS: u16 = 5551;

/// A node of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// A name or an IP address; an IPv6 address without brackets.
    pub host: String,
    /// The port of the stream protocol.
    pub port: u16,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Protocol by which streams are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RabbitMQ's stream protocol.
    Stream,
    /// AMQP 0.9.1.
    Amqp,
}

impl Protocol {
    fn port(self, tls: bool) -> u16 {
        match (self, tls) {
            (Protocol::Stream, false) => PORT,
            (Protocol::Stream, true) => PORT_TLS,
            (Protocol::Amqp, false) => 5672,
            (Protocol::Amqp, true) => 5671,
        }
    }
}

/// The parts of a URI.
pub(super) struct BrokerUri {
    pub(super) protocol: Protocol,
    pub(super) tls: bool,
    pub(super) address: BrokerAddress,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) vhost: String,
}

const ALLOWED: &str = "expected rabbitmq-stream://USER:PASSWORD@HOST:PORT/VHOST, or \
                       rabbitmq-stream+tls://…, with special characters percent-encoded (%2f for \
                       a slash); for AMQP 0.9.1 amqp:// or amqps://";

pub(super) fn parse(text: &Secret) -> Result<BrokerUri, String> {
    let url = Url::parse(text.reveal()).map_err(|e| format!("not a URI ({e}): {ALLOWED}"))?;
    let (protocol, tls) = match url.scheme() {
        SCHEME => (Protocol::Stream, false),
        SCHEME_TLS => (Protocol::Stream, true),
        "amqp" => (Protocol::Amqp, false),
        "amqps" => (Protocol::Amqp, true),
        other => return Err(format!("unknown scheme `{other}`: {ALLOWED}")),
    };
    let host = match url.host() {
        Some(Host::Ipv6(ip)) => ip.to_string(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Domain(name)) if !name.is_empty() => decoded(name, "host")?,
        _ => return Err(format!("there is no host: {ALLOWED}")),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "a `?` or `#` has no meaning here (in a password it is written %3f or %23): {ALLOWED}"
        ));
    }
    let port = url.port().unwrap_or(protocol.port(tls));
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    let username =
        (!url.username().is_empty()).then(|| decoded(url.username(), "user")).transpose()?;
    let password = url.password().map(|p| decoded(p, "password").map(Secret::new)).transpose()?;
    let vhost = match url.path().strip_prefix('/').unwrap_or_default() {
        "" => "/".to_owned(),
        // The end of a password with a slash in it: the virtual host is no secret.
        path if path.contains('@') => {
            return Err(
                "the virtual host holds an @: write %40 for it, and in a password %2f for a \
                        slash"
                    .to_owned(),
            );
        }
        path if path.contains('/') => {
            return Err("the virtual host holds a slash: write %2f for it".to_owned());
        }
        path => decoded(path, "virtual host")?,
    };
    Ok(BrokerUri {
        protocol,
        tls,
        address: BrokerAddress { host, port },
        username,
        password,
        vhost,
    })
}

fn decoded(part: &str, what: &str) -> Result<String, String> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(|t| t.into_owned()).map_err(|_| format!("the {what} does not decode to UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts() {
        for (uri, tls, host, port, user, password, vhost) in [
            (
                "rabbitmq-stream://guest:guest@localhost:5552/%2f",
                false,
                "localhost",
                5552,
                Some("guest"),
                Some("guest"),
                "/",
            ),
            ("rabbitmq-stream://localhost", false, "localhost", 5552, None, None, "/"),
            ("amqp://localhost/%2f", false, "localhost", 5672, None, None, "/"),
            ("amqps://u@b.example", true, "b.example", 5671, Some("u"), None, "/"),
            ("rabbitmq-stream://localhost/", false, "localhost", 5552, None, None, "/"),
            ("rabbitmq-stream+tls://b.example", true, "b.example", 5551, None, None, "/"),
            ("rabbitmq-stream+tls://b.example:7/prod", true, "b.example", 7, None, None, "prod"),
            ("rabbitmq-stream://u@10.0.0.1/a%2fb", false, "10.0.0.1", 5552, Some("u"), None, "a/b"),
            (
                "rabbitmq-stream://u:p%40s%3as%2f@[::1]:99/",
                false,
                "::1",
                99,
                Some("u"),
                Some("p@s:s/"),
                "/",
            ),
            (
                "rabbitmq-stream://m%C3%BCller:%25@h",
                false,
                "h",
                5552,
                Some("müller"),
                Some("%"),
                "/",
            ),
        ] {
            let read = parse(&Secret::new(uri)).unwrap_or_else(|e| panic!("{uri}: {e}"));
            assert_eq!(read.tls, tls, "{uri}");
            assert_eq!((read.address.host.as_str(), read.address.port), (host, port), "{uri}");
            assert_eq!(read.username.as_deref(), user, "{uri}");
            assert_eq!(read.password.as_ref().map(Secret::reveal), password, "{uri}");
            assert_eq!(read.vhost, vhost, "{uri}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (uri, says) in [
            ("", "not a URI"),
            ("localhost:5552", "scheme `localhost`"),
            ("mqtt://u:hunter2@h", "scheme `mqtt`"),
            ("rabbitmq-stream://u:hunter2@", "host"),
            ("rabbitmq-stream:u:hunter2", "no host"),
            ("rabbitmq-stream://u:hunter2@h:99999/", "port"),
            ("rabbitmq-stream://u:hunter2@h:0/", "port 0"),
            ("rabbitmq-stream://u:hunter2@h/a/b", "%2f"),
            ("rabbitmq-stream://u:1234/hunter2@h", "%40"),
            ("rabbitmq-stream://u:1234/hunter2@h:5552/v", "%40"),
            ("rabbitmq-stream://u:hunter2@h/?x=1", "`?`"),
            ("rabbitmq-stream://u:hun?ter2@h/", ""),
            ("rabbitmq-stream://u:%ff@h", "password does not decode"),
        ] {
            let Err(error) = parse(&Secret::new(uri)) else { panic!("{uri} was taken") };
            assert!(error.contains(says), "{uri}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{error}");
        }
    }
}
