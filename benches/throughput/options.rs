//! Options of the benchmark.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::peers::Peer;

const HELP: &str = "\
throughput [options] [CASE…]
  CASE         SIZExBATCH or SIZExBATCHxMESSAGES: 12x400 is bodies of 12 bytes, 400 to a chunk
               (default: 12x400 256x400 12x1 256x1)
  --port P     the broker's stream port on localhost (guest/guest, vhost /); RILLWAY_BENCH_PORT
  --rounds N   how often each peer runs in each case (5)
  --limit S    a peer that takes longer is stopped after so many seconds; its rate is that of what it
               had read by then (12)
  --only A,B   plain, null, other-null, file, other-file, official
  --against F  another build of rillway, which takes turns with this one: before and after in one run
  --set LINE   a further line for the daemon's [[consumer]] table, as 'memory = \"64MiB\"'; repeatable
  --spin       keep each core awake by an idle-priority spinner (for virtual machines)";

pub(crate) fn help() {
    println!("{HELP}");
}

pub(crate) enum Command {
    Help,
    Measure(Options),
    /// This process is one of the peers.
    Reader(Reader, Job),
}

#[derive(Clone, Copy)]
pub(crate) enum Reader {
    Plain,
    Official,
}

/// Input of a peer.
pub(crate) struct Job {
    pub(crate) port: u16,
    pub(crate) stream: String,
    pub(crate) messages: u64,
    pub(crate) limit: Duration,
}

pub(crate) struct Options {
    pub(crate) port: Option<u16>,
    pub(crate) rounds: u32,
    pub(crate) limit: Duration,
    pub(crate) peers: Vec<Peer>,
    pub(crate) spin: bool,
    pub(crate) against: Option<PathBuf>,
    pub(crate) consumer: String,
    pub(crate) cases: Vec<Case>,
}

/// One kind of load.
pub(crate) struct Case {
    pub(crate) size: usize,
    pub(crate) batch: u32,
    pub(crate) messages: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B, {} a chunk", self.size, self.batch)
    }
}

impl Case {
    fn parse(text: &str) -> anyhow::Result<Case> {
        let mut parts = text.split('x').map(str::parse::<u64>);
        let mut next = || parts.next().transpose().with_context(|| format!("no case: {text}"));
        let (Some(size), Some(batch)) = (next()?, next()?) else { bail!("no case: {text}") };
        // A multiple of the default batch size, so that the last batch does not wait for its age limit.
        let messages = next()?.unwrap_or(match (size, batch) {
            (..=100, 100..) => 4_000_000,
            (_, 100..) => 2_000_000,
            _ => 200_000,
        });
        Ok(Case { size: usize::try_from(size)?, batch: u32::try_from(batch)?, messages })
    }
}

impl Command {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Command> {
        let mut arguments = arguments.peekable();
        if let Some(kind) = arguments.peek().and_then(|a| match a.as_str() {
            "read-plain" => Some(Reader::Plain),
            "read-official" => Some(Reader::Official),
            _ => None,
        }) {
            arguments.next();
            return Ok(Command::Reader(kind, Job::parse(arguments)?));
        }
        let mut options = Options {
            port: std::env::var("RILLWAY_BENCH_PORT").ok().map(|p| p.parse()).transpose()?,
            rounds: 5,
            limit: Duration::from_secs(12),
            peers: Peer::ALL.to_vec(),
            spin: false,
            against: None,
            consumer: String::new(),
            cases: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--bench" => {} // Cargo's own.
                "--help" | "-h" => return Ok(Command::Help),
                "--port" => options.port = Some(value()?.parse()?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--limit" => options.limit = Duration::from_secs(value()?.parse()?),
                "--spin" => options.spin = true,
                "--against" => options.against = Some(value()?.into()),
                "--set" => options.consumer = format!("{}{}\n", options.consumer, value()?),
                "--only" => {
                    let names = value()?;
                    options.peers = names.split(',').map(Peer::parse).collect::<Result<_, _>>()?;
                }
                case => options.cases.push(Case::parse(case)?),
            }
        }
        if options.against.is_none() {
            options.peers.retain(|p| !p.is_other());
        }
        if options.cases.is_empty() {
            let usual = ["12x400", "256x400", "12x1", "256x1"];
            options.cases = usual.into_iter().map(Case::parse).collect::<Result<_, _>>()?;
        }
        Ok(Command::Measure(options))
    }
}

impl Job {
    /// As the arguments of a peer's process.
    pub(crate) fn arguments(&self) -> [String; 4] {
        [
            self.port.to_string(),
            self.stream.clone(),
            self.messages.to_string(),
            self.limit.as_secs().to_string(),
        ]
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Job> {
        let mut next = || arguments.next().context("PORT STREAM MESSAGES SECONDS");
        Ok(Job {
            port: next()?.parse()?,
            stream: next()?,
            messages: next()?.parse()?,
            limit: Duration::from_secs(next()?.parse()?),
        })
    }
}
