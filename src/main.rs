//! Runs the command line and prints the final error.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rillway::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::usage(&error),
    };
    match cli::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if standard error is closed.
            drop(writeln!(std::io::stderr(), "rillway: {error:#}"));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
