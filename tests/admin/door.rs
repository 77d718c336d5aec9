//! The built binary's door: commands with and without the token, and ten thousand connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const TOKEN: &str = "a-token-that-nobody-may-ever-see";

/// Connections of the flood, of which so many are open at the same time.
const FLOOD: usize = 10_000;
const HELD: usize = 400;

/// A home whose `[admin]` has these lines too.
fn home(broker: &Broker, stream: &str, admin: &str) -> Home {
    let home = Home::new(&broker.uri(), "");
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once("[admin]\n").unwrap();
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"file\", dir = \"c\" }}\n"
    );
    std::fs::write(&path, format!("{before}[admin]\n{admin}\n{after}{consumer}")).unwrap();
    home
}

async fn commit(daemon: &Daemon, token: &str) -> (u16, String) {
    let headers = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    daemon.http_with("POST", "/api/v1/consumers/c/commit", &headers).await.unwrap()
}

async fn a_token_opens() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "door-token").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let home = home(broker, &stream, "token = { file = \"token\" }");
    std::fs::write(home.path("token"), TOKEN).unwrap();
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    for wrong in ["", "guess", "another-token-that-is-not-it-at-all"] {
        let (status, text) = commit(&daemon, wrong).await;
        assert_eq!(status, 401, "{text}");
        assert!(text.contains("[admin] token") && !text.contains(TOKEN), "{text}");
    }
    assert_eq!(commit(&daemon, TOKEN).await.0, 200);
    let refused = "rillway_admin_refused_requests_total";
    assert_eq!(daemon.metric(refused, &["reason=\"wrong_token\""]).await, Some(2.0));
    assert_eq!(daemon.metric(refused, &["reason=\"no_token\""]).await, Some(1.0));
    // The token of the file is the one that counts, from its next use on.
    let second = "the-second-token-of-this-daemon";
    std::fs::write(home.path("token"), second).unwrap();
    assert_eq!((commit(&daemon, TOKEN).await.0, commit(&daemon, second).await.0), (401, 200));
    let health = home.command(&["health"]).output().unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    for path in ["/", "/metrics", "/api/v1/consumers", "/readyz"] {
        let (_, text) = daemon.http("GET", path).await.unwrap();
        assert!(!text.contains(TOKEN) && !text.contains(second), "{path}");
    }
    daemon.terminate().await;
    let log = home.log();
    assert!(!log.contains(TOKEN) && !log.contains(second) && !log.contains("guess"), "{log}");
    assert!(log.contains("the admin server refused a request"), "{log}");
    Ok(())
}

async fn without_a_token() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "door-open").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let home = home(broker, &stream, "");
    let path = home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let open = text.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:");
    assert_ne!(text, open);
    std::fs::write(&path, open).unwrap();
    let check = home.command(&["check"]).output().unwrap();
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && told.contains("NOTE: 0.0.0.0:"), "{told}");
    assert!(told.contains("Set [admin] token"), "{told}");
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    let (status, text) = commit(&daemon, TOKEN).await;
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("set [admin] token"), "{text}");
    assert_eq!(daemon.http("GET", "/metrics").await.unwrap().0, 200);
    let health = home.command(&["health", "ready"]).output().unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    daemon.terminate().await;
    assert!(home.log().contains("commands are refused"), "{}", home.log_tail());
    Ok(())
}

/// What one of the flood's clients sends, and never reads.
fn request(nth: usize) -> &'static [u8] {
    const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    const KINDS: [&[u8]; 6] = [
        b"",
        b"GET /metrics HTTP/1.1\r\nhost:",
        METRICS,
        b"POST /api/v1/consumers/c/commit HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nx",
        b"POST /api/v1/consumers/c/commit HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    KINDS[nth % KINDS.len()]
}

/// Opens this many connections; the later ones take the places of the earlier ones.
fn flood(address: &str, count: usize) -> Vec<TcpStream> {
    let mut held = std::collections::VecDeque::new();
    for nth in 0..count {
        // Refused is as good as closed.
        let Ok(mut client) = TcpStream::connect(address) else { continue };
        client.write_all(request(nth)).unwrap_or_default();
        held.push_back(client);
        if held.len() > HELD {
            held.pop_front();
        }
    }
    held.into()
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Two daemons read the same stream; one of them is flooded.
async fn beside_a_flood() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "door-flood").await;
    let homes = ["", ""].map(|admin| home(broker, &stream, admin));
    let mut daemons = homes.each_ref().map(Home::start);
    let load = Load::on(broker, &stream, Pace::BRISK);
    for daemon in &mut daemons {
        daemon.until_durable("c", 100).await;
    }
    let [flooded, other] = &daemons;
    let durable = async |daemon: &Daemon| {
        // The one that has waited longest for its client gives way to this question.
        let ask = || async { daemon.consumer("c").await?["durable_offset"].as_u64() };
        eventually("the page is answered", Duration::from_secs(60), ask).await
    };
    let (files, memory) = (open_files(flooded), flooded.memory_bytes("VmRSS"));
    let before = [durable(flooded).await, durable(other).await];
    for _ in 0..10 {
        let address = flooded.admin_address();
        let held = tokio::task::spawn_blocking(move || flood(&address, FLOOD / 10));
        let mut held = held.await.unwrap();
        assert_eq!(flooded.http("GET", "/livez").await.unwrap().0, 200);
        let open = open_files(flooded).saturating_sub(files);
        assert!(open < 80, "{open} more open files than before the flood");
        // The oldest of them have been closed.
        let first = held.first_mut().unwrap();
        first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        assert!(first.read_to_end(&mut rest).is_ok() || rest.is_empty(), "it is still open");
    }
    let after = [durable(flooded).await, durable(other).await];
    let progress = [after[0] - before[0], after[1] - before[1]];
    assert!(progress[0] * 10 > progress[1] * 8, "flooded and not: {progress:?} messages");
    let grown = flooded.memory_bytes("VmHWM").saturating_sub(memory);
    assert!(grown < 96 << 20, "{grown} more bytes of memory");
    let total = load.stop().await;
    for (daemon, home) in daemons.into_iter().zip(&homes) {
        home.until_landed(&daemon, "c", &stream, total).await;
        daemon.terminate().await;
        assert_exact("c", &home.lines("c", &stream), total);
    }
    Ok(())
}

#[tokio::test]
async fn commands_of_a_daemon_with_a_token_need_it() {
    or_skip!(a_token_opens().await);
}

#[tokio::test]
async fn commands_from_elsewhere_are_refused_without_a_token() {
    or_skip!(without_a_token().await);
}

#[tokio::test]
async fn ten_thousand_connections_do_not_slow_a_consumer() {
    or_skip!(beside_a_flood().await);
}
