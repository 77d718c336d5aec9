//! `rillway tail`: are exactly the messages printed that were asked for, each once, and is nothing left
//! behind?

mod following;
mod merged;
mod ranges;
mod refusals;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::broker::blocking;
use crate::common::{Broker, eventually};

const SOON: Duration = Duration::from_secs(60);

/// The end of one run.
pub(super) struct Run {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Run {
    /// The lines of JSON that were printed.
    fn lines(&self) -> Vec<Value> {
        lines(&self.out)
    }

    /// Their offsets, of a run that ended well.
    fn offsets(&self) -> Vec<u64> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        offsets(&self.out)
    }
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn offsets(out: &str) -> Vec<u64> {
    lines(out).iter().map(|line| line["offset"].as_u64().unwrap()).collect()
}

fn amqp_uri(broker: &Broker) -> String {
    format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port)
}

/// `rillway tail STREAM ARGUMENTS`, on this broker, without a configuration.
fn command(uri: &str, stream: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rillway"));
    command.args(["tail", stream]).args(arguments);
    command.env("RILLWAY_BROKER", uri).env_remove("RILLWAY_CONFIG").env_remove("RILLWAY_LOG");
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    command
}

/// Runs it to its end.
async fn tail(uri: &str, stream: &str, arguments: &[&str]) -> Run {
    ended(command(uri, stream, arguments)).await
}

async fn ended(mut command: Command) -> Run {
    let output = blocking(move || command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A run that goes on; killed when it is dropped.
struct Following {
    child: Child,
    dir: tempfile::TempDir,
}

impl Following {
    fn start(mut command: Command) -> Following {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).unwrap();
        command.stdout(file("out")).stderr(file("err"));
        Following { child: command.spawn().unwrap(), dir }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(Path::new(name))).unwrap()
    }

    /// Whole lines that were printed so far.
    fn out(&self) -> String {
        let out = self.read("out");
        let end = out.rfind('\n').map_or(0, |at| at + 1);
        out[..end].to_owned()
    }

    async fn until_printed(&self, lines: usize) {
        let err = || self.read("err");
        eventually(&format!("{lines} lines are printed; {}", err()), SOON, || async {
            (self.out().lines().count() >= lines).then_some(())
        })
        .await;
    }

    /// Interrupts it, and returns its exit code.
    async fn interrupt(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.code().await
    }

    async fn code(&mut self) -> Option<i32> {
        let child = std::cell::RefCell::new(&mut self.child);
        let status =
            eventually("it ends", SOON, || async { child.borrow_mut().try_wait().unwrap() });
        status.await.code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
