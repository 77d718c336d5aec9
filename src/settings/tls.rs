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
    /// Accepts any certificate. An attacker on the network can then read and change everything.
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
