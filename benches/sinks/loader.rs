//! A bulk loader, run as a user would run it, and measured from outside.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::options::Options;
use crate::{process, rows};

/// Time between two samples of its memory.
const LOOK: Duration = Duration::from_millis(10);

/// Result of one run.
pub(crate) struct Run {
    pub(crate) messages: u64,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    pub(crate) memory_peak: u64,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn megabytes(&self) -> f64 {
        self.rate() * rows::BODY_BYTES as f64 / 1e6
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} messages/s, {:.0} MB/s, {:.2} µs of CPU time each",
            self.rate(),
            self.megabytes(),
            self.cpu_us()
        )
    }
}

/// Runs the program to its end. It prints its own measurements: seconds, seconds of CPU time, and bytes
/// of memory.
pub(crate) fn run_telling(mut command: Command, options: &Options) -> anyhow::Result<Run> {
    let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let out = out.with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?} ended: {}", out.status);
    let text = String::from_utf8(out.stdout)?;
    let numbers: Vec<f64> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(text.clone())?;
    let [took, cpu, memory] = numbers[..] else { bail!("it said: {text}") };
    Ok(Run {
        messages: options.messages,
        took: Duration::from_secs_f64(took),
        cpu: Duration::from_secs_f64(cpu),
        memory_peak: memory as u64,
    })
}

/// Runs the program to its end.
pub(crate) fn run(mut command: Command, options: &Options) -> anyhow::Result<Run> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let pid = child.id();
    let mut memory_peak = 0;
    // Samples until it has ended, and before it is reaped: its times can still be read then.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let id = Pid::from_raw(i32::try_from(pid)?).context("a process has a number")?;
    while waitid(WaitId::Pid(id), ended)?.is_none() {
        memory_peak = memory_peak.max(process::memory_peak(pid).unwrap_or_default());
        std::thread::sleep(LOOK);
    }
    let took = began.elapsed();
    let cpu = process::cpu(pid)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?} ended: {status}");
    }
    Ok(Run { messages: options.messages, took, cpu, memory_peak })
}
