//! The command line, with one file for each subcommand.
//!
//! Results go to standard output, everything else to standard error. A command fails with an error,
//! whose kind decides the exit code (see [`exit_code`]).

mod broker;
mod cases;
pub mod check;
mod completions;
mod control;
mod dead_letters;
mod door;
mod exit;
#[cfg(all(feature = "object", feature = "postgres"))]
#[cfg(test)]
mod fuzz_tests;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
mod locate;
mod locked;
mod man;
mod offsets;
mod point;
mod print;
mod progress;
pub mod publish;
mod reference;
mod replay;
pub mod run;
mod schema;
mod status;
mod tail;
mod traces;
mod value;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use exit::{
    EXIT_DIFFERS, EXIT_INTERNAL, EXIT_UNAVAILABLE, EXIT_UNFINISHED, EXIT_USAGE, Failure, exit_code,
};

use crate::config::{AdminConfig, Config, Env};

/// Carries RabbitMQ streams into sinks, and never loses a message.
#[derive(Debug, Parser)]
#[command(name = "rillway", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 fine, 64 wrong usage or input, 65 a sink differs from its stream (verify), \
                        69 something is unavailable, 70 internal error, 75 stopped before everything was \
                        stored (nothing is lost), 78 bad configuration."
)]
pub struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// Arguments of every subcommand.
#[derive(Debug, Args)]
pub struct Shared {
    /// The configuration file [default: ./rillway.toml, else /etc/rillway/rillway.toml]
    #[arg(short, long, value_name = "FILE", global = true, env = "RILLWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON on standard output, for programs
    #[arg(long, global = true)]
    json: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until a signal ends it
    Run(run::RunArgs),
    /// Check the configuration and print what each consumer would do
    Check(check::CheckArgs),
    /// Run the cases of the configuration file ([[test]]) through the programs of their consumers
    Test(cases::TestArgs),
    /// Ask a running daemon for its health
    Health(health::HealthArgs),
    /// Show the state of a running daemon, what is wrong first
    Status(status::StatusArgs),
    /// Pause a consumer of a running daemon: it finishes what it has read, and stores its offset
    Pause(control::ConsumerArgs),
    /// Resume a paused consumer
    Resume(control::ConsumerArgs),
    /// Restart a consumer; also one that has halted
    Restart(control::ConsumerArgs),
    /// Leave out the one message at which a consumer has halted, and restart the consumer
    Skip(control::SkipArgs),
    /// Make a consumer store its durable offset now
    Commit(control::ConsumerArgs),
    /// Have the running daemon move a consumer's position, and go on from there
    Seek(control::SeekArgs),
    /// Make a running daemon read its configuration again, and replace the consumers that have changed
    Reload(control::ReloadArgs),
    /// End a running daemon as SIGTERM does
    Drain(control::DrainArgs),
    /// Show or change what a running daemon logs
    LogLevel(control::LogLevelArgs),
    /// Publish messages to a stream, and wait until the broker has confirmed them
    Publish(publish::PublishArgs),
    /// Print what a stream contains, from any position; leaves no offset behind
    Tail(tail::TailArgs),
    /// Write a range of a stream through a consumer's sink once more, beside the consumer
    Replay(replay::ReplayArgs),
    /// Count a consumer's dead letters, print them, or replay them through its sink
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Show the positions of consumers: on the broker, in the state file, in the sink; or move them
    Offsets(offsets::OffsetsArgs),
    /// Compare what a consumer's sink holds with the stream
    Verify(verify::VerifyArgs),
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a page of the reference in Markdown: keys, metrics or commands
    Reference(reference::ReferenceArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(man::ManArgs),
}

/// Runs the command line.
pub fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli { shared, command } = cli;
    let env = Env::of_process();
    match command {
        Command::Run(args) => {
            let config = shared.load(&env)?;
            let runtime = runtime()?;
            let result = runtime.block_on(run::run(config, env, &args));
            // A blocked write (a full pipe, a dead disk) must not keep the process alive.
            runtime.shutdown_background();
            result
        }
        Command::Check(args) => {
            let config = shared.load(&env)?;
            runtime()?.block_on(check::check(config, &args, shared.json))
        }
        Command::Test(args) => cases::test(&shared.load(&env)?, &args, shared.json),
        Command::Health(args) => {
            health::ask(&args, |at| door::client(&shared.load_admin(&env)?, at), &env)
        }
        Command::Status(args) => status::show(&args, &shared, &env),
        Command::Pause(args) => control::consumer("pause", &args, &shared, &env),
        Command::Resume(args) => control::consumer("resume", &args, &shared, &env),
        Command::Restart(args) => control::consumer("restart", &args, &shared, &env),
        Command::Skip(args) => control::skip(&args, &shared, &env),
        Command::Commit(args) => control::consumer("commit", &args, &shared, &env),
        Command::Seek(args) => control::seek(&args, &shared, &env),
        Command::Reload(args) => control::reload(&args, &shared, &env),
        Command::Drain(args) => control::drain(&args, &shared, &env),
        Command::LogLevel(args) => control::log_level(&args, &shared, &env),
        Command::Publish(args) => {
            let broker = args.broker(&shared, &env)?;
            runtime()?.block_on(publish::publish(broker, args, shared.json))
        }
        Command::Tail(args) => {
            let runtime = runtime()?;
            let result = runtime.block_on(tail::tail(args, &shared, &env));
            // Printing may be blocked by a reader that does not read.
            runtime.shutdown_background();
            result
        }
        Command::Replay(args) => {
            let config = shared.load(&env)?;
            let runtime = runtime()?;
            let result = runtime.block_on(replay::replay(config, args, shared.json));
            // A blocked write must not keep the process alive.
            runtime.shutdown_background();
            result
        }
        Command::DeadLetters(args) => {
            let config = shared.load(&env)?;
            runtime()?.block_on(dead_letters::dead_letters(config, args, shared.json))
        }
        Command::Offsets(args) => {
            let config = shared.load(&env)?;
            runtime()?.block_on(offsets::offsets(config, args, shared.json))
        }
        Command::Verify(args) => {
            let config = shared.load(&env)?;
            let runtime = runtime()?;
            let result = runtime.block_on(verify::verify(config, args, shared.json));
            // A read that hangs (a dead disk) must not keep the process alive.
            runtime.shutdown_background();
            result
        }
        Command::Schema => schema::print(),
        Command::Reference(args) => reference::print(&args),
        Command::Completions(args) => completions::print(&args),
        Command::Man(args) => man::print(&args),
    }
}

