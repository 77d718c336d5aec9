//! What the process takes: CPU, memory, file descriptors and threads, and when it started, under the
//! names that Prometheus' own clients give them (`process_*`).

use std::sync::OnceLock;

use metrics_process::Collector;

/// Reads the figures anew, for a scrape. Reads `/proc`, which does not wait for a disk.
pub fn collect() {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    let collector = COLLECTOR.get_or_init(|| {
        let collector = Collector::default();
        collector.describe();
        collector
    });
    collector.collect();
}
