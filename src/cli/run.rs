//! `rillway run`: the daemon, from its first log line to its last stored offset.
//!
//! Signals: SIGINT and SIGTERM drain and store within `shutdown_grace`, a second one stops at once;
//! SIGUSR1 stores every durable offset now.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;
use tokio::sync::oneshot;

use super::exit::Failure;
use crate::admin;
use crate::config::{Config, LogFormat};
use crate::supervisor::{Drained, Supervisor, plan_of};
use crate::telemetry::logging::{self, Format};
use crate::telemetry::systemd::{self, Notifier};
use crate::telemetry::{self, prometheus};

/// Runs all consumers until a signal ends them.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    logging::init(format, config.log.filter())?;
    let recorder = telemetry::install()?;
    let upkeep = tokio::spawn(prometheus::upkeep(recorder.clone()));
    // Before anything starts, so that no signal is lost.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).context("cannot take signals")?;
    let listener = match config.admin.enabled {
        true => Some(admin::bind(config.admin.listen).await.map_err(Failure::unavailable)?),
        false => None,
    };
    let notifier = Arc::new(Notifier::from_env()?);
    let plans: Vec<_> = config.consumers.iter().map(|c| plan_of(&config, c)).collect();
    let count = plans.len();
    let supervisor = Supervisor::start(plans);

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
    notifier.status(&format!("running {count} consumers"));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        consumers = count,
        admin = config.admin.enabled.then(|| config.admin.listen.to_string()),
        "running"
    );

    let signal = until_told(&mut signals, &supervisor).await;
    let grace = config.shutdown_grace.0;
    tracing::info!(
        signal,
        grace_ms = grace.as_millis(),
        "draining; the same signal again stops at once"
    );
    notifier.stopping();
    let began = Instant::now();
    let drained = tokio::select! {
        drained = supervisor.drain(grace) => drained,
        () = again(&mut signals) => {
            tracing::error!("stopped at once; what was not stored is read again next time");
            return Err(Failure::unavailable("stopped before all offsets were stored").into());
        }
    };
    drop(stop_admin);
    if let Some(server) = server
        && let Err(error) = server.await
    {
        tracing::warn!(%error, "the admin server ended with a fault");
    }
    watchdog.abort();
    upkeep.abort();
    conclude(drained, began)
}

/// Carries out what signals ask for, until one asks for the end; says which.
async fn until_told(signals: &mut Signals, supervisor: &Supervisor) -> &'static str {
    loop {
        match signals.next().await {
            Some(SIGUSR1) => {
                tracing::info!("SIGUSR1: storing every durable offset now");
                supervisor.commit_all();
            }
            Some(SIGINT) => return "SIGINT",
            Some(SIGTERM) => return "SIGTERM",
            Some(_) => {}
            None => return "none: the signals ended",
        }
    }
}

/// Waits for a second signal to end.
async fn again(signals: &mut Signals) {
    while let Some(signal) = signals.next().await {
        if signal != SIGUSR1 {
            return;
        }
    }
    std::future::pending().await
}

fn conclude(drained: Drained, began: Instant) -> anyhow::Result<()> {
    let Drained { late, halted, failed } = drained;
    for (consumer, reason) in &halted {
        tracing::warn!(%consumer, %reason, "the consumer had halted");
    }
    for (consumer, reason) in &failed {
        tracing::warn!(%consumer, %reason, "the consumer had failed; what it had not stored is read again next time");
    }
    if late.is_empty() {
        let of = if halted.is_empty() && failed.is_empty() { "" } else { " of the others" };
        tracing::info!(
            took_ms = began.elapsed().as_millis(),
            "drained; every durable offset{of} is stored"
        );
        return Ok(());
    }
    let names: Vec<_> = late.iter().map(ToString::to_string).collect();
    Err(Failure::unavailable(format!(
        "not drained within shutdown_grace: {}; what they had not stored is read again next time",
        names.join(", ")
    ))
    .into())
}
