//! Options of a postgres sink.

use std::time::Duration;

use super::session::Door;
use crate::sink::SinkError;
use crate::tls::TlsOptions;
use crate::types::column::Column;
use crate::types::upsert::{Missing, Upsert};
use crate::types::{Reference, Secret};

/// Options of a postgres sink.
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
    /// Whether missing tables are created.
    pub create: bool,
    /// How rows are replaced by their key; `None`: each record is a row of its own.
    pub upsert: Option<Upsert>,
    /// What is done about columns that an existing table lacks.
    pub missing: Missing,
    /// Time limit for a connection with its handshake.
    pub connect_timeout: Duration,
    /// Time limit for one transaction.
    pub write_timeout: Duration,
    /// Time limit for a lock that another session holds.
    pub lock_timeout: Duration,
}

impl PostgresOptions {
    pub(super) fn door(&self, reference: &Reference) -> Result<Door, SinkError> {
        let PostgresOptions { url, tls, connect_timeout, .. } = self;
        Door::new(url, tls.clone(), *connect_timeout, reference.as_str())
            .map_err(|what| SinkError::Fatal(format!("postgres sink: {what}")))
    }
}
