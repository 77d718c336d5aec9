//! `rillway offsets rename`: gives a consumer another reference, with everything that is kept under the old one.

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;

use super::{daemon, moving, plans_of};
use crate::cli::exit::Failure;
use crate::cli::schema::write;
use crate::config::{Config, ConsumerConfig};
use crate::consumer::Roster;
use crate::consumer::positions::{MoveError, Outlook, Rename, Renames};
use crate::supervisor::Plan;
use crate::types::{Offset, Reference, StreamName};

/// Arguments of `offsets rename`.
#[derive(Debug, Args)]
pub(super) struct RenameArgs {
    /// The reference so far: `reference` in the configuration, or the consumer's name if that is not set
    old: String,
    /// The reference from now on
    new: String,
    /// Say what would be renamed, and rename nothing
    #[arg(long)]
    dry_run: bool,
}

/// One stream, for people and for programs.
#[derive(Serialize)]
struct Line {
    consumer: String,
    stream: String,
    /// The offset at which the consumer goes on in this stream. `None` if it has no position there, or if the
    /// reference was renamed there before.
    next_offset: Option<Offset>,
    what: &'static str,
}

/// Renames the reference of the consumers that have it, on all of their streams.
pub(super) async fn rename(
    config: &Config,
    args: &RenameArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    let consumers = consumers_of(config, args)?;
    let mut pairs = Vec::new();
    for consumer in &consumers {
        pairs.extend(pairs_of(config, consumer, args).await?);
    }
    if !args.dry_run {
        moving::refuse_another_user(config)?;
        let plans: Vec<Plan> = pairs.iter().flat_map(|(old, new)| [old, new]).cloned().collect();
        daemon::refuse_running(config, &plans)?;
    }
    let renames = pairs.iter().map(|(old, new)| Rename { old: old.subject(), new: new.subject() });
    let renames = Renames::plan(renames.collect()).await;
    let renames =
        renames.map_err(|error| Failure::Unavailable(format!("{error:#}. Nothing was renamed")))?;
    let lines: Vec<Line> =
        renames.outlook().map(|(rename, outlook)| line(rename, outlook)).collect();
    if !args.dry_run {
        let streams: Vec<_> = pairs.iter().map(|(old, _)| old.spec.stream.clone()).collect();
        let carried = renames.carry_out(|| copy_rosters(config, &consumers, args, &streams)).await;
        let unmoved = carried.err().unwrap_or_default();
        if let Some(failure) = moving::failure(&unmoved) {
            // The old reference is closed all the same.
            if unmoved.iter().all(|why| why.error.counts()) {
                write(&as_text(config, &consumers, args, &lines, as_json))?;
            }
            return Err(failure.into());
        }
    }
    write(&as_text(config, &consumers, args, &lines, as_json))
}

/// Those that have the old reference, or have the new one in the configuration already.
fn consumers_of<'c>(
    config: &'c Config,
    args: &RenameArgs,
) -> Result<Vec<&'c ConsumerConfig>, Failure> {
    let RenameArgs { old, new, .. } = args;
    if let Err(what) = ConsumerConfig::check_reference(new) {
        return Err(Failure::Usage(format!("the new reference: {what}")));
    }
    if old == new {
        return Err(Failure::Usage("the two references are the same".to_owned()));
    }
    let of = |reference: &str| -> Vec<&ConsumerConfig> {
        config.consumers.iter().filter(|c| c.reference.as_str() == reference).collect()
    };
    let (olds, news) = (of(old), of(new));
    let both = olds.iter().find(|old| news.iter().any(|new| new.stream == old.stream));
    if let Some(consumer) = both {
        return Err(Failure::Usage(format!(
            "the configuration has a consumer of stream {:?} with reference {new:?} besides {:?}: choose another name",
            consumer.stream, consumer.name
        )));
    }
    let named = || config.consumers.iter().find(|consumer| consumer.name.as_str() == old);
    match (olds.is_empty(), news.is_empty(), named()) {
        (false, ..) => Ok(olds),
        (true, false, _) => Ok(news),
        (true, true, Some(consumer)) => Err(Failure::Usage(format!(
            "the reference of consumer {old:?} is {:?}: its name is known to the configuration alone, so change it there",
            consumer.reference
        ))),
        (true, true, None) => {
            let known: Vec<_> = config.consumers.iter().map(|c| c.reference.as_str()).collect();
            Err(Failure::Usage(format!(
                "no consumer has the reference {old:?}: there are {}",
                known.join(", ")
            )))
        }
    }
}

