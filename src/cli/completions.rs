//! `rillway completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, schema};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell to generate completions for
    shell: Shell,
}

pub(super) fn print(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rillway", &mut text);
    schema::write(&String::from_utf8_lossy(&text))
}
