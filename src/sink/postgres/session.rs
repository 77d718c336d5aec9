//! One connection to the server: made within a time limit, set up, and closed when dropped.
//!
//! A task of its own drives the connection, and ends with the [`Session`]: the socket is closed at once,
//! and the server rolls back every open transaction.
//!
//! Settings, with the reasons:
//! - `lock_timeout`, `statement_timeout`: the server itself gives up, so that no statement waits on after
//!   we have stopped waiting for it.
//! - `idle_in_transaction_session_timeout` and the server's TCP keepalives: a session whose process was
//!   frozen, or whose machine is gone, does not hold its locks forever.
//! - `synchronous_commit` is raised to `on` if a role or database has it `off`: a confirmed commit has to
//!   be durable. Other values, such as `remote_apply`, stay.
//! - READ COMMITTED: whether a transaction of ours still counts (`claim.rs`) is looked up again after a
//!   wait for a lock.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

use super::error::{late, transient};
use crate::sink::SinkError;
use crate::tls::{self, TlsOptions};
use crate::types::Secret;

/// Time limit for a graceful close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Parameters of a connection.
#[derive(Clone, Debug)]
pub(super) struct Door {
    config: Config,
    tls: Option<TlsOptions>,
    timeout: Duration,
    /// The server and database as text, without a secret.
    pub(super) place: String,
}

impl Door {
    /// # Errors
    /// If the URL is wrong; the text says why.
    pub(super) fn new(
        url: &Secret,
        tls: Option<TlsOptions>,
        timeout: Duration,
        name: &str,
    ) -> Result<Door, String> {
        let mut config: Config = url.reveal().parse().map_err(|_| {
            "url: not a PostgreSQL connection URL, as in postgres://USER:PASSWORD@HOST:5432/DATABASE"
                .to_owned()
        })?;
        let encrypted = tls.is_some() || config.get_ssl_mode() == SslMode::Require;
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(timeout);
        // A server that disappeared is noticed within a minute.
        config.keepalives_idle(Duration::from_secs(30));
        config.keepalives_interval(Duration::from_secs(10));
        config.keepalives_retries(3);
        if config.get_application_name().is_none() {
            // The server cuts names off at 63 bytes.
            config.application_name(format!("rillway {name}"));
        }
        let place = place(&config);
        let tls = encrypted.then(|| tls.unwrap_or_default());
        Ok(Door { config, tls, timeout, place })
    }

    /// Connects and logs in.
    pub(super) async fn open(&self) -> Result<Session, SinkError> {
        let Some(tls) = &self.tls else { return self.connect(NoTls).await };
        let failed = |what: &dyn std::fmt::Display| {
            SinkError::transient(format!(
                "could not connect to PostgreSQL at {}: tls: {what}",
                self.place
            ))
        };
        let options = tls.clone();
        // On a thread of its own: the files may be on a file system that hangs.
        let reading = tokio::task::spawn_blocking(move || tls::current(&options));
        let read = tokio::time::timeout(self.timeout, reading).await;
        let read = read.map_err(|_| {
            failed(&format_args!("the certificate files were not read within {:?}", self.timeout))
        })?;
        let config = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let inner = MakeRustlsConnect::new((*config).clone());
        self.connect(Named { inner, name: tls.server_name.clone() }).await
    }

    async fn connect<T>(&self, tls: T) -> Result<Session, SinkError>
    where
        T: MakeTlsConnect<Socket> + Send,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<Socket>>::Future: Send,
    {
        let connecting = tokio::time::timeout(self.timeout, self.config.connect(tls)).await;
        match connecting {
            Ok(Ok((client, connection))) => {
                let until_it_ends = async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "the connection to PostgreSQL has ended");
                    }
                };
                let task = tokio::spawn(until_it_ends.in_current_span());
                Ok(Session { client, task: Task(task) })
            }
            Ok(Err(error)) => Err(transient("connect to PostgreSQL", &self.place, &error)),
            Err(_elapsed) => Err(SinkError::transient(format!(
                "could not connect to PostgreSQL at {}: no answer within {:?} (connect_timeout)",
                self.place, self.timeout
            ))),
        }
    }
}

/// `db.example:5432/events`, without user and password.
fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |nth: usize| ports.get(nth).or(ports.first()).copied().unwrap_or(5432);
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(nth, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(nth)),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{}", path.display(), port(nth)),
        })
        .collect();
    if hosts.is_empty() {
        let addresses = config.get_hostaddrs().iter().enumerate();
        hosts.extend(addresses.map(|(nth, address)| format!("{address}:{}", port(nth))));
    }
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

/// TLS that verifies another name than the host's, if one is set.
struct Named {
    inner: MakeRustlsConnect,
    name: Option<String>,
}

impl MakeTlsConnect<Socket> for Named {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let name = self.name.as_deref().unwrap_or(host);
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.inner, name)
    }
}

/// A connection that is logged in.
pub(super) struct Session {
    pub(super) client: Client,
    task: Task,
}

/// Ends the task that drives a connection, and with it the connection.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Applies the settings that the module's documentation explains.
    pub(super) async fn set_up(&self, lock: Duration, whole: Duration) -> Result<(), Error> {
        let (lock, whole) = (lock.as_millis(), whole.as_millis());
        self.client
            .batch_execute(&format!(
                "SET lock_timeout = {lock}; SET statement_timeout = {whole}; \
                 SET idle_in_transaction_session_timeout = {whole}; \
                 SET default_transaction_isolation = 'read committed'; \
                 SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
                 SET tcp_keepalives_count = 3; \
                 SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'"
            ))
            .await
    }

    /// Closes the session gracefully, and waits for the connection to end.
    pub(super) async fn close(self) {
        let Session { client, mut task } = self;
        drop(client);
        // A connection that does not end in time is cut.
        drop(tokio::time::timeout(CLOSE_MAX, &mut task.0).await);
    }
}

/// Adds a time limit to a request.
pub(super) async fn within<T>(
    limit: Duration,
    place: &str,
    what: &str,
    asked: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, SinkError> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(late(what, place, limit)),
    }
}
