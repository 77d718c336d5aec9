//! Told to stop under load: does it end in time, with its writes stored, and without duplicates
//! afterwards?
//!
//! By default five rounds of SIGTERM; `TERMS=20 cargo test --test all shutdown::` for twenty.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, assert_exact, assert_none_lost, body, number};
use crate::common::rstream::Rstream;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, python, streams};

/// Small batches, so that a stuck sink has taken few.
const SMALL: &str = "batch = { max_messages = 50, max_age = \"50ms\" }";

/// Time for everything that is not a deliberate wait, to end or to be noticed, on a machine that may stall.
const A_MOMENT: Duration = Duration::from_secs(30);

/// A second signal before that counts as the first: `SECOND_SIGNAL_AFTER` of the daemon.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_secs(1);

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\n{SMALL}\n")
}

fn printed(home: &Home) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path("stdout")).unwrap();
    assert!(text.ends_with('\n'), "standard output ends in a torn line");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last_offset(lines: &[Value]) -> Option<u64> {
    lines.last().and_then(|line| line["offset"].as_u64())
}

async fn terminated_under_load() -> Result<(), Unavailable> {
    const GRACE: Duration = Duration::from_secs(30);
    let broker = Broker::shared(Version::V4_3).await?;
    let rstream = Rstream::at(broker).await?;
    let (rounds, seed) = (env_or("TERMS", 5), env_or("SEED", fastrand::u64(..)));
    eprintln!("{rounds} times SIGTERM, once SIGINT, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = streams::create(broker, "shutdown").await;
    let consumers = [
        consumer("filer", &stream, "{ type = \"file\", dir = \"filer\" }"),
        consumer("printer", &stream, "{ type = \"stdout\" }"),
    ];
    let home = Home::new(&broker.uri(), &consumers.concat());
    home.set(&format!("shutdown_grace = \"{}s\"", GRACE.as_secs()));
    let load = Load::on(broker, &stream, Pace::BRISK);
    for round in 0..=rounds {
        let mut daemon = home.start();
        let written = |c: &Value| c["durable_offset"].as_u64();
        let before = [last_offset(&home.lines("filer", &stream)), None][usize::from(round == 0)];
        for name in ["filer", "printer"] {
            let moved = |c: &Value| written(c).is_some() && written(c) > before;
            daemon.until(name, "progress", Duration::from_secs(60), moved).await;
        }
        // The moment is part of the test, not something to wait for.
        tokio::time::sleep(Duration::from_micros(random.u64(0..200_000))).await;
        let told = Instant::now();
        daemon.signal(if round == rounds { "INT" } else { "TERM" });
        let status = daemon.ended(GRACE + A_MOMENT).await;
        assert!(told.elapsed() < GRACE, "round {round}: it took {:?}", told.elapsed());
        assert_eq!(status.code(), Some(0), "round {round}\n{}", home.log_tail());

        let (filed, shown) = (home.lines("filer", &stream), printed(&home));
        for (name, lines) in [("filer", &filed), ("printer", &shown)] {
            let last = last_offset(lines);
            assert!(last > before, "round {round}: {name} wrote nothing");
            let stored = streams::stored_offset(broker, &stream, name).await;
            assert_eq!(stored, last, "round {round}: {name}, by the official client");
            assert_eq!(rstream.stored_offset(&stream, name).await, last, "{name}, by rstream");
            // Complete up to here, without duplicates, although a run began in the middle.
            assert_exact(name, lines, lines.len() as u64);
        }
    }
    let total = load.stop().await;
    assert!(total > 100 * rounds, "hardly any load: {total}");
    let daemon = home.start();
    home.until_landed(&daemon, "filer", &stream, total).await;
    home.until_printed(total).await;
    daemon.terminate().await;
    assert_exact("filer", &home.lines("filer", &stream), total);
    assert_exact("printer", &printed(&home), total);
    Ok(())
}

#[tokio::test]
async fn it_ends_in_time_without_duplicates() {
    or_skip!(terminated_under_load().await);
}

const MESSAGES: u64 = 20_000;

/// A daemon with a stuck printer, because nobody reads its output, and a filer that has written
/// everything.
async fn half_stuck(
    broker: &Broker,
    grace: &str,
) -> (Home, crate::common::daemon::Daemon, std::process::ChildStdout, String) {
    let stream = streams::create(broker, "stuck").await;
    streams::publish(broker, &stream, (0..MESSAGES).map(body)).await;
    let consumers = [
        consumer("filer", &stream, "{ type = \"file\", dir = \"filer\" }"),
        consumer("printer", &stream, "{ type = \"stdout\" }"),
    ];
    let home = Home::new(&broker.uri(), &consumers.concat());
    home.set(&format!("shutdown_grace = \"{grace}\""));
    let (mut daemon, pipe) = home.start_piped();
    daemon.until_durable("filer", MESSAGES - 1).await;
    // A pipe holds 64 KiB: some messages were written, and most never become durable.
    let stuck = |c: &Value| c["durable_offset"].is_u64() && c["lag_messages"].as_u64() > Some(0);
    daemon.until("printer", "something printed", Duration::from_secs(60), stuck).await;
    (home, daemon, pipe, stream)
}

async fn stuck_past_the_grace() -> Result<(), Unavailable> {
    const GRACE: Duration = Duration::from_secs(10);
    let broker = Broker::shared(Version::V4_3).await?;
    let (home, daemon, pipe, stream) = half_stuck(broker, "10s").await;
    let told = Instant::now();
    daemon.signal("TERM");
    let status = daemon.ended(GRACE + A_MOMENT).await;
    assert!(told.elapsed() >= GRACE, "it gave up after {:?}", told.elapsed());
    assert_eq!(status.code(), Some(75), "{}", home.log_tail());
    let log = home.log();
    let said = log.lines().last().unwrap();
    assert!(said.contains("not finished within shutdown_grace: printer"), "{said}");
    assert!(!said.contains("filer"), "{said}");

    // The filer has stored everything, the printer only what the pipe took.
    let last = last_offset(&home.lines("filer", &stream));
    assert_eq!(streams::stored_offset(broker, &stream, "filer").await, last);
    let mut taken: Vec<Value> = Vec::new();
    for line in BufReader::new(pipe).lines() {
        // The last one may be torn.
        taken.extend(serde_json::from_str::<Value>(&line.unwrap()));
    }
    let in_pipe = last_offset(&taken).expect("something was printed");
    assert!(in_pipe < MESSAGES - 1, "nothing was stuck");
    let stored = streams::stored_offset(broker, &stream, "printer").await;
    assert!(stored.is_some(), "what was printed while draining is stored");
    assert!(stored <= Some(in_pipe), "stored {stored:?}, but only up to {in_pipe} was printed");

    let mut daemon = home.start();
    daemon.until_durable("printer", MESSAGES - 1).await;
    daemon.terminate().await;
    let mut numbers: Vec<u64> = taken.iter().map(number).collect();
    numbers.extend(printed(&home).iter().map(number));
    assert_none_lost("printed by both runs", &numbers, MESSAGES);
    Ok(())
}

#[tokio::test]
async fn a_stuck_sink_does_not_hold_it_past_the_grace() {
    or_skip!(stuck_past_the_grace().await);
}

async fn told_twice() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (home, daemon, _pipe, _stream) = half_stuck(broker, "1h").await;
    let told = Instant::now();
    daemon.signal("TERM");
    eventually("it says that it drains", A_MOMENT, || async {
        home.log()
            .contains("graceful shutdown; the same signal again, at least one second")
            .then_some(())
    })
    .await;
    // As `timeout` does: it sends the signal to the daemon and then to its whole group.
    let told_again = Instant::now();
    daemon.signal("TERM");
    let mut daemon = daemon;
    let counts = eventually("the second one counts as the first, or ends it", A_MOMENT, || {
        let counts = home.log().contains("counts as the first");
        std::future::ready((counts || daemon.has_ended()).then_some(counts))
    })
    .await;
    if !counts {
        // This machine stalled between the two signals.
        assert!(told.elapsed() >= SECOND_SIGNAL_AFTER, "{:?}\n{}", told.elapsed(), home.log_tail());
        assert_eq!(daemon.ended(A_MOMENT).await.code(), Some(75), "{}", home.log_tail());
        return Ok(());
    }
    for ignored in ["HUP", "USR2"] {
        daemon.signal(ignored);
    }
    daemon.until("printer", "it is still draining", A_MOMENT, |_| true).await;
    eventually("another one, later, ends it", A_MOMENT, || {
        daemon.signal("TERM");
        std::future::ready(daemon.has_ended().then_some(()))
    })
    .await;
    let took = told_again.elapsed();
    let status = daemon.ended(A_MOMENT).await;
    assert!(took >= Duration::from_millis(500), "it ended {took:?} after the first signal");
    assert_eq!(status.code(), Some(75), "{}", home.log_tail());
    assert!(home.log().contains("stopped at once"), "{}", home.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    or_skip!(told_twice().await);
}

async fn hung_up() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "hangup").await;
    let home = Home::new(&broker.uri(), &consumer("null", &stream, "{ type = \"null\" }"));
    let mut daemon = home.start();
    let running = |c: &Value| c["state"] == "running";
    daemon.until("null", "it runs", Duration::from_secs(60), running).await;
    for signal in ["HUP", "USR2", "HUP"] {
        daemon.signal(signal);
        let said = format!("SIG{signal}");
        eventually("it says that it ignores the signal", A_MOMENT, || async {
            home.log().contains(&said).then_some(())
        })
        .await;
    }
    streams::publish(broker, &stream, (0..100).map(body)).await;
    daemon.until_durable("null", 99).await;
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(broker, &stream, "null").await, Some(99));
    Ok(())
}

