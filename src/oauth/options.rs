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
            TokenOrigin::Endpoint(at) => {
                write!(f, "{} at {}", at.client_id, at.url)?;
                // Two that differ in these alone are two tokens.
                for (key, value) in [("scope", &at.scope), ("audience", &at.audience)] {
                    if let Some(value) = value {
                        write!(f, ", {key} {value}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has a gauge of its own.
    #[test]
    fn two_tokens_of_one_client_have_two_names() {
        let name = |scope: Option<&str>, audience: Option<&str>| {
            let endpoint = TokenEndpoint {
                url: "https://x/token".to_owned(),
                client_id: "me".to_owned(),
                client_secret: Secret::new("hunter2"),
                scope: scope.map(str::to_owned),
                audience: audience.map(str::to_owned),
                tls: TlsOptions::default(),
            };
            let origin = TokenOrigin::Endpoint(Box::new(endpoint));
            TokenOptions { origin, timeout: Duration::from_secs(1) }.to_string()
        };
        assert_eq!(name(None, None), "me at https://x/token");
        assert_eq!(name(Some("a b"), None), "me at https://x/token, scope a b");
        assert_eq!(name(Some("a"), Some("c")), "me at https://x/token, scope a, audience c");
    }
}
