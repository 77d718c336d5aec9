//! RabbitMQ nodes for tests, started by `scripts/broker.sh`.
//!
//! A *shared* node serves all tests that use only their own streams. A *private* one belongs to one
//! test, which may stop, kill, freeze and configure it. Both end within a second of this process,
//! however it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::skip::Unavailable;

/// Exit code of `scripts/*.sh` if something is unavailable on this machine.
const EXIT_UNAVAILABLE: i32 = 3;

/// The versions that differ for a stream client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The base protocol: no Deliver v2, StreamStats, single active consumer or super stream.
    V3_10,
    /// Adds all of these, and filtering.
    V4_0,
    /// Adds `committed_offset` in StreamStats.
    V4_3,
}

impl Version {
    pub(crate) const ALL: [Self; 3] = [Self::V3_10, Self::V4_0, Self::V4_3];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V3_10 => "3.10",
            Self::V4_0 => "4.0",
            Self::V4_3 => "4.3",
        }
    }
}

/// Options of a private node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    conf: Vec<String>,
    plugins: Option<String>,
    descriptors: Option<u32>,
    files: Vec<(String, String)>,
}

impl Options {
    /// A line for `rabbitmq.conf`, such as `stream.frame_max = 65536`.
    pub(crate) fn conf(mut self, line: &str) -> Self {
        self.conf.push(line.to_owned());
        self
    }

    /// The number of file descriptors that the node may have, as `ulimit -n` sets it.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// A file in the node's folder, which the node itself sees as `/node/NAME`.
    pub(crate) fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// The plugins, separated by commas, instead of `rabbitmq_stream`. `management` stands for all
    /// plugins that the management UI needs.
    pub(crate) fn plugins(mut self, plugins: &str) -> Self {
        self.plugins = Some(plugins.to_owned());
        self
    }
}

/// A running node, or a stopped one that can be started again on its data and ports.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) version: Version,
    /// Folder of the node; its log is `log/rabbit.log`.
    pub(crate) dir: PathBuf,
    pub(crate) stream_port: u16,
    pub(crate) amqp_port: u16,
    pub(crate) management_port: u16,
    private: bool,
}

impl Broker {
    /// The node of this version that all tests of this process share. Do not stop or change it, and
    /// do not touch other streams.
    pub(crate) async fn shared(version: Version) -> Result<&'static Self, Unavailable> {
        static SHARED: [OnceLock<Result<Broker, Unavailable>>; 3] = [const { OnceLock::new() }; 3];
        blocking(move || {
            SHARED[version as usize].get_or_init(|| find_or_start_shared(version)).as_ref()
        })
        .await
        .map_err(Clone::clone)
    }

    /// A private node, removed when dropped.
    pub(crate) async fn private(version: Version) -> Result<Self, Unavailable> {
        Self::private_with(version, Options::default()).await
    }

    pub(crate) async fn private_with(
        version: Version,
        options: Options,
    ) -> Result<Self, Unavailable> {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let dir = scratch(&format!("private-{}", NTH.fetch_add(1, Ordering::Relaxed)));
        blocking(move || start(version, dir, &options, true)).await
    }

    /// URI for clients: `rabbitmq-stream://guest:guest@localhost:PORT/%2f`.
    pub(crate) fn uri(&self) -> String {
        self.uri_by(self.stream_port)
    }

    /// The same through another port, such as a proxy's.
    pub(crate) fn uri_by(&self, port: u16) -> String {
        format!("rabbitmq-stream://guest:guest@localhost:{port}/%2f")
    }

    /// Stops the node normally.
    pub(crate) async fn stop(&self) {
        self.assert_private();
        self.script("stop", &[]).await;
    }

    /// Kills it, like a crash. Data in the operating system's cache survives.
    pub(crate) async fn kill(&self) {
        self.assert_private();
        self.script("stop", &["--now"]).await;
    }

    /// Starts it again, on the same data and ports. It then answers, but its streams may need a
    /// moment more, as after any start: clients get "not available", or are disconnected.
    pub(crate) async fn start(&self) {
        self.assert_private();
        // A node of a cluster waits for the others, and the machine has other things to do.
        self.script("start", &["--timeout", "180"]).await;
    }

    /// Stops the node's process without ending it (SIGSTOP): connections stay open and nothing answers.
    pub(crate) async fn freeze(&self) {
        self.assert_private();
        self.script("signal", &["STOP"]).await;
    }

    /// Continues a frozen node.
    pub(crate) async fn thaw(&self) {
        self.assert_private();
        self.script("signal", &["CONT"]).await;
    }

    /// Runs `rabbitmqctl`, `rabbitmq-streams`, … against the node, and returns what it printed.
    pub(crate) async fn ctl(&self, command: &[&str]) -> String {
        let mut arguments = vec!["--"];
        arguments.extend(command);
        self.script("ctl", &arguments).await
    }

    fn assert_private(&self) {
        assert!(
            self.private,
            "a shared broker serves other tests: this one wants a private broker"
        );
    }

    async fn script(&self, verb: &str, arguments: &[&str]) -> String {
        let mut command = broker_script(verb, &self.dir);
        if verb == "start" {
            command.args(["--owner", &std::process::id().to_string()]);
        }
        command.args(arguments);
        blocking(move || run(&mut command).unwrap_or_else(|why| panic!("{}", why.0))).await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.private {
            return;
        }
        let stopped = broker_script("stop", &self.dir).arg("--now").status();
        if std::thread::panicking() {
            eprintln!("the broker's folder is kept for a look at its log: {}", self.dir.display());
        } else if stopped.is_ok_and(|status| status.success()) {
            std::fs::remove_dir_all(&self.dir).ok();
        }
    }
}

