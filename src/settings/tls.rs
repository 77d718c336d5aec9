//! `tls`: encryption of a connection, and trusted certificates.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths::locate;
use crate::tls::TlsOptions;

/// `broker.tls`: encryption of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct TlsConfig {
    /// PEM file with the certificate authorities to trust. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file with the client's certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub key: Option<PathBuf>,
    /// Name to request and to check the certificate against. Default: the host.
    pub server_name: Option<String>,
    /// Accepts any certificate, for any name. An attacker on the network can then read and change
    /// everything, the login included. Cannot be combined with `ca` or `server_name`.
    pub insecure_skip_verify: bool,
}

impl TlsConfig {
    /// Makes relative paths start at this folder.
    pub fn locate(&mut self, folder: &Path) {
        for path in [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten() {
            locate(path, folder);
        }
    }

    /// True if the client's certificate is given without its key, or the key without it.
    pub fn is_half_an_identity(&self) -> bool {
        self.cert.is_some() != self.key.is_some()
    }

    /// Keys that contradict each other, in words: a check that is asked for and turned off, or one for
    /// no name.
    pub fn contradiction(&self) -> Option<&'static str> {
        if self.insecure_skip_verify && (self.ca.is_some() || self.server_name.is_some()) {
            return Some(
                "`insecure_skip_verify` accepts any certificate, so `ca` and `server_name` have no effect: remove insecure_skip_verify to have certificates checked, or the other two",
            );
        }
        let name = self.server_name.as_ref()?;
        let is_name = rustls_pki_types::ServerName::try_from(name.as_str()).is_ok();
        (!is_name).then_some("`server_name` is neither a host name nor an IP address")
    }

    /// Options for a connection.
    pub fn options(&self) -> TlsOptions {
        TlsOptions {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
        }
    }
}
