//! Keys of `{ type = "stream" }`: defaults and validation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::publisher::NAME_BYTES_MAX;
use crate::settings::secret::{self, SecretText};
use crate::settings::{
    BrokerAddress, BrokerConfig, BrokerKeys, HumanDuration, OauthKeys, TlsConfig,
};
use crate::sink::declaration::Check;
use crate::types::{Reference, Secret, StreamName};

/// The broker's limit for the name of a stream, in bytes.
const STREAM_BYTES_MAX: usize = 255;
const IN_FLIGHT_MAX: u64 = 100_000;

/// A sink that publishes to another stream.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct StreamSettings {
    /// The stream to publish to.
    pub stream: String,
    /// The broker of that stream, in the form of `broker.uri`. Default: the broker of `[broker]`.
    #[serde(default, deserialize_with = "secret::optional")]
    #[schemars(with = "Option<SecretText>")]
    pub uri: Option<Secret>,
    /// Encryption of the connection to `uri`, if that is `rabbitmq-stream+tls`.
    #[serde(default)]
    pub tls: Option<Box<TlsConfig>>,
    /// Access tokens for the broker of `uri`, instead of a password.
    #[serde(default)]
    pub oauth: Option<Box<OauthKeys>>,
    /// Name by which that broker recognises repeated messages, at most 244 bytes. Default: made
    /// from the source stream and the reference. Never change it, and never use it twice.
    #[serde(default)]
    pub publisher: Option<String>,
    /// Creates the stream with the broker's defaults if it is missing at the start.
    #[serde(default)]
    pub create: bool,
    /// Adds the source's stream and offset to the message annotations. Everything else is published
    /// byte for byte, as the whole message is without this.
    #[serde(default)]
    pub annotate: bool,
    /// Most unconfirmed messages; at most 100000.
    #[serde(default = "in_flight")]
    pub in_flight: u64,
    /// Longest time without a confirmation before the connection is closed.
    #[serde(default = "timeout")]
    pub timeout: HumanDuration,
    /// The broker that `uri` and `tls` give.
    #[serde(skip)]
    #[schemars(skip)]
    pub broker: Option<Box<BrokerConfig>>,
}

fn in_flight() -> u64 {
    10_000
}

fn timeout() -> HumanDuration {
    HumanDuration::secs(30)
}

impl StreamSettings {
    /// Name of the publisher.
    pub fn publisher_name(&self, source: &StreamName, reference: &Reference) -> String {
        match &self.publisher {
            Some(name) => name.clone(),
            None => format!("rillway/{source}/{reference}"),
        }
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        if self.stream.is_empty() || self.stream.len() > STREAM_BYTES_MAX {
            let bytes = self.stream.len();
            bad("stream", format!("it is {bytes} bytes long: expected 1 to {STREAM_BYTES_MAX}"));
        } else if self.stream.chars().any(char::is_control) {
            bad("stream", format!("{:?} holds a control character", self.stream));
        }
        if self.publisher.as_ref().is_some_and(String::is_empty) {
            bad("publisher", "it is empty: expected a name".to_owned());
        }
        if let Some(name) = &self.publisher
            && name.contains(char::is_control)
        {
            bad("publisher", format!("{name:?} holds a control character: leave it out"));
        }
        if self.in_flight == 0 || self.in_flight > IN_FLIGHT_MAX {
            bad(
                "in_flight",
                format!("{} is out of range: expected 1 to {IN_FLIGHT_MAX}", self.in_flight),
            );
        }
        if self.timeout.0.is_zero() {
            bad("timeout", "0s is out of range: expected more".to_owned());
        }
        for (key, is_given) in [("tls", self.tls.is_some()), ("oauth", self.oauth.is_some())] {
            if is_given && self.uri.is_none() {
                bad(key, "it has no effect without `uri`: [broker] has its own".to_owned());
            }
        }
    }

    /// Parses `uri`.
    pub(super) fn connect(&mut self, check: &mut Check<'_>) {
        if let Some(uri) = self.uri.clone() {
            let keys = BrokerKeys {
                uri: Some(uri),
                tls: self.tls.as_deref().cloned(),
                oauth: self.oauth.as_deref().cloned(),
                ..BrokerKeys::default()
            };
            let (at, folder) = (check.at(), check.folder());
            let broker = BrokerConfig::from_keys(keys, at, folder, check.problems());
            self.broker = broker.map(Box::new);
        }
    }

    /// Checks it as the sink of a consumer of this stream, under this reference: returns the wrong
    /// key, and the reason.
    pub(super) fn check_source(
        &self,
        source: &StreamName,
        reference: &Reference,
    ) -> Option<(&'static str, String)> {
        let name = self.publisher_name(source, reference);
        (name.len() > NAME_BYTES_MAX).then(|| {
            let bytes = name.len();
            let what = match self.publisher {
                Some(_) => format!("it is {bytes} bytes long: expected 1 to {NAME_BYTES_MAX}"),
                None => format!(
                    "made of stream and reference, it would be {bytes} bytes long, more than \
                     {NAME_BYTES_MAX}: give a name"
                ),
            };
            ("publisher", what)
        })
    }

    /// True if it publishes to the stream of this name on the broker of `[broker]`.
    pub(super) fn is_on(&self, broker: &BrokerConfig) -> bool {
        self.broker.as_ref().is_none_or(|own| {
            // Each protocol has a port of its own.
            let is_same = |a: &BrokerAddress, b: &BrokerAddress| {
                a.host == b.host && (a.port == b.port || own.protocol != broker.protocol)
            };
            own.vhost == broker.vhost
                && own.addresses.iter().any(|a| broker.addresses.iter().any(|b| is_same(a, b)))
        })
    }
}
