//! Reads the command line, hands over, and says once what went wrong.

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
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(std::io::stderr(), "rillway: {error:#}"));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
