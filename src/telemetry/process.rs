//! Metrics of the process: CPU, memory, file descriptors, threads and start time, under the names
//! of Prometheus' own clients (`process_*`).

use std::sync::{LazyLock, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

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
    // Its own value needs /proc/stat, which a service may not see (ProcSubset=pid).
    metrics::gauge!("process_start_time_seconds").set(*STARTED);
}

/// The first use, in seconds since 1970: at the start of the process.
pub static STARTED: LazyLock<f64> = LazyLock::new(|| {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
});
