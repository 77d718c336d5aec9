//! Declaration of the `http` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::settings::{HttpCompression, HttpFormat, HttpMethod};
use super::{BodyFormat, HttpOptions, HttpSettings, HttpSink, HttpTls, RequestMethod, examine};
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::BAD_RECORDS_MAX;
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    at_most_of_joined,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks, opens};
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for HttpSettings {
    fn about() -> &'static About {
        &About {
            kind: "http",
            guarantee: Guarantee::AtLeastOnce,
            least: "url = \"https://ingest.example/v1/events\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.locate(check.folder());
    }

    fn validate_together(_: &[Use<'_, Self>], _: Option<&BrokerConfig>, _: &mut Vec<Problem>) {}

    fn place(&self) -> Option<PathBuf> {
        self.shown_url().map(PathBuf::from)
    }

    fn rows(&self) -> Option<String> {
        None
    }

    fn exclusive(&self) -> Option<Exclusive> {
        None
    }

    /// The bodies in flight, plain and compressed, the body that is being built, and the buffers of each
    /// connection.
    fn overhead_bytes(&self) -> u64 {
        let bodies = match self.compression {
            HttpCompression::None => 1,
            HttpCompression::Gzip => 2,
        };
        let one = self.max_bytes.0.saturating_mul(bodies).saturating_add(1 << 20);
        u64::from(self.in_flight)
            .saturating_mul(one)
            .saturating_add(self.max_bytes.0.saturating_mul(2))
            .saturating_add(2 << 20)
    }

    fn growth_max(&self) -> u64 {
        JSON_GROWTH_MAX
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        // The service refuses whole requests, and several of them are in flight.
        let own = 2 * BAD_RECORDS_MAX as u64;
        at_most_of_joined(own.saturating_add(self.in_flight_records()), batch_messages)
    }

    fn start(&self) -> Start {
        Start::First
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Among
    }

    fn turn_to_replay(&mut self, _: &str) {}

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        Vec::new()
    }

    fn fill(&mut self, _: &Names) {}

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        "are sent again, with the same stream and offset: an upsert on both makes that harmless"
    }

    fn audit(&self, _: &Opening) -> Auditing {
        Auditing::Not(
            "a web service does not show what it holds: compare on its side, by the stream and offset of each message"
                .to_owned(),
        )
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let options = self.options();
        let stream = opening.stream.clone();
        let look = {
            let (options, stream) = (options.clone(), stream.clone());
            looks(move || {
                let (options, stream) = (options.clone(), stream.clone());
                async move { examine(&options, &stream).await }
            })
        };
        (opens(move || HttpSink::open(options.clone(), stream.clone())), look)
    }

    fn renaming(&self, _: &Opening) -> Option<Renaming> {
        None
    }
}

impl HttpSettings {
    fn options(&self) -> HttpOptions {
        let tls = self.tls.clone().unwrap_or_default();
        HttpOptions {
            url: self.url.clone(),
            method: match self.method {
                HttpMethod::Post => RequestMethod::Post,
                HttpMethod::Put => RequestMethod::Put,
                HttpMethod::Patch => RequestMethod::Patch,
            },
            format: match self.format {
                HttpFormat::Json => BodyFormat::Json,
                HttpFormat::Ndjson => BodyFormat::Ndjson,
            },
            gzip: self.compression == HttpCompression::Gzip,
            headers: self.headers.clone().into_iter().collect(),
            in_flight: usize::try_from(self.in_flight).unwrap_or(usize::MAX),
            max_records: self.max_records,
            max_bytes: usize::try_from(self.max_bytes.0).unwrap_or(usize::MAX),
            timeout: self.timeout.0,
            refusals_max: self.refusals_max.0,
            tls: HttpTls {
                ca: tls.ca,
                identity: tls.cert.zip(tls.key),
                insecure_skip_verify: tls.insecure_skip_verify,
            },
        }
    }
}
