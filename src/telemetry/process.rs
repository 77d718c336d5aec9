//! Metrics of the process: CPU, memory, file descriptors, threads and start time, under the names
//! of Prometheus' own clients (`process_*`).

use std::sync::OnceLock;

use metrics_process::Collector;

/// Updates the values for a scrape. Reads `/proc`, which does not wait for a disk.
pub fn collect() {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    let collector = COLLECTOR.get_or_init(|| {
        let collector = Collector::default();
        collector.describe();
        collector
    });
    collector.collect();
}
