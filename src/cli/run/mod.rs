//! `rillway run`: the daemon, from the first log line to the last stored offset.
//!
//! Signals: SIGINT and SIGTERM start a graceful shutdown within `shutdown_grace`; a second one, at
//! least [`SECOND_SIGNAL_AFTER`] later, stops at once. SIGUSR1 stores every durable offset now.
//! SIGHUP reloads the configuration. It is also what a terminal that closes sends: if the log goes to a
//! terminal, it starts a graceful shutdown instead. SIGUSR2 is ignored.

mod operator;
mod reload;
mod watch;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_tokio::Signals;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::operator::Operator;
use self::reload::Reloader;
use super::door;
use super::exit::Failure;
use super::traces;
use crate::admin;
use crate::config::{Config, Env, LogFormat};
use crate::otlp::Exporter;
use crate::supervisor::{Drained, Supervisor};
use crate::telemetry::logging::{self, LineFormat};
use crate::telemetry::systemd::{self, Notifier};
use crate::telemetry::{self, prometheus};
use crate::types::ConsumerKey;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Reload the configuration whenever its file changes
    #[arg(long)]
    watch_config: bool,
}

/// Runs all consumers until a signal ends them.
pub async fn run(config: Config, env: Env, args: &RunArgs) -> anyhow::Result<()> {
    // First of all: an earlier signal kills the process or, if this is process 1, is lost.
    let taken = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = Signals::new(taken).context("cannot take signals")?;
    let format = match config.log.format {
        LogFormat::Text => LineFormat::Text,
        LogFormat::Json => LineFormat::Json,
    };
    let recorder = telemetry::install()?;
    let (layer, exporter) = traces::start(config.traces.as_ref());
    logging::init(format, config.log.filter(), layer)?;
    traces::tell(&config);
    let done = serve(config, env, args, (recorder, &mut signals), exporter.clone()).await;
    // What ends late, or at once, waits for nothing more.
    let is_late =
        |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Failure::Unfinished(_)));
    if !done.as_ref().is_err_and(is_late) {
        traces::finish(exporter.as_deref()).await;
    }
    done
}

/// The daemon, once it can tell what happens.
async fn serve(
    config: Config,
    env: Env,
    args: &RunArgs,
    (recorder, signals): (PrometheusHandle, &mut Signals),
    exporter: Option<Arc<Exporter>>,
) -> anyhow::Result<()> {
    let upkeep = tokio::spawn(prometheus::upkeep(recorder.clone()));
    // Checked now: a closed terminal no longer counts as one.
    let on_terminal = std::io::stderr().is_terminal();
    let listener = match config.admin.enabled {
        true => Some((
            door::entrance(&config.admin)?,
            admin::bind(config.admin.listen).await.map_err(Failure::unavailable)?,
        )),
        false => None,
    };
    let notifier = Arc::new(Notifier::from_env()?);
    let (count, watches) = (config.consumers.len(), config.watches.len());
    let admin = config.admin.enabled.then(|| config.admin.listen.to_string());
    let summary = reload::summary(&config);
    let supervisor = Arc::new(Supervisor::start_all(&config));
    let reloader =
        Reloader::new(config, env, Arc::clone(&supervisor), Arc::clone(&notifier), exporter);
    let reloader = Arc::new(reloader);
    let operator = Arc::new(Operator::new(&supervisor, &reloader));

    let watchdog = {
        let (notifier, heartbeats) = (Arc::clone(&notifier), supervisor.heartbeats().clone());
        tokio::spawn(async move { systemd::watch(&notifier, &heartbeats).await })
    };
    let (stop_admin, stopped) = oneshot::channel::<()>();
    let server = listener.map(|(entrance, listener)| {
        let shutdown = async { drop(stopped.await) };
        let (overview, control) = (supervisor.overview(), Arc::<Operator>::clone(&operator));
        tokio::spawn(admin::serve(listener, entrance, overview, control, recorder, shutdown))
    });
    let watching =
        args.watch_config.then(|| tokio::spawn(watch::watch(Arc::clone(&reloader))).abort_handle());
    notifier.ready();
    notifier.status(&summary);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        consumers = count,
        watches,
        admin,
        config = %reloader.path().display(),
        watched = args.watch_config,
        "running"
    );

    let end = until_told(signals, &supervisor, &operator, &reloader, on_terminal).await;
    let grace = reloader.config().shutdown_grace.0;
    watching.iter().for_each(AbortHandle::abort);
    let signal = match end {
        End::Signal(signal) => Some(signal),
        End::Drain => None,
        End::NobodyReads => {
            supervisor.drain(grace).await;
            let what = "the reader of standard output has closed it, and no consumer has another sink; everything \
                        that was written is stored";
            return Err(Failure::unavailable(what).into());
        }
    };
    match signal {
        Some(signal) => tracing::info!(
            signal,
            grace_ms = grace.as_millis(),
            "graceful shutdown; the same signal again, at least one second later, stops at once"
        ),
        None => tracing::info!(grace_ms = grace.as_millis(), "graceful shutdown, by an operator"),
    }
    notifier.stopping();
    let began = Instant::now();
    let drained = tokio::select! {
        drained = supervisor.drain(grace) => drained,
        () = again(signals, signal.map(|_| began)) => {
            tracing::error!("stopped at once; messages after the stored offsets are read again at the next start");
            let what = "stopped at once by a second signal, before all offsets were stored";
            return Err(Failure::Unfinished(what.to_owned()).into());
        }
    };
    drop(stop_admin);
    if let Some(server) = server
        && let Err(error) = server.await
    {
        tracing::warn!(%error, "the admin server failed");
    }
    watchdog.abort();
    upkeep.abort();
    conclude(drained, began)
}

