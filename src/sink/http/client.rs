//! The HTTP client: sends one request and returns a verdict.
//!
//! Invariants: no redirection is followed; no proxy is used, not even the environment's, so that only the
//! configuration says where messages go; the client repeats nothing by itself. A request has one time
//! limit, from connecting to the last byte of its answer. No error text contains a header's value, a
//! message, or the URL's user, password or query.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use flate2::write::GzEncoder;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, Response, Url};

use super::answer::{Answer, Verdict, judge, quote};
use super::options::{BodyFormat, HttpOptions, HttpTls, RequestMethod};
use super::pieces::Range;
use crate::sink::SinkError;
use crate::types::StreamName;
use crate::types::quote::Hidden;

/// Bytes of an answer that are read, so that its connection can be used again. A longer answer is cut
/// off.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of an answer that are kept to be quoted.
const ANSWER_KEEP_BYTES: usize = 4 << 10;

/// Time limit for connecting, whatever the limit of a request; then it is tried again later.
pub(super) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// How long an idle connection is kept for the next request. Shorter than what servers allow, so that few
/// requests meet a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// Characters that are escaped in a header's value.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'\\');

/// Sends requests to one URL.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    method: reqwest::Method,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
    /// The stream's name, escaped for a header.
    stream: String,
    /// `POST http://host/path`: the part that may be shown.
    shown: String,
    secrets: Hidden,
}

impl Client {
    /// Builds the client; does not connect.
    ///
    /// # Errors
    /// Fatal if the options cannot work.
    pub(super) async fn new(
        options: &HttpOptions,
        stream: &StreamName,
    ) -> Result<Client, SinkError> {
        let url = Url::parse(options.url.reveal())
            .map_err(|error| fatal(format!("`url` is not a URL: {error}")))?;
        let method = match options.method {
            RequestMethod::Post => reqwest::Method::POST,
            RequestMethod::Put => reqwest::Method::PUT,
            RequestMethod::Patch => reqwest::Method::PATCH,
        };
        let builder = reqwest::Client::builder()
            .user_agent(concat!("rillway/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(options.timeout.min(CONNECT_TIMEOUT_MAX))
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(options.in_flight);
        let http = with_tls(builder, &options.tls, url.scheme() == "https")
            .await?
            .build()
            .map_err(|error| fatal(format!("the HTTP client cannot be made: {}", chain(error))))?;
        Ok(Client {
            http,
            shown: format!("{method} {}", plain(&url)),
            secrets: secrets(options, &url),
            headers: headers(options)?,
            url,
            method,
            gzip: options.gzip,
            timeout: options.timeout,
            stream: utf8_percent_encode(stream.as_str(), NOT_IN_HEADERS).to_string(),
        })
    }

    /// Sends these records and waits for the whole answer.
    pub(super) async fn send(&self, range: &Range, body: Bytes) -> Verdict {
        let what = self.describe(range);
        let body = match self.gzip {
            // A whole body takes some milliseconds to compress, which would block the runtime.
            true => {
                let done = tokio::task::spawn_blocking(move || compressed(&body)).await;
                match done.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                    Ok(body) => body,
                    Err(error) => {
                        let what = format!("{what} was not sent: compressing it failed: {error}");
                        return Verdict::Later { what, retry_after: None };
                    }
                }
            }
            false => body,
        };
        let (first, last) = (range.first.0, range.last.0);
        let key = format!("{}/{first}-{last}/{}", self.stream, range.timestamp.0);
        let sent = self
            .http
            .request(self.method.clone(), self.url.clone())
            .timeout(self.timeout)
            .header("idempotency-key", key)
            .header("rillway-stream", &self.stream)
            .header("rillway-first-offset", first)
            .header("rillway-last-offset", last)
            .header("rillway-records", range.records)
            .headers(self.headers.clone())
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) => self.judge(&what, response).await,
            Err(error) => self.failed(&what, error),
        }
    }

    async fn judge(&self, what: &str, mut response: Response) -> Verdict {
        let mut body = Vec::new();
        let mut read = 0;
        while read < ANSWER_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    read += piece.len();
                    let room = ANSWER_KEEP_BYTES.saturating_sub(body.len()).min(piece.len());
                    body.extend_from_slice(&piece[..room]);
                }
                Ok(None) => break,
                // An answer counts only when it is whole: until then it is not certain that the records
                // were accepted.
                Err(error) => {
                    let status = response.status();
                    return self
                        .failed(&format!("{what} was answered with {status}, and then"), error);
                }
            }
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let location = header(LOCATION).and_then(|to| self.url.join(to).ok());
        let answer = Answer {
            status: response.status(),
            retry_after: header(RETRY_AFTER),
            location: location.map(|to| plain(&to)),
            quote: quote(&body, &self.secrets),
        };
        judge(what, &answer, now_ms())
    }

    /// The verdict if there is no whole answer.
    fn failed(&self, what: &str, error: reqwest::Error) -> Verdict {
        if error.is_connect() {
            let what = format!(
                "{what} was not sent: there is no connection ({}). Does the service run, and is the \
                 address right? It is tried again",
                chain(error)
            );
            return Verdict::Later { what, retry_after: None };
        }
        let why = if error.is_timeout() && !error.is_connect() {
            format!("no whole answer within {:?}", self.timeout)
        } else {
            chain(error)
        };
        let what = format!(
            "{what} failed: {why}. It is not known whether it arrived, so it is sent again"
        );
        Verdict::Later { what, retry_after: None }
    }

    fn describe(&self, range: &Range) -> String {
        let shown = &self.shown;
        match range.records {
            1 => format!("{shown} with 1 record (offset {})", range.first),
            n => format!("{shown} with {n} records (offsets {} to {})", range.first, range.last),
        }
    }
}

