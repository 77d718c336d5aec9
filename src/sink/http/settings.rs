//! The keys of `{ type = "http" }`: defaults and validation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::settings::paths::locate;
use crate::settings::secret::{self, SecretText};
use crate::settings::units::{ByteSize, HumanDuration, OrNever};
use crate::types::Secret;

/// Longest time limit of a request.
const TIMEOUT_MAX: HumanDuration = HumanDuration::secs(3600);

const IN_FLIGHT_MAX: u32 = 64;
const RECORDS_MAX: u64 = 1_000_000;
const BYTES_MIN: ByteSize = ByteSize(1 << 10);
const BYTES_MAX: ByteSize = ByteSize::mib(256);

/// Headers that belong to the sink itself, or to the connection.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "host",
    "idempotency-key",
    "rillway-first-offset",
    "rillway-last-offset",
    "rillway-records",
    "transfer-encoding",
];

/// A sink that sends requests to a web service.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpSettings {
    /// Where requests go: `http://…` or `https://…`. Its user, password and query are never shown;
    /// its path is.
    #[serde(deserialize_with = "secret::deserialize")]
    #[schemars(with = "SecretText")]
    pub url: Secret,
    /// The method of the requests.
    #[serde(default)]
    pub method: HttpMethod,
    /// `json`: a body is one array. `ndjson`: one line per message. Either way each message is a
    /// complete object.
    #[serde(default)]
    pub format: HttpFormat,
    /// How bodies are compressed. Few services accept gzip unless their documentation says so.
    #[serde(default)]
    pub compression: HttpCompression,
    /// Further headers, as in `{ Authorization = { env = "TOKEN" } }`. `Content-Type` may be set
    /// here too.
    #[serde(default, deserialize_with = "secret::table")]
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub headers: BTreeMap<String, Secret>,
    /// Most requests at a time. 1 keeps them in the order of the stream.
    #[serde(default = "in_flight")]
    pub in_flight: u32,
    /// Most messages in a request.
    #[serde(default = "max_records")]
    pub max_records: u64,
    /// Most bytes of a body, before compression. A larger message goes alone.
    #[serde(default = "max_bytes")]
    pub max_bytes: ByteSize,
    /// How long a request may take, from connecting to the end of the answer.
    #[serde(default = "timeout")]
    pub timeout: HumanDuration,
    /// The consumer halts when the service has refused this many messages in a row and accepted
    /// none in between: then the service is more likely wrong than the messages. Or `never`.
    #[serde(default = "refusals_max")]
    pub refusals_max: OrNever<u64>,
    /// TLS settings for an `https` service.
    #[serde(default)]
    pub tls: Option<HttpTlsSettings>,
}

/// The method of a request that carries messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// Format of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BodyFormat")]
pub enum HttpFormat {
    /// One array.
    #[default]
    Json,
    /// One line each.
    Ndjson,
}

/// How a request's body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpCompression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

/// `sink.tls`: TLS settings for an `https` service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "HttpTls")]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct HttpTlsSettings {
    /// A PEM file with the trusted authorities; the system's if absent.
    pub ca: Option<PathBuf>,
    /// A PEM file with the client's certificate chain.
    pub cert: Option<PathBuf>,
    /// A PEM file with the client's private key.
    pub key: Option<PathBuf>,
    /// Accepts any certificate. Anyone on the network path can then read and change everything.
    pub insecure_skip_verify: bool,
}

fn in_flight() -> u32 {
    4
}

fn max_records() -> u64 {
    500
}

fn max_bytes() -> ByteSize {
    ByteSize::mib(1)
}

fn timeout() -> HumanDuration {
    HumanDuration::secs(30)
}

fn refusals_max() -> OrNever<u64> {
    OrNever(Some(100))
}

impl HttpSettings {
    /// Relative paths start at the folder of the configuration file.
    pub(super) fn locate(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.tls {
            for path in [&mut tls.ca, &mut tls.cert, &mut tls.key].into_iter().flatten() {
                locate(path, folder);
            }
        }
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        self.check_url(bad);
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                bad(&key, format!("{name:?} is not the name of a header"));
            } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
                || name.eq_ignore_ascii_case("rillway-stream")
            {
                bad(&key, "the sink sets this header itself".to_owned());
            } else if HeaderValue::from_str(value.reveal()).is_err() {
                bad(&key, "its value holds what no header may hold, such as a line break".into());
            }
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight) {
            bad("in_flight", format!("{} is out of range: 1 to {IN_FLIGHT_MAX}", self.in_flight));
        }
        if !(1..=RECORDS_MAX).contains(&self.max_records) {
            bad("max_records", format!("{} is out of range: 1 to {RECORDS_MAX}", self.max_records));
        }
        if !(BYTES_MIN..=BYTES_MAX).contains(&self.max_bytes) {
            let message = format!("{} is out of range: {BYTES_MIN} to {BYTES_MAX}", self.max_bytes);
            bad("max_bytes", message);
        }
        if self.timeout.0.is_zero() || self.timeout > TIMEOUT_MAX {
            let message =
                format!("{} is out of range: more than 0s, at most {TIMEOUT_MAX}", self.timeout);
            bad("timeout", message);
        }
        if self.refusals_max.0 == Some(0) {
            bad("refusals_max", "0 is out of range: expected at least 1, or \"never\"".to_owned());
        }
        if let Some(tls) = &self.tls
            && tls.insecure_skip_verify
            && tls.ca.is_some()
        {
            let what = "`insecure_skip_verify` accepts any certificate, so `ca` has no effect: remove insecure_skip_verify to have certificates checked, or `ca`";
            bad("tls", what.to_owned());
        }
        if let Some(tls) = &self.tls
            && tls.cert.is_some() != tls.key.is_some()
        {
            bad("tls", "`cert` and `key` go together: one of them is missing".to_owned());
        }
    }

    /// The most records that are in flight.
    pub(super) fn in_flight_records(&self) -> u64 {
        u64::from(self.in_flight).saturating_mul(self.max_records)
    }

    /// Where requests go, without its secrets: no user, password or query.
    pub(super) fn shown_url(&self) -> Option<String> {
        let url = Url::parse(self.url.reveal()).ok()?;
        url.host_str()?;
        Some(format!("{}{}", url.origin().ascii_serialization(), url.path()))
    }

    /// Validates the URL, without showing it in an error.
    fn check_url(&self, bad: &mut impl FnMut(&str, String)) {
        if is_ambiguous(self.url.reveal()) {
            return bad(
                "url",
                "it cannot be told whether a port or a password stands behind the first colon: in a \
                 user, password, path or query, @ has to be written %40, and in a password / %2F, ? %3F, # %23"
                    .to_owned(),
            );
        }
        let url = match Url::parse(self.url.reveal()) {
            Ok(url) => url,
            Err(error) => return bad("url", format!("not a URL: {error}")),
        };
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
            return bad("url", "expected http://HOST… or https://HOST…".to_owned());
        }
        if self.tls.is_some() && url.scheme() != "https" {
            // If this were accepted, an operator would believe that the connection is encrypted.
            bad("tls", "the URL's scheme is not https, so nothing is encrypted".to_owned());
        }
        let named = !url.username().is_empty() || url.password().is_some();
        if named && self.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
            bad("headers", "`Authorization` is given, and the URL holds a user too".to_owned());
        }
    }
}

/// Whether the part taken for `HOST:PORT` may be a user and the beginning of a password that is not
/// percent-encoded. Host and path are shown, so that would reveal it.
fn is_ambiguous(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    !authority.contains('@')
        && !authority.starts_with('[')
        && authority.contains(':')
        && rest.contains('@')
}
