//! What a postgres sink is opened with.

use std::time::Duration;

use super::session::Door;
use crate::sink::SinkError;
use crate::tls::TlsOptions;
use crate::types::column::Column;
use crate::types::{Reference, Secret};

/// What a postgres sink needs to know.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with libpq's parameters behind a `?`.
    pub url: Secret,
    /// How to protect the connection; `None`: not at all, unless the URL has `sslmode=require`.
    pub tls: Option<TlsOptions>,
    /// The schema of both tables; by default the first of the role's `search_path`.
    pub schema: Option<String>,
    /// The table that takes the rows.
    pub table: String,
    /// Typed columns behind stream, offset and timestamp; `None`: those of the envelope.
    pub columns: Option<Vec<Column>>,
    /// Whether tables that are not there are made.
    pub create: bool,
    /// How long a connection with its handshake may take.
    pub connect_timeout: Duration,
    /// How long one transaction may take.
    pub write_timeout: Duration,
    /// How long a lock that somebody else holds is waited for.
    pub lock_timeout: Duration,
}

impl PostgresOptions {
    pub(super) fn door(&self, reference: &Reference) -> Result<Door, SinkError> {
        let PostgresOptions { url, tls, connect_timeout, .. } = self;
        Door::new(url, tls.clone(), *connect_timeout, reference.as_str())
            .map_err(|what| SinkError::Fatal(format!("postgres sink: {what}")))
    }
}