fn fatal(what: String) -> SinkError {
    SinkError::Fatal(format!("http sink: {what}"))
}

fn now_ms() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The URL as it may be shown.
fn plain(url: &Url) -> String {
    match url.host_str() {
        Some(_) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        None => format!("{}:…", url.scheme()),
    }
}

/// An error with its causes, without the URL.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

fn headers(options: &HttpOptions) -> Result<HeaderMap, SinkError> {
    let mut headers = HeaderMap::new();
    let content_type = match options.format {
        BodyFormat::Json => "application/json",
        BodyFormat::Ndjson => "application/x-ndjson",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in &options.headers {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| fatal(format!("{name:?} is not the name of a header")))?;
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| {
            fatal(format!("the value of header {name:?} holds what no header may hold"))
        })?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    if options.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(headers)
}

/// The secrets to remove from answers.
fn secrets(options: &HttpOptions, url: &Url) -> Hidden {
    let of_headers = options.headers.iter().flat_map(|(_, value)| Hidden::of_header(value));
    let of_query = url.query_pairs().map(|(_, value)| value.into_owned());
    let query = url.query().map(str::to_owned);
    Hidden::new(of_headers.chain(credentials(url)).chain(query).chain(of_query))
}

/// The URL's user and password in every form that a service may send back: as in the URL, decoded, and as
/// the `Authorization: Basic …` header that the client makes of them.
fn credentials(url: &Url) -> Vec<String> {
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    if user.is_empty() && password.is_empty() {
        return Vec::new();
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (plain_user, plain_password) = (decoded(user), decoded(password));
    let plain_pair = format!("{plain_user}:{plain_password}");
    vec![
        BASE64_STANDARD.encode(&plain_pair),
        plain_pair,
        format!("{user}:{password}"),
        plain_user,
        plain_password,
        user.to_owned(),
        password.to_owned(),
    ]
}

async fn with_tls(
    builder: reqwest::ClientBuilder,
    tls: &HttpTls,
    encrypted: bool,
) -> Result<reqwest::ClientBuilder, SinkError> {
    if !encrypted {
        // Otherwise the client would need the system's certificates, and a system may have none.
        return Ok(builder.tls_certs_only([]));
    }
    let mut builder = builder;
    if let Some(path) = &tls.ca {
        let pem = read(path).await?;
        let found =
            Certificate::from_pem_bundle(&pem).map_err(|error| unusable(path, &chain(error)))?;
        if found.is_empty() {
            return Err(unusable(path, "there is no certificate in it"));
        }
        builder = builder.tls_certs_only(found);
    }
    if let Some((cert, key)) = &tls.identity {
        let mut pem = read(key).await?;
        pem.push(b'\n');
        pem.extend(read(cert).await?);
        let identity = Identity::from_pem(&pem).map_err(|error| unusable(cert, &chain(error)))?;
        builder = builder.identity(identity);
    }
    if tls.insecure_skip_verify {
        tracing::warn!(
            "insecure_skip_verify = true: this http sink sends to anybody, whatever the certificate"
        );
    }
    Ok(builder.tls_danger_accept_invalid_certs(tls.insecure_skip_verify))
}

async fn read(path: &Path) -> Result<Vec<u8>, SinkError> {
    tokio::fs::read(path).await.map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> SinkError {
    fatal(format!("cannot use {}: {why}", path.display()))
}

/// Fast rather than small: JSON compresses well at any level.
fn compressed(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}
