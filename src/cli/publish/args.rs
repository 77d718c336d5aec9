//! Arguments of `publish`.

use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::cli::broker::{self, uri};
use crate::cli::value::{read, time as duration};
use crate::cli::{Failure, Shared};
use crate::config::{BrokerConfig, ByteSize, Env, HumanDuration, Protocol};
use crate::types::Secret;

/// Largest body that is generated: RabbitMQ accepts no larger message, whatever its frame_max.
const SIZE_MAX: ByteSize = ByteSize::mib(512);

/// Arguments of `publish`.
#[derive(Debug, Args)]
#[command(after_long_help = "Delivery is at-least-once: what was sent over a connection that is \
    lost before the confirmation arrives is sent again, and may then be in the stream twice.\n\n\
    Messages that the broker receives together share a chunk of the stream. For chunks of exactly \
    one message: --batch 1 --in-flight 1.")]
pub struct PublishArgs {
    /// The stream
    pub stream: String,
    /// The file to read; `-` or nothing reads standard input
    #[arg(conflicts_with = "generate")]
    pub file: Option<PathBuf>,

    /// Each line is a body, unchanged (the default)
    #[arg(long, group = "source", help_heading = "Input")]
    pub lines: bool,
    /// Each line is a body and must be JSON; blank lines are skipped
    #[arg(long, group = "source", help_heading = "Input")]
    pub ndjson: bool,
    /// Each line is a message as Rillway's sinks write it: `body`, `body_encoding`, `properties`
    /// and `application_properties` are published, other keys (`stream`, `offset`, …) are not
    #[arg(long, group = "source", help_heading = "Input")]
    pub envelope: bool,
    /// Generate N sample events in JSON, numbered by their key `seq`
    #[arg(long, value_name = "N", group = "source", help_heading = "Input")]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub generate: Option<u64>,
    /// Bodies of exactly this size, as in 256 or 4KiB
    #[arg(long, value_parser = size, requires = "generate", help_heading = "Input")]
    pub size: Option<ByteSize>,

    /// At most this many messages per second
    #[arg(long, value_name = "R", value_parser = value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Send this many messages at once; 1 is one at a time
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Wait for confirmations while this many messages are unconfirmed
    #[arg(long, value_name = "N", default_value = "10000")]
    #[arg(value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Create the stream if it does not exist
    #[arg(long)]
    pub create: bool,
    /// A broker other than the configuration's: rabbitmq-stream://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_parser = uri, env = "RILLWAY_PUBLISH_URI", hide_env_values = true)]
    pub uri: Option<Secret>,
    /// Reconnect when no confirmation comes for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub confirm_within: HumanDuration,
    /// Stop when nothing was confirmed for this long, over all reconnections
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub give_up_after: HumanDuration,
    /// No progress on standard error
    #[arg(short, long)]
    pub quiet: bool,
}

impl PublishArgs {
    /// The broker to publish to: `--uri`, or the configuration's.
    pub(in crate::cli) fn broker(
        &self,
        shared: &Shared,
        env: &Env,
    ) -> anyhow::Result<BrokerConfig> {
        if let Some(uri) = &self.uri {
            let parsed = BrokerConfig::from_uri(uri.clone());
            return parsed.map_err(|p| Failure::Usage(format!("--uri: {}", p.message)).into());
        }
        let broker = broker::configured(shared, env)?;
        if broker.protocol == Protocol::Amqp {
            return Err(Failure::Config(
                "publishing needs the stream protocol, and `broker.uri` says AMQP 0.9.1: give \
                 --uri rabbitmq-stream://…"
                    .to_owned(),
            )
            .into());
        }
        Ok(broker)
    }
}

fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = read(text)?;
    if size > SIZE_MAX {
        return Err(format!("{size} is out of range: at most {SIZE_MAX}"));
    }
    Ok(size)
}
