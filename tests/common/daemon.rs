//! The built binary, run as a daemon in its own folder, and queried through its admin server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ports::{self, Port};
use super::{eventually, plain};

/// The heartbeat of a test that is not about silence: a machine that stalls for seconds closes no connection.
pub(crate) const CALM: &str = "30s";

/// A folder with a configuration, in which the daemon can be started repeatedly.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    admin: Port,
}

/// A running daemon. Killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    admin: SocketAddr,
    log: PathBuf,
}

impl Home {
    /// `consumers` is TOML: the `[[consumer]]` tables, and any tables besides `[broker]`, `[admin]`
    /// and `[log]`.
    pub(crate) fn new(broker_uri: &str, consumers: &str) -> Home {
        Home::with_heartbeat(broker_uri, CALM, consumers)
    }

    /// The same with this heartbeat, for tests of a peer that is silent.
    pub(crate) fn with_heartbeat(broker_uri: &str, heartbeat: &str, consumers: &str) -> Home {
        let broker = format!("uri = \"{broker_uri}\"\nheartbeat = \"{heartbeat}\"");
        Home::with_broker(&broker, consumers)
    }

    /// The same with all lines of `[broker]`.
    pub(crate) fn with_broker(broker: &str, consumers: &str) -> Home {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { dir, admin: ports::reserve() };
        home.configure(broker, consumers);
        home
    }

    /// Rewrites the configuration.
    pub(crate) fn configure(&self, broker: &str, consumers: &str) {
        let text = format!(
            "{}\n[broker]\n{broker}\n[admin]\nlisten = \"{}\"\n[log]\nlevel = \"debug\"\n{consumers}\n",
            "state_dir = \"state\"",
            self.admin.address()
        );
        std::fs::write(self.path("rillway.toml"), text).unwrap();
    }

    /// Makes this daemon keep its state in the other one's folder.
    pub(crate) fn share_state(&self, other: &Home) {
        std::os::unix::fs::symlink(other.path("state"), self.path("state")).unwrap();
        std::fs::create_dir_all(other.path("state")).unwrap();
    }

