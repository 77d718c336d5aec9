//! Many consumers in one process. They all work again soon after their broker is back, without overflowing its accept
//! queue. If the broker accepts no more connections, the log says so, and consumers share connections.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::common::daemon::{Daemon, Home};
use crate::common::skip::or_skip;
use crate::common::{Broker, Options, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(180);

/// Time from the broker's first accepted connection until all consumers are at work. The promise is 30 s; a machine
/// that runs tests is slower.
const BACK_WITHIN: Duration = Duration::from_secs(60);

fn consumers(stream: &str, count: usize) -> String {
    (0..count)
        .map(|nth| {
            format!(
                "[[consumer]]\nname = \"crowd-{nth}\"\nstream = \"{stream}\"\n\
                 sink = {{ type = \"null\" }}\nmemory = \"1MiB\"\n\
                 batch = {{ max_bytes = \"256KiB\" }}\n"
            )
        })
        .collect()
}

/// Starts the daemon with room for a socket for each consumer.
fn start(home: &Home) -> Daemon {
    let run = home.command(&["run"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 8192 2>/dev/null; exec \"$@\"", "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    command.current_dir(home.path(""));
    home.spawn(command, std::process::Stdio::null())
}

/// Number of consumers that are at work; `None` if the daemon does not answer.
async fn running(daemon: &Daemon) -> Option<usize> {
    let (_, body) = daemon.http("GET", "/api/v1/consumers").await?;
    let all: Value = serde_json::from_str(&body).ok()?;
    let rows = all["consumers"].as_array()?.iter();
    Some(rows.filter(|row| row["state"] == "running").count())
}

async fn until_running(daemon: &Daemon, count: usize) {
    let what = format!("{count} consumers are at work");
    eventually(&what, LONG, || async { running(daemon).await.filter(|running| *running >= count) })
        .await;
}

/// Connections that the accept queue of this port had no room for, since it is open. Without `ss`: those of the whole
/// system, since it started.
fn listen_overflows(port: u16) -> u64 {
    let listening = format!("sport = :{port}");
    let output = Command::new("ss").args(["-ltnmH", &listening]).output();
    if let Ok(output) = output
        && output.status.success()
    {
        // As in `skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d3)`.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let memory = text.split("skmem:(").skip(1).filter_map(|rest| rest.split(')').next());
        let dropped = memory.filter_map(|all| all.split(',').find_map(|one| one.strip_prefix('d')));
        return dropped.map(|count| count.parse::<u64>().unwrap()).sum();
    }
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both.find(|(name, _)| *name == "ListenOverflows").unwrap();
    value.parse().unwrap()
}

#[tokio::test]
async fn five_hundred_consumers_are_at_work_soon_after_their_broker_is_back() {
    const COUNT: usize = 500;
    let broker = or_skip!(Broker::private(Version::V4_3).await);
    let stream = streams::create(&broker, "crowd").await;
    streams::publish(&broker, &stream, ["one", "two"]).await;
    let home =
        Home::with_broker(&format!("uri = \"{}\"", broker.uri()), &consumers(&stream, COUNT));
    let daemon = start(&home);
    until_running(&daemon, COUNT).await;

    broker.kill().await;
    eventually("they notice", LONG, || async {
        running(&daemon).await.filter(|running| *running == 0)
    })
    .await;
    let overflows = listen_overflows(broker.stream_port);
    let accepts = async {
        while TcpStream::connect(("127.0.0.1", broker.stream_port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Instant::now()
    };
    let (accepted_at, ()) = tokio::join!(accepts, broker.start());
    until_running(&daemon, COUNT).await;
    let took = accepted_at.elapsed();
    let overflows = listen_overflows(broker.stream_port) - overflows;
    println!(
        "{COUNT} consumers at work {took:.1?} after connections were accepted; {overflows} overflows"
    );
    assert_eq!(overflows, 0, "the accept queue overflowed");
    assert!(took <= BACK_WITHIN, "{took:?}\n{}", home.log_tail());
}

/// Number of connections that the broker's stream port has accepted, or that wait to be.
fn connected(broker: &Broker) -> usize {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", broker.stream_port);
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines
        .filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            local.is_some_and(|local| local.ends_with(&port)) && state == Some(ESTABLISHED)
        })
        .count()
}

/// Waits until `count` consumers are at work, checks that the log and the metrics tell the limit, and returns the
/// number of connections.
async fn limit_is_told(broker: &Broker, home: &Home, stream: &str, count: usize) -> usize {
    let daemon = start(home);
    let began = Instant::now();
    until_running(&daemon, count).await;
    let took = began.elapsed();
    let restarts = eventually("a restart is counted as connection_limit", LONG, || async {
        let (_, metrics) = daemon.http("GET", "/metrics").await?;
        let restarts: f64 = metrics
            .lines()
            .filter(|l| l.starts_with("rillway_restarts_total{"))
            .filter(|line| line.contains("\"connection_limit\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        (restarts >= 1.0).then_some(restarts)
    })
    .await;
    let count = running(&daemon).await.unwrap_or(count);
    let said = home.log().lines().filter(|line| line.contains("connection limit: ")).count();
    let connections = connected(broker);
    println!(
        "{stream}: {count} consumers at work after {took:.1?} on {connections} connections; {restarts} attempts met the limit, said {said} times"
    );
    assert!(said >= 1, "{}", home.log_tail());
    connections
}

#[tokio::test]
async fn a_virtual_host_that_allows_few_connections_serves_many_consumers() {
    let broker = or_skip!(Broker::private(Version::V4_3).await);
    let stream = streams::create(&broker, "few").await;
    streams::publish(&broker, &stream, ["one", "two"]).await;
    let limit = ["rabbitmqctl", "set_vhost_limits", "-p", "/", "{\"max-connections\": 10}"];
    broker.ctl(&limit).await;
    let home = Home::with_broker(&format!("uri = \"{}\"", broker.uri()), &consumers(&stream, 40));
    let connections = limit_is_told(&broker, &home, &stream, 40).await;
    // A connection that is about to be refused counts too.
    assert!(connections < 20, "{connections}");
}

/// RabbitMQ 3.10 accepts connections beyond `connection_max`, and says nothing on them. Versions from 4.0 on
/// do not apply it to connections of the stream protocol.
#[tokio::test]
async fn a_node_that_allows_few_connections_is_told_from_one_that_does_not_answer() {
    let options = Options::default().conf("connection_max = 10");
    let broker = or_skip!(Broker::private_with(Version::V3_10, options).await);
    let stream = streams::create(&broker, "few").await;
    streams::publish(&broker, &stream, ["one", "two"]).await;
    let home = Home::with_broker(
        &format!("uri = \"{}\"\nconnect_timeout = \"3s\"", broker.uri()),
        &consumers(&stream, 40),
    );
    // The others wait for a free connection: a silent node does not tell whether they could share one.
    limit_is_told(&broker, &home, &stream, 10).await;
}

#[tokio::test]
async fn a_node_without_file_descriptors_is_told_from_one_that_does_not_answer() {
    let options = Options::default().descriptors(1024);
    let broker = or_skip!(Broker::private_with(Version::V4_3, options).await);
    let stream = streams::create(&broker, "descriptors").await;
    streams::publish(&broker, &stream, ["one", "two"]).await;
    let home = Home::with_broker(
        &format!("uri = \"{}\"\nconnect_timeout = \"3s\"", broker.uri()),
        &consumers(&stream, 1000),
    );
    // A consumer takes a socket and an open file of the broker.
    let connections = limit_is_told(&broker, &home, &stream, 301).await;
    assert!(connections < 1000, "{connections}");
}
