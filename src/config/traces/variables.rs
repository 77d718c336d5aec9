//! The variables of OpenTelemetry.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{BATCH, Headers, INTERVAL, INTERVAL_MAX, PATH, QUEUE, QUEUE_MAX, TIMEOUT, TIMEOUT_MAX};
use super::{
    HeaderName, HeaderValue, HumanDuration, OWN_HEADERS, Sampling, Secret, below, check_url,
};
use crate::settings::TlsConfig;

/// The variables, and what is wrong with them. An empty one counts as absent.
pub(super) struct Variables<'a> {
    env: &'a super::Env,
    concerns: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(env: &'a super::Env) -> Variables<'a> {
        Variables { env, concerns: Vec::new() }
    }

    pub(super) fn into_concerns(mut self) -> Vec<String> {
        if let Some((name, protocol)) = self.of_exporter("PROTOCOL")
            && protocol != "http/protobuf"
        {
            let used = "http/protobuf is used. The endpoint has to be the one for HTTP, usually on port 4318";
            self.ignored(name, format!("{protocol:?} is not supported, and {used}"));
        }
        self.concerns
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// The variable for traces, or else the one for all signals.
    fn of_exporter(&self, what: &str) -> Option<(String, &'a str)> {
        [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    /// Values are not shown where they may be secrets.
    fn ignored(&mut self, name: impl Display, why: impl Display) {
        self.concerns.push(format!("{name}: {why}"));
    }

    /// True if nothing is to be exported, whatever else is said.
    pub(super) fn are_off(&mut self) -> bool {
        let is_disabled =
            self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        match self.get("OTEL_TRACES_EXPORTER") {
            Some("none") => return true,
            Some("otlp") | None => {}
            Some(other) => {
                let why = format!("{other:?} is not supported, and otlp is used");
                self.ignored("OTEL_TRACES_EXPORTER", why);
            }
        }
        is_disabled
    }

    /// The URL of the signal is used as it stands; the one of all signals is completed. One that cannot be
    /// used does not stop the daemon: it may be a whole cluster's, for exporters of another kind.
    pub(super) fn url(&mut self) -> Option<String> {
        const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const OF_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let of_traces = self.get(OF_TRACES).map(|url| (OF_TRACES, url.to_owned()));
        let of_all = self.get(OF_ALL).map(|endpoint| {
            let trimmed = endpoint.trim_end_matches('/');
            match trimmed.ends_with(PATH) {
                // Below this path too, as the specification says.
                true => (OF_ALL, format!("{trimmed}/{PATH}")),
                false => (OF_ALL, below(endpoint)),
            }
        });
        for (name, url) in of_traces.into_iter().chain(of_all) {
            match check_url(&url) {
                Ok(_) => return Some(url),
                Err(why) => self.ignored(name, format!("{why}; it is ignored")),
            }
        }
        None
    }

    pub(super) fn headers(&mut self) -> Headers {
        let Some((name, text)) = self.of_exporter("HEADERS") else { return Headers::new() };
        let mut headers = Headers::new();
        for (key, value) in self.pairs(&name, text) {
            let is_own = OWN_HEADERS.contains(&key.to_ascii_lowercase().as_str());
            if is_own
                || HeaderName::from_bytes(key.as_bytes()).is_err()
                || HeaderValue::from_str(&value).is_err()
            {
                self.ignored(&name, format!("the header {key:?} cannot be sent, and is left out"));
            } else {
                headers.insert(key, Secret::new(value));
            }
        }
        headers
    }

    pub(super) fn resource(&mut self) -> BTreeMap<String, String> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        self.get(NAME).map(|text| self.pairs(NAME, text)).unwrap_or_default()
    }

    /// `key1=value1,key2=value2`; values are percent-encoded.
    fn pairs(&mut self, name: &str, text: &str) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let value = |value: &str| {
                let decoded = percent_decode_str(value.trim()).decode_utf8().ok()?;
                Some(decoded.into_owned())
            };
            match pair.split_once('=').and_then(|(key, of)| Some((key.trim(), value(of)?))) {
                Some((key, value)) if !key.is_empty() => {
                    pairs.insert(key.to_owned(), value);
                }
                _ => self.ignored(name, "a part of it is not KEY=VALUE, and is left out"),
            }
        }
        pairs
    }

    pub(super) fn service_name(&self) -> Option<String> {
        self.get("OTEL_SERVICE_NAME").map(str::to_owned)
    }

    pub(super) fn gzip(&mut self) -> bool {
        match self.of_exporter("COMPRESSION") {
            Some((_, "gzip")) => true,
            Some((_, "none")) | None => false,
            Some((name, other)) => {
                self.ignored(name, format!("{other:?} is neither gzip nor none, and is ignored"));
                false
            }
        }
    }

    pub(super) fn tls(&self) -> TlsConfig {
        let path = |what: &str| self.of_exporter(what).map(|(_, path)| path.into());
        TlsConfig {
            ca: path("CERTIFICATE"),
            cert: path("CLIENT_CERTIFICATE"),
            key: path("CLIENT_KEY"),
            ..TlsConfig::default()
        }
    }

    pub(super) fn sampling(&mut self) -> Sampling {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let Some(sampler) = self.get(NAME) else { return Sampling::All };
        // Every trace begins here, so a parent never decides.
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => Sampling::All,
            "always_off" => Sampling::None,
            "traceidratio" => {
                const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
                let Some(text) = self.get(ARGUMENT) else { return Sampling::All };
                match text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)) {
                    Some(share) => Sampling::of(share),
                    None => {
                        let why = format!("{text:?} is not a number from 0 to 1, and 1 is used");
                        self.ignored(ARGUMENT, why);
                        Sampling::All
                    }
                }
            }
            _ => {
                let why =
                    format!("{sampler:?} is not supported, and parentbased_always_on is used");
                self.ignored(NAME, why);
                Sampling::All
            }
        }
    }

    pub(super) fn timeout(&mut self) -> HumanDuration {
        match self.of_exporter("TIMEOUT") {
            Some((name, text)) => self.millis(&name, text, TIMEOUT, TIMEOUT_MAX),
            None => TIMEOUT,
        }
    }

    pub(super) fn interval(&mut self) -> HumanDuration {
        const NAME: &str = "OTEL_BSP_SCHEDULE_DELAY";
        match self.get(NAME) {
            Some(text) => self.millis(NAME, text, INTERVAL, INTERVAL_MAX),
            None => INTERVAL,
        }
    }

    fn millis(
        &mut self,
        name: &str,
        text: &str,
        otherwise: HumanDuration,
        most: HumanDuration,
    ) -> HumanDuration {
        let wanted = text.parse().ok().map(|ms| HumanDuration(Duration::from_millis(ms)));
        match wanted.filter(|wanted| !wanted.0.is_zero() && *wanted <= most) {
            Some(wanted) => wanted,
            None => {
                let why = format!(
                    "{text:?} is not 1 ms to {most} in milliseconds, and {otherwise} is used"
                );
                self.ignored(name, why);
                otherwise
            }
        }
    }

    pub(super) fn queue(&mut self) -> usize {
        self.count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)
    }

    pub(super) fn batch(&mut self) -> usize {
        self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)
    }

    fn count(&mut self, name: &str, otherwise: usize) -> usize {
        let Some(text) = self.get(name) else { return otherwise };
        match text.parse().ok().filter(|count| (1..=QUEUE_MAX).contains(count)) {
            Some(count) => count,
            None => {
                let why = format!(
                    "{text:?} is not a number from 1 to {QUEUE_MAX}, and {otherwise} is used"
                );
                self.ignored(name, why);
                otherwise
            }
        }
    }
}