    /// Adds a line above all tables of the configuration.
    pub(crate) fn set(&self, line: &str) {
        let path = self.path("rillway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{line}\n{text}")).unwrap();
    }

    /// Address of the admin server of a daemon that runs here.
    pub(crate) fn admin_address(&self) -> String {
        self.admin.address().to_string()
    }

    /// A path in the folder, where relative paths of the configuration start too.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of the binary on this configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rillway"));
        command
            .args(arguments)
            .arg("-c")
            .arg(self.path("rillway.toml"))
            .current_dir(self.dir.path());
        command
    }

    /// Starts the daemon; its standard output is appended to the file `stdout`.
    pub(crate) fn start(&self) -> Daemon {
        self.start_to(self.append("stdout"))
    }

    /// Starts the daemon with this fault (`die@written:17`), in the notation of `rillway::faults`.
    pub(crate) fn start_with_fault(&self, fault: &str) -> Daemon {
        let mut command = self.command(&["run"]);
        command.env("RILLWAY_FAULT", fault);
        self.spawn(command, self.append("stdout"))
    }

    /// Starts the daemon with a pipe as standard output, which is read only if the test reads it.
    pub(crate) fn start_piped(&self) -> (Daemon, ChildStdout) {
        let mut daemon = self.start_to(Stdio::piped());
        let stdout = daemon.child.stdout.take().unwrap();
        (daemon, stdout)
    }

    /// Starts the daemon on a terminal, which is closed when the second value is dropped; with
    /// `log_elsewhere`, only its standard output is the terminal. The returned daemon is
    /// `terminal.py`, which passes SIGTERM on and ends like the daemon.
    pub(crate) fn start_on_terminal(
        &self,
        python: &Path,
        log_elsewhere: bool,
    ) -> (Daemon, ChildStdin) {
        let run = self.command(&["run"]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/terminal.py");
        let mut command = Command::new(python);
        command.arg(script);
        match log_elsewhere {
            true => command.arg(self.path("log")),
            false => command.arg("-"),
        };
        command.arg(run.get_program()).args(run.get_args()).current_dir(self.dir.path());
        command.stdin(Stdio::piped()).stdout(self.append("terminal")).stderr(self.append("script"));
        let mut child = command.spawn().unwrap();
        let terminal = child.stdin.take().unwrap();
        (Daemon { child, admin: self.admin.address(), log: self.path("log") }, terminal)
    }

    fn start_to(&self, stdout: impl Into<Stdio>) -> Daemon {
        self.spawn(self.command(&["run"]), stdout)
    }

    /// Starts the daemon by this command, which runs in the folder.
    pub(crate) fn spawn(&self, mut command: Command, stdout: impl Into<Stdio>) -> Daemon {
        let child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(self.append("log")).spawn().unwrap();
        Daemon { child, admin: self.admin.address(), log: self.path("log") }
    }

    fn append(&self, name: &str) -> std::fs::File {
        std::fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap()
    }

    /// The memory bound of the consumers, as `rillway check` prints it.
    pub(crate) fn memory_bound_bytes(&self) -> u64 {
        let output = self.command(&["check", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["memory_bound_bytes"].as_u64().unwrap()
    }

    /// The log of all runs so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The end of the log, to show when a test fails.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.path("log"))
    }

    /// The files of a `file` sink under `dir` for this stream, in order, each with its raw bytes;
    /// without those renamed after the stream was re-created.
    pub(crate) fn segments(&self, dir: &str, stream: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> = std::fs::read_dir(self.path(dir).join(stream))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.to_string_lossy();
                name.contains(".ndjson") && !name.contains(".aside")
            })
            .collect();
        found.sort();
        found
    }

    /// Every line of these segments (plain, or by zstd) as JSON. A torn line fails the test, so nobody
    /// may be writing.
    pub(crate) fn lines(&self, dir: &str, stream: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        for path in self.segments(dir, stream) {
            let mut bytes = std::fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "zst") {
                bytes = zstd::decode_all(bytes.as_slice())
                    .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
            let text = String::from_utf8(bytes).unwrap();
            assert!(
                text.is_empty() || text.ends_with('\n'),
                "{} ends in a torn line",
                path.display()
            );
            for line in text.lines() {
                lines.push(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
            }
        }
        lines
    }

    /// Waits until these segments (not compressed) contain at least this many lines. Waiting for
    /// the lag is not possible: it is as old as the last observation of the stream.
    pub(crate) async fn until_landed(&self, daemon: &Daemon, dir: &str, stream: &str, total: u64) {
        eventually(&format!("{total} lines in {dir}"), Duration::from_secs(60), || async {
            let state = daemon.consumer(dir).await.map(|consumer| consumer["state"].clone());
            assert!(state != Some("halted".into()), "halted\n{}", self.log_tail());
            let lines = self.segments(dir, stream).iter().map(|path| lines_in(path)).sum::<u64>();
            (lines >= total).then_some(())
        })
        .await;
    }

    /// Waits until this many lines are printed.
    pub(crate) async fn until_printed(&self, total: u64) {
        eventually(&format!("{total} lines printed"), Duration::from_secs(60), || async {
            (lines_in(&self.path("stdout")) >= total).then_some(())
        })
        .await;
    }

    /// The offsets of [`Home::lines`].
    pub(crate) fn offsets(&self, dir: &str, stream: &str) -> Vec<u64> {
        self.lines(dir, stream).iter().map(|line| line["offset"].as_u64().unwrap()).collect()
    }
}

impl Daemon {
    /// A line of `/proc/PID/status` in bytes: `VmRSS`, the resident memory now, or `VmHWM`, its
    /// maximum.
    pub(crate) fn memory_bytes(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Most memory that it has taken, in bytes, without the pages of its program file: a debug build has 32 MiB of
    /// them.
    pub(crate) fn most_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM").saturating_sub(self.memory_bytes("RssFile"))
    }

    /// Address of its admin server: host and port.
    pub(crate) fn admin_address(&self) -> String {
        self.admin.to_string()
    }

    /// True if the process is stopped (SIGSTOP) but has not ended.
    pub(crate) fn is_frozen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name before the state is in brackets, and may contain anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// GET (or POST) on the admin server: status and body; `None` while it does not answer.
    pub(crate) async fn http(&self, method: &str, path: &str) -> Option<(u16, String)> {
        self.http_with(method, path, "").await
    }

