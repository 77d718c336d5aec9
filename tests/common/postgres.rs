//! PostgreSQL servers in their own folders, on free ports: one shared by all tests of the process,
//! and private ones, which may be stopped, frozen and filled.
//!
//! The server does not run as root, so if the tests do, it runs as `postgres` or `nobody`. A small
//! shell waits for the end of the test process, however it ends, and stops the server.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::NoTls;

use super::ports::{self, Port};
use super::skip::Unavailable;

/// Exit code of the scripts if something is unavailable on this machine.
const EXIT_UNAVAILABLE: i32 = 3;

const START_MAX: Duration = Duration::from_secs(60);

/// Every local user can log in as anyone, but `locked` only with a password, and `encrypted` only
/// over TLS.
const HBA: &str = "local all all trust\n\
                   host all locked 127.0.0.1/32 scram-sha-256\n\
                   hostnossl all encrypted 127.0.0.1/32 reject\n\
                   host all all 127.0.0.1/32 trust\n";

/// Stops the server when the test process has ended, and removes its folder.
const KEEPER: &str = r#"
owner=$1 dir=$2; shift 2
"$@" >"$dir/log" 2>&1 &
server=$!
while [ -e "/proc/$owner" ] && kill -0 $server 2>/dev/null; do sleep 0.5; done
if [ ! -e "/proc/$owner" ]; then
  kill -CONT $server 2>/dev/null; kill -QUIT $server 2>/dev/null; wait $server; rm -rf "$dir"
fi
"#;

/// A server. Stopped when dropped.
pub(crate) struct Postgres {
    /// Folder of the server; its log is `log`.
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// For a server that is stopped and started again.
    _kept: Option<Port>,
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

/// User and group of the server, if it cannot run as the current user.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).or(Some((65_534, 65_534)))
}

/// Folder of the programs; installs them if possible.
fn programs() -> Result<PathBuf, Unavailable> {
    static PROGRAMS: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    let find = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup.sh");
        let output = Command::new(script).args(["postgres", "--where"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(EXIT_UNAVAILABLE) {
            let why = said.lines().last().unwrap_or("it cannot be had here");
            return Err(Unavailable(format!("needs PostgreSQL: {why}")));
        }
        assert!(output.status.success(), "{said}");
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    };
    PROGRAMS.get_or_init(find).clone()
}

impl Postgres {
    /// The server shared by all tests. Do not stop or change it, and use your own schema.
    pub(crate) async fn shared() -> Result<&'static Postgres, Unavailable> {
        static SHARED: OnceLock<Result<Postgres, Unavailable>> = OnceLock::new();
        super::broker::blocking(|| SHARED.get_or_init(|| Postgres::make(&[])).as_ref())
            .await
            .map_err(Clone::clone)
    }

    /// A private server, with these lines in `postgresql.conf`.
    pub(crate) async fn private(settings: &[&str]) -> Result<Postgres, Unavailable> {
        let settings: Vec<String> = settings.iter().map(|line| (*line).to_owned()).collect();
        super::broker::blocking(move || Postgres::make(&settings)).await
    }

    fn make(settings: &[String]) -> Result<Postgres, Unavailable> {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let programs = programs()?;
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        // Not below the target folder, which may be accessible to root only.
        let dir = std::env::temp_dir().join(format!("rillway-pg-{}-{nth}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        let user = user();
        let mut postgres = Postgres { dir, port: 0, _kept: None, programs, user };
        postgres.give(&postgres.dir);
        let made = postgres
            .command("initdb")
            .args(["-U", "rillway", "-E", "UTF8", "--locale=C", "--no-sync", "-A", "trust", "-D"])
            .arg(postgres.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.write("data/pg_hba.conf", HBA);
        // Data here has to survive processes, not the machine.
        let usual = "listen_addresses = '127.0.0.1'\nmax_connections = 100\nfsync = off\n\
                     shared_buffers = 32MB\nautovacuum_naptime = 5s\n";
        let settings = format!("{usual}{}\n", settings.join("\n"));
        let conf = format!("unix_socket_directories = '{}'\n{settings}", postgres.dir.display());
        let path = postgres.data().join("postgresql.conf");
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &conf).unwrap();
        postgres.start_somewhere();
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A file that only the server can read.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path
    }

    /// Changes the owner to the server's user.
    pub(crate) fn give(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, program: &str) -> Command {
        self.as_user(Command::new(self.programs.join(program)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.current_dir(&self.dir).env_remove("PGDATA");
        command
    }

    /// Another user's process may take a free port before the server does: then another one is used.
    fn start_somewhere(&mut self) {
        for _ in 0..5 {
            let kept = ports::reserve();
            self.port = kept.number;
            self._kept = Some(kept);
            if self.try_start() {
                return;
            }
        }
        panic!("no server could be started:\n{}", self.log());
    }

    fn try_start(&self) -> bool {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", &std::process::id().to_string()]).arg(&self.dir);
        keeper.arg(self.programs.join("postgres")).arg("-D").arg(self.data());
        keeper.args(["-p", &self.port.to_string()]);
        keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keeper = self.as_user(keeper).spawn().unwrap();
        let began = Instant::now();
        // The last line shows when it accepts connections.
        while self.pid_file().lines().nth(7).is_none_or(|line| line.trim() != "ready") {
            if keeper.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < START_MAX, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        // It ends by itself, and nothing else waits for it.
        std::thread::spawn(move || keeper.wait());
        true
    }

    fn pid_file(&self) -> String {
        std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default()
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid_file().lines().next()?.parse().ok()?)
    }

    /// The server's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Fast shutdown: sessions are terminated.
    pub(crate) async fn stop(&self) {
        self.end(Signal::INT).await;
    }

    /// Stops it without a checkpoint: the next start recovers.
    pub(crate) async fn crash(&self) {
        self.end(Signal::QUIT).await;
    }

    async fn end(&self, signal: Signal) {
        let Some(pid) = self.pid() else { return };
        kill_process(pid, signal).unwrap();
        super::eventually("the server has ended", START_MAX, || async {
            (!self.data().join("postmaster.pid").exists()).then_some(())
        })
        .await;
    }

    /// Starts it again, on the same port.
    pub(crate) async fn start(&self) {
        assert!(self.try_start(), "the server does not start again:\n{}", self.log());
    }

    /// URL for clients.
    pub(crate) fn url(&self) -> String {
        self.url_of("rillway", self.port)
    }

    /// The same with another role (`NAME` or `NAME:PASSWORD`), or another port, such as a proxy's.
    pub(crate) fn url_of(&self, role: &str, port: u16) -> String {
        format!("postgres://{role}@127.0.0.1:{port}/postgres")
    }

    /// A connection of the test, as superuser.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs statements, as superuser.
    pub(crate) async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// A new schema of a unique name.
    pub(crate) async fn schema(&self) -> String {
        let name = super::streams::unique("s").replace('-', "_");
        self.run(&format!("CREATE SCHEMA {name}")).await;
        name
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::QUIT).ok();
        }
        if std::thread::panicking() {
            eprintln!("the server's folder is kept for a look at its log: {}", self.dir.display());
            return;
        }
        let began = Instant::now();
        while self.data().join("postmaster.pid").exists() && began.elapsed() < START_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
