//! `rillway status`: the state of a running daemon in a terminal, what is wrong first; with `--watch` again
//! and again, until Ctrl-C.
//!
//! Colours and cut lines are for terminals. Into a pipe or a file goes the whole table, without colours.

mod screen;
mod table;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::table::Look;
use super::Shared;
use super::control::{At, Daemon};
use super::exit::Failure;
use super::schema::write;
use crate::admin::status::Status;
use crate::config::Env;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show it again every second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Show all partitions of super streams, not only those with a problem
    #[arg(long, short)]
    partitions: bool,
    #[command(flatten)]
    at: At,
}

/// Asks and prints.
///
/// # Errors
/// If the daemon cannot be asked; with `--watch`, only if that fails at the start.
pub(super) fn show(args: &StatusArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    if args.watch && shared.json {
        let text = "--json prints one status, so it cannot be combined with --watch";
        return Err(Failure::Usage(text.to_owned()).into());
    }
    let daemon = Daemon::of(&args.at, shared, env)?;
    let body = ask(&daemon)?;
    if shared.json {
        return write(&format!("{body:#}\n"));
    }
    let status = read(body)?;
    if args.watch && std::io::stdout().is_terminal() {
        return screen::watch(status, args.partitions, || read(ask(&daemon)?));
    }
    let is_terminal = std::io::stdout().is_terminal();
    let look = Look {
        width: is_terminal.then(|| usize::from(console::Term::stdout().size().1)),
        colours: is_terminal && console::colors_enabled(),
        partitions: args.partitions,
    };
    if !args.watch {
        return write(&table::table(&status, &look));
    }
    // Into a pipe: one table after another, until the reader has gone.
    let mut next = Ok(status);
    loop {
        let text = match &next {
            Ok(status) => table::table(status, &look),
            Err(error) => format!("no answer: {error:#}\n"),
        };
        if !table::print(&format!("{text}\n"))? {
            return Ok(());
        }
        std::thread::sleep(EVERY);
        next = ask(&daemon).and_then(read);
    }
}

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

fn ask(daemon: &Daemon) -> anyhow::Result<Value> {
    Ok(daemon.order("GET", "/api/v1/status", "", Duration::ZERO)?.body)
}

fn read(body: Value) -> anyhow::Result<Status> {
    serde_json::from_value(body).map_err(|error| {
        let text = format!(
            "the answer cannot be read ({error}): the daemon has another version than this program, {}",
            env!("CARGO_PKG_VERSION")
        );
        Failure::Unavailable(text).into()
    })
}