/// `RILLWAY_TEST_BROKERS` names a folder of running nodes, by version. A missing version is started
/// here.
fn find_or_start_shared(version: Version) -> Result<Broker, Unavailable> {
    if let Some(running) = std::env::var_os("RILLWAY_TEST_BROKERS") {
        let dir = PathBuf::from(running).join(version.as_str());
        // It fails if there is none.
        let output = broker_script("env", &dir).output().expect("scripts/broker.sh runs");
        let settings = String::from_utf8_lossy(&output.stdout);
        if settings.contains("pid=") {
            return Ok(broker(version, dir, &settings, false));
        }
    }
    start(version, scratch(&format!("shared-{}", version.as_str())), &Options::default(), false)
}

fn start(
    version: Version,
    dir: PathBuf,
    options: &Options,
    private: bool,
) -> Result<Broker, Unavailable> {
    if version == Version::V3_10 {
        // Tests use streams on it only through rstream: see streams.rs.
        super::rstream::python()?;
    }
    let mut command = broker_script("start", &dir);
    command.args(["--version", version.as_str(), "--owner", &std::process::id().to_string()]);
    for line in &options.conf {
        command.args(["--conf", line]);
    }
    for (name, content) in &options.files {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), content).unwrap();
    }
    if let Some(most) = options.descriptors {
        command.args(["--files", &most.to_string()]);
    }
    if let Some(plugins) = &options.plugins {
        command.args(["--plugins", plugins]);
    }
    let settings = run(&mut command).map_err(|Unavailable(why)| {
        Unavailable(format!("needs RabbitMQ {}: {why}", version.as_str()))
    })?;
    Ok(broker(version, dir, &settings, private))
}

pub(super) fn broker(version: Version, dir: PathBuf, settings: &str, private: bool) -> Broker {
    let port = |key: &str| {
        let value = settings.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {key} in {settings}"))
    };
    Broker {
        version,
        dir,
        stream_port: port("stream_port"),
        amqp_port: port("amqp_port"),
        management_port: port("management_port"),
        private,
    }
}

/// A folder for this process, with a name that a later process of the same id does not reuse.
pub(super) fn scratch(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("brokers");
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(|| sweep(&all));
    let dir = all.join(std::process::id().to_string()).join(name);
    std::fs::remove_dir_all(&dir).ok();
    dir
}

/// Removes the folders of processes that have ended.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn broker_script(verb: &str, dir: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/broker.sh");
    let mut command = Command::new(script);
    command.arg(verb).arg("--dir").arg(dir);
    command
}

/// The output of the script. If it reports that something is unavailable on this machine, that is
/// returned; any other failure ends the test.
pub(super) fn run(command: &mut Command) -> Result<String, Unavailable> {
    let Output { status, stdout, stderr } = command.output().expect("scripts/broker.sh runs");
    let said = String::from_utf8_lossy(&stderr);
    if status.code() == Some(EXIT_UNAVAILABLE) {
        let why = said.lines().last().unwrap_or("it cannot be had here");
        let why = why.split_once(": ").map_or(why, |(_script, why)| why);
        return Err(Unavailable(why.to_owned()));
    }
    assert!(status.success(), "{command:?} ended with {status}:\n{said}");
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs blocking code without delaying the test's own connections.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}
