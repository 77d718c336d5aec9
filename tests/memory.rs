//! A sink is stuck while very many messages wait: does resident memory stay within the bound that
//! `rillway check` prints, plus 8 MiB for the process? And once the sink continues, does everything
//! arrive, over the same connection?
//!
//! The sink is standard output into a pipe that nobody reads. By default 300,000 messages wait for 20
//! seconds; a million for two minutes:
//!
//! ```text
//! STUCK_MESSAGES=20000 STUCK_SECONDS=120 cargo test --test all memory::
//! ```

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, publish_evenly};
use crate::common::proxy::Proxy;
use crate::common::rstream::{Compression, Outgoing, Rstream};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, streams};

const MIB: u64 = 1 << 20;

/// Memory for the program itself, whatever its configuration.
const PROCESS_BYTES: u64 = 8 * MIB;

const LONG: Duration = Duration::from_secs(60);

/// A heartbeat that is shorter than the sink is stuck, through a proxy that counts connections.
fn printer(broker: &Broker, proxy: &Proxy, stream: &str, memory: &str) -> Home {
    let settings =
        format!("uri = \"{}\"\nfollow_advertised_hosts = false", broker.uri_by(proxy.port));
    printer_by(&settings, stream, memory)
}

fn printer_by(settings: &str, stream: &str, memory: &str) -> Home {
    Home::with_broker(
        &format!("heartbeat = \"6s\"\n{settings}"),
        &format!(
            "[[consumer]]\nname = \"printer\"\nstream = \"{stream}\"\nmemory = \"{memory}\"\n\
             batch = {{ max_bytes = \"{memory}\" }}\nsink = {{ type = \"stdout\", format = \"raw\" }}\n"
        ),
    )
}

/// Memory limit of a process, and its observed peak.
struct Watched {
    bound: u64,
    most: u64,
}

impl Watched {
    fn of(home: &Home) -> Self {
        Self { bound: home.memory_bound_bytes() + PROCESS_BYTES, most: 0 }
    }

    fn look(&mut self, daemon: &Daemon, when: &str) {
        self.most = self.most.max(daemon.most_memory_bytes());
        let (most, bound) = (self.most / 1024, self.bound / 1024);
        assert!(most <= bound, "{when}: {most} KiB taken, where {bound} KiB are the bound");
    }

