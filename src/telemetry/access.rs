//! Metrics of the access to the admin server.

use super::labels::Label;
pub use super::labels::RefusedReason;
use super::names;

/// Counts a request that the admin server refused.
pub fn refused(reason: RefusedReason) {
    metrics::counter!(names::ADMIN_REFUSED.name, "reason" => reason.label()).increment(1);
}

/// Shows the counts of [`refused`] from 0 on.
pub fn in_use() {
    for reason in RefusedReason::ALL {
        metrics::counter!(names::ADMIN_REFUSED.name, "reason" => reason.label()).increment(0);
    }
}