/// The plans of the consumer's streams, by the old and by the new reference.
async fn pairs_of(
    config: &Config,
    consumer: &ConsumerConfig,
    args: &RenameArgs,
) -> Result<Vec<(Plan, Plan)>, Failure> {
    let by = |reference: &str| ConsumerConfig {
        reference: Reference::from(reference),
        ..consumer.clone()
    };
    let (old, new) = (by(&args.old), by(&args.new));
    let plans = try_join_all([plans_of(config, &old), plans_of(config, &new)]).await;
    let mut plans = plans.map_err(Failure::Unavailable)?.into_iter();
    let (olds, news) = (plans.next().unwrap_or_default(), plans.next().unwrap_or_default());
    // The broker was asked twice.
    let changed = || {
        Failure::Unavailable(format!(
            "the partitions of {:?} have changed meanwhile: try again. Nothing was renamed",
            consumer.stream.as_str()
        ))
    };
    if olds.len() != news.len() {
        return Err(changed());
    }
    let pair = |old: Plan| {
        let new = news.iter().find(|new| new.spec.stream == old.spec.stream);
        Ok((old, new.ok_or_else(changed)?.clone()))
    };
    olds.into_iter().map(pair).collect()
}

/// The partitions that each consumer of a super stream has seen and that are renamed, under the new reference.
fn copy_rosters(
    config: &Config,
    consumers: &[&ConsumerConfig],
    args: &RenameArgs,
    streams: &[StreamName],
) -> Result<(), MoveError> {
    let (old, new) = (Reference::from(args.old.as_str()), Reference::from(args.new.as_str()));
    for consumer in consumers.iter().filter(|consumer| consumer.is_super_stream) {
        let copied = Roster::read(&config.state_dir, &old, &consumer.stream)
            .and_then(|roster| roster.copy_to(&config.state_dir, &new, streams));
        copied.map_err(|error| MoveError::NotRenamed(error.to_string()))?;
    }
    Ok(())
}

fn line(rename: &Rename, outlook: Outlook) -> Line {
    let key = rename.old.spec.key();
    let (next_offset, what) = match outlook {
        Outlook::HasNone => (None, "has no position there, and begins at its start"),
        Outlook::IsRenamed => (None, "was renamed before; what was left is completed"),
        Outlook::GoesOnAt(offset) => (Some(offset), "goes on where it was"),
    };
    Line { consumer: key.consumer.to_string(), stream: key.stream.to_string(), next_offset, what }
}

/// The sentence that tells an operator which keys of the configuration to change after the rename.
fn edit(config: &Config, consumers: &[&ConsumerConfig], args: &RenameArgs) -> String {
    let RenameArgs { old, new, .. } = args;
    let mut edits = Vec::new();
    for consumer in consumers {
        let name = consumer.name.as_str();
        edits.push(match (consumer.reference.as_str() == new, name == old) {
            (true, _) => format!("consumer {name:?} has reference {new:?} already"),
            (false, true) => format!(
                "of consumer {name:?}, set name = {new:?} (and remove `reference`, if it is set); or keep the name, and \
                 set reference = {new:?}"
            ),
            (false, false) => format!("of consumer {name:?}, set reference = {new:?}"),
        });
    }
    let is_watched = |watch: &&crate::config::WatchConfig| {
        watch.references.iter().any(|reference| reference.as_str() == old)
    };
    if config.watches.iter().any(|watch| is_watched(&watch)) {
        edits.push(format!("in [[watch]], write {new:?} for {old:?}"));
    }
    edits.join("; ")
}

fn as_text(
    config: &Config,
    consumers: &[&ConsumerConfig],
    args: &RenameArgs,
    lines: &[Line],
    as_json: bool,
) -> String {
    let RenameArgs { old, new, dry_run } = args;
    let edit = edit(config, consumers, args);
    if as_json {
        let answer = json!({
            "from": old, "to": new, "renamed": !dry_run, "streams": lines, "edit": edit,
        });
        return format!("{answer:#}\n");
    }
    let verb = if *dry_run { "would be renamed" } else { "was renamed" };
    let mut text = format!("reference {old:?} {verb} to {new:?}\n");
    for Line { consumer, stream, next_offset, what } in lines {
        let at = next_offset.map_or(String::new(), |offset| format!(", at offset {offset}"));
        text.push_str(&format!("  consumer {consumer:?}, stream {stream:?}: {what}{at}\n"));
    }
    let when = if *dry_run { "After that, in" } else { "Now, in" };
    text.push_str(&format!(
        "{when} the configuration: {edit}. Then start the daemon, or reload it.\n"
    ));
    text
}
