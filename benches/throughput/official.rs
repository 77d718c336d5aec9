//! The official Rust client, as its own example uses it: a loop over its stream of deliveries.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rabbitmq_stream_client::types::OffsetSpecification;

use crate::options::Job;
use crate::peers::Run;
use crate::{process, streams};

pub(crate) fn run(job: &Job) -> anyhow::Result<()> {
    streams::runtime()?.block_on(consume(job))
}

async fn consume(job: &Job) -> anyhow::Result<()> {
    let environment = streams::environment(job.port).await?;
    let pid = std::process::id();
    let cpu = process::cpu(pid)?;
    let began = Instant::now();
    let consumer = environment.consumer().offset(OffsetSpecification::First);
    let mut consumer = consumer.build(&job.stream).await?;
    let mut messages = 0;
    let deadline = tokio::time::sleep(job.limit);
    tokio::pin!(deadline);
    while messages < job.messages {
        tokio::select! {
            biased;
            delivery = consumer.next() => match delivery {
                Some(delivery) => {
                    std::hint::black_box(delivery?.message().data());
                    messages += 1;
                }
                None => anyhow::bail!("the client ended its stream after {messages} messages"),
            },
            () = &mut deadline => break,
        }
        // `biased` above means that the timer is rarely polled; so the time is checked here.
        if messages % 1024 == 0 && began.elapsed() > job.limit + Duration::from_millis(500) {
            break;
        }
    }
    let run = Run {
        messages,
        chunks: 0,
        took: began.elapsed(),
        cpu: process::cpu(pid)?.saturating_sub(cpu),
        memory_peak: process::memory_peak(pid)?,
        whole: messages >= job.messages,
    };
    println!("{}", run.line());
    Ok(())
}
