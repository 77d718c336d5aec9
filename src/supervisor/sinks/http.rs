//! `{ type = "http" }`.

use std::sync::Arc;

use super::{Look, SinkFactory, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::http::{self, BodyFormat, HttpOptions, HttpSink, HttpTls, Method};

pub(super) fn factory(settings: config::HttpSink, spec: &Spec) -> (SinkFactory, Look) {
    let tls = settings.tls.unwrap_or_default();
    let options = HttpOptions {
        url: settings.url,
        method: match settings.method {
            config::HttpMethod::Post => Method::Post,
            config::HttpMethod::Put => Method::Put,
            config::HttpMethod::Patch => Method::Patch,
        },
        format: match settings.format {
            config::BodyFormat::Json => BodyFormat::Json,
            config::BodyFormat::Ndjson => BodyFormat::Ndjson,
        },
        gzip: settings.compression == config::HttpCompression::Gzip,
        headers: settings.headers.into_iter().collect(),
        in_flight: usize::try_from(settings.in_flight).unwrap_or(usize::MAX),
        max_records: settings.max_records,
        max_bytes: usize::try_from(settings.max_bytes.0).unwrap_or(usize::MAX),
        timeout: settings.timeout.0,
        refusals_max: settings.refusals_max.0,
        tls: HttpTls {
            ca: tls.ca,
            identity: tls.cert.zip(tls.key),
            insecure_skip_verify: tls.insecure_skip_verify,
        },
    };
    let stream = spec.stream.clone();
    let look: Look = {
        let (options, stream) = (options.clone(), stream.clone());
        Arc::new(move || {
            let (options, stream) = (options.clone(), stream.clone());
            Box::pin(async move { http::examine(&options, &stream).await })
        })
    };
    (opens(move || HttpSink::open(options.clone(), stream.clone())), look)
}
