//! What is published while it runs: nothing twice, nothing lost, and a quiet end.

use std::io::{BufRead, BufReader};

use super::*;
use crate::common::daemon::Home;
use crate::common::proxy::Proxy;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, streams};

/// Without following advertised addresses, which would go around a proxy.
fn through(proxy: &Proxy, uri: &str) -> Home {
    let (head, _) = uri.rsplit_once(':').unwrap();
    let uri = format!("{head}:{}/%2f", proxy.port);
    let broker = format!("uri = \"{uri}\"\nfollow_advertised_hosts = false\nheartbeat = \"30s\"");
    Home::with_broker(&broker, "")
}

async fn cut_in_the_middle(version: Version, is_amqp: bool) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::create(broker, "tail-cut").await;
    let (port, uri) = match is_amqp {
        true => (broker.amqp_port, amqp_uri(broker)),
        false => (broker.stream_port, broker.uri()),
    };
    let proxy = Proxy::to(port).await;
    let home = through(&proxy, &uri);
    let mut command = home.command(&["tail", &stream, "--from", "first", "--json"]);
    command.env_remove("RILLWAY_BROKER");
    let mut following = Following::start(command);
    let mut total = 0;
    for _ in 0..4 {
        streams::publish(broker, &stream, (total..total + 500).map(|nth| format!("{nth}"))).await;
        total += 500;
        following.until_printed(usize::try_from(total).unwrap()).await;
        proxy.cut();
    }
    assert_eq!(following.interrupt().await, Some(0), "{}", following.read("err"));
    let bodies: Vec<u64> =
        lines(&following.out()).iter().map(|line| line["body"].as_u64().unwrap()).collect();
    assert_eq!(bodies, (0..total).collect::<Vec<_>>());
    assert_eq!(streams::stored_offset(broker, &stream, "rillway-tail").await, None);
    Ok(())
}

#[tokio::test]
async fn lost_connections_repeat_nothing_on_3_10() {
    or_skip!(cut_in_the_middle(Version::V3_10, false).await);
}

#[tokio::test]
async fn lost_connections_repeat_nothing_on_4_3() {
    or_skip!(cut_in_the_middle(Version::V4_3, false).await);
}

#[tokio::test]
async fn lost_connections_repeat_nothing_over_amqp() {
    or_skip!(cut_in_the_middle(Version::V4_3, true).await);
}

/// `next`, the default: what is published from then on, without a gap.
#[tokio::test]
async fn what_is_published_from_now_on() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "tail-next").await;
            streams::publish(broker, &stream, (0..50).map(|nth| format!("{nth}"))).await;
            let mut following = Following::start(command(&broker.uri(), &stream, &["--json"]));
            let mut total = 50;
            // When it has connected cannot be seen from here.
            while following.out().is_empty() {
                streams::publish(broker, &stream, [format!("{total}")]).await;
                total += 1;
            }
            let first = offsets(&following.out())[0];
            assert!(first >= 50, "{first}");
            streams::publish(broker, &stream, (total..total + 50).map(|nth| format!("{nth}")))
                .await;
            total += 50;
            following.until_printed(usize::try_from(total - first).unwrap()).await;
            assert_eq!(following.interrupt().await, Some(0));
            assert_eq!(offsets(&following.out()), (first..total).collect::<Vec<_>>());
            assert_eq!(following.read("err"), "");
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// `rillway tail … | head -1`, with more to print, and with nothing more to print.
#[tokio::test]
async fn a_closed_pipe_ends_it_quietly() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            for total in [1, 20_000] {
                let stream = streams::create(broker, "tail-pipe").await;
                streams::publish(broker, &stream, (0..total).map(|nth| format!("{nth}"))).await;
                let arguments = ["--from", "first", "--format", "body"];
                let mut command = command(&broker.uri(), &stream, &arguments);
                let dir = tempfile::tempdir().unwrap();
                command.stdout(std::process::Stdio::piped());
                command.stderr(std::fs::File::create(dir.path().join("err")).unwrap());
                let mut child = command.spawn().unwrap();
                let stdout = child.stdout.take().unwrap();
                let line = crate::common::broker::blocking(move || {
                    let mut line = String::new();
                    BufReader::new(stdout).read_line(&mut line).unwrap();
                    line
                })
                .await;
                assert_eq!(line, "0\n");
                let mut following = Following { child, dir };
                assert_eq!(following.code().await, Some(0));
                assert_eq!(following.read("err"), "");
            }
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// An end that is still to come.
#[tokio::test]
async fn a_time_that_comes_ends_it() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "tail-later").await;
            streams::publish(broker, &stream, ["now"]).await;
            let soon = rillway::types::Timestamp(rillway::types::Timestamp::now().0 + 1_500);
            let until = format!("time:{soon}");
            let run = tail(&broker.uri(), &stream, &["--until", &until, "--json"]).await;
            assert_eq!(run.offsets(), [0]);
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
