//! The configuration in use, and how it is replaced while the daemon runs.
//!
//! The file is read and checked whole, secrets included, before anything is touched. A file that cannot be
//! used changes nothing; neither does one that changes a key which cannot change while the daemon runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::admin::{ConfigurationView, LastReload, NotReloaded, ProblemView, Reloaded};
use crate::config::{Config, ConfigError, Env};
use crate::otlp::Exporter;
use crate::supervisor::{Applied, Supervisor};
use crate::sync::lock;
use crate::telemetry::systemd::Notifier;
use crate::telemetry::{ConfigResult, logging, operations, reloads};
use crate::types::Timestamp;

/// Time limit for reading and checking the file, and the files of secrets.
const READ_MAX: Duration = Duration::from_secs(30);

/// The configuration in use, and everything that a reload changes.
pub(super) struct Reloader {
    env: Env,
    supervisor: Arc<Supervisor>,
    notifier: Arc<Notifier>,
    exporter: Option<Arc<Exporter>>,
    /// Held while a configuration is read and applied, so that there is one reload at a time.
    turn: tokio::sync::Mutex<()>,
    in_use: Mutex<InUse>,
}

struct InUse {
    config: Arc<Config>,
    loaded_at: Timestamp,
    last: Option<LastReload>,
}

impl Reloader {
    /// The configuration with which the daemon started.
    pub(super) fn new(
        config: Config,
        env: Env,
        supervisor: Arc<Supervisor>,
        notifier: Arc<Notifier>,
        exporter: Option<Arc<Exporter>>,
    ) -> Reloader {
        let loaded_at = Timestamp::now();
        reloads::started(loaded_at);
        let in_use = InUse { config: Arc::new(config), loaded_at, last: None };
        let (turn, in_use) = (tokio::sync::Mutex::default(), Mutex::new(in_use));
        Reloader { env, supervisor, notifier, exporter, turn, in_use }
    }

    /// The configuration in use.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.in_use).config)
    }

    /// Path of the configuration file.
    pub(super) fn path(&self) -> PathBuf {
        self.config().path.clone().unwrap_or_default()
    }

    /// The configuration as the API shows it.
    pub(super) fn view(&self) -> ConfigurationView {
        let in_use = lock(&self.in_use);
        ConfigurationView {
            file: shown(&in_use.config),
            sha256: in_use.config.sha256.clone(),
            loaded_at: in_use.loaded_at.to_string(),
            consumers: in_use.config.consumers.len(),
            last_reload: in_use.last.clone(),
        }
    }

    /// Reads the file again, applies it, and waits at most `wait` until the changed consumers are replaced. `by` says
    /// who asked for the reload. The result is logged and counted.
    ///
    /// Cancel-safe: the configuration is applied as a whole, or not at all.
    pub(super) async fn reload(&self, by: &str, wait: Duration) -> Result<Reloaded, NotReloaded> {
        let operation = operations::reload(by);
        let (reloaded, applied) = {
            let _turn = self.turn.lock().await;
            let _told = self.notifier.reloading();
            let loaded = self.load().await;
            let concluded = self.conclude(by, loaded);
            match &concluded {
                Ok((reloaded, _)) => operation.result(reloaded.result),
                Err(why) => operation.failed(why),
            }
            concluded?
        };
        let settled = tokio::time::timeout(wait, self.supervisor.settled(&applied)).await;
        drop(operation);
        Ok(Reloaded { finished: settled.is_ok(), ..reloaded })
    }

    async fn load(&self) -> Result<Config, NotReloaded> {
        let (path, env, running) = (self.path(), self.env.clone(), self.config());
        let shown = path.display().to_string();
        let load = move || Config::load_anew(Some(&path), &env, &running);
        match tokio::time::timeout(READ_MAX, tokio::task::spawn_blocking(load)).await {
            Ok(Ok(Ok(config))) => Ok(config),
            Ok(Ok(Err(error))) => Err(refused(&error)),
            Ok(Err(error)) => Err(NotReloaded::Failed(format!("internal error: {error}"))),
            Err(_) => Err(NotReloaded::Failed(format!(
                "{shown}, or a secret that it refers to, could not be read within {READ_MAX:?}"
            ))),
        }
    }

    /// Applies a loaded configuration, and records the result. Does not wait, so nobody sees a configuration that is
    /// half applied.
    fn conclude(
        &self,
        by: &str,
        loaded: Result<Config, NotReloaded>,
    ) -> Result<(Reloaded, Applied), NotReloaded> {
        let done = loaded.and_then(|config| self.apply(config).ok_or(NotReloaded::Ending));
        let at = Timestamp::now();
        let (result, error) = match &done {
            Ok((reloaded, _)) => (reloaded.result, None),
            Err(why) => (ConfigResult::Failed, Some(why.to_string())),
        };
        match &done {
            Ok((reloaded, _)) => log(by, reloaded),
            Err(NotReloaded::Ending) => {
                tracing::warn!(
                    by,
                    "the configuration is not reloaded: the daemon is shutting down"
                );
            }
            Err(why) => {
                tracing::error!(
                    by,
                    "the configuration is not reloaded, and the one in use stays: {why}"
                );
            }
        }
        // A shutdown says nothing about the file.
        if !matches!(done, Err(NotReloaded::Ending)) {
            reloads::reloaded(result, at);
            lock(&self.in_use).last = Some(LastReload { at: at.to_string(), result, error });
        }
        done
    }

    /// `None` if the daemon is shutting down.
    fn apply(&self, new: Config) -> Option<(Reloaded, Applied)> {
        let old = self.config();
        let applied = self.supervisor.apply(&old, &new)?;
        let log_filter = (new.log.filter() != old.log.filter()).then(|| new.log.filter());
        let log_filter = log_filter.and_then(|filter| match logging::set_filter(filter) {
            Ok(()) => Some(filter.to_owned()),
            Err(error) => {
                tracing::error!(%error, "the log's level stays as it is");
                None
            }
        });
        let is_empty = applied.is_empty() && log_filter.is_none();
        let difference = &applied.consumers;
        let reloaded = Reloaded {
            result: if is_empty { ConfigResult::Unchanged } else { ConfigResult::Applied },
            file: shown(&new),
            sha256: new.sha256.clone(),
            added: difference.added.clone(),
            changed: difference.changed.clone(),
            removed: difference.removed.clone(),
            unchanged: difference.unchanged.len(),
            watches_changed: applied.watches_changed,
            log_filter,
            finished: false,
        };
        if new != *old {
            if let (Some(exporter), Some(traces)) = (&self.exporter, &new.traces) {
                exporter.set_headers(&traces.options.headers);
            }
            self.notifier.status(&summary(&new));
            let mut in_use = lock(&self.in_use);
            in_use.config = Arc::new(new);
            in_use.loaded_at = Timestamp::now();
        }
        Some((reloaded, applied))
    }
}

