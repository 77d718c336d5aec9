//! `rillway offsets`: shows the positions of consumers, and moves them.

mod daemon;
mod moving;
mod rename;
mod show;
pub(super) mod to;
mod transfer;

pub(super) use transfer::fuzz_exported;

use clap::{Args, Subcommand};

use super::exit::Failure;
use crate::config::{Config, ConsumerConfig};
use crate::supervisor::{self, Plan};

/// Arguments of `offsets`.
#[derive(Debug, Args)]
pub(super) struct OffsetsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show where each consumer stands: on the broker, in the state file, in its sink, and where it goes on
    Show(show::ShowArgs),
    /// Move a consumer that does not run: the offset on the broker, the state file and the sink, together
    Set(moving::SetArgs),
    /// The same, to the start in the configuration
    Reset(moving::ResetArgs),
    /// Give a consumer that does not run another reference, with its position on the broker, in the state file and
    /// in its sink
    Rename(rename::RenameArgs),
    /// Write where every consumer goes on, as JSON
    Export(transfer::ExportArgs),
    /// Move the consumers to where `export` saw them; if one cannot be moved there, none is
    Import(transfer::ImportArgs),
}

/// Runs the subcommand.
pub(super) async fn offsets(
    config: Config,
    args: OffsetsArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    match args.command {
        Command::Show(args) => show::show(&config, &args, as_json).await,
        Command::Set(args) => moving::set(&config, &args, as_json).await,
        Command::Reset(args) => moving::reset(&config, &args, as_json).await,
        Command::Rename(args) => rename::rename(&config, &args, as_json).await,
        Command::Export(args) => transfer::export(&config, &args).await,
        Command::Import(args) => transfer::import(&config, &args, as_json).await,
    }
}

/// The consumer of this name.
fn find<'c>(config: &'c Config, name: &str) -> Result<&'c ConsumerConfig, Failure> {
    config.consumers.iter().find(|consumer| consumer.name.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = config.consumers.iter().map(|c| c.name.as_str()).collect();
        Failure::Usage(format!("there is no consumer {name:?}: there are {}", known.join(", ")))
    })
}

/// The plan of each stream of the consumer: of a super stream, those of its partitions.
async fn plans_of(config: &Config, consumer: &ConsumerConfig) -> Result<Vec<Plan>, String> {
    match consumer.is_super_stream {
        false => Ok(vec![supervisor::plan_of(config, consumer)]),
        true => supervisor::partitions_of(config, consumer).await,
    }
}
