//! Arguments of `replay`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::point::{self, Until};
use crate::config::Start;

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Both ends of the range belong to it. Times are those at which the broker wrote \
    the messages, chunk by chunk.\n\n\
    The consumer itself is left alone: its position, its stored offset and its files stay as they are, and \
    it may go on running. Its filter, columns and on_bad_message apply.\n\n\
    An interrupted replay is continued by the same command.\n\n\
    Examples:\n  \
    rillway replay archiver --from time:2026-01-01T00:00:00Z --to time:2026-01-01T01:00:00Z\n  \
    rillway replay analytics --from offset:1000 --to offset:2000 --append\n  \
    rillway replay analytics --from ago:1h --to end --sink '{ type = \"file\", dir = \"again\" }'"
)]
pub(in crate::cli) struct ReplayArgs {
    /// The consumer's name in the configuration
    pub(super) consumer: String,
    /// The first message
    #[arg(long, value_name = "first|offset:N|time:T|ago:1h", value_parser = point::start)]
    pub(super) from: Start,
    /// The last message; `end` is the end of the stream now
    #[arg(long, value_name = "end|offset:N|time:T|ago:1h", value_parser = point::until)]
    pub(super) to: Until,
    /// One partition, if the consumer reads a super stream [default: all of them]
    #[arg(long, value_name = "PARTITION", alias = "partition")]
    pub(super) stream: Option<String>,
    /// Another sink than the consumer's own: that of another consumer, by its name; a type without
    /// required keys, as `stdout`; or a table, as '{ type = "file", dir = "again" }'
    #[arg(long, value_name = "SINK")]
    pub(super) sink: Option<String>,
    /// Write into the consumer's own table, stream or service, where messages that are there already are
    /// there once more then
    #[arg(long)]
    pub(super) append: bool,
    /// Replay what is left where retention has deleted a part of the range
    #[arg(long)]
    pub(super) allow_missing: bool,
    /// The file that keeps how far an interrupted replay came [default: a file in state_dir]
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// No progress on standard error
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl ReplayArgs {
    /// What makes two commands the same replay.
    pub(super) fn identity(&self) -> String {
        format!(
            "from {} to {} into {}",
            self.from,
            self.to,
            self.sink.as_deref().unwrap_or("its own sink")
        )
    }
}
