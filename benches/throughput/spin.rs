//! Keeps the cores of a virtual machine awake: a halted core takes long to wake up again. That delays
//! clients that wait for the broker, and favours those that keep both cores busy.

use std::process::{Child, Command};

use anyhow::Context as _;

/// One process per core, at the idle priority, which runs only when nothing else wants the core.
pub(crate) struct Spinners(Vec<Child>);

impl Spinners {
    pub(crate) fn start() -> anyhow::Result<Spinners> {
        let cores = std::thread::available_parallelism()?.get();
        let one = || {
            Command::new("chrt")
                .args(["--idle", "0", "sh", "-c", "while :; do :; done"])
                .spawn()
                .context("chrt (of util-linux) cannot be run")
        };
        Ok(Spinners((0..cores).map(|_| one()).collect::<Result<_, _>>()?))
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}