/// Two signals within this time count as one: `timeout` and some terminals send theirs twice.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_secs(1);

/// True if a signal this long after the first one counts as the second.
fn is_second(since_the_first: Duration) -> bool {
    since_the_first >= SECOND_SIGNAL_AFTER
}

/// Why the daemon ends.
enum End {
    /// A signal, by its name.
    Signal(&'static str),
    /// An operator told it to.
    Drain,
    /// The reader of standard output has closed it.
    NobodyReads,
}

/// Handles signals until something ends the daemon.
async fn until_told(
    signals: &mut Signals,
    supervisor: &Arc<Supervisor>,
    operator: &Operator,
    reloader: &Arc<Reloader>,
    on_terminal: bool,
) -> End {
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = operator.drains() => return End::Drain,
            () = supervisor.nobody_reads() => return End::NobodyReads,
        };
        match signal {
            Some(SIGUSR1) => {
                tracing::info!("SIGUSR1: storing every durable offset now");
                supervisor.commit_all();
            }
            Some(SIGHUP) if on_terminal => return End::Signal("SIGHUP"),
            Some(SIGHUP) => {
                let reloader = Arc::clone(reloader);
                // Signals are handled meanwhile. It logs its result.
                tokio::spawn(async move { reloader.reload("SIGHUP", Duration::ZERO).await });
            }
            Some(SIGUSR2) => tracing::warn!(signal = "SIGUSR2", "ignored: it has no meaning"),
            Some(SIGINT) => return End::Signal("SIGINT"),
            Some(SIGTERM) => return End::Signal("SIGTERM"),
            Some(_) => {}
            None => return End::Signal("none: the signals ended"),
        }
    }
}

/// Waits for the second signal. The first one came at that time; `None` if the daemon was told to end in
/// another way, so that one which follows (as in a Kubernetes `preStop`) is the first.
async fn again(signals: &mut Signals, mut first: Option<Instant>) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGINT | SIGTERM => match first {
                Some(first) if is_second(first.elapsed()) => return,
                Some(_) => tracing::info!(
                    "a second signal within {SECOND_SIGNAL_AFTER:?} counts as the first; still draining"
                ),
                None => {
                    first = Some(Instant::now());
                    tracing::info!("already draining; another signal stops at once");
                }
            },
            SIGHUP | SIGUSR2 => {
                let signal = if signal == SIGHUP { "SIGHUP" } else { "SIGUSR2" };
                tracing::warn!(signal, "ignored: the daemon is shutting down");
            }
            _ => {}
        }
    }
    std::future::pending().await
}

fn conclude(drained: Drained, began: Instant) -> anyhow::Result<()> {
    let Drained { late, halted, failed } = drained;
    for (ConsumerKey { consumer, stream }, reason) in &halted {
        tracing::warn!(%consumer, %stream, %reason, "the consumer had halted");
    }
    for (ConsumerKey { consumer, stream }, reason) in &failed {
        tracing::warn!(%consumer, %stream, %reason, "the consumer had failed; messages after its stored offset are read again at the next start");
    }
    if late.is_empty() {
        let of = if halted.is_empty() && failed.is_empty() { "" } else { " of the others" };
        tracing::info!(
            took_ms = began.elapsed().as_millis(),
            "shutdown complete; every durable offset{of} is stored"
        );
        return Ok(());
    }
    Err(Failure::Unfinished(format!(
        "not finished within shutdown_grace: {}; messages after their stored offsets are read again at the next start",
        names_of(&late).join(", ")
    ))
    .into())
}

/// Names of the consumers, with the stream if there are several of one consumer.
fn names_of(keys: &[ConsumerKey]) -> Vec<String> {
    let is_alone =
        |key: &ConsumerKey| keys.iter().filter(|other| other.consumer == key.consumer).count() == 1;
    let name = |key: &ConsumerKey| match is_alone(key) {
        true => key.consumer.to_string(),
        false => key.to_string(),
    };
    keys.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_where_a_consumer_has_several() {
        let key = |(consumer, stream): (&str, &str)| ConsumerKey {
            consumer: consumer.into(),
            stream: stream.into(),
        };
        let keys: Vec<_> = [("a", "s"), ("b", "s-0"), ("b", "s-1")].map(key).into();
        assert_eq!(names_of(&keys), ["a", "b on s-0", "b on s-1"]);
    }

    #[test]
    fn signals_that_follow_at_once_are_one() {
        for (after_ms, second) in [(0, false), (1, false), (999, false), (1000, true), (9999, true)]
        {
            assert_eq!(is_second(Duration::from_millis(after_ms)), second, "{after_ms} ms");
        }
    }
}
