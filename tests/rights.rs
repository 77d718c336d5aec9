//! What the user that Rillway runs as may not do: does each error name the file or folder, the user, the
//! missing right and the remedy? And does the consumer go on once it may?
//!
//! - [`group`]: what others may read of what it writes

mod group;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::rstream::{Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};
use crate::tls::certificates;

const SOON: Duration = Duration::from_secs(60);

/// A user without a name, a group or a right.
const NOBODY: u32 = 54_321;

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!(
        "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\nstart = \"first\"\n"
    )
}

/// The binary where every user reaches it: the folder in which it was built may be closed to others.
struct Program {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Program {
    fn for_everybody() -> Result<Program, Unavailable> {
        if !rustix::process::geteuid().is_root() {
            return Err(Unavailable("takes root, to start a program as another user".into()));
        }
        let dir = tempfile::tempdir().unwrap();
        let (built, path) = (Path::new(env!("CARGO_BIN_EXE_rillway")), dir.path().join("rillway"));
        if std::fs::hard_link(built, &path).is_err() {
            std::fs::copy(built, &path).unwrap();
        }
        set_mode(dir.path(), 0o755);
        Ok(Program { _dir: dir, path })
    }

    /// The command of [`Home::command`], as a user who may read this folder and write nothing in it.
    fn command(&self, home: &Home, arguments: &[&str]) -> Command {
        set_mode(&home.path(""), 0o755);
        let asked = home.command(arguments);
        let mut command = Command::new(&self.path);
        command.args(asked.get_args()).current_dir(home.path("")).uid(NOBODY).gid(NOBODY);
        command
    }

