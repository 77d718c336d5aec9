//! One request to the collector, and what its answer means.
//!
//! What may be sent again follows the specification of OTLP over HTTP
//! (<https://opentelemetry.io/docs/specs/otlp/#failures>): 429, 502, 503 and 504, and what was not answered.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use url::Url;

use super::encode::{self, NoCollector};
use super::options::{Headers, Options};
use crate::types::quote::Hidden;
use crate::web::{self, Unanswered};

/// Longest wait that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Result of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The collector has them, except for those that it refused.
    Accepted { refused: Option<(u64, String)> },
    /// It can be tried again, after this time if it was told.
    Again { what: String, after: Option<Duration> },
    /// It would fail again.
    Never { what: String },
}

/// Sends this body.
pub(super) async fn send(options: &Options, headers: &Headers, body: Bytes) -> Sent {
    let url = match Url::parse(&options.url) {
        Ok(url) => url,
        Err(error) => return Sent::Never { what: format!("not a URL ({error})") },
    };
    let request = match request(options, &url, headers, body) {
        Ok(request) => request,
        Err(what) => return Sent::Never { what },
    };
    let limit = options.limits.timeout;
    let exchange = web::exchange(&url, &options.tls, request);
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok((answer, body))) => read(&answer, &body, headers),
        Ok(Err(error)) => {
            let what = match &error {
                Unanswered::NotConnected(_) => {
                    format!("{error}. Does it run, and is traces.endpoint right?")
                }
                Unanswered::Handshake(what) => {
                    format!("TLS handshake: {}", what.replace("tls.", "traces.tls."))
                }
                _ => error.to_string(),
            };
            Sent::Again { what, after: None }
        }
        Err(_) => Sent::Again { what: format!("no answer within {limit:?}"), after: None },
    }
}

fn request(
    options: &Options,
    url: &Url,
    headers: &Headers,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let mut builder = web::post(url).header(CONTENT_TYPE, "application/x-protobuf");
    if options.gzip {
        builder = builder.header(CONTENT_ENCODING, "gzip");
    }
    for (name, value) in headers {
        let unusable = || format!("the header {name:?} cannot be sent");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        builder = builder.header(name, value);
    }
    builder.body(Full::new(body)).map_err(|error| error.to_string())
}

fn read(answer: &Parts, body: &[u8], headers: &Headers) -> Sent {
    let status = answer.status;
    let hidden = || Hidden::new(headers.values().flat_map(Hidden::of_header));
    if status.is_success() {
        return match encode::refused(body) {
            Ok(refused) => Sent::Accepted {
                refused: refused.map(|(spans, why)| (spans, hidden().quote(&why))),
            },
            Err(NoCollector) => Sent::Never {
                what: format!(
                    "it answers {status}, but not as a collector does ({:?}): traces.endpoint is another web server, or \
                     not its OTLP receiver for HTTP; its usual port is 4318",
                    hidden().quote(&String::from_utf8_lossy(body))
                ),
            },
        };
    }
    let what = format!("it answers {status}{}", remedy(status));
    match status.as_u16() {
        429 | 502 | 503 | 504 => Sent::Again { what, after: retry_after(answer) },
        _ => Sent::Never { what },
    }
}

fn retry_after(answer: &Parts) -> Option<Duration> {
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn remedy(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => {
            ". Redirections are not followed: set traces.endpoint to the address it leads to"
        }
        401 | 403 => ": check traces.headers",
        404 | 405 => ": traces.endpoint is not the OTLP receiver for HTTP; its usual port is 4318",
        413 => ": allow larger requests there, or send less with traces.sample",
        415 => ": it does not accept protobuf over HTTP; its OTLP receiver for HTTP is wanted",
        _ => "",
    }
}
