//! What an http sink is opened with.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::Secret;

/// What an http sink needs to know.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where requests go. Its user, password and query are never shown; its path is.
    pub url: Secret,
    /// How they are sent.
    pub method: Method,
    /// How records stand in a body.
    pub format: BodyFormat,
    /// Whether bodies are compressed by gzip.
    pub gzip: bool,
    /// Further headers; they replace `Content-Type`.
    pub headers: Vec<(String, Secret)>,
    /// The most requests at a time; at least 1.
    pub in_flight: usize,
    /// The most records in a request; at least 1.
    pub max_records: u64,
    /// The most bytes of a body, before compression; a record larger than that goes alone.
    pub max_bytes: usize,
    /// The time for a request, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// So many records refused one after the other, with none accepted in between, and it is the
    /// service that is wrong and not the records: the sink stops. `None`: never.
    pub refusals_max: Option<u64>,
    /// How an `https` service is known.
    pub tls: HttpTls,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default)]
pub struct HttpTls {
    /// The authorities, in PEM; the system's where it is absent.
    pub ca: Option<PathBuf>,
    /// The certificate chain of ours and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
}

/// The method of a request that carries records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// How records stand in a body. Each is the object that a line of NDJSON has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON array.
    Json,
    /// One line each.
    Ndjson,
}
