//! Where tokens come from, as plain data.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::TlsOptions;
use crate::types::Secret;

/// Where access tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    /// File or endpoint.
    pub origin: TokenOrigin,
    /// Time limit for having a token.
    pub timeout: Duration,
}

/// Source of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A file that another program replaces.
    File(PathBuf),
    /// A token endpoint.
    Endpoint(Box<TokenEndpoint>),
}

/// A token endpoint, and our identity there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// `https://…` or `http://…`, without user and password.
    pub url: String,
    /// Our name there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Secret,
    /// Scopes to ask for, separated by blanks.
    pub scope: Option<String>,
    /// Audience to ask for.
    pub audience: Option<String>,
    /// Trusted authorities, with `https`.
    pub tls: TlsOptions,
}

/// Name for log lines, errors and metrics.
impl fmt::Display for TokenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            TokenOrigin::File(path) => write!(f, "{}", path.display()),
            TokenOrigin::Endpoint(at) => write!(f, "{} at {}", at.client_id, at.url),
        }
    }
}
