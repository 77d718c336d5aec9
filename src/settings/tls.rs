//! `tls`: how a connection is encrypted, and who is trusted.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths::locate;
use crate::tls::TlsOptions;

/// `broker.tls`: how the connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct TlsConfig {
    /// A PEM file with the authorities to trust; the system's own where it is absent.
    pub ca: Option<PathBuf>,
    /// A PEM file with the client's certificate chain.
    pub cert: Option<PathBuf>,
    /// A PEM file with the client's private key.
    pub key: Option<PathBuf>,
    /// The name to ask for and to check the certificate against, in place of the host's.
    pub server_name: Option<String>,
    /// Takes any certificate. Whoever sits on the line can then read and change everything.
    pub insecure_skip_verify: bool,
}

impl TlsConfig {
    /// Has relative paths start at this folder.
    pub fn locate(&mut self, folder: &Path) {
        for path in [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten() {
            locate(path, folder);
        }
    }

    /// True if the client's certificate is given without its key, or the key without it.
    pub fn is_half_an_identity(&self) -> bool {
        self.cert.is_some() != self.key.is_some()
    }

    /// What to connect with.
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
