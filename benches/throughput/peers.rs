//! The peers that are compared, and the result of one run.

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::daemon;
use crate::options::{Job, Options};
use crate::streams::Stream;

/// Extra time for a peer's process to end after its time limit, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Plain,
    Null,
    OtherNull,
    File,
    OtherFile,
    Official,
}

impl Peer {
    pub(crate) const ALL: [Peer; 6] =
        [Peer::Plain, Peer::Null, Peer::OtherNull, Peer::File, Peer::OtherFile, Peer::Official];

    /// True for the other build, with which this one is compared.
    pub(crate) fn is_other(self) -> bool {
        matches!(self, Peer::OtherNull | Peer::OtherFile)
    }

    pub(crate) fn parse(name: &str) -> anyhow::Result<Peer> {
        Ok(match name {
            "plain" => Peer::Plain,
            "null" => Peer::Null,
            "other-null" => Peer::OtherNull,
            "other-file" => Peer::OtherFile,
            "file" => Peer::File,
            "official" => Peer::Official,
            other => bail!("no peer: {other}"),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Plain => "plain socket reader",
            Peer::Null => "rillway, `null`",
            Peer::File => "rillway, `file` (NDJSON)",
            Peer::OtherNull => "the other rillway, `null`",
            Peer::OtherFile => "the other rillway, `file`",
            Peer::Official => "official client",
        }
    }
}

/// Result of one run, between the first message seen and the last.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) messages: u64,
    /// Number of chunks, if the peer counts them.
    pub(crate) chunks: u64,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    pub(crate) memory_peak: u64,
    /// True if it had read everything when it was stopped.
    pub(crate) whole: bool,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    /// Microseconds of CPU time per message.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    /// The line in which a peer's process prints its result.
    pub(crate) fn line(&self) -> String {
        format!(
            "run {} {} {} {} {} {}",
            self.messages,
            self.chunks,
            self.took.as_nanos(),
            self.cpu.as_nanos(),
            self.memory_peak,
            u8::from(self.whole)
        )
    }

    fn from_line(line: &str) -> Option<Run> {
        let numbers: Option<Vec<u64>> =
            line.strip_prefix("run ")?.split(' ').map(|n| n.parse().ok()).collect();
        let [messages, chunks, took, cpu, memory_peak, whole] = *numbers? else { return None };
        Some(Run {
            messages,
            chunks,
            took: Duration::from_nanos(took),
            cpu: Duration::from_nanos(cpu),
            memory_peak,
            whole: whole == 1,
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} msg/s, {:.3} µs of CPU each, {} MiB{}",
            self.rate(),
            self.cpu_us(),
            self.memory_peak >> 20,
            if self.whole { "" } else { ", stopped at its time limit" }
        )
    }
}

pub(crate) fn run(
    peer: Peer,
    port: u16,
    stream: &Stream,
    options: &Options,
) -> anyhow::Result<Run> {
    let (name, messages) = (stream.name.clone(), stream.messages);
    let job = Job { port, stream: name, messages, limit: options.limit };
    let own = Path::new(env!("CARGO_BIN_EXE_rillway"));
    let binary = options.against.as_deref().filter(|_| peer.is_other()).unwrap_or(own);
    let daemon = |sink| daemon::run(binary, &format!("sink = {sink}\n{}", options.consumer), &job);
    match peer {
        Peer::Plain => in_own_process("read-plain", &job),
        Peer::Official => in_own_process("read-official", &job),
        Peer::Null | Peer::OtherNull => daemon("{ type = \"null\" }"),
        Peer::File | Peer::OtherFile => daemon("{ type = \"file\", dir = \"out\" }"),
    }
}

fn in_own_process(verb: &str, job: &Job) -> anyhow::Result<Run> {
    let child = Command::new(std::env::current_exe()?)
        .arg(verb)
        .args(job.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Killed(child);
    let deadline = Instant::now() + job.limit + GRACE;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            bail!("hung: it did not end within its time limit of {:?}", job.limit);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = child.0.stdout.take().context("no output")?;
    let output = std::io::read_to_string(output)?;
    match output.lines().find_map(Run::from_line) {
        Some(run) if status.success() => Ok(run),
        _ => bail!("failed: {status}"),
    }
}

/// A process that does not outlive this value.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}
