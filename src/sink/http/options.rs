//! Options of an http sink.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::Secret;

/// Options of an http sink.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where requests go. Its user, password and query are never shown; its path is.
    pub url: Secret,
    /// Method of the requests.
    pub method: RequestMethod,
    /// Format of a body.
    pub format: BodyFormat,
    /// Whether bodies are compressed by gzip.
    pub gzip: bool,
    /// Further headers; they replace `Content-Type`.
    pub headers: Vec<(String, Secret)>,
    /// Most requests at a time; at least 1.
    pub in_flight: usize,
    /// Most records in a request; at least 1.
    pub max_records: u64,
    /// Most bytes of a body, before compression; a larger record goes alone.
    pub max_bytes: usize,
    /// Time limit for a request, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// The sink stops after this many refused records in a row: then the service is wrong, and not the
    /// records. `None`: never.
    pub refusals_max: Option<u64>,
    /// TLS settings for an `https` service.
    pub tls: HttpTls,
}

/// Trusted authorities, and the client's own certificate.
#[derive(Clone, Debug, Default)]
pub struct HttpTls {
    /// The authorities, in PEM; the system's if absent.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
}

/// The method of a request that carries records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMethod {
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// Format of a body. Each record is the object of a line of NDJSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON array.
    Json,
    /// One line each.
    Ndjson,
}
