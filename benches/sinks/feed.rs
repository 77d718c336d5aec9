//! A sink, opened as its configuration says, that is fed with batches in a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rillway::config::{Config, Env};
use rillway::consumer::Sifter;
use rillway::flow::batch::Batch;
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
    let plan = plan_of(&config, consumer);
    let (open, transform) = (plan.sink, plan.spec.transform.clone());
    let sifter = transform.map(|transform| Sifter { filter: None, transform: Some(transform) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pid = std::process::id();
    let base = process::forget_memory_peak(pid)?;
    let (began, cpu) = (Instant::now(), process::cpu(pid)?);
    runtime
        .block_on(async {
            let mut sink = open().await?;
            for batch in &batches {
                let sifted = sifter.as_ref().map(|sifter| sifted(sifter, batch)).transpose()?;
                let batch = sifted.as_ref().unwrap_or(batch);
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

/// The batch as the consumer's programs make it. In the daemon this runs on a thread of its own.
fn sifted(sifter: &Sifter, batch: &Arc<Batch>) -> Result<Arc<Batch>, SinkError> {
    let mut sifted = sifter.sift(batch, None, || false);
    if !sifted.is_complete || !sifted.bad.is_empty() {
        return Err(SinkError::Fatal("the program does not go through all messages".to_owned()));
    }
    let changed = sifted.apply(batch).map_err(SinkError::Fatal)?;
    Ok(changed.map_or_else(|| Arc::clone(batch), Arc::new))
}
