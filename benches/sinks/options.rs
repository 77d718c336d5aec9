//! Options of the benchmark.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

const HELP: &str = "\
sinks [options] [MEDIUM…]
  MEDIUM        file, sqlite, sqlite-columns, postgres, parquet (default: all that can be had here)
  --rounds N    how often each peer runs (5)
  --messages N  how many rows (300000)
  --dir D       where to write: on the disk that is to be measured (the target folder)";

pub(crate) fn help() {
    println!("{HELP}");
}

pub(crate) enum Command {
    Help,
    Measure(Options),
    /// This process feeds a sink.
    Feed(Job),
}

/// Input of the process that feeds a sink.
pub(crate) struct Job {
    pub(crate) config: PathBuf,
    pub(crate) messages: u64,
}

pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) messages: u64,
    pub(crate) dir: PathBuf,
    pub(crate) media: Vec<String>,
}

impl Command {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Command> {
        let mut options = Options {
            rounds: 5,
            messages: 300_000,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            media: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} what?"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(Command::Help),
                // Cargo passes this to every benchmark.
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse()?,
                "--messages" => options.messages = value()?.parse()?,
                "--dir" => options.dir = value()?.into(),
                "feed" => {
                    let config = value()?.into();
                    let messages = value()?.parse()?;
                    return Ok(Command::Feed(Job { config, messages }));
                }
                other if other.starts_with('-') => bail!("no option: {other}\n{HELP}"),
                medium => options.media.push(medium.to_owned()),
            }
        }
        Ok(Command::Measure(options))
    }
}
