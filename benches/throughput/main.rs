//! Throughput of the whole daemon, beside a plain socket reader and the official Rust client.
//!
//!     make bench                                     everything, on a broker of its own
//!     make bench ARGS='--spin --rounds 7 12x400'     see `--help`
//!
//! One run uses one broker; each case is one stream, which the peers read in turn, round by round. Each
//! peer is a process of its own, so that its CPU time and memory are its own. Only ratios within one run
//! are compared; see docs/benchmarks.md.

mod daemon;
mod official;
mod options;
mod peers;
mod plain;
mod process;
mod socket;
mod spin;
mod streams;
mod table;

use anyhow::Context as _;

use options::{Command, Options};
use peers::Peer;

fn main() -> anyhow::Result<()> {
    match Command::parse(std::env::args().skip(1))? {
        Command::Help => options::help(),
        Command::Reader(kind, job) => match kind {
            options::Reader::Plain => plain::run(&job)?,
            options::Reader::Official => official::run(&job)?,
        },
        Command::Measure(options) => measure(&options)?,
    }
    Ok(())
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let Some(port) = options.port else {
        println!("no broker: run `make bench`, or give --port (a stream port on localhost)");
        return Ok(());
    };
    let spinners = options.spin.then(spin::Spinners::start).transpose()?;
    for case in &options.cases {
        eprintln!("# {case}: publishing {} messages", case.messages);
        let stream = streams::Stream::publish(port, case).context("publishing")?;
        let mut results = Vec::new();
        for round in 1..=options.rounds {
            for peer in Peer::ALL.into_iter().filter(|p| options.peers.contains(p)) {
                let run = peers::run(peer, port, &stream, options);
                match &run {
                    Ok(run) => eprintln!("# {case}, round {round}: {}: {run}", peer.name()),
                    Err(error) => eprintln!("# {case}, round {round}: {}: {error:#}", peer.name()),
                }
                results.push((peer, run));
            }
        }
        print!("{}", table::of(case, &results));
        stream.delete();
    }
    drop(spinners);
    Ok(())
}
