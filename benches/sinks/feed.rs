//! A sink, opened as its configuration says, that is fed with batches in a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rillway::config::{Config, Env};
use rillway::sink::{Durability, SinkError};
use rillway::supervisor::plan_of;

use crate::loader::Run;
use crate::media::Place;
use crate::options::{Job, Options};
use crate::{loader, process, rows};

/// Starts the process and reads its measurements.
pub(crate) fn start(place: &Place<'_>, sink: &str, options: &Options) -> anyhow::Result<Run> {
    let config = place.dir.join("rillway.toml");
    let text = format!(
        "[broker]\nuri = \"rabbitmq-stream://localhost\"\n[[consumer]]\nname = \"bench\"\nstream = \
         \"{}\"\nsink = {sink}\n",
        rows::STREAM
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("feed").arg(&config).arg(options.messages.to_string());
    loader::run_telling(command, options)
}

/// Feeds the sink, and prints seconds, seconds of CPU time, and bytes of memory.
pub(crate) fn run(job: &Job) -> anyhow::Result<()> {
    // The measurement begins when all batches are ready: in production they are in the consumer's memory
    // already.
    let batches: Vec<_> = rows::batches(job.messages)?.into_iter().map(Arc::new).collect();
    let config = Config::load(Some(Path::new(&job.config)), &Env::of_process())?;
    let consumer = config.consumers.first().context("no consumer")?;
    let open = plan_of(&config, consumer).sink;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pid = std::process::id();
    let base = process::forget_memory_peak(pid)?;
    let (began, cpu) = (Instant::now(), process::cpu(pid)?);
    runtime
        .block_on(async {
            let mut sink = open().await?;
            for batch in &batches {
                if sink.write(batch).await? == Durability::Held
                    && sink.flush_at().is_some_and(|at| at <= Instant::now())
                {
                    sink.flush().await?;
                }
            }
            sink.flush().await?;
            sink.close().await
        })
        .map_err(|error: SinkError| anyhow::anyhow!("{error}"))?;
    let (took, cpu) = (began.elapsed(), process::cpu(pid)? - cpu);
    let memory = process::memory_peak(pid)?.saturating_sub(base);
    println!("{} {} {memory}", took.as_secs_f64(), cpu.as_secs_f64());
    Ok(())
}
