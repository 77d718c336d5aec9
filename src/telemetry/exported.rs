//! Metrics of the export of traces.

use super::labels::Label;
pub use super::labels::SpanResult;
use super::names;

/// Counts spans.
pub fn count(result: SpanResult, spans: u64) {
    metrics::counter!(names::TRACE_SPANS.name, "result" => result.label()).increment(spans);
}

/// Shows the counts from 0 on.
pub fn in_use() {
    SpanResult::ALL.iter().for_each(|result| count(*result, 0));
}
