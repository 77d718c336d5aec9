//! `[traces]`: the export of traces to an OpenTelemetry collector.
//!
//! A key that is absent is taken from the variables of the
//! [specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), and else has
//! its default. As the specification wants it, a variable that cannot be used is told and ignored; a key that
//! cannot be used is refused.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::env::Env;
use crate::otlp::{Headers, Limits, Options, Sampling};
use crate::settings::secret::{self, SecretText};
use crate::settings::{HumanDuration, Problem, TlsConfig, join};
use crate::types::Secret;

mod variables;

use self::variables::Variables;

/// Path of the signal, after the endpoint.
const PATH: &str = "v1/traces";

const TIMEOUT: HumanDuration = HumanDuration::secs(10);
const TIMEOUT_MAX: HumanDuration = HumanDuration::secs(300);
const INTERVAL: HumanDuration = HumanDuration::secs(5);
const INTERVAL_MIN: HumanDuration = HumanDuration::millis(100);
const INTERVAL_MAX: HumanDuration = HumanDuration::secs(300);
const QUEUE: usize = 2048;
const QUEUE_MAX: usize = 65_536;
const BATCH: usize = 512;

/// Headers that belong to the request itself.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// `[traces]`: the export of traces to an OpenTelemetry collector, by OTLP over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Traces")]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct TracesKeys {
    /// The collector's OTLP receiver for HTTP, as in `http://localhost:4318`. Batches are posted to `/v1/traces`
    /// below it.
    endpoint: Option<String>,
    /// Headers of each request, as in `{ Authorization = { env = "TOKEN" } }`. A reload replaces them.
    #[serde(deserialize_with = "secret::table")]
    #[schemars(with = "BTreeMap<String, SecretText>")]
    headers: Headers,
    /// Name of this service in traces; `rillway` if absent.
    service_name: Option<String>,
    /// Further attributes of this process, as in `{ "deployment.environment.name" = "production" }`.
    resource: BTreeMap<String, String>,
    /// Share of the traces that are exported, from 0 to 1; all if absent.
    sample: Option<f64>,
    /// How requests are compressed; `none` if absent.
    compression: Option<TracesCompression>,
    /// How long a request may take, from connecting to the end of the answer; `10s` if absent.
    timeout: Option<HumanDuration>,
    /// Longest time that a span waits for others; `5s` if absent.
    interval: Option<HumanDuration>,
    /// Most spans that wait, 1 to 65536; 2048 if absent. More are dropped, and counted.
    queue: Option<usize>,
    /// TLS settings of an `https` endpoint.
    tls: Option<TlsConfig>,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum TracesCompression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

/// The export of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// Where spans are sent, and how.
    pub options: Options,
    /// What an operator should know about it.
    pub concerns: Vec<String>,
}

impl TracesConfig {
    /// Reads the keys, and the variables of OpenTelemetry; `None` if nothing asks for traces, or a problem was
    /// reported. `can_export`: this build can ([`otlp::IS_BUILT`](crate::otlp::IS_BUILT)). `ignored` gets what is wrong with variables where
    /// nothing is exported because of it.
    pub(super) fn new(
        can_export: bool,
        keys: Option<TracesKeys>,
        env: &Env,
        folder: &Path,
        problems: &mut Vec<Problem>,
        ignored: &mut Vec<String>,
    ) -> Option<TracesConfig> {
        if !can_export {
            // The variables may be a whole cluster's.
            if keys.is_some() {
                problems.push(Problem::new("traces", WITHOUT));
            }
            return None;
        }
        let is_wanted = keys.is_some();
        let mut variables = Variables::new(env);
        let url = match keys.as_ref().and_then(|keys| keys.endpoint.as_deref()) {
            Some(endpoint) => Some(below(endpoint)),
            None => variables.url(),
        };
        if variables.are_off() {
            return None;
        }
        let mut keys = keys.unwrap_or_default();
        if let Some(tls) = &mut keys.tls {
            tls.locate(folder);
        }
        let Some(url) = url else {
            if is_wanted {
                problems.push(Problem::new("traces.endpoint", NO_ENDPOINT));
            }
            *ignored = variables.into_concerns();
            return None;
        };
        let found = problems.len();
        let mut bad =
            |key: &str, what: &str| problems.push(Problem::new(join("traces", key), what));
        keys.check(&url, &mut bad);
        let options = keys.options(url, &mut variables);
        (problems.len() == found)
            .then(|| TracesConfig { options, concerns: variables.into_concerns() })
    }

    /// The same without headers: they can change while the daemon runs.
    pub(super) fn without_headers(&self) -> TracesConfig {
        let options = Options { headers: Headers::new(), ..self.options.clone() };
        TracesConfig { options, concerns: Vec::new() }
    }
}

const WITHOUT: &str = "this rillway was built without OpenTelemetry: use the Debian package or the image, build it with \
     `cargo build --release --features otel`, or remove [traces]";

const NO_ENDPOINT: &str = "it is missing: give the collector's OTLP receiver for HTTP, as in \
     \"http://localhost:4318\", set OTEL_EXPORTER_OTLP_ENDPOINT, or remove [traces]";