#[tokio::test]
async fn signals_without_a_meaning_end_nothing() {
    or_skip!(hung_up().await);
}

/// A terminal is closed: a daemon that logs there drains; another one continues, except for the consumers
/// that print to that terminal.
async fn terminal_closed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let python = python::of("rstream")?;
    let stream = streams::create(broker, "terminal").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    let filer = consumer("filer", &stream, "{ type = \"file\", dir = \"filer\" }");
    let home = Home::new(&broker.uri(), &filer);
    let (mut daemon, terminal) = home.start_on_terminal(&python, false);
    daemon.until_durable("filer", 99).await;
    drop(terminal);
    let status = daemon.ended(Duration::from_secs(60)).await;
    let shown = std::fs::read_to_string(home.path("terminal")).unwrap();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert_eq!(streams::stored_offset(broker, &stream, "filer").await, Some(99));

    let both = [filer, consumer("printer", &stream, "{ type = \"stdout\" }")].concat();
    let home = Home::new(&broker.uri(), &both);
    let (mut daemon, terminal) = home.start_on_terminal(&python, true);
    daemon.until_durable("printer", 99).await;
    drop(terminal);
    eventually("it says that it ignores SIGHUP", A_MOMENT, || async {
        home.log().contains("SIGHUP").then_some(())
    })
    .await;
    streams::publish(broker, &stream, (100..200).map(body)).await;
    let reason = daemon.until_halted("printer").await;
    assert!(reason.contains("The program that read it has ended"), "{reason}");
    home.until_landed(&daemon, "filer", &stream, 100).await;
    daemon.terminate().await;
    let last = home.lines("filer", &stream).last().unwrap()["offset"].as_u64();
    assert_eq!(streams::stored_offset(broker, &stream, "filer").await, last);
    Ok(())
}

