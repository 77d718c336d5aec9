//! Does the daemon, told that its standard error is the journal, send journald each event with its fields? The
//! socket is a stand-in at journald's own path, in a mount namespace: the real one runs under systemd only.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const SOON: Duration = Duration::from_secs(60);

/// The command with this folder in place of `/run`.
fn with_run(dir: &Path, command: &Command) -> Result<Command, Unavailable> {
    let namespace = |script: &str| {
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("-r");
        }
        unshare.args(["-m", "sh", "-c", script, "sh"]).arg(dir);
        unshare
    };
    let tried = namespace("mount --bind \"$1\" /run").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return Err(Unavailable("takes a mount namespace, for a journald at its own path".into()));
    }
    let mut run = namespace("mount --bind \"$1\" /run && shift && exec \"$@\"");
    run.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        run.current_dir(folder);
    }
    Ok(run)
}

/// The fields of one event.
fn received(journald: &UnixDatagram) -> BTreeMap<String, String> {
    let mut buffer = vec![0; 1 << 16];
    let length = journald.recv(&mut buffer).expect("an event in time");
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    let field = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no field: {line:?}"));
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(field).collect()
}

async fn fields_arrive() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "journal").await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"archiver\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n\
             [[consumer]]\nname = \"lost\"\nstream = \"journal-none\"\nsink = {{ type = \"null\" }}\n"
        ),
    );
    let run = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(run.path().join("systemd/journal")).unwrap();
    let journald = UnixDatagram::bind(run.path().join("systemd/journal/socket")).unwrap();
    journald.set_read_timeout(Some(SOON)).unwrap();
    let errors = std::fs::File::create(home.path("errors")).unwrap();
    let identity = errors.metadata().unwrap();
    let mut command = with_run(run.path(), &home.command(&["run"]))?;
    command.env("JOURNAL_STREAM", format!("{}:{}", identity.dev(), identity.ino()));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();

    // Of each consumer, the first event at a level. Both come in any order, among others.
    let mut wanted: BTreeMap<(&str, &str), Option<BTreeMap<String, String>>> =
        [(("archiver", "6"), None), (("lost", "4"), None)].into();
    let began = Instant::now();
    while wanted.values().any(Option::is_none) {
        assert!(began.elapsed() < SOON, "some did not come: {wanted:?}\n{:?}", child.try_wait());
        let event = received(&journald);
        assert_eq!(event["SYSLOG_IDENTIFIER"], "rillway", "{event:?}");
        let has = |name: &str, value: &str| event.get(name).is_some_and(|v| v == value);
        for ((consumer, priority), place) in &mut wanted {
            if has("CONSUMER", consumer) && has("PRIORITY", priority) {
                *place = Some(event.clone());
            }
        }
    }
    let running = wanted[&("archiver", "6")].as_ref().unwrap();
    assert_eq!(running["STREAM"], stream);
    assert!(running["TARGET"].starts_with("rillway::"), "{running:?}");
    let message = &running["MESSAGE"];
    assert!(message.contains(&format!("consumer=archiver stream={stream}")), "{message}");
    assert_eq!(wanted[&("lost", "4")].as_ref().unwrap()["STREAM"], "journal-none");

    // It still has something to say, and waits for no reader.
    std::thread::spawn(move || while journald.recv(&mut [0; 64]).is_ok() {});
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let errors = std::fs::read_to_string(home.path("errors")).unwrap();
    assert_eq!(errors, "", "what journald took is not written twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_arrives_at_the_journal() {
    or_skip!(fields_arrive().await);
}