/// The line for `systemctl status`.
pub(super) fn summary(config: &Config) -> String {
    let (count, watches) = (config.consumers.len(), config.watches.len());
    match (count, watches) {
        (_, 0) => format!("running {count} consumers"),
        (0, _) => format!("watching the references of {watches} [[watch]] tables"),
        _ => format!("running {count} consumers, and watching others"),
    }
}

fn shown(config: &Config) -> String {
    config.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn log(by: &str, reloaded: &Reloaded) {
    let names = |all: &[crate::types::ConsumerName]| {
        let names: Vec<&str> = all.iter().map(crate::types::ConsumerName::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let Reloaded { sha256, unchanged, watches_changed, log_filter, .. } = reloaded;
    match reloaded.result {
        ConfigResult::Unchanged => {
            tracing::info!(
                by,
                sha256,
                "the configuration was read again: nothing that runs has changed"
            );
        }
        _ => tracing::info!(
            by,
            sha256,
            added = names(&reloaded.added),
            changed = names(&reloaded.changed),
            removed = names(&reloaded.removed),
            unchanged,
            watches_changed,
            log_filter,
            "the configuration was reloaded"
        ),
    }
}

fn refused(error: &ConfigError) -> NotReloaded {
    let view = |file: Option<String>, line: Option<usize>, message: String| ProblemView {
        file,
        line,
        key: String::new(),
        consumer: None,
        variable: None,
        message,
    };
    let problems = match error {
        ConfigError::Read { path, .. } => {
            vec![view(Some(path.display().to_string()), None, error.to_string())]
        }
        ConfigError::Syntax { path, line, message, .. } => {
            vec![view(Some(path.display().to_string()), Some(*line), message.clone())]
        }
        ConfigError::Invalid { file, problems } => {
            let file = file.as_ref().map(|path| path.display().to_string());
            let one = |problem: &crate::config::Problem| ProblemView {
                key: problem.path.clone(),
                consumer: problem.consumer.clone(),
                variable: problem.variable.clone(),
                ..view(file.clone(), problem.line, problem.message.clone())
            };
            problems.iter().map(one).collect()
        }
    };
    NotReloaded::Refused { text: error.to_string(), problems }
}
