//! Does the daemon notify systemd as it should: READY when it runs, WATCHDOG while its loops turn,
//! STOPPING when it drains?

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// Notifications until `last` arrived, each once, in order of their first time.
fn said_until(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length =
            socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}; {last} after {said:?}"));
        for line in String::from_utf8_lossy(&buffer[..length]).lines() {
            if !said.iter().any(|known| known == line) {
                said.push(line.to_owned());
            }
            if line == last {
                return said;
            }
        }
    }
}

async fn notifies() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "notify").await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
        ),
    );
    let path = home.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = home
        .command(&["run"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .env_remove("WATCHDOG_PID")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = said_until(&socket, "READY=1");
    assert!(!said.contains(&"STOPPING=1".to_owned()), "{said:?}");
    said = said_until(&socket, "WATCHDOG=1");
    assert!(said.contains(&"WATCHDOG=1".to_owned()), "{said:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    said_until(&socket, "STOPPING=1");
    assert!(child.wait().unwrap().success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_watchdog_stopping() {
    or_skip!(notifies().await);
}
