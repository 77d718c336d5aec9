//! `oauth`: access tokens to log in with, out of a file or from a token endpoint.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::paths::locate;
use super::secret::{self, SecretText};
use super::units::HumanDuration;
use crate::oauth::{TokenEndpoint, TokenOptions, TokenOrigin};
use crate::tls::TlsOptions;
use crate::types::Secret;

/// Longest time limit for having a token.
const TIMEOUT_MAX: HumanDuration = HumanDuration::secs(120);

/// `broker.oauth`: access tokens instead of a password, renewed before they expire.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Oauth")]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct OauthKeys {
    /// File that holds one access token. It is read again every few seconds, so another program can
    /// replace it.
    pub token_file: Option<PathBuf>,
    /// Token endpoint, `https://…`, that is asked with the grant `client_credentials`.
    pub token_url: Option<String>,
    /// Name of this client at the endpoint.
    pub client_id: Option<String>,
    /// Secret of this client at the endpoint.
    #[serde(deserialize_with = "secret::optional")]
    #[schemars(with = "Option<SecretText>")]
    pub client_secret: Option<Secret>,
    /// Scopes to ask for, separated by blanks.
    pub scope: Option<String>,
    /// Audience to ask for, where the endpoint wants it.
    pub audience: Option<String>,
    /// PEM file with the certificate authorities to trust at the endpoint. Default: those of the
    /// system.
    pub ca: Option<PathBuf>,
    /// Time limit for having a token.
    pub timeout: HumanDuration,
}

impl Default for OauthKeys {
    fn default() -> Self {
        OauthKeys {
            token_file: None,
            token_url: None,
            client_id: None,
            client_secret: None,
            scope: None,
            audience: None,
            ca: None,
            timeout: HumanDuration::secs(10),
        }
    }
}

impl OauthKeys {
    /// Options of these keys; `None` only if a problem was reported, by its key below `oauth`.
    pub(super) fn options(
        &self,
        folder: &Path,
        bad: &mut impl FnMut(&str, &str),
    ) -> Option<TokenOptions> {
        if self.timeout.0.is_zero() || self.timeout > TIMEOUT_MAX {
            let message =
                format!("{} is out of range: more than 0s, at most {TIMEOUT_MAX}", self.timeout);
            bad("timeout", &message);
            return None;
        }
        let origin = match (&self.token_file, &self.token_url) {
            (Some(path), None) => TokenOrigin::File(self.file(path, folder, bad)?),
            (None, Some(url)) => TokenOrigin::Endpoint(Box::new(self.endpoint(url, folder, bad)?)),
            (Some(_), Some(_)) => {
                bad(
                    "token_file",
                    "`token_file` and `token_url` are both given: remove one of them",
                );
                return None;
            }
            (None, None) => {
                bad("", "there is neither `token_file` nor `token_url`: give one of them");
                return None;
            }
        };
        Some(TokenOptions { origin, timeout: self.timeout.0 })
    }

    fn file(
        &self,
        path: &Path,
        folder: &Path,
        bad: &mut impl FnMut(&str, &str),
    ) -> Option<PathBuf> {
        let unused = [
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("scope", self.scope.is_some()),
            ("audience", self.audience.is_some()),
            ("ca", self.ca.is_some()),
        ];
        for (key, _) in unused.iter().filter(|(_, is_given)| *is_given) {
            bad(key, "it has no effect with `token_file`: it belongs to `token_url`");
        }
        let mut path = path.to_owned();
        locate(&mut path, folder);
        unused.iter().all(|(_, is_given)| !is_given).then_some(path)
    }

    fn endpoint(
        &self,
        url: &str,
        folder: &Path,
        bad: &mut impl FnMut(&str, &str),
    ) -> Option<TokenEndpoint> {
        let is_encrypted = match scheme_of(url) {
            Ok(is_encrypted) => is_encrypted,
            Err(what) => {
                bad("token_url", &what);
                return None;
            }
        };
        if self.ca.is_some() && !is_encrypted {
            bad("ca", "`token_url` does not begin with https, so nothing is encrypted");
            return None;
        }
        let mut is_set = |key: &str, is_given: bool| {
            if !is_given {
                bad(
                    key,
                    "it is missing: `token_url` is asked with `client_id` and `client_secret`",
                );
            }
            is_given
        };
        let is_named = self.client_id.as_ref().is_some_and(|id| !id.is_empty());
        let has_secret = self.client_secret.as_ref().is_some_and(|s| !s.reveal().is_empty());
        let both = [is_set("client_id", is_named), is_set("client_secret", has_secret)];
        if both.contains(&false) {
            return None;
        }
        let mut ca = self.ca.clone();
        ca.iter_mut().for_each(|path| locate(path, folder));
        Some(TokenEndpoint {
            url: url.to_owned(),
            client_id: self.client_id.clone()?,
            client_secret: self.client_secret.clone()?,
            scope: self.scope.clone(),
            audience: self.audience.clone(),
            tls: TlsOptions { ca, ..TlsOptions::default() },
        })
    }
}

/// True for https. What is wrong with a URL is said without showing it.
fn scheme_of(url: &str) -> Result<bool, String> {
    const ALLOWED: &str = "expected https://HOST/PATH";
    let url = Url::parse(url).map_err(|error| format!("not a URL ({error}): {ALLOWED}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password: give `client_id` and `client_secret`".into());
    }
    if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() {
        return Err(ALLOWED.to_owned());
    }
    match (url.scheme(), url.host_str()) {
        ("https", _) => Ok(true),
        ("http", Some("localhost" | "127.0.0.1" | "[::1]")) => Ok(false),
        ("http", _) => Err(
            "http:// would send the client secret unencrypted: use https:// (http:// is for localhost only)"
                .to_owned(),
        ),
        _ => Err(ALLOWED.to_owned()),
    }
}