/// Prints the error in the command line (or the requested help).
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done if standard output is closed.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

impl Shared {
    fn load(&self, env: &Env) -> anyhow::Result<Config> {
        let path = locate::required(self.config.as_deref())?;
        Ok(Config::load(Some(&path), env)?)
    }

    /// Reads `[admin]` alone, for commands that ask a running daemon.
    fn load_admin(&self, env: &Env) -> anyhow::Result<AdminConfig> {
        let path = locate::required(self.config.as_deref())?;
        Ok(Config::load_admin(Some(&path), env)?)
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_flag_may_stand_anywhere() {
        for line in ["rillway -c x run", "rillway run -c x", "rillway publish s --config x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.shared.config.as_deref(), Some("x".as_ref()), "{line}");
        }
    }

    #[test]
    fn contradictory_arguments_are_refused() {
        for line in [
            "rillway",
            "rillway fly",
            "rillway publish",
            "rillway dead-letters",
            "rillway dead-letters replay",
            "rillway verify",
            "rillway verify c --from x",
            "rillway publish s --lines --ndjson",
            "rillway publish s --generate 5 --lines",
            "rillway publish s --generate 5 input.txt",
            "rillway publish s --generate 0",
            "rillway publish s --size 5",
            "rillway publish s --batch 0",
            "rillway publish s --in-flight 0",
            "rillway publish s --generate 1 --size 1TB",
            "rillway completions klingon",
            "rillway tail",
            "rillway tail s --from yesterday",
            "rillway tail s --until next",
            "rillway tail s --limit 0",
            "rillway tail s --filter error",
            "rillway tail s --match-unfiltered",
            "rillway tail s --format xml",
            "rillway replay",
            "rillway replay c --from first",
            "rillway replay c --from first --to next",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(usage(&error), ExitCode::from(EXIT_USAGE), "{line}");
        }
        let help = Cli::try_parse_from(["rillway", "--help"]).unwrap_err();
        assert_eq!(usage(&help), ExitCode::SUCCESS);
    }
}
