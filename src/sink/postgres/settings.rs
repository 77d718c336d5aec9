//! The keys of `{ type = "postgres" }`: defaults and validation.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::config::Host;

use crate::settings::columns::{ColumnsConfig, OWN};
use crate::settings::secret::{self, SecretText};
use crate::settings::upsert::{DeleteWhen, Evolve, Mode, UpsertKeys};
use crate::settings::{HumanDuration, TlsConfig};
use crate::types::Secret;

/// PostgreSQL's own limit for the columns of a table, less the fixed ones, and one that marks deletes.
const COLUMNS_MAX: usize = 1600 - 4;

/// The server truncates longer names, and would then not find them.
const NAME_BYTES_MAX: usize = 63;

/// Longest wait on the server.
const WAIT_MAX: HumanDuration = HumanDuration::secs(3600);

/// A sink that writes rows into a table of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PostgresSettings {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; special characters are percent-encoded.
    /// Parameters of libpq may follow a `?`.
    #[serde(deserialize_with = "secret::deserialize")]
    #[schemars(with = "SecretText")]
    pub url: Secret,
    /// The table that takes the records.
    pub table: String,
    /// The schema in which it is, with `rillway_positions`; by default the first of the role's
    /// search_path.
    #[serde(default)]
    pub schema: Option<String>,
    /// Columns that take typed values, behind `stream`, `offset` and `timestamp`; by default there
    /// are `message_id`, `subject`, `application_properties`, `body` and `body_raw`.
    #[serde(default)]
    pub columns: Option<ColumnsConfig>,
    /// Whether missing tables are created.
    #[serde(default = "create")]
    pub create: bool,
    /// `append`: a row for each message. `upsert`: a row for each `key`, of its latest message.
    #[serde(default)]
    pub mode: Mode,
    /// Names of the columns that tell the rows apart. With `mode = "upsert"` only, which requires it.
    #[serde(default)]
    pub key: Vec<String>,
    /// Messages that delete the row of their key: `empty_body` (those without a body: the default, if the
    /// key is not in the body), `never`, or those with a value, as in `{ from = "/op", equals = "d" }`.
    /// With `mode = "upsert"` only.
    #[serde(default)]
    pub delete_when: Option<DeleteWhen>,
    /// `add`: `columns` that an existing table lacks are added to it at the start. By default the consumer
    /// waits until someone has added them.
    #[serde(default)]
    pub evolve: Option<Evolve>,
    /// Encrypts the connection and verifies the server.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// How long a connection, with its handshake, may take.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: HumanDuration,
    /// How long the transaction of one batch may take.
    #[serde(default = "write_timeout")]
    pub write_timeout: HumanDuration,
    /// How long to wait for a lock that another session holds, before the batch is tried again.
    #[serde(default = "lock_timeout")]
    pub lock_timeout: HumanDuration,
}

fn create() -> bool {
    true
}

fn connect_timeout() -> HumanDuration {
    HumanDuration::secs(10)
}

fn write_timeout() -> HumanDuration {
    HumanDuration::secs(60)
}

fn lock_timeout() -> HumanDuration {
    HumanDuration::secs(10)
}

impl PostgresSettings {
    /// Relative paths start at the folder of the configuration file.
    pub(super) fn locate(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.tls {
            tls.locate(folder);
        }
    }

