//! `rillway skip`: leaves out the one message at which a consumer has halted.

use clap::Args;
use serde_json::json;

use super::ask::{self, At, Daemon};
use super::{Wait, print, text};
use crate::cli::Shared;
use crate::config::Env;

/// Arguments of `skip`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SkipArgs {
    /// The consumer's name in the configuration
    consumer: String,
    /// Offset of the message, as the reason of the halt tells it
    #[arg(long, value_name = "OFFSET")]
    offset: u64,
    /// The partition, of a consumer of a super stream
    #[arg(long, value_name = "PARTITION")]
    stream: Option<String>,
    /// Write the message to the consumer's `dead_letter` before it is left out
    #[arg(long)]
    to_dead_letters: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    at: At,
}

/// Has the daemon leave out the message.
pub(in crate::cli) fn skip(args: &SkipArgs, shared: &Shared, env: &Env) -> anyhow::Result<()> {
    let daemon = Daemon::of(&args.at, shared, env)?;
    let path =
        format!("/api/v1/consumers/{}/skip?{}", ask::encoded(&args.consumer), args.wait.query()?);
    let mut body = json!({ "offset": args.offset, "dead_letter": args.to_dead_letters });
    if let Some(stream) = &args.stream {
        body["stream"] = stream.as_str().into();
    }
    let answer = daemon.order("POST", &path, &body.to_string(), args.wait.wait.0)?;
    let line = text::changed(&answer.body);
    print(shared, answer, &line)
}
