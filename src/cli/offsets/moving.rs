//! `rillway offsets set` and `reset`: moves all positions of a consumer together.

use std::os::unix::fs::MetadataExt;

use clap::Args;
use futures_util::future::try_join_all;
use serde_json::json;

use super::{daemon, find, plans_of, to};
use crate::cli::exit::Failure;
use crate::cli::schema::write;
use crate::config::{Config, ConsumerConfig, Start};
use crate::consumer::Begin;
use crate::consumer::positions::{self, Planned, Report, Target, Unmoved};
use crate::supervisor::Plan;
use crate::types::Timestamp;

/// Arguments of `offsets set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The consumer's name in the configuration
    consumer: String,
    /// Where it goes on: `offset:N` is the next message; a time is that of the first chunk written then or later
    #[arg(long, value_name = to::FORMS, value_parser = to::target)]
    to: Start,
    #[command(flatten)]
    how: How,
}

/// Arguments of `offsets reset`.
#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    /// The consumer's name in the configuration
    consumer: String,
    #[command(flatten)]
    how: How,
}

/// How a move is made.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Only this partition of a super stream
    #[arg(long)]
    stream: Option<String>,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// Whether a move is made.
#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Say what would be read again or skipped, and move nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also skip messages
    #[arg(long)]
    yes: bool,
}

/// A stream of a consumer, and where to.
pub(super) struct Move {
    pub(super) plan: Plan,
    pub(super) target: Target,
}

/// A move whose offset was found.
struct Ready {
    plan: Plan,
    planned: Planned,
}

/// Moves the consumer there.
pub(super) async fn set(config: &Config, args: &SetArgs, as_json: bool) -> anyhow::Result<()> {
    let consumer = find(config, &args.consumer)?;
    let plans = chosen(config, consumer, args.how.stream.as_deref()).await?;
    if plans.len() > 1 && matches!(args.to, Start::Offset(_)) {
        let streams: Vec<_> = plans.iter().map(|plan| plan.spec.stream.as_str()).collect();
        return Err(Failure::Usage(format!(
            "an offset means another message in each partition: name one with --stream, of {}",
            streams.join(", ")
        ))
        .into());
    }
    let target = target_of(args.to);
    let moves = plans.into_iter().map(|plan| Move { plan, target }).collect();
    carry_out(config, moves, &args.how.consent, as_json).await
}

/// Moves the consumer to its configured start.
pub(super) async fn reset(config: &Config, args: &ResetArgs, as_json: bool) -> anyhow::Result<()> {
    let consumer = find(config, &args.consumer)?;
    let plans = chosen(config, consumer, args.how.stream.as_deref()).await?;
    let moves = plans.into_iter().map(|plan| Move { plan, target: Target::Configured }).collect();
    carry_out(config, moves, &args.how.consent, as_json).await
}

/// The target that an argument names.
fn target_of(start: Start) -> Target {
    Target::To(Begin::of(start).resolve(Timestamp::now()))
}

/// The plans of the consumer's streams, or of the one that is named.
async fn chosen(
    config: &Config,
    consumer: &ConsumerConfig,
    stream: Option<&str>,
) -> Result<Vec<Plan>, Failure> {
    let mut plans = plans_of(config, consumer).await.map_err(Failure::Unavailable)?;
    if let Some(stream) = stream {
        let all: Vec<String> = plans.iter().map(|plan| plan.spec.stream.to_string()).collect();
        plans.retain(|plan| plan.spec.stream.as_str() == stream);
        if plans.is_empty() {
            return Err(Failure::Usage(format!(
                "consumer {:?} does not read stream {stream:?}: it reads {}",
                consumer.name,
                all.join(", ")
            )));
        }
    }
    Ok(plans)
}

/// Finds the offset of each move, and makes the moves if all can be made.
pub(super) async fn carry_out(
    config: &Config,
    moves: Vec<Move>,
    consent: &Consent,
    as_json: bool,
) -> anyhow::Result<()> {
    if !consent.dry_run {
        refuse_another_user(config)?;
        let plans: Vec<Plan> = moves.iter().map(|one| one.plan.clone()).collect();
        daemon::refuse_running(config, &plans)?;
    }
    let ready = try_join_all(moves.into_iter().map(find_offset)).await?;
    let would: Vec<Report> = ready.iter().map(|one| report(one, false)).collect();
    if consent.dry_run {
        return print(&would, as_json);
    }
    if would.iter().any(Report::may_skip) && !consent.yes {
        let skipping: String =
            would.iter().filter(|one| one.may_skip()).map(ToString::to_string).collect();
        return Err(Failure::Usage(format!(
            "{skipping}Nothing was moved: add --yes to skip messages, or --dry-run to only look"
        ))
        .into());
    }
    let moves = ready.iter().map(|one| (one.plan.subject(), one.planned.to)).collect();
    let prepared = positions::Ready::prepare(moves).await;
    let prepared = prepared.map_err(|why| Failure::Unavailable(format!("{why}{NONE}")))?;
    let unmoved = prepared.carry_out().await.err().unwrap_or_default();
    let counts = unmoved.iter().all(|why| why.error.counts());
    let is_moved = |one: &&Ready| {
        let key = one.plan.spec.key();
        counts && !unmoved.iter().any(|why| why.key == key)
    };
    let moved: Vec<Report> = ready.iter().filter(is_moved).map(|one| report(one, true)).collect();
    print(&moved, as_json)?;
    match failure(&unmoved) {
        None => Ok(()),
        Some(failure) => Err(failure.into()),
    }
}

/// End of an error message: one stream that cannot be moved keeps the others where they are, too.
const NONE: &str = ". Nothing was moved";

/// The failure of moves that are not made, or not to their end.
pub(super) fn failure(unmoved: &[Unmoved]) -> Option<Failure> {
    let counts = unmoved.iter().all(|why| why.error.counts());
    let lines: Vec<String> = unmoved.iter().map(ToString::to_string).collect();
    let end = if counts { "" } else { NONE };
    (!lines.is_empty()).then(|| Failure::Unavailable(format!("{}{end}", lines.join("\n"))))
}

async fn find_offset(one: Move) -> Result<Ready, Failure> {
    let key = one.plan.spec.key();
    let planned = positions::plan(&one.plan.subject(), one.target).await;
    let planned = planned.map_err(|error| Failure::Unavailable(format!("{key}: {error:#}")))?;
    Ok(Ready { plan: one.plan, planned })
}

fn report(one: &Ready, moved: bool) -> Report {
    let spec = &one.plan.spec;
    Report::of((&spec.name, &spec.stream), &one.planned, one.plan.read_again, moved)
}

fn print(reports: &[Report], as_json: bool) -> anyhow::Result<()> {
    write(&match as_json {
        true => format!("{:#}\n", json!({ "moves": reports })),
        false => reports.iter().map(ToString::to_string).collect(),
    })
}

/// What root writes, the daemon's own user could not write to afterwards.
pub(super) fn refuse_another_user(config: &Config) -> Result<(), Failure> {
    let Ok(folder) = std::fs::metadata(&config.state_dir) else { return Ok(()) };
    let is_root = rustix::process::geteuid().is_root();
    if is_root && folder.uid() != 0 {
        return Err(Failure::Usage(format!(
            "{} belongs to the user with id {}, who could not write to what root makes there, nor to what the \
             sink makes: run this as that user, as in: sudo -u '#{}' rillway offsets …",
            config.state_dir.display(),
            folder.uid(),
            folder.uid()
        )));
    }
    Ok(())
}
