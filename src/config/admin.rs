//! `[admin]`: the HTTP server for metrics, health, status and commands.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::Problem;
use crate::settings::paths::locate;
use crate::settings::secret::{self, SecretText};
use crate::types::Secret;
use crate::types::bearer::BearerToken;

/// `[admin]`: the HTTP server for metrics, health, status and commands.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct AdminConfig {
    /// Starts the HTTP server.
    pub enabled: bool,
    /// Address and port to listen on; an empty text means the default. On an address that is not of
    /// the loopback interface, commands need a `token`.
    #[serde(deserialize_with = "listen_address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Token that every command needs, as `Authorization: Bearer TOKEN`: 16 to 4096 visible ASCII
    /// characters. A file is read again when it has changed. Without a token, commands are accepted
    /// on the loopback interface, and refused elsewhere.
    #[serde(deserialize_with = "secret::optional", skip_serializing)]
    #[schemars(with = "Option<SecretText>")]
    pub token: Option<Secret>,
    /// The file that the token was read from; `None` if it was given otherwise.
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
    /// Requires the token for reading too. `/livez` and `/readyz` then only tell whether all is well.
    pub protect_reads: bool,
    /// Encrypts the connections.
    pub tls: Option<AdminTls>,
}

/// `admin.tls`: encryption of the HTTP server. Its files are read again when they have changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AdminTls {
    /// PEM file with the server's certificate chain.
    pub cert: PathBuf,
    /// PEM file with the server's private key.
    pub key: PathBuf,
    /// PEM file with the certificate authorities of clients: without a certificate of one of them nobody
    /// can connect. Commands need the token nevertheless.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9552)),
            token: None,
            token_file: None,
            protect_reads: false,
            tls: None,
        }
    }
}

impl AdminConfig {
    /// True if only this machine can reach the server.
    pub fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// What an operator should know about the access to the server; with what to do.
    pub fn concerns(&self) -> Vec<String> {
        let listen = self.listen;
        match (&self.token, &self.tls) {
            _ if !self.enabled || self.is_local() => Vec::new(),
            (None, _) => vec![format!(
                "{listen} can be reached from other machines, and there is no token: commands are refused, and \
                 everybody may read. Set [admin] token, or listen on 127.0.0.1"
            )],
            (Some(_), None) => vec![format!(
                "{listen} can be reached from other machines, and the token crosses the network unencrypted: set \
                 [admin] tls, or listen on 127.0.0.1 behind a proxy that encrypts"
            )],
            (Some(_), Some(_)) => Vec::new(),
        }
    }

    /// Makes relative paths start at this folder, and checks the values.
    pub(super) fn finish(
        mut self,
        folder: &Path,
        token_file: Option<PathBuf>,
        problems: &mut Vec<Problem>,
    ) -> AdminConfig {
        if let Some(AdminTls { cert, key, client_ca }) = &mut self.tls {
            let all = [Some(cert), Some(key), client_ca.as_mut()];
            all.into_iter().flatten().for_each(|path| locate(path, folder));
        }
        // An unreadable secret has been reported.
        let readable = !problems.iter().any(|problem| problem.path == "admin.token");
        if let (Some(token), true) = (&self.token, readable)
            && let Err(error) = BearerToken::new(token.clone())
        {
            problems.push(Problem::new("admin.token", error.to_string()));
        }
        if self.protect_reads && self.token.is_none() {
            problems.push(Problem::new(
                "admin.protect_reads",
                "there is no token to protect reading with: set `token` too",
            ));
        }
        self.token_file = token_file.filter(|_| self.token.is_some());
        self
    }
}

fn listen_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(AdminConfig::default().listen);
    }
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address to listen on: expected IP:PORT, as in \"127.0.0.1:9552\", \
             \"0.0.0.0:9552\" or \"[::1]:9552\""
        ))
    })
}
