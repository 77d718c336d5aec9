//! Ends operations of traces with what came of them, in words. Decides nothing.

use super::brain::Outcome;
use super::orders::{Report, Stopped};
use crate::telemetry::operations::Operation;

/// Ends a write or a flush.
pub(super) fn by_report(operation: Operation, report: &Report, retries: u64) {
    operation.retries(retries);
    operation.result(match report {
        Report::Settled { .. } | Report::Restarted => "durable",
        Report::Part { .. } => "part",
        Report::Held { .. } => "held",
        Report::WoundUp => "wound_up",
        Report::Retrying { .. } => "retried",
        Report::Stopped(_) => "stopped",
    });
    if let Report::Stopped(Stopped { reason, .. }) = report {
        operation.failed(reason);
    }
}

/// Ends what a consumer's run ended with.
pub(super) fn by_outcome(operation: Operation, outcome: &Outcome) {
    let (result, reason) = match outcome {
        Outcome::Drained => ("drained", None),
        Outcome::Halted(reason) => ("halted", Some(reason)),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::Locked(reason) => ("locked", Some(reason)),
        Outcome::Panicked(reason) => ("panicked", Some(reason)),
    };
    operation.result(result);
    if let Some(reason) = reason {
        operation.failed(reason);
    }
}
