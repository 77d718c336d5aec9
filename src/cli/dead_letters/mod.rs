//! `rillway dead-letters`: counts a consumer's dead letters, prints them, and replays them through the
//! consumer's sink.
//!
//! Dead letters are read from NDJSON files or a stream. A running daemon may write more at the same
//! time.

pub(super) mod letters;
mod progress;
mod replay;
mod show;

use clap::{Args, Subcommand};
use serde_json::json;

use self::letters::{Source, Summary};
use super::exit::Failure;
use super::print::visible;
use super::schema::write;
use crate::config::{Config, ConsumerConfig};

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count a consumer's dead letters, by reason, with the offsets of the first and the last
    List(Of),
    /// Print a consumer's dead letters: why each is bad, and its original message
    Show(show::ShowArgs),
    /// Write the original messages to the consumer's sink again, each once
    Replay(Of),
}

#[derive(Debug, Args)]
struct Of {
    /// The consumer's name in the configuration
    consumer: String,
    /// The partition, if the consumer reads a super stream
    #[arg(long, value_name = "PARTITION")]
    partition: Option<String>,
}

/// Runs the subcommand.
pub(super) async fn dead_letters(
    config: Config,
    args: DeadLettersArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    let (Command::List(of) | Command::Replay(of) | Command::Show(show::ShowArgs { of, .. })) =
        &args.command;
    let consumer = &find(&config, of)?;
    let source = Source::of(&config, consumer)?;
    if let Command::Show(args) = &args.command {
        return show::show(consumer, &source, args, as_json).await;
    }
    let summary = Summary::of(&source).await?;
    match args.command {
        // Answered above.
        Command::Show(_) => Ok(()),
        Command::List(_) => write(&told(consumer, &source, &summary, as_json)),
        Command::Replay(_) => {
            let done = replay::replay(&config, consumer, &source, &summary).await?;
            write(&if as_json {
                format!("{:#}\n", serde_json::to_value(&done)?)
            } else {
                done.to_string()
            })?;
            match done.still_bad.len() {
                0 => Ok(()),
                still_bad => Err(Failure::Unavailable(format!(
                    "the sink still refuses {still_bad} messages; their dead letters stay for the next \
                     replay"
                ))
                .into()),
            }
        }
    }
}

/// The consumer of this name.
pub(super) fn named<'a>(config: &'a Config, name: &str) -> Result<&'a ConsumerConfig, Failure> {
    config.consumers.iter().find(|c| c.name.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = config.consumers.iter().map(|c| c.name.as_str()).collect();
        Failure::Usage(format!("there is no consumer {name:?}: there are {}", known.join(", ")))
    })
}

/// The consumer, of the one stream whose dead letters are meant.
fn find(config: &Config, of: &Of) -> Result<ConsumerConfig, Failure> {
    let name = of.consumer.as_str();
    let consumer = named(config, name)?;
    match (&of.partition, consumer.is_super_stream) {
        (Some(partition), true) => Ok(consumer.of_stream(Some(&partition.as_str().into()))),
        (None, false) => Ok(consumer.of_stream(None)),
        (None, true) => Err(Failure::Usage(format!(
            "consumer {name:?} reads super stream {:?}, and each partition has its own dead letters: \
             name one with --partition",
            consumer.stream
        ))),
        (Some(_), false) => Err(Failure::Usage(format!(
            "consumer {name:?} reads a stream, which has no partitions: leave --partition out"
        ))),
    }
}

fn told(consumer: &ConsumerConfig, source: &Source, summary: &Summary, as_json: bool) -> String {
    let name = consumer.name.as_str();
    if as_json {
        let told = json!({
            "consumer": name,
            "from": source.to_string(),
            "letters": summary.letters,
            "reasons": summary.reasons,
            "first_offset": summary.first.map(|o| o.0),
            "last_offset": summary.last.map(|o| o.0),
            "of_former_histories": summary.former,
        });
        return format!("{told:#}\n");
    }
    let mut text = format!("{} dead letters of consumer {name:?} in {source}\n", summary.letters);
    for (reason, count) in &summary.reasons {
        text.push_str(&format!("  {}: {count}\n", visible(reason)));
    }
    if let (Some(first), Some(last)) = (summary.first, summary.last) {
        text.push_str(&format!("  offsets {first} to {last} of stream {:?}\n", consumer.stream));
    }
    if summary.former > 0 {
        text.push_str(&format!(
            "  {} of them are from before the stream was created again\n",
            summary.former
        ));
    }
    text
}
