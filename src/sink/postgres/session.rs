//! One connection to the server: made within a time limit, set up, and gone when it is dropped.
//!
//! The connection is driven by a task of its own, which ends with the [`Session`]: the socket is
//! closed at once, whatever was under way, and the server rolls back what was open.
//!
//! What is set on it, and why:
//! - `lock_timeout`, `statement_timeout`: the server itself gives up, so that nothing of ours waits on
//!   when we have stopped waiting for it.
//! - `idle_in_transaction_session_timeout` and TCP keepalives of the server's: a session whose process
//!   was frozen, or whose machine is gone, does not hold its locks for ever.
//! - `synchronous_commit` is raised to `on` where a role or database has it `off`: a commit that is
//!   confirmed has to be durable. Other settings, such as `remote_apply`, stay.
//! - READ COMMITTED: what decides whether a transaction of ours still counts (`claim.rs`) is looked at
//!   anew after a wait for a lock.

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

/// How long a session that is closed in good order may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What it takes to connect.
#[derive(Clone, Debug)]
pub(super) struct Door {
    config: Config,
    tls: Option<TlsOptions>,
    timeout: Duration,
    /// The server and database, in words without a secret.
    pub(super) place: String,
}

impl Door {
    /// # Errors
    /// What is wrong with the URL, in words.
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
        // A server that is gone without a word is noticed within a minute.
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
        let config = tls::current(tls).map_err(|error| {
            SinkError::transient(format!(
                "could not connect to PostgreSQL at {}: tls: {error}",
                self.place
            ))
        })?;
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

/// TLS that asks for another name than the host's, where one is set.
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
    /// Sets what was argued above.
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

    /// Says goodbye to the server, and waits for the connection to end.
    pub(super) async fn close(self) {
        let Session { client, mut task } = self;
        drop(client);
        // One that does not end in time is cut.
        drop(tokio::time::timeout(GOODBYE, &mut task.0).await);
    }
}

/// Gives what is asked of the server a time limit.
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
