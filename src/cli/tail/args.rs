//! Arguments of `tail`.

use clap::{Args, value_parser};

use super::condition::Condition;
use crate::cli::broker::BrokerArgs;
use crate::cli::exit::Failure;
use crate::cli::point::{self, Until};
use crate::cli::print::PrintArgs;
use crate::config::Start;
use crate::source::Selection;

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_long_help = "Nothing is left behind: no offset on the broker, and no file.\n\n\
    Examples:\n  \
    rillway tail events                                  what is published from now on\n  \
    rillway tail events --from first --limit 10          the ten oldest messages\n  \
    rillway tail events --from ago:1h --until end        the last hour\n  \
    rillway tail events --filter /type=order --format body\n\n\
    Times are those at which the broker wrote the messages, chunk by chunk.")]
pub(in crate::cli) struct TailArgs {
    /// The stream, or the super stream, whose partitions are then merged by time
    pub(super) stream: String,
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    /// It is a super stream. Without this, one is read if there is no stream of this name
    #[arg(long = "super")]
    pub(super) is_super: bool,

    /// Where to begin [default: next; first with --until]
    #[arg(long, value_name = point::FROM, value_parser = point::start)]
    #[arg(help_heading = "Range", hide_possible_values = true)]
    from: Option<Start>,
    /// The last message that is printed; `end` is the end of the stream now
    #[arg(long, value_name = "end|offset:N|time:T|ago:1h", value_parser = point::until)]
    #[arg(help_heading = "Range")]
    pub(super) until: Option<Until>,
    /// End after this many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    #[arg(help_heading = "Range")]
    pub(super) limit: Option<u64>,

    /// Print messages of which this is true: PART=VALUE, PART!=VALUE or PART~TEXT (contains). PART is a
    /// pointer into a JSON body (/user/id), body, properties.NAME, application_properties.NAME or
    /// message_annotations.NAME. Several have to be true together
    #[arg(long, value_name = "CONDITION", help_heading = "Filter")]
    pub(super) filter: Vec<Condition>,
    /// Have the broker leave out chunks without a message of this filter value (RabbitMQ 3.13 and later).
    /// The rest of a chunk still comes: add --filter. Of several values, one is enough
    #[arg(long, value_name = "VALUE", help_heading = "Filter")]
    filter_value: Vec<String>,
    /// Also chunks with messages that have no filter value
    #[arg(long, requires = "filter_value", help_heading = "Filter")]
    match_unfiltered: bool,

    #[command(flatten)]
    pub(super) print: PrintArgs,
}

impl TailArgs {
    /// Where to begin. What ends begins at the beginning: nobody asks for an end to see nothing.
    pub(super) fn from(&self) -> Start {
        let default = if self.until.is_some() { Start::First } else { Start::Next };
        self.from.unwrap_or(default)
    }

    /// What the broker's filter selects; `None` for everything.
    pub(super) fn selection(&self) -> Result<Option<Selection>, Failure> {
        let (values, match_unfiltered) = (self.filter_value.clone(), self.match_unfiltered);
        if values.iter().any(String::is_empty) {
            let what = "--filter-value \"\": it is no filter value; --match-unfiltered is for messages \
                        without one";
            return Err(Failure::Usage(what.to_owned()));
        }
        Ok((!values.is_empty()).then_some(Selection { values, match_unfiltered }))
    }
}
