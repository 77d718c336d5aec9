//! A slow reader of standard output: does a crash repeat only the unsettled content of the pipe, and a
//! graceful shutdown nothing?

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::load::publish_evenly;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const TOTAL: u64 = 40_000;

/// Reads line by line, slowly until told otherwise, up to the end.
struct Reader {
    numbers: Arc<Mutex<Vec<u64>>>,
    hurry: Arc<AtomicBool>,
    reading: std::thread::JoinHandle<()>,
}

impl Reader {
    fn of(pipe: ChildStdout) -> Reader {
        let (numbers, hurry): (Arc<Mutex<Vec<u64>>>, Arc<AtomicBool>) = Default::default();
        let reading = std::thread::spawn({
            let (numbers, hurry) = (numbers.clone(), hurry.clone());
            move || {
                for line in BufReader::with_capacity(4096, pipe).lines() {
                    let line = line.unwrap();
                    let number = line.split('-').next().unwrap().parse().unwrap();
                    numbers.lock().unwrap().push(number);
                    if !hurry.load(Ordering::Relaxed) {
                        // The slowness is part of the test: some thousand lines a second.
                        std::thread::sleep(Duration::from_micros(250));
                    }
                }
            }
        });
        Reader { numbers, hurry, reading }
    }

    fn count(&self) -> u64 {
        self.numbers.lock().unwrap().len() as u64
    }

    /// Everything that was read until the pipe was closed.
    fn rest(self) -> Vec<u64> {
        self.hurry.store(true, Ordering::Relaxed);
        self.reading.join().unwrap();
        self.numbers.lock().unwrap().clone()
    }
}

async fn home(broker: &Broker, name: &str) -> (String, Home) {
    let stream = streams::create(broker, name).await;
    publish_evenly(broker, &stream, (TOTAL, 500), |i| format!("{i}-{:x<200}", "")).await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"printer\"\nstream = \"{stream}\"\n\
             batch = {{ max_messages = 1000000, max_bytes = \"8MiB\", max_age = \"1s\" }}\n\
             commit = {{ every_messages = 1000, every = \"100ms\" }}\n\
             sink = {{ type = \"stdout\", format = \"raw\" }}\n"
        ),
    );
    home.set("shutdown_grace = \"10s\"");
    (stream, home)
}

async fn stopped() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (stream, home) = home(broker, "slow-reader-stop").await;
    let (daemon, pipe) = home.start_piped();
    let reader = Reader::of(pipe);
    eventually("it prints", Duration::from_secs(60), || async {
        (reader.count() > 2000).then_some(())
    })
    .await;
    daemon.signal("TERM");
    let status = daemon.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{}", home.log_tail());
    let came = reader.rest();
    assert!((came.len() as u64) < TOTAL, "the reader was slow");
    assert!(came.iter().copied().eq(0..came.len() as u64));
    let stored = streams::stored_offset(broker, &stream, "printer").await;
    assert_eq!(stored, Some(came.len() as u64 - 1), "{}", home.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_graceful_shutdown_amid_a_batch_repeats_no_line() {
    or_skip!(stopped().await);
}

async fn killed() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (stream, home) = home(broker, "slow-reader-kill").await;
    let (daemon, pipe) = home.start_piped();
    let reader = Reader::of(pipe);
    eventually("an offset of the batch is stored", Duration::from_secs(60), || async {
        streams::stored_offset(broker, &stream, "printer").await.filter(|stored| *stored > 4000)
    })
    .await;
    daemon.kill();
    let came = reader.rest().len() as u64;
    let stored = streams::stored_offset(broker, &stream, "printer").await;
    let stored = stored.map_or(0, |offset| offset + 1);
    // Far more than 100 ms and a slice of 1,000 records amount to, for a broker may take its time; the whole batch
    // has 40,000.
    assert!(came - stored <= 10_000, "{came} came, {stored} are stored");
    Ok(())
}

#[tokio::test]
async fn a_crash_amid_a_batch_repeats_little_of_it() {
    or_skip!(killed().await);
}
