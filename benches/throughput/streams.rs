//! The stream of a case, filled by `rillway publish`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rabbitmq_stream_client::Environment;

use crate::options::Case;

pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) messages: u64,
    port: u16,
}

impl Stream {
    /// Creates it and waits until all is confirmed.
    pub(crate) fn publish(port: u16, case: &Case) -> anyhow::Result<Stream> {
        let name = format!("bench-{}x{}-{}", case.size, case.batch, std::process::id());
        let stream = Stream { name, messages: case.messages, port };
        let (size, messages) = (case.size.to_string(), case.messages.to_string());
        let batch = case.batch.to_string();
        let status = Command::new(env!("CARGO_BIN_EXE_rillway"))
            .args(["publish", &stream.name, "--create", "--quiet", "--uri", &uri(port)])
            .args(["--generate", &messages, "--size", &size])
            // What is sent together is a chunk only where nothing else is on its way.
            .args(["--batch", &batch, "--in-flight", &batch])
            .stdin(Stdio::null())
            .status()
            .context("rillway publish")?;
        if !status.success() {
            bail!("rillway publish: {status}");
        }
        Ok(stream)
    }

    /// Best effort: the broker is usually the benchmark's own, and goes afterwards.
    pub(crate) fn delete(self) {
        let deleted = runtime().and_then(|runtime| {
            runtime.block_on(async {
                let environment = environment(self.port).await?;
                Ok(environment.delete_stream(&self.name).await?)
            })
        });
        if let Err(error) = deleted {
            eprintln!("# deleting {}: {error:#}", self.name);
        }
    }
}

pub(crate) fn uri(port: u16) -> String {
    format!("rabbitmq-stream://guest:guest@localhost:{port}/%2f")
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

pub(crate) async fn environment(port: u16) -> anyhow::Result<Environment> {
    Ok(Environment::builder().host("localhost").port(port).build().await?)
}