impl TracesKeys {
    fn check(&self, url: &str, bad: &mut impl FnMut(&str, &str)) {
        let is_encrypted = match check_url(url) {
            Ok(is_encrypted) => is_encrypted,
            Err(what) => return bad("endpoint", &what),
        };
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                bad(&key, &format!("{name:?} is not the name of a header"));
            } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                bad(&key, "the request sets this header itself: remove it");
            } else if HeaderValue::from_str(value.reveal()).is_err() {
                bad(&key, "its value holds what no header may hold, such as a line break");
            }
        }
        if let Some(sample) = self.sample
            && !(0.0..=1.0).contains(&sample)
        {
            bad(
                "sample",
                &format!("{sample} is out of range: expected 0.0 (no trace) to 1.0 (all)"),
            );
        }
        if let Some(timeout) = self.timeout
            && (timeout.0.is_zero() || timeout > TIMEOUT_MAX)
        {
            bad(
                "timeout",
                &format!("{timeout} is out of range: more than 0s, at most {TIMEOUT_MAX}"),
            );
        }
        if let Some(interval) = self.interval
            && !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval)
        {
            let what = format!("{interval} is out of range: {INTERVAL_MIN} to {INTERVAL_MAX}");
            bad("interval", &what);
        }
        if let Some(queue) = self.queue
            && !(1..=QUEUE_MAX).contains(&queue)
        {
            bad("queue", &format!("{queue} is out of range: 1 to {QUEUE_MAX}"));
        }
        if self.service_name.as_ref().is_some_and(String::is_empty) {
            bad("service_name", "it is empty: give a name, or leave it out");
        }
        for key in self.resource.keys().filter(|key| key.is_empty() || *key == "service.name") {
            bad(&format!("resource.{key}"), "set `service_name` for the name, and no empty one");
        }
        if let Some(tls) = &self.tls {
            if !is_encrypted {
                bad("tls", "the endpoint's scheme is not https, so nothing is encrypted");
            } else if tls.is_half_an_identity() {
                bad("tls", "`cert` and `key` go together: one of them is missing");
            } else if let Some(what) = tls.contradiction() {
                bad("tls", what);
            }
        }
    }

    fn options(self, url: String, variables: &mut Variables<'_>) -> Options {
        let mut resource = variables.resource();
        resource.extend(self.resource);
        let named = self.service_name.or_else(|| variables.service_name());
        let named = named.or_else(|| resource.remove("service.name"));
        resource.insert("service.name".to_owned(), named.unwrap_or_else(|| "rillway".to_owned()));
        for (key, value) in [
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("process.pid", std::process::id().to_string()),
        ] {
            resource.entry(key.to_owned()).or_insert(value);
        }
        let headers = match self.headers.is_empty() {
            true => variables.headers(),
            false => self.headers,
        };
        let queue = self.queue.unwrap_or_else(|| variables.queue());
        let compression = self.compression.map(|of| of == TracesCompression::Gzip);
        let tls = self.tls.unwrap_or_else(|| variables.tls()).options();
        Options {
            url,
            headers,
            gzip: compression.unwrap_or_else(|| variables.gzip()),
            tls,
            resource,
            sampling: self.sample.map_or_else(|| variables.sampling(), Sampling::of),
            limits: Limits {
                queue,
                batch: variables.batch().min(queue),
                interval: self.interval.unwrap_or_else(|| variables.interval()).0,
                timeout: self.timeout.unwrap_or_else(|| variables.timeout()).0,
            },
        }
    }
}

/// The signal's URL below an endpoint.
fn below(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.ends_with(PATH) || endpoint.ends_with(':') {
        true => endpoint.to_owned(),
        false => format!("{endpoint}/{PATH}"),
    }
}

/// True for https.
fn check_url(url: &str) -> Result<bool, String> {
    const ALLOWED: &str = "expected http://HOST:PORT or https://HOST:PORT";
    let url = Url::parse(url).map_err(|error| format!("not a URL ({error}): {ALLOWED}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password: give them as a header, in `headers`".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() || url.query().is_some()
    {
        return Err(ALLOWED.to_owned());
    }
    match url.scheme() {
        "https" => Ok(true),
        "http" => Ok(false),
        _ => Err(ALLOWED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_export_refuses_the_keys_and_ignores_the_variables() {
        let env = Env::from([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318")]);
        for (can_export, keys, is_taken, says) in [
            (false, None, false, None),
            (
                false,
                Some(TracesKeys::default()),
                false,
                Some("cargo build --release --features otel"),
            ),
            (true, None, true, None),
            (true, Some(TracesKeys::default()), true, None),
        ] {
            let (folder, mut problems) = (Path::new(""), Vec::new());
            let traces =
                TracesConfig::new(can_export, keys, &env, folder, &mut problems, &mut Vec::new());
            assert_eq!(traces.is_some(), is_taken);
            assert_eq!(problems.len(), usize::from(says.is_some()), "{problems:?}");
            if let (Some(says), Some(problem)) = (says, problems.first()) {
                assert_eq!(problem.path, "traces");
                assert!(problem.message.contains(says), "{problem}");
            }
        }
    }
}
