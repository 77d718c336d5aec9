//! Metrics of the configuration that is in use.

use super::labels::{ConfigResult, Label};
use super::names;
use crate::types::Timestamp;

/// The configuration was loaded at the start.
pub fn started(at: Timestamp) {
    for result in ConfigResult::ALL {
        metrics::counter!(names::CONFIG_RELOADS.name, "result" => result.label()).increment(0);
    }
    loaded(at);
}

/// An attempt to load it again has ended.
pub fn reloaded(result: ConfigResult, at: Timestamp) {
    metrics::counter!(names::CONFIG_RELOADS.name, "result" => result.label()).increment(1);
    match result {
        ConfigResult::Applied | ConfigResult::Unchanged => loaded(at),
        ConfigResult::Failed => metrics::gauge!(names::CONFIG_RELOAD_SUCCESS.name).set(0.0),
    }
}

fn loaded(at: Timestamp) {
    metrics::gauge!(names::CONFIG_RELOAD_SUCCESS.name).set(1.0);
    metrics::gauge!(names::CONFIG_LAST_RELOAD.name).set(Timestamp(0).seconds_until(at));
}
