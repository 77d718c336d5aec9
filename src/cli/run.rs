//! `rillway run`: the daemon, from the first log line to the last stored offset.
//!
//! Signals: SIGINT and SIGTERM start a graceful shutdown within `shutdown_grace`; a second one, at
//! least [`SECOND_SIGNAL_AFTER`] later, stops at once. SIGUSR1 stores every durable offset now.
//! SIGHUP is sent by a terminal that closes: if the log goes to a terminal, it starts a graceful
//! shutdown; otherwise it is ignored, like SIGUSR2, because there is no reload yet.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_tokio::Signals;
use tokio::sync::oneshot;

use super::exit::Failure;
use crate::admin;
use crate::config::{Config, LogFormat};
use crate::supervisor::{Drained, Supervisor};
use crate::telemetry::logging::{self, Format};
use crate::telemetry::systemd::{self, Notifier};
use crate::telemetry::{self, prometheus};
use crate::types::ConsumerKey;

/// Runs all consumers until a signal ends them.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // First of all: an earlier signal kills the process or, if this is process 1, is lost.
    let taken = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = Signals::new(taken).context("cannot take signals")?;
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    logging::init(format, config.log.filter())?;
    let recorder = telemetry::install()?;
    let upkeep = tokio::spawn(prometheus::upkeep(recorder.clone()));
    // Checked now: a closed terminal no longer counts as one.
    let on_terminal = std::io::stderr().is_terminal();
    let listener = match config.admin.enabled {
        true => Some(admin::bind(config.admin.listen).await.map_err(Failure::unavailable)?),
        false => None,
    };
    let notifier = Arc::new(Notifier::from_env()?);
    let (count, watches) = (config.consumers.len(), config.watches.len());
    let mut supervisor = Supervisor::start_all(&config);

    let watchdog = {
        let (notifier, heartbeats) = (Arc::clone(&notifier), supervisor.heartbeats().clone());
        tokio::spawn(async move { systemd::watch(&notifier, &heartbeats).await })
    };
    let (stop_admin, stopped) = oneshot::channel::<()>();
    let server = listener.map(|listener| {
        let shutdown = async { drop(stopped.await) };
        tokio::spawn(admin::serve(listener, supervisor.overview(), recorder, shutdown))
    });
    notifier.ready();
    notifier.status(&match (count, watches) {
        (_, 0) => format!("running {count} consumers"),
        (0, _) => format!("watching the references of {watches} [[watch]] tables"),
        _ => format!("running {count} consumers, and watching others"),
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        consumers = count,
        watches,
        admin = config.admin.enabled.then(|| config.admin.listen.to_string()),
        "running"
    );

    let grace = config.shutdown_grace.0;
    let Some(signal) = until_told(&mut signals, &mut supervisor, on_terminal).await else {
        supervisor.drain(grace).await;
        let what = "the reader of standard output has closed it, and no consumer has another sink; everything \
                    that was written is stored";
        return Err(Failure::unavailable(what).into());
    };
    tracing::info!(
        signal,
        grace_ms = grace.as_millis(),
        "graceful shutdown; the same signal again, at least one second later, stops at once"
    );
    notifier.stopping();
    let began = Instant::now();
    let drained = tokio::select! {
        drained = supervisor.drain(grace) => drained,
        () = again(&mut signals, began) => {
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

/// Handles signals until one ends the daemon, and returns its name; `None` if the reader of
/// standard output has closed it.
async fn until_told(
    signals: &mut Signals,
    supervisor: &mut Supervisor,
    on_terminal: bool,
) -> Option<&'static str> {
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = supervisor.nobody_reads() => return None,
        };
        match signal {
            Some(SIGUSR1) => {
                tracing::info!("SIGUSR1: storing every durable offset now");
                supervisor.commit_all();
            }
            Some(SIGHUP) if on_terminal => return Some("SIGHUP"),
            Some(signal @ (SIGHUP | SIGUSR2)) => ignored(signal),
            Some(SIGINT) => return Some("SIGINT"),
            Some(SIGTERM) => return Some("SIGTERM"),
            Some(_) => {}
            None => return Some("none: the signals ended"),
        }
    }
}

fn ignored(signal: i32) {
    let signal = if signal == SIGHUP { "SIGHUP" } else { "SIGUSR2" };
    tracing::warn!(
        signal,
        "ignored: Rillway reads its configuration only at the start. Restart it to apply changes"
    );
}

/// Waits for the second signal; the first one came when the drain began.
async fn again(signals: &mut Signals, began: Instant) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGINT | SIGTERM if is_second(began.elapsed()) => return,
            SIGINT | SIGTERM => tracing::info!(
                "a second signal within {SECOND_SIGNAL_AFTER:?} counts as the first; still draining"
            ),
            SIGHUP | SIGUSR2 => ignored(signal),
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
