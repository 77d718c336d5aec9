//! The page of the metrics.

use metrics::Unit;

use super::{Table, flat};
use crate::telemetry::names::{ALL, Kind};

const INTRODUCTION: &str = "\
This page is made from the program's own table of metrics. They are on `GET /metrics` of the [admin server](../guides/status.md),
in the text format of Prometheus. A metric that was never counted is not there, and neither is a value that is not known.

- `consumer` is the name of a consumer, `stream` the stream that it reads: each partition of a super stream is one.
- `reference` is the name of a [watched](../guides/watching.md) reference, `metric` that of a
  [metric made from messages](../guides/metrics-from-messages.md).
- `reason`, `result` and `state` have few values, and none that comes from a message or a peer.

The process itself is in `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`,
`process_max_fds`, `process_threads`, `process_start_time_seconds` and others, as Prometheus' own client libraries name
them. What to watch: [operations](../guides/operations.md); alerts:
[alerts.yml](../../deploy/prometheus/alerts.yml), with [a page for each](../runbook/README.md).

";

pub(super) fn page() -> String {
    let mut rows = Table::new(&["name", "kind", "unit", "labels", "what it tells"]);
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let unit = match metric.unit {
            Unit::Count => String::new(),
            unit => unit.as_str().to_owned(),
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        rows.row([
            format!("`{}`", metric.name),
            kind.to_owned(),
            unit,
            labels.join(", "),
            flat(metric.help),
        ]);
    }
    format!("{INTRODUCTION}{}", rows.markdown())
}