    /// Exit code, output and errors.
    fn run(&self, home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(home, arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A folder that is root's, which others can read.
fn closed(home: &Home, name: &str) -> PathBuf {
    let path = home.path(name);
    std::fs::create_dir(&path).unwrap();
    set_mode(&path, 0o755);
    path
}

/// The text names the user, what he may not do, on what, and whose it is.
fn assert_tells(text: &str, verb: &str, path: &Path, remedy: &str) {
    let denial = format!("user {NOBODY} may not {verb} {} (", path.display());
    assert!(text.contains(&denial), "{denial:?} is not in: {text}");
    assert!(text.contains("it belongs to user 0 and group 0, with mode "), "{text}");
    assert!(text.contains(remedy), "{remedy:?} is not in: {text}");
}

async fn state_dir() -> Result<(), Unavailable> {
    let program = Program::for_everybody()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "rights-state").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let home = Home::new(&broker.uri(), &consumer("c", &stream, "{ type = \"null\" }"));
    let state = closed(&home, "state");
    let remedy = "Set another `state_dir`, or allow the user that Rillway runs as to write there";

    // Who checks may be another user than the one who runs it.
    let (code, plan, errors) = program.run(&home, &["check"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_tells(&plan, "create files in", &state, remedy);
    let (code, plan, errors) = program.run(&home, &["check", "--connect", "--json"]);
    assert_eq!(code, Some(69), "{errors}");
    assert!(errors.contains("state_dir: could not write to "), "{errors}");
    assert_tells(&errors, "create files in", &state, remedy);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_tells(plan["state_dir_problem"].as_str().unwrap(), "create files in", &state, remedy);

    let mut daemon = home.spawn(program.command(&home, &["run"]), std::process::Stdio::null());
    let told = |c: &Value| c["reason"].as_str().is_some_and(|r| r.contains("state file "));
    let shown = daemon.until("c", "it says what it lacks", SOON, told).await;
    let remedy = "allow the user that Rillway runs as to write there, or set another `state_dir`";
    assert_tells(shown["reason"].as_str().unwrap(), "create files in", &state, remedy);
    assert!(shown["durable_offset"].is_null(), "{shown}");
    set_mode(&state, 0o777);
    daemon.until_durable("c", 9).await;
    daemon.terminate().await;
    assert!(home.log().contains("a second daemon with the same reference will not be detected"));

    // Written before, and closed since.
    let written = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let file = written.into_iter().find(|path| path.extension().is_some_and(|e| e == "json"));
    let file = file.unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    set_mode(&file, 0o600);
    let mut daemon = home.spawn(program.command(&home, &["run"]), std::process::Stdio::null());
    // What is in it may be the only sign that the broker forgot the offset.
    let reason = daemon.until_halted("c").await;
    assert_tells(&reason, "read", &file, "Allow the user that Rillway runs as to read it");
    daemon.terminate().await;
    set_mode(&file, 0o644);
    let mut daemon = home.spawn(program.command(&home, &["run"]), std::process::Stdio::null());
    daemon.until("c", "it runs", SOON, |c| c["state"] == "running").await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_state_dir_that_may_not_be_used_is_named() {
    or_skip!(state_dir().await);
}

/// A sink's folder or file without the right, and that of dead letters.
async fn destinations() -> Result<(), Unavailable> {
    let program = Program::for_everybody()?;
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "rights-sinks").await;
    rstream.publish(&stream, &[Outgoing::raw([0x00, 0x53, 0x75, 0xA0, 200, b'x'])]).await;
    let letters = consumer("letters", &stream, "{ type = \"file\", dir = \"open/letters\" }")
        + "on_bad_message = \"dead_letter\"\n\
           dead_letter = { type = \"file\", dir = \"closed/letters\" }\n";
    let consumers = [
        consumer("file", &stream, "{ type = \"file\", dir = \"closed/file\" }"),
        consumer("hidden", &stream, "{ type = \"file\", dir = \"hidden/below/file\" }"),
        consumer("new", &stream, "{ type = \"sqlite\", path = \"closed/new.db\" }"),
        consumer("old", &stream, "{ type = \"sqlite\", path = \"old/old.db\" }"),
        consumer("object", &stream, "{ type = \"object\", url = \"closed/object\" }"),
        letters,
        consumer("fine", &stream, "{ type = \"file\", dir = \"open/fine\" }")
            + "on_bad_message = \"skip\"\n",
    ];
    let home = Home::new(&broker.uri(), &consumers.concat());
    let shut = closed(&home, "closed");
    let hidden = closed(&home, "hidden");
    std::fs::create_dir(hidden.join("below")).unwrap();
    set_mode(&hidden, 0o700);
    set_mode(&closed(&home, "old"), 0o777);
    std::fs::write(home.path("old/old.db"), "").unwrap();
    set_mode(&home.path("old/old.db"), 0o644);
    set_mode(&closed(&home, "open"), 0o777);
    set_mode(&closed(&home, "state"), 0o777);

    let (code, plan, errors) = program.run(&home, &["check", "--connect", "--json"]);
    assert_eq!(code, Some(69), "{errors}");
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let mut daemon = home.spawn(program.command(&home, &["run"]), std::process::Stdio::null());
    let create = "create files in";
    for (name, verb, path, remedy) in [
        ("file", create, &shut, "llow the user that Rillway runs as to"),
        ("hidden", "enter", &hidden, "llow the user that Rillway runs as to"),
        ("new", create, &shut, "et the user that rillway runs as write"),
        (
            "old",
            "read and write",
            &home.path("old/old.db"),
            "et the user that rillway runs as write",
        ),
        ("object", create, &shut, "llow the user that Rillway runs as to write there"),
        ("letters", create, &shut, "llow the user that Rillway runs as to"),
    ] {
        let all = plan["consumers"].as_array().unwrap();
        let told = all.iter().find(|consumer| consumer["name"] == name).unwrap();
        let problem = told["problem"].as_str().unwrap_or_else(|| panic!("{told}"));
        assert_tells(problem, verb, path, remedy);
        assert!(name != "letters" || problem.starts_with("dead letters: "), "{problem}");
        let reason = daemon.until_halted(name).await;
        assert_tells(&reason, verb, path, remedy);
        assert!(name != "letters" || reason.starts_with("dead letters: "), "{reason}");
    }
    daemon.until_durable("fine", 0).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_destination_that_may_not_be_written_is_named() {
    or_skip!(destinations().await);
}

/// A secret, a key of TLS and the configuration itself, each readable by root only.
async fn files_that_are_read() -> Result<(), Unavailable> {
    let program = Program::for_everybody()?;
    let certificates = certificates();
    let secret = "uri = \"rabbitmq-stream://localhost:1/%2f\"\nusername = \"me\"\n\
                  password = { file = \"password\" }";
    let home = Home::with_broker(secret, &consumer("c", "s", "{ type = \"null\" }"));
    std::fs::write(home.path("password"), "secret").unwrap();
    set_mode(&home.path("password"), 0o600);
    let read = "Allow the user that Rillway runs as to read it";
    for arguments in [&["check"][..], &["check", "--connect"], &["run"]] {
        let (code, _, errors) = program.run(&home, arguments);
        assert_eq!(code, Some(78), "{errors}");
        assert!(errors.contains("password"), "{errors}");
        assert_tells(&errors, "read", &home.path("password"), read);
        assert!(!errors.contains("secret\""), "{errors}");
    }
    set_mode(&home.path("password"), 0o644);
    assert_eq!(program.run(&home, &["check"]).0, Some(0));

    set_mode(&home.path("rillway.toml"), 0o600);
    let (code, _, errors) = program.run(&home, &["check"]);
    assert_eq!(code, Some(78), "{errors}");
    assert_tells(&errors, "read", &home.path("rillway.toml"), read);

    let encrypted = Broker::shared(Version::V4_3).await?;
    let keys = format!(
        "uri = \"rabbitmq-stream+tls://guest:guest@localhost:{}/%2f\"\n\
         tls = {{ ca = \"ca.pem\", cert = \"cert.pem\", key = \"key.pem\" }}",
        encrypted.stream_port
    );
    let home = Home::with_broker(&keys, &consumer("c", "s", "{ type = \"null\" }"));
    std::fs::write(home.path("ca.pem"), &certificates.ca).unwrap();
    std::fs::write(home.path("cert.pem"), &certificates.ca).unwrap();
    std::fs::write(home.path("key.pem"), "a key").unwrap();
    set_mode(&closed(&home, "state"), 0o777);
    set_mode(&home.path("key.pem"), 0o600);
    let (code, _, errors) = program.run(&home, &["check", "--connect"]);
    assert_eq!(code, Some(69), "{errors}");
    assert_tells(&errors, "read", &home.path("key.pem"), read);
    let mut daemon = home.spawn(program.command(&home, &["run"]), std::process::Stdio::null());
    let told = |c: &Value| c["reason"].as_str().is_some_and(|r| r.contains("key.pem"));
    let shown = daemon.until("c", "it says what it lacks", SOON, told).await;
    assert_tells(shown["reason"].as_str().unwrap(), "read", &home.path("key.pem"), read);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_named() {
    or_skip!(files_that_are_read().await);
}