    /// Watches while the sink stays stuck for this long: the duration is part of the test.
    async fn look_on(&mut self, daemon: &Daemon, stuck: Duration) {
        let began = Instant::now();
        while began.elapsed() < stuck {
            self.look(daemon, "while the sink is stuck");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Waits until the sink is stuck: memory is full, and the broker gets no credit.
async fn until_stuck(daemon: &mut Daemon) {
    let choked = |c: &serde_json::Value| c["buffered_bytes"].as_u64() > Some(0);
    daemon.until("printer", "it holds something", LONG, choked).await;
    let mut choked = None;
    let began = Instant::now();
    while choked <= Some(0.5) {
        choked = daemon.metric("rillway_backpressure_seconds_total", &["printer"]).await;
        assert!(
            began.elapsed() < LONG,
            "credit is left: {choked:?}\n{:?}\n{}",
            daemon.consumer("printer").await,
            daemon.tail()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads this many lines, and returns `number` of each; and the pipe, because a daemon whose pipe is
/// closed ends.
async fn read_lines(
    pipe: ChildStdout,
    lines: u64,
    number: impl Fn(&str) -> u64 + Send + 'static,
) -> (Vec<u64>, BufReader<ChildStdout>) {
    let reading = tokio::task::spawn_blocking(move || {
        let take = usize::try_from(lines).unwrap();
        let mut pipe = BufReader::new(pipe);
        let lines = pipe.by_ref().lines().take(take);
        (lines.map(|line| number(&line.unwrap())).collect(), pipe)
    });
    tokio::time::timeout(3 * LONG, reading).await.expect("everything arrives in time").unwrap()
}

fn leading_number(line: &str) -> u64 {
    line.split('-').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| {
        panic!("no number in {:?}", &line[..line.len().min(40)]);
    })
}

fn assert_in_order(numbers: &[u64], total: u64) {
    assert_eq!(numbers.len() as u64, total);
    let wrong = numbers.iter().zip(0..).find(|(number, expected)| *number != expected);
    assert_eq!(wrong, None, "(number that came, number expected)");
}

async fn stuck_for_long() -> Result<(), Unavailable> {
    let (total, seconds) = (env_or("STUCK_MESSAGES", 1_500), env_or("STUCK_SECONDS", 20));
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "stuck").await;
    // Each message is confirmed before the next is sent, so each is a chunk of its own, all of one size:
    // a chunk that is larger than the earlier ones may cost the connection, see below. If messages are
    // sent together, the broker may make several chunks of any size.
    let body = |i| format!("{i}-{:x<40000}", "");
    publish_evenly(broker, &stream, (total, 1), body).await;
    let proxy = Proxy::to(broker.stream_port).await;
    let home = printer(broker, &proxy, &stream, "16MiB");
    let mut watched = Watched::of(&home);
    let (mut daemon, pipe) = home.start_piped();
    until_stuck(&mut daemon).await;
    let connections = proxy.accepted();
    assert_eq!(proxy.open(), connections, "one was lost at the start\n{}", home.log_tail());
    watched.look_on(&daemon, Duration::from_secs(seconds)).await;
    assert_eq!((proxy.open(), proxy.accepted()), (connections, connections), "{}", home.log_tail());
    let silent = |c: &serde_json::Value| c["ready"] == false && c["state"] == "degraded";
    let stuck = daemon.until("printer", "it is shown as not ready", LONG, silent).await;
    let reason = stuck["reason"].as_str().unwrap();
    assert!(reason.contains("has made nothing durable for"), "{reason}");
    assert!(stuck["lag_messages"].as_u64() > Some(total * 9 / 10), "{stuck}");
    assert_eq!(daemon.http("GET", "/livez").await.unwrap().0, 200);

    let (numbers, _pipe) = read_lines(pipe, total, leading_number).await;
    assert_in_order(&numbers, total);
    watched.look(&daemon, "after all of it was printed");
    assert_eq!(proxy.accepted(), connections, "a connection was lost\n{}", home.log_tail());
    eprintln!("{} MiB at the most, of {} MiB", watched.most / MIB, watched.bound / MIB);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_sink_that_is_stuck_for_long() {
    or_skip!(stuck_for_long().await);
}

/// First thousands of chunks with one message each, for which the credit window grows wide; then large
/// ones.
async fn tiny_then_large() -> Result<(), Unavailable> {
    const LARGE: u64 = 60;
    const LARGE_BYTES: usize = 900_000;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "burst").await;
    let load = Load::on(broker, &stream, Pace { messages: 1, pause: Duration::ZERO });
    crate::common::eventually("thousands of tiny chunks", LONG, || async {
        (load.confirmed() >= 3000).then_some(())
    })
    .await;
    let tiny = load.stop().await;
    let large = "x".repeat(LARGE_BYTES);
    for i in tiny..tiny + LARGE {
        // One at a time, so that each is a chunk of its own.
        streams::publish(broker, &stream, [format!("{i}-{large}")]).await;
    }
    let proxy = Proxy::to(broker.stream_port).await;
    let home = printer(broker, &proxy, &stream, "4MiB");
    let mut watched = Watched::of(&home);
    let (mut daemon, pipe) = home.start_piped();
    let stuck = |c: &serde_json::Value| c["buffered_bytes"].as_u64() > Some(LARGE_BYTES as u64);
    daemon.until("printer", "it holds what fits", LONG, stuck).await;
    watched.look_on(&daemon, Duration::from_secs(3)).await;
    let number = |line: &str| match line.strip_prefix("{\"i\":") {
        Some(rest) => rest.strip_suffix('}').unwrap().parse().unwrap(),
        None => {
            assert!(line.len() > LARGE_BYTES, "{} bytes of a large one", line.len());
            leading_number(line)
        }
    };
    let (numbers, _pipe) = read_lines(pipe, tiny + LARGE, number).await;
    assert_in_order(&numbers, tiny + LARGE);
    watched.look(&daemon, "after all of it was printed");
    eprintln!("{} MiB at the most, of {} MiB", watched.most / MIB, watched.bound / MIB);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn chunks_far_larger_than_those_before() {
    or_skip!(tiny_then_large().await);
}

/// Batches of 2 MiB each that take only a few KiB in the stream.
async fn inflating() -> Result<(), Unavailable> {
    const MESSAGES: u64 = 8_000;
    const PER_BATCH: usize = 200;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "inflating").await;
    let messages: Vec<Outgoing> =
        (0..MESSAGES).map(|i| Outgoing::repeated(format!("{i:07}-"), 1250)).collect();
    let rstream = Rstream::at(broker).await?;
    rstream.publish_batches(&stream, Compression::Zstd, PER_BATCH, &messages).await;
    let proxy = Proxy::to(broker.stream_port).await;
    let home = printer(broker, &proxy, &stream, "8MiB");
    let mut watched = Watched::of(&home);
    let (mut daemon, pipe) = home.start_piped();
    let full = |c: &serde_json::Value| c["buffered_bytes"].as_u64() > Some(2 * MIB);
    daemon.until("printer", "memory for what is inflated is full", LONG, full).await;
    watched.look_on(&daemon, Duration::from_secs(3)).await;
    let (numbers, _pipe) = read_lines(pipe, MESSAGES, leading_number).await;
    assert_in_order(&numbers, MESSAGES);
    watched.look(&daemon, "after all of it was printed");
    eprintln!("{} MiB at the most, of {} MiB", watched.most / MIB, watched.bound / MIB);
    assert_eq!(
        daemon.metric("rillway_lost_messages_total", &["printer"]).await.unwrap_or(0.0),
        0.0
    );
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn batches_that_inflate_to_many_times_their_size() {
    or_skip!(inflating().await);
}

/// The same over AMQP 0.9.1, which sends message by message: first so many at once that they do not fit,
/// as nothing is known of their size.
async fn stuck_over_amqp() -> Result<(), Unavailable> {
    let total = env_or("STUCK_MESSAGES", 1_500);
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "stuck-amqp").await;
    publish_evenly(broker, &stream, (total, 10), |i| format!("{i}-{:x<40000}", "")).await;
    let proxy = Proxy::to(broker.amqp_port).await;
    let settings = format!("uri = \"amqp://guest:guest@localhost:{}/%2f\"", proxy.port);
    let home = printer_by(&settings, &stream, "16MiB");
    let mut watched = Watched::of(&home);
    let (mut daemon, pipe) = home.start_piped();
    let holds = |c: &serde_json::Value| c["buffered_bytes"].as_u64() > Some(2 * MIB);
    daemon.until("printer", "it holds what fits", LONG, holds).await;
    watched.look_on(&daemon, Duration::from_secs(env_or("STUCK_SECONDS", 20))).await;
    let (numbers, _pipe) = read_lines(pipe, total, leading_number).await;
    assert_in_order(&numbers, total);
    watched.look(&daemon, "after all of it was printed");
    assert!(proxy.accepted() <= 3, "{} connections\n{}", proxy.accepted(), home.log_tail());
    eprintln!("{} MiB at the most, of {} MiB", watched.most / MIB, watched.bound / MIB);
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn a_sink_that_is_stuck_over_amqp() {
    or_skip!(stuck_over_amqp().await);
}
