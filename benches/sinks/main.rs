//! Speed of each sink, beside the bulk loader of its own destination on the same rows.
//!
//!     make bench-sinks                               every sink whose destination is available here
//!     make bench-sinks ARGS='--rounds 7 sqlite'      see `--help`
//!
//! A sink is fed with ready batches, through its trait, in a process of its own; a loader reads the same
//! rows from a file, in its own process. They take turns, round by round. The broker, the network and the
//! consumer are not included: `make bench` measures them, and a loader has no part in them. Only ratios
//! within one run are compared; see docs/benchmarks.md.

mod feed;
mod loader;
mod media;
mod options;
#[path = "../throughput/process.rs"]
mod process;
mod rows;
mod table;

use anyhow::{Context as _, bail};

use media::Peer;
use options::{Command, Options};

fn main() -> anyhow::Result<()> {
    match Command::parse(std::env::args().skip(1))? {
        Command::Help => options::help(),
        Command::Feed(job) => feed::run(&job)?,
        Command::Measure(options) => measure(&options)?,
    }
    Ok(())
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new().prefix("rillway-bench-").tempdir_in(&options.dir)?;
    let file = scratch.path().join("rows.csv");
    eprintln!("# writing {} rows for the loaders", options.messages);
    rows::write_csv(&file, options.messages).context("the loaders' file")?;
    for medium in media::all() {
        if !options.media.is_empty() && !options.media.iter().any(|name| name == medium.name) {
            continue;
        }
        if let Err(why) = (medium.ready)() {
            println!("\nSKIPPED {}: {why:#}", medium.name);
            continue;
        }
        let mut results = Vec::new();
        for round in 1..=options.rounds {
            for peer in &medium.peers {
                let dir = tempfile::tempdir_in(scratch.path())?;
                let place = media::Place { dir: dir.path(), file: &file };
                let run = (medium.reset)(&place).and_then(|()| match peer {
                    Peer::Sink { config, .. } => feed::start(&place, config, options),
                    Peer::Loader { command, .. } => loader::run(command(&place), options),
                    Peer::Telling { command, .. } => loader::run_telling(command(&place), options),
                });
                let run = run.and_then(|run| match (medium.count)(&place)? {
                    Some(n) if n != run.messages => bail!("there are {n} rows of {}", run.messages),
                    _ => Ok(run),
                });
                match &run {
                    Ok(run) => eprintln!("# round {round}: {}: {run}", peer.name()),
                    Err(error) => eprintln!("# round {round}: {}: {error:#}", peer.name()),
                }
                results.push((peer.name(), run));
            }
        }
        print!("{}", table::of(&medium, options.messages, &results));
    }
    Ok(())
}
