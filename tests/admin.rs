//! Idle clients of the built binary's admin server: is `/livez` still served, so that nobody restarts a
//! healthy daemon?
//!
//! [`door`]: who may send commands, and a flood of connections.

mod door;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rillway::admin::limits::HEAD_TIME_MAX;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// More connections than the server accepts.
const CLIENTS: usize = 70;

async fn among_the_idle() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "idle-clients").await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
    );
    let home = Home::new(&broker.uri(), &consumer);
    let mut daemon = home.start();
    daemon.until_durable("c", 9).await;
    let kinds: [(&str, &[u8]); 3] = [
        ("silent", b""),
        ("in the midst of a head", b"GET /metrics HTTP/1.1\r\nhost:"),
        ("idle after an answer", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"),
    ];
    let status_of = async |path: &str| daemon.http("GET", path).await.map(|(status, _)| status);
    for (what, request) in kinds {
        let started = Instant::now();
        let held: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut client = TcpStream::connect(daemon.admin_address()).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                client.write_all(request).unwrap();
                if request.ends_with(b"\r\n\r\n") {
                    let mut answer = [0; 12];
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(&answer, b"HTTP/1.1 200");
                }
                client
            })
            .collect();
        assert_eq!(status_of("/livez").await, Some(200), "beside those {what}");
        // The idle clients have not been waited for until the server's own limit.
        assert!(started.elapsed() < HEAD_TIME_MAX, "{:?} beside those {what}", started.elapsed());
        for path in ["/readyz", "/metrics", "/livez"] {
            assert_eq!(status_of(path).await, Some(200), "{path} beside those {what}");
        }
        for arguments in [&["health"][..], &["health", "ready"]] {
            let probe = home.command(arguments).output().unwrap();
            let told = String::from_utf8_lossy(&probe.stderr).into_owned();
            assert!(probe.status.success(), "{arguments:?} beside those {what}: {told}");
        }
        drop(held);
    }
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn idle_clients_do_not_make_a_daemon_look_dead() {
    or_skip!(among_the_idle().await);
}
