//! `kill -9` at random moments, under load: is anything lost, written twice, or torn?
//!
//! A producer publishes all the while; batches are small and offsets are stored often, so that many
//! different points of the work are met. By default each test kills a dozen times; a hundred:
//!
//! ```text
//! KILLS=100 cargo test --test all crash::
//! ```
//!
//! The moments are random (`SEED=…` repeats those of an earlier run, as far as that can be had):
//! most fall after the first progress of a run, some into its start-up.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, assert_exact, assert_none_lost, number};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, streams};

const SMALL: &str = r#"
batch = { max_messages = 40, max_age = "20ms" }
commit = { every_messages = 100, every = "100ms" }
restart = { min_backoff = "10ms", max_backoff = "100ms" }
"#;

/// How often a run is killed while it starts up: one time in so many.
const EARLY_ONE_IN: u64 = 4;

/// What goes on in the daemon between two batches takes less.
const LATER_MS_MAX: u64 = 150;

/// A killed daemon's last line may be torn. Whoever reads a stream of lines begins anew with a new
/// writer; so does this.
fn end_last_line(path: &Path) -> bool {
    let mut file = std::fs::File::options().read(true).append(true).open(path).unwrap();
    let mut last = [b'\n'];
    if file.metadata().unwrap().len() > 0 {
        file.seek(SeekFrom::End(-1)).unwrap();
        file.read_exact(&mut last).unwrap();
    }
    let torn = last != [b'\n'];
    if torn {
        file.write_all(b"\n").unwrap();
    }
    torn
}

/// The numbers in the whole lines of what was printed, and how many lines are not whole.
fn printed(path: &Path) -> (Vec<u64>, usize) {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let lines: Vec<_> = text.lines().map(serde_json::from_str).collect();
    let whole: Vec<u64> = lines.iter().flatten().map(number).collect();
    let torn = lines.len() - whole.len();
    (whole, torn)
}

async fn until_progress(daemon: &mut Daemon, name: &str) {
    let written = |consumer: &serde_json::Value| consumer["durable_offset"].as_u64();
    let before = daemon.until(name, "a position", Duration::from_secs(60), |c| {
        c["state"] == "running" && c["received_offset"].is_u64()
    });
    let before = written(&before.await);
    daemon.until(name, "progress", Duration::from_secs(60), |c| written(c) > before).await;
}

/// Kills the daemon again and again, with these two consumers at work, and counts what is there in
/// the end.
async fn killed(sink: &str) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (kills, seed) = (env_or("KILLS", 12), env_or("SEED", fastrand::u64(..)));
    eprintln!("{kills} kills, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = streams::create(broker, "crash").await;
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"filer\"\nstream = \"{stream}\"\nsink = {sink}\n{SMALL}\n\
             [[consumer]]\nname = \"printer\"\nstream = \"{stream}\"\nsink = {{ type = \"stdout\" }}\n{SMALL}"
        ),
    );
    let load = Load::on(broker, &stream, Pace::BRISK);
    let mut torn = 0;
    for _ in 0..kills {
        let mut daemon = home.start();
        if random.u64(0..EARLY_ONE_IN) > 0 {
            until_progress(&mut daemon, if random.bool() { "filer" } else { "printer" }).await;
        }
        // The moment is what is tested, not something to wait for.
        tokio::time::sleep(Duration::from_micros(random.u64(0..LATER_MS_MAX * 1000))).await;
        daemon.kill();
        torn += usize::from(end_last_line(&home.path("stdout")));
    }
    let total = load.stop().await;
    let daemon = home.start();
    eventually("every message is printed", Duration::from_secs(60), || async {
        let (numbers, _) = printed(&home.path("stdout"));
        (numbers.last() == Some(&(total - 1))).then_some(())
    })
    .await;
    eventually("every message is in the files", Duration::from_secs(60), || async {
        let durable = daemon.consumer("filer").await?["durable_offset"].as_u64();
        let printed = daemon.consumer("printer").await?["durable_offset"].as_u64();
        (durable >= printed).then_some(())
    })
    .await;
    daemon.terminate().await;

    let lines = home.lines("out", &stream);
    assert_exact("files", &lines, total);
    let last = lines.last().and_then(|line| line["offset"].as_u64());
    assert_eq!(streams::stored_offset(broker, &stream, "filer").await, last, "stored, of filer");
    assert_eq!(streams::stored_offset(broker, &stream, "printer").await, last, "of printer");
    let (numbers, broken) = printed(&home.path("stdout"));
    assert_none_lost("stdout", &numbers, total);
    assert_eq!(broken, torn, "torn lines that no kill left behind");
    let segments = home.segments("out", &stream).len();
    eprintln!(
        "{total} messages in {segments} files; printed again: {}, torn by a kill: {torn}",
        numbers.len() as u64 - total
    );
    assert_eq!(sink.contains("rotate_bytes"), segments > 3, "{segments} files");
    Ok(())
}

#[tokio::test]
async fn plain_files_and_lines() {
    or_skip!(killed(r#"{ type = "file", dir = "out" }"#).await);
}

#[tokio::test]
async fn compressed_files_that_are_soon_full() {
    let sink = r#"{ type = "file", dir = "out", compression = "zstd", rotate_bytes = "1KiB" }"#;
    or_skip!(killed(sink).await);
}