    pub(super) fn upsert_keys(&self) -> UpsertKeys<'_> {
        UpsertKeys {
            mode: self.mode,
            key: &self.key,
            delete_when: self.delete_when.as_ref(),
            columns: self.columns.as_ref(),
        }
    }

    /// The table and where it is, without a secret.
    pub(super) fn table_and_database(&self) -> String {
        let parsed: tokio_postgres::Config = self.url.reveal().parse().unwrap_or_default();
        let hosts: Vec<String> = parsed
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let ports: Vec<String> = parsed.get_ports().iter().map(u16::to_string).collect();
        let port = if ports.is_empty() { "5432".to_owned() } else { ports.join(",") };
        let database = parsed.get_dbname().or(parsed.get_user()).unwrap_or_default();
        let table = match &self.schema {
            Some(schema) => format!("{schema}.{}", self.table),
            None => self.table.clone(),
        };
        format!("table {table:?} of {}:{port}/{database}", hosts.join(","))
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        self.check_url(bad);
        let names = [("table", Some(&self.table)), ("schema", self.schema.as_ref())];
        for (key, name) in names {
            let Some(name) = name else { continue };
            if !is_name(name) {
                bad(
                    key,
                    format!(
                        "{name:?} is no name: 1 to {NAME_BYTES_MAX} bytes, without control characters"
                    ),
                );
            } else if name.contains('.') {
                bad(key, format!("{name:?} has a dot: give schema and table a key each"));
            }
        }
        if self.table == "rillway_positions" {
            bad("table", "rillway keeps its positions under this name: take another".to_owned());
        }
        for (key, time) in [
            ("connect_timeout", self.connect_timeout),
            ("write_timeout", self.write_timeout),
            ("lock_timeout", self.lock_timeout),
        ] {
            if time.0 < Duration::from_millis(1) || time > WAIT_MAX {
                bad(key, format!("{time} is out of range: at least 1ms, at most {WAIT_MAX}"));
            }
        }
        if self.lock_timeout >= self.write_timeout {
            let (lock, write) = (self.lock_timeout, self.write_timeout);
            bad("lock_timeout", format!("{lock} is not below write_timeout, which is {write}"));
        }
        if let Some(what) = self.tls.as_ref().and_then(TlsConfig::contradiction) {
            bad("tls", what.to_owned());
        }
        if self.tls.as_ref().is_some_and(TlsConfig::is_half_an_identity) {
            bad("tls", "`cert` and `key` go together: one of them is missing".to_owned());
        }
        self.check_columns(bad);
        self.upsert_keys().check(bad);
    }

    /// Does not show the URL itself.
    fn check_url(&self, bad: &mut impl FnMut(&str, String)) {
        if is_ambiguous(self.url.reveal()) {
            return bad(
                "url",
                "it cannot be told where the password ends and the host begins: in user, password \
                 and all that follows, @ has to be written %40, / in user or password %2F, ? %3F, # %23"
                    .to_owned(),
            );
        }
        let parsed: Result<tokio_postgres::Config, _> = self.url.reveal().parse();
        let Ok(parsed) = parsed else {
            return bad(
                "url",
                "not the URL of a PostgreSQL database: expected \
                 postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters \
                 percent-encoded; of libpq's parameters, those that \
                 docs/guides/postgres.md lists (sslmode is disable or require: `tls` says the rest)"
                    .to_owned(),
            );
        };
        if parsed.get_hosts().is_empty() && parsed.get_hostaddrs().is_empty() {
            bad("url", "it names no host".to_owned());
        }
        if self.tls.is_some() && self.url.reveal().contains("sslmode=disable") {
            bad("tls", "`url` has sslmode=disable, so nothing would be encrypted".to_owned());
        }
    }

    fn check_columns(&self, bad: &mut impl FnMut(&str, String)) {
        let Some(columns) = &self.columns else { return };
        for column in columns.0.iter().filter(|column| !is_name(&column.name)) {
            let name = &column.name;
            bad(
                "columns",
                format!(
                    "{name:?} is no name: 1 to {NAME_BYTES_MAX} bytes, without control characters"
                ),
            );
        }
        columns.check_names(&OWN, true, bad);
        columns.check_count(COLUMNS_MAX, bad);
    }
}

/// Whether the user or password may contain a character that should be percent-encoded and ends it early.
/// Then parts of the password would be taken for the host or the database, which are shown.
fn is_ambiguous(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let Some((credentials, place)) = rest.split_once('@') else { return false };
    credentials.contains(['/', '?', '#']) || place.contains('@')
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}
