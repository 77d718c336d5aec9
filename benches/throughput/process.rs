//! The system's figures for a process: CPU time and peak memory.

use std::time::Duration;

use anyhow::Context as _;

/// The unit of `/proc/PID/stat`, as Linux shows it to programs on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all threads so far, ended ones included.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// Peak resident memory, in bytes.
pub(crate) fn memory_peak(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Resets the peak, and returns the memory that is resident now.
#[allow(dead_code, reason = "this file is part of two benchmarks")]
pub(crate) fn forget_memory_peak(pid: u32) -> anyhow::Result<u64> {
    // See proc(5): writing 5 resets the peak.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    memory_peak(pid)
}