#[tokio::test]
async fn a_closed_terminal_loses_nothing() {
    or_skip!(terminal_closed().await);
}

/// `rillway run | head -3`, and the same with a second consumer that has another sink.
async fn nobody_reads() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "head").await;
    streams::publish(broker, &stream, (0..MESSAGES).map(body)).await;
    let printer = consumer("printer", &stream, "{ type = \"stdout\" }");
    let home = Home::new(&broker.uri(), &printer);
    let (daemon, pipe) = home.start_piped();
    let mut lines = BufReader::new(pipe).lines();
    for _ in 0..3 {
        lines.next().unwrap().unwrap();
    }
    drop(lines);
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(69), "{}", home.log_tail());
    let log = home.log();
    assert!(
        log.lines().last().unwrap().contains("reader of standard output has closed it"),
        "{log}"
    );
    assert!(!log.contains("panicked"), "{log}");

    // The same while there is nothing to print: it is noticed without a write.
    let quiet = streams::create(broker, "quiet").await;
    streams::publish(broker, &quiet, (0..3).map(body)).await;
    let home = Home::new(&broker.uri(), &consumer("idle", &quiet, "{ type = \"stdout\" }"));
    let (mut daemon, pipe) = home.start_piped();
    daemon.until_durable("idle", 2).await;
    drop(pipe);
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(69), "{}", home.log_tail());
    assert!(home.log().lines().last().unwrap().contains("reader of standard output has closed it"));
    assert_eq!(streams::stored_offset(broker, &quiet, "idle").await, Some(2));

    let beside = [printer, consumer("beside", &stream, "{ type = \"null\" }")].concat();
    let home = Home::new(&broker.uri(), &beside);
    let (mut daemon, pipe) = home.start_piped();
    drop(pipe);
    daemon.until_halted("printer").await;
    daemon.until_durable("beside", MESSAGES - 1).await;
    daemon.terminate().await;
    Ok(())
}

#[tokio::test]
async fn it_ends_when_nobody_reads_what_it_prints() {
    or_skip!(nobody_reads().await);
}

/// A consumer that prints to a closed pipe neither panics nor reports an error.
#[test]
fn commands_end_quietly_where_nobody_reads() {
    let home =
        Home::new("rabbitmq-stream://localhost:5552", &consumer("c", "s", "{ type = \"null\" }"));
    for arguments in [&["check"][..], &["check", "--json"], &["schema"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
}
