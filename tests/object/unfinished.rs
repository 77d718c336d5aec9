//! A process is killed amid the objects of its last commit, and no message comes after that: whoever goes on creates
//! the others all the same. What is claimed counts already, so nobody would be given it again.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::archive;
use crate::common::broker::blocking;
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

const SOON: Duration = Duration::from_secs(60);

/// More than are created at a time: some are not there when the process is killed before the first one.
const FOLDERS: u64 = 24;

/// After the claim, before the first object. The first pass is behind what was staged.
const AMID: &str = "die@written:2";

/// The offsets in the objects of this archive and of its replays, in ascending order.
fn offsets(home: &Home, name: &str) -> Vec<u64> {
    let beside = std::fs::read_dir(home.path(".")).unwrap().map(|entry| entry.unwrap());
    let folders = beside.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    let objects = folders.flat_map(|folder| archive::files(&folder.path()));
    let mut offsets = Vec::new();
    for path in objects.filter(|path| path.to_string_lossy().contains(".ndjson")) {
        let bytes = std::fs::read(&path).unwrap();
        let plain = match path.extension().is_some_and(|extension| extension == "zst") {
            true => zstd::decode_all(bytes.as_slice()).unwrap(),
            false => bytes,
        };
        for line in String::from_utf8(plain).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            offsets.push(line["offset"].as_u64().unwrap());
        }
    }
    offsets.sort_unstable();
    offsets
}

/// Runs it with a fault; it has to be killed by that.
async fn is_killed(mut command: Command) {
    use std::os::unix::process::ExitStatusExt;
    command.env("RILLWAY_FAULT", AMID);
    let output = blocking(move || command.output()).await.unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_unfinished(home: &Home, name: &str) {
    let found: BTreeSet<u64> = offsets(home, name).into_iter().collect();
    assert!(found.len() < FOLDERS as usize, "the kill came too late: {found:?}");
}

async fn replay() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "unfinished").await;
    let bodies = (0..FOLDERS).map(|n| format!("{{\"region\":\"r{n}\"}}"));
    streams::publish(broker, &stream, bodies).await;
    let consumer = format!(
        "[[consumer]]\nname = \"it\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
    );
    let home = Home::new(&broker.uri(), &consumer);
    let sink = "{ type = \"object\", url = \"file:again\", format = \"ndjson\", partition_by = [\"/region\"] }";
    let replay = || {
        home.command(&[
            "replay", "it", "--from", "offset:0", "--to", "end", "--quiet", "--sink", sink,
        ])
    };
    is_killed(replay()).await;
    is_unfinished(&home, "again");
    let mut command = replay();
    let output = blocking(move || command.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(offsets(&home, "again"), (0..FOLDERS).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_replay_that_is_killed_at_its_end_is_finished() {
    or_skip!(replay().await);
}

async fn dead_letters() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "unfinished-letters").await;
    let bodies = (0..FOLDERS).map(|n| format!("{{\"n\":\"none {n}\"}}"));
    streams::publish(broker, &stream, bodies).await;
    let consumer = format!(
        "[[consumer]]\nname = \"it\"\nstream = \"{stream}\"\nstart = \"first\"\n\
         on_bad_message = \"dead_letter\"\n\
         sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"t\", columns = {{ n = {{ from = \"/n\", type = \"integer\" }} }} }}\n\
         dead_letter = {{ type = \"object\", url = \"file:dead\", format = \"ndjson\", partition_by = [{{ name = \"at\", from = \"message_annotations.x-rillway-offset\" }}] }}\n"
    );
    let home = Home::new(&broker.uri(), &consumer);
    is_killed(home.command(&["run"])).await;
    is_unfinished(&home, "dead");
    let daemon = home.start();
    let all = || async { (offsets(&home, "dead").len() as u64 >= FOLDERS).then_some(()) };
    eventually("every dead letter is there", SOON, all).await;
    daemon.terminate().await;
    assert_eq!(offsets(&home, "dead"), (0..FOLDERS).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn dead_letters_whose_process_was_killed_are_finished() {
    or_skip!(dead_letters().await);
}

/// Sets all messages aside by a program that fails, and replays them without it.
async fn replay_of_dead_letters() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "unfinished-replay").await;
    let bodies = (0..FOLDERS).map(|n| format!("{{\"region\":\"r{n}\"}}"));
    streams::publish(broker, &stream, bodies).await;
    let consumer = |more: &str| {
        format!(
            "[[consumer]]\nname = \"it\"\nstream = \"{stream}\"\nstart = \"first\"\n{more}\
             on_bad_message = \"dead_letter\"\n\
             sink = {{ type = \"object\", url = \"file:archive\", format = \"ndjson\", partition_by = [\"/region\"] }}\n\
             dead_letter = {{ type = \"file\", dir = \"dead\" }}\n"
        )
    };
    let home = Home::new(&broker.uri(), &consumer("map = 'error(\"no\")'\n"));
    let mut daemon = home.start();
    // Without good messages nothing is committed before the end.
    let is_read = |it: &Value| it["received_offset"] == FOLDERS - 1;
    daemon.until("it", "everything is read", SOON, is_read).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("dead", &stream), (0..FOLDERS).collect::<Vec<_>>());
    home.configure(&format!("uri = \"{}\"", broker.uri()), &consumer(""));
    let replay = || home.command(&["dead-letters", "replay", "it"]);
    is_killed(replay()).await;
    is_unfinished(&home, "archive");
    let mut command = replay();
    let output = blocking(move || command.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(offsets(&home, "archive"), (0..FOLDERS).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_replay_of_dead_letters_that_is_killed_is_finished() {
    or_skip!(replay_of_dead_letters().await);
}
