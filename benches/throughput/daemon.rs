//! `rillway run`, measured from outside: by its own metrics, and by the system's figures for its process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::options::Job;
use crate::peers::{Killed, Run};
use crate::{process, streams};

/// Time between two reads of the metrics: short near the beginning and the end, for exact figures, and
/// long between, since each read costs the daemon CPU time.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(250);
/// Time limit for starting and for the first write.
const START_MAX: Duration = Duration::from_secs(10);

/// One read of the metrics.
struct Sample {
    at: Instant,
    cpu: Duration,
    messages: u64,
    chunks: u64,
}

/// Runs the daemon with its default configuration and these additional lines, until all is durable.
pub(crate) fn run(binary: &Path, consumer: &str, job: &Job) -> anyhow::Result<Run> {
    let home = tempfile::tempdir()?;
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let config = format!(
        "state_dir = \"state\"\n[broker]\nuri = \"{}\"\n[admin]\nlisten = \"{admin}\"\n\
         [[consumer]]\nname = \"bench\"\nreference = \"bench-{}\"\nstream = \"{}\"\n\
         start = \"first\"\n{consumer}",
        streams::uri(job.port),
        admin.port(),
        job.stream
    );
    std::fs::write(home.path().join("rillway.toml"), config)?;
    let log = std::fs::File::create(home.path().join("log"))?;
    let child = Command::new(binary)
        .args(["run", "-c", "rillway.toml"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let mut child = Killed(child);
    let result = watch(&mut child, admin, job);
    let log = std::fs::read_to_string(home.path().join("log"))?;
    // A run with a warning in its log was disturbed, so it does not count.
    for line in log.lines().filter(|l| result.is_err() || !l.contains(" INFO ")) {
        eprintln!("# its log: {line}");
    }
    result
}

fn watch(child: &mut Killed, admin: SocketAddr, job: &Job) -> anyhow::Result<Run> {
    let pid = child.0.id();
    let started = Instant::now();
    let first = loop {
        if let Some(status) = child.0.try_wait()? {
            bail!("ended: {status}");
        }
        match look(pid, admin) {
            Ok(sample) if sample.messages > 0 => break sample,
            Ok(_) | Err(_) if started.elapsed() < START_MAX => std::thread::sleep(LOOK_MIN),
            Ok(_) => bail!("nothing was written within {START_MAX:?}"),
            Err(error) => return Err(error).context("its metrics"),
        }
    };
    let mut last = look(pid, admin)?;
    while last.messages < job.messages && first.at.elapsed() < job.limit {
        let done = (last.messages - first.messages).max(1) as f64;
        let left = (job.messages - last.messages) as f64 / done;
        let wait = (last.at - first.at).mul_f64(left.min(1.0) / 4.0);
        std::thread::sleep(wait.clamp(LOOK_MIN, LOOK_MAX));
        last = look(pid, admin)?;
    }
    Ok(Run {
        messages: last.messages - first.messages,
        chunks: last.chunks,
        took: last.at - first.at,
        cpu: last.cpu.saturating_sub(first.cpu),
        memory_peak: process::memory_peak(pid)?,
        whole: last.messages >= job.messages,
    })
}

/// What is durable, when, and at what cost so far.
fn look(pid: u32, admin: SocketAddr) -> anyhow::Result<Sample> {
    let mut socket = TcpStream::connect(admin)?;
    socket.set_read_timeout(Some(START_MAX))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let at = Instant::now();
    let cpu = process::cpu(pid)?;
    let value = |name: &str| -> anyhow::Result<u64> {
        let line = answer.lines().find(|l| l.starts_with(name) && !l.starts_with('#'));
        let number = line.and_then(|l| l.rsplit(' ').next()).with_context(|| name.to_owned())?;
        Ok(number.parse::<f64>()? as u64)
    };
    Ok(Sample {
        at,
        cpu,
        messages: value("rillway_written_messages_total")?,
        chunks: value("rillway_received_chunks_total")?,
    })
}
