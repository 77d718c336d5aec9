//! The recorder of `/metrics`: it keeps the counts of the handles, and renders them on demand.
//!
//! It opens no socket; `admin` serves the output of [`PrometheusHandle::render`].

use std::convert::Infallible;
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::names::{self, Kind};

/// Upper bounds of the write duration's buckets, in seconds: from a local append with little to
/// sync, to a remote destination close to its time limit.
pub const WRITE_DURATION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Interval at which [`upkeep`] moves a histogram's raw samples into its buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Reason why the recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the metrics recorder could not be installed: {0}. It is installed once per process, before \
     the first consumer is built"
)]
pub struct InstallError(#[from] BuildError);

/// Installs the process's recorder, describes every metric and sets `rillway_build_info`.
///
/// Call it first: handles made earlier are not connected to anything. Spawn [`upkeep`] with the
/// handle: without it the memory of histograms grows between two scrapes, and without a scraper it
/// never stops growing.
pub fn install() -> Result<PrometheusHandle, InstallError> {
    std::sync::LazyLock::force(&super::process::STARTED);
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(BuildError::from)?;
    describe();
    Ok(handle)
}

/// A recorder with this crate's buckets that is not installed.
pub(crate) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let name = Matcher::Full(names::SINK_WRITE_DURATION.name.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(name, WRITE_DURATION_BUCKETS)?
        .build_recorder())
}

/// Passes the help of every metric, and the running version, to the current recorder.
pub(super) fn describe() {
    for metric in names::ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    metrics::gauge!(names::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Bounds the recorder's memory, whether there are scrapes or not. Runs until it is dropped, which
/// is possible at any time.
pub async fn upkeep(handle: PrometheusHandle) -> Infallible {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        handle.run_upkeep();
    }
}
