//! `rillway seek`: has the running daemon move a consumer's position.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{At, Daemon, encoded};
use super::{Wait, print};
use crate::cli::Shared;
use crate::cli::exit::Failure;
use crate::cli::offsets::to;
use crate::config::{Env, Start};
use crate::consumer::positions::Report;

/// Arguments of `seek`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SeekArgs {
    /// The consumer's name in the configuration
    consumer: String,
    /// Where it goes on: `offset:N` is the next message; a time is that of the first chunk written then or later
    #[arg(long, value_name = to::FORMS, value_parser = to::target)]
    to: Start,
    /// Only this partition of the consumer's super stream
    #[arg(long, value_name = "PARTITION")]
    stream: Option<String>,
    /// Say what would be read again or skipped, and move nothing
    #[arg(long)]
    dry_run: bool,
    /// Also skip messages, those too that come meanwhile
    #[arg(long)]
    yes: bool,
    /// With single_active: no other daemon stands by for the consumer, which would take it over
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    at: At,
}

/// Asks what it would do, and then has it done.
pub(in crate::cli) fn seek(args: &SeekArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let path = format!("/api/v1/consumers/{}/seek?{}", encoded(&args.consumer), args.wait.query()?);
    let order = |dry_run: bool| {
        let body = json!({
            "to": args.to, "stream": args.stream, "dry_run": dry_run, "may_skip": args.yes, "alone": args.alone,
        });
        daemon.order("POST", &path, &body.to_string(), args.wait.wait.0)
    };
    let would = order(true)?;
    let reports = reports(&would.body)?;
    if args.dry_run {
        return print(shared, would, text(&reports).trim_end());
    }
    if reports.iter().any(Report::may_skip) && !args.yes {
        return Err(Failure::Usage(format!(
            "{}Nothing was moved: add --yes to skip messages, or --dry-run to only look",
            text(&reports)
        ))
        .into());
    }
    let answer = order(false)?;
    let line = match answer.is_done {
        true => text(&self::reports(&answer.body)?).trim_end().to_owned(),
        false => format!(
            "consumer {:?} is being moved, and is not done yet: `rillway offsets show` says where it goes on",
            args.consumer
        ),
    };
    print(shared, answer, &line)
}

fn reports(body: &Value) -> Result<Vec<Report>, Failure> {
    let moves = Vec::<Report>::deserialize(&body["moves"]);
    moves.map_err(|error| {
        Failure::Unavailable(format!(
            "the daemon's answer cannot be read ({error}): is it another version?"
        ))
    })
}

fn text(reports: &[Report]) -> String {
    reports.iter().map(ToString::to_string).collect()
}
