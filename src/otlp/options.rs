//! Options of the export, as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::tls::TlsOptions;
use crate::types::Secret;

/// Headers of each request, by name.
pub type Headers = BTreeMap<String, Secret>;

/// Where spans are sent, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// URL that batches are posted to.
    pub url: String,
    /// Headers of each request.
    pub headers: Headers,
    /// True if bodies are compressed with gzip.
    pub gzip: bool,
    /// TLS of an `https` URL.
    pub tls: TlsOptions,
    /// Attributes of the process: `service.name`, and what else is configured.
    pub resource: BTreeMap<String, String>,
    /// Which traces are exported.
    pub sampling: Sampling,
    /// Limits.
    pub limits: Limits,
}

/// Which traces are exported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// All.
    All,
    /// None.
    None,
    /// This share of them: more than 0, less than 1.
    Share(f64),
}

impl Sampling {
    /// Of a share from 0 to 1.
    pub fn of(share: f64) -> Sampling {
        match share {
            share if share >= 1.0 => Sampling::All,
            share if share > 0.0 => Sampling::Share(share),
            _ => Sampling::None,
        }
    }
}

/// Limits of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most spans that wait.
    pub queue: usize,
    /// Most spans in a request.
    pub batch: usize,
    /// Longest time that a span waits for others.
    pub interval: Duration,
    /// Time limit of a request, from connecting to the end of the answer.
    pub timeout: Duration,
}
