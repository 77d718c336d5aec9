//! `rillway run`: the daemon.

use crate::config::Config;

/// Runs all consumers until a signal ends them.
pub async fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("there is no supervisor yet for {} consumers", config.consumers.len())
}