    /// The same with more headers: lines that end with `\r\n`.
    pub(crate) async fn http_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> Option<(u16, String)> {
        let admin = self.admin;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n{headers}\r\n"
        );
        super::broker::blocking(move || {
            let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(60)).ok()?;
            // Longer than the longest `?wait=`.
            stream.set_read_timeout(Some(Duration::from_secs(70))).ok()?;
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let status = answer.split(' ').nth(1)?.parse().ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
                unchunk(body)
            } else {
                body.to_owned()
            };
            Some((status, body))
        })
        .await
    }

    /// The admin server's view of a consumer. Whatever test asks, the reason is for people.
    pub(crate) async fn consumer(&self, name: &str) -> Option<Value> {
        let (_, body) = self.http("GET", "/api/v1/consumers").await?;
        let all: Value = serde_json::from_str(&body).ok()?;
        let consumer = all["consumers"].as_array()?.iter().find(|c| c["name"] == name).cloned()?;
        let form = consumer["reason"].as_str().and_then(plain::debug_form);
        assert_eq!(form, None, "{consumer}");
        Some(consumer)
    }

    /// Waits until a consumer meets the test's condition.
    pub(crate) async fn until(
        &mut self,
        name: &str,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let started = Instant::now();
        let mut last = Value::Null;
        while started.elapsed() < within {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended ({status}) before: {what}\n{}", self.tail());
            }
            if let Some(consumer) = self.consumer(name).await {
                if wanted(&consumer) {
                    return consumer;
                }
                last = consumer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within {within:?}: {what}\nlast: {last}\n{}", self.tail());
    }

    /// Waits until everything up to `offset` is durable.
    pub(crate) async fn until_durable(&mut self, name: &str, offset: u64) -> Value {
        let what = format!("{name} durable up to {offset}");
        self.until(name, &what, Duration::from_secs(60), |c| {
            c["durable_offset"].as_u64().is_some_and(|durable| durable >= offset)
        })
        .await
    }

    /// Waits until a consumer has halted, and returns the reason.
    pub(crate) async fn until_halted(&mut self, name: &str) -> String {
        let what = format!("{name} halted");
        let halted =
            self.until(name, &what, Duration::from_secs(60), |c| c["state"] == "halted").await;
        halted["reason"].as_str().unwrap().to_owned()
    }

    /// A sample of `/metrics`: the value of the first line that begins with `name` and holds every
    /// one of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.http("GET", "/metrics").await?;
        sample(&text, name, labels)
    }

    /// Sends a signal by its name (`TERM`, `INT`, `KILL`, `STOP`, `USR1`, …).
    pub(crate) fn signal(&self, name: &str) {
        use rustix::process::Signal;
        let signal = match name {
            "TERM" => Signal::TERM,
            "INT" => Signal::INT,
            "KILL" => Signal::KILL,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "HUP" => Signal::HUP,
            other => panic!("no signal {other}"),
        };
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sets the most descriptors that it may have open from now on.
    pub(crate) fn limit_descriptors(&self, most: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// True if it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self, within: Duration) -> ExitStatus {
        eventually("the daemon ends", within, || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await
    }

    /// Waits until it serves its admin address, or has ended.
    async fn until_it_listens(&mut self) {
        let started = Instant::now();
        while !self.has_ended() && self.http("GET", "/livez").await.is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "not listening\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends SIGTERM, and waits for the end, which must be a normal one. First waits until the
    /// daemon handles signals: before that they kill it. Its log is for people, whatever happened.
    pub(crate) async fn terminate(mut self) {
        self.until_it_listens().await;
        self.signal("TERM");
        let log = self.log.clone();
        let status = self.ended(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}\n{}", tail(&log));
        plain::assert_plain_log(&std::fs::read_to_string(&log).unwrap_or_default());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// Waits until one of two consumers has halted; returns the name of the other one, and the reason.
pub(crate) async fn halted_one<'a>(daemon: &Daemon, names: [&'a str; 2]) -> (&'a str, String) {
    eventually("one of the two has halted", Duration::from_secs(60), || async {
        for (name, other) in [(names[0], names[1]), (names[1], names[0])] {
            let consumer = daemon.consumer(name).await?;
            if consumer["state"] == "halted" {
                return Some((other, consumer["reason"].as_str()?.to_owned()));
            }
        }
        None
    })
    .await
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn lines_in(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

/// True if a daemon that was frozen at that time is to stay so: for `FREEZE_SECONDS`, as the duration is part of
/// those tests, and no longer than its test needs without them.
pub(crate) async fn is_to_stay_frozen(since: Instant) -> bool {
    let is_early = since.elapsed() < Duration::from_secs(super::env_or("FREEZE_SECONDS", 0));
    if is_early {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    is_early
}

/// A sample of a page of metrics; see [`Daemon::metric`].
pub(crate) fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    page.lines()
        .find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
}
