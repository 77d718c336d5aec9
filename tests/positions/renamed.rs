//! A consumer that gets another reference: it goes on where it was, with nothing read again and nothing lost, in
//! each sink; whatever kills the rename; and nobody goes on under the former reference.

use std::process::Output;

use rillway::faults::Point;
use serde_json::{Value, json};

use super::{Bench, Kind, SOON, json as answer_of, offsets, refusal};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, env_or, eventually, streams};

impl Bench {
    /// Edits the configuration: another reference for the consumer, in the place of its name.
    fn refer(&self, from: &str, to: &str) {
        let path = self.home.path("rillway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let edited = text
            .replace(&format!("name = \"{from}\"\nstream"), &format!("name = \"{to}\"\nstream"));
        assert_ne!(text, edited);
        std::fs::write(&path, edited).unwrap();
    }

    #[track_caller]
    fn rename(&self, from: &str, to: &str, fault: Option<&str>) -> Output {
        offsets(&self.home, &["rename", from, to, "--json"], fault)
    }

    #[track_caller]
    fn shown_as(&self, name: &str) -> Value {
        answer_of(&self.offsets(&["show", name, "--json"]))["consumers"][0].clone()
    }

    /// Under the former reference nobody goes on.
    async fn is_closed(&self, name: &str) {
        let mut daemon = self.home.start();
        let why = daemon.until_halted(name).await;
        assert!(why.contains("renamed to \"d\"") && why.contains("reference = \"d\""), "{why}");
        daemon.terminate().await;
    }

    /// Runs the consumer of this name to the end of the stream.
    async fn run_as(&self, name: &str) {
        let last = self.shown_as(name)["stream_last_offset"].as_u64().unwrap();
        let mut daemon = self.home.start();
        let what = format!("all is received, up to {last}");
        daemon.until(name, &what, SOON, |c| c["received_offset"].as_u64() >= Some(last)).await;
        daemon.terminate().await;
    }
}

async fn there_and_back(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..60).await;
    let nothing = answer_of(&bench.rename("c", "d", None));
    let what = nothing["streams"][0]["what"].as_str().unwrap();
    assert!(what.contains("no position"), "{nothing}");
    bench.run_to_the_end().await;
    bench.publish(60..80).await;

    // Looking changes nothing, and says what the rename does.
    let before = bench.shown();
    let would =
        answer_of(&offsets(&bench.home, &["rename", "c", "d", "--dry-run", "--json"], None));
    assert_eq!(
        (&would["renamed"], &would["streams"][0]["next_offset"]),
        (&json!(false), &json!(60))
    );
    assert_eq!(bench.shown(), before);
    let renamed = answer_of(&bench.rename("c", "d", None));
    assert_eq!(renamed["renamed"], true, "{renamed}");
    let edit = renamed["edit"].as_str().unwrap();
    assert!(edit.contains("of consumer \"c\", set name = \"d\""), "{edit}");
    assert_eq!(streams::stored_offset(broker, &bench.stream, "d").await, Some(59));

    // The same command again finds it done. With the edited configuration it goes on.
    let again = answer_of(&bench.rename("c", "d", None));
    let what = again["streams"][0]["what"].as_str().unwrap();
    assert!(what.contains("renamed before"), "{what}");
    bench.refer("c", "d");
    let shown = bench.shown_as("d");
    assert_eq!(shown["next_offset"], 60, "{shown}");
    bench.run_as("d").await;
    assert_eq!(bench.written().await, (0..80).collect::<Vec<_>>());

    // And back: what stands under the first name from before does not count. One sink that renames its position, and
    // one that does not.
    if !matches!(kind, Kind::Sqlite | Kind::Stream) {
        return Ok(());
    }
    bench.publish(80..90).await;
    answer_of(&bench.rename("d", "c", None));
    bench.refer("d", "c");
    assert_eq!(bench.shown()["next_offset"], shown_after(&bench, 80));
    bench.run_as("c").await;
    assert_eq!(bench.written().await, (0..90).collect::<Vec<_>>());
    Ok(())
}

/// The first offset behind so many messages: what was stored on the broker lies between.
fn shown_after(bench: &Bench, at_least: u64) -> Value {
    let shown = bench.shown()["next_offset"].clone();
    assert!(shown.as_u64() >= Some(at_least), "{shown}");
    shown
}

macro_rules! there_and_back {
    ($($name:ident: $version:ident, $kind:ident;)*) => {
        $(#[tokio::test]
        async fn $name() {
            or_skip!(there_and_back(Version::$version, Kind::$kind).await);
        })*
    };
}

there_and_back! {
    a_file_is_renamed_on_rabbitmq_3_10: V3_10, File;
    rows_are_renamed_on_rabbitmq_4_3: V4_3, Sqlite;
    rows_on_a_server_are_renamed_on_rabbitmq_4_0: V4_0, Postgres;
    an_archive_is_renamed_on_rabbitmq_4_3: V4_3, Object;
    a_stream_is_renamed_on_rabbitmq_4_3: V4_3, Stream;
    one_without_a_position_is_renamed_on_rabbitmq_4_3: V4_3, Stdout;
}

/// A kill between any two writes: it is one reference or the other, and the next start under the new one, or the
/// same command, completes it.
///
/// `more` are further keys of the consumer.
async fn killed(kind: Kind, more: &str, points: &[Point]) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let mut reached = Vec::new();
    // Those of a move are tested there; here, too, with `RENAMES_KILLED=1`.
    let is_long = env_or("RENAMES_KILLED", 0) > 0;
    let of_a_move = Point::OF_A_MOVE.into_iter().filter(|_| is_long);
    for (nth, point) in points.iter().copied().chain(of_a_move).enumerate() {
        let bench = Bench::by(broker, &broker.uri(), kind, more).await?;
        bench.publish(0..20).await;
        bench.run_to_the_end().await;
        bench.publish(20..30).await;
        let fault = format!("die@{}:1", point.name());
        let output = bench.rename("c", "d", Some(&fault));
        if output.status.success() {
            continue;
        }
        assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
        reached.push(point);
        let is_decided = point != Point::MovesPledged;
        match is_decided {
            false => assert_eq!(bench.shown()["next_offset"], 20),
            true => bench.is_closed("c").await,
        }
        if nth % 2 == 1 || !is_decided {
            answer_of(&bench.rename("c", "d", None));
        }
        bench.refer("c", "d");
        let daemon = bench.home.start();
        let all = || async { (bench.written().await.len() >= 30).then_some(()) };
        eventually("all is written", SOON, all).await;
        daemon.terminate().await;
        assert_eq!(bench.written().await, (0..30).collect::<Vec<_>>(), "{point:?}");
        let shown = bench.shown_as("d");
        assert_eq!(shown["mark"], "agree", "{point:?}: {shown}");
    }
    assert!(points.iter().all(|point| reached.contains(point)), "{reached:?}");
    Ok(())
}

#[tokio::test]
async fn a_rename_is_killed_with_rows() {
    or_skip!(killed(Kind::Sqlite, "", &Point::OF_SEVERAL).await);
}

#[tokio::test]
async fn a_rename_is_killed_with_a_stream() {
    or_skip!(killed(Kind::Stream, "", &[Point::MovesDecided]).await);
}

/// It connects before it has the reference, and reads its state file for that.
#[tokio::test]
async fn a_rename_of_a_single_active_consumer_is_killed() {
    or_skip!(killed(Kind::Sqlite, "single_active = true", &[Point::MovesSettled]).await);
}

/// It has no position yet, and its sink has its name already.
async fn before_its_first_message() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let bench = Bench::new(broker, Kind::Sqlite).await?;
    bench.run_idle().await;
    let renamed = answer_of(&bench.rename("c", "d", None));
    let what = renamed["streams"][0]["what"].as_str().unwrap();
    assert!(what.contains("no position"), "{renamed}");
    bench.refer("c", "d");
    bench.publish(0..10).await;
    bench.run_as("d").await;
    assert_eq!(bench.written().await, (0..10).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn one_is_renamed_before_its_first_message() {
    or_skip!(before_its_first_message().await);
}

/// While it runs, with a name that is taken, or with one that nobody has: nothing is renamed.
async fn refused() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, Kind::Sqlite).await?;
    bench.publish(0..20).await;
    let mut daemon = bench.home.start();
    daemon.until("c", "it has read", SOON, |c| c["received_offset"] == 19).await;
    let told = refusal(&bench.rename("c", "d", None), 69);
    assert!(told.contains("runs in the daemon"), "{told}");
    // The lock of the reference says so too, where the daemon cannot be asked.
    let path = bench.home.path("rillway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[admin]\n", "[admin]\nenabled = false\n")).unwrap();
    let told = refusal(&bench.rename("c", "d", None), 69);
    assert!(told.contains("is in use") && told.contains("Nothing was moved"), "{told}");
    std::fs::write(&path, text).unwrap();
    daemon.terminate().await;
    let before = bench.shown();
    for (from, to, says) in [
        ("c", "c", "the same"),
        ("c", "", "1 to 255"),
        ("x", "d", "no consumer has the reference \"x\": there are c"),
    ] {
        let told = refusal(&bench.rename(from, to, None), 64);
        assert!(told.contains(says), "{told}");
    }
    // Another consumer that has read under the wanted name.
    let other = format!(
        "[[consumer]]\nname = \"other\"\nreference = \"d\"\nstream = \"{}\"\nstart = \"first\"\n\
         sink = {{ type = \"stdout\" }}\n",
        bench.stream
    );
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{other}")).unwrap();
    let told = refusal(&bench.rename("c", "d", None), 64);
    assert!(told.contains("with reference \"d\" besides"), "{told}");
    let mut daemon = bench.home.start();
    daemon.until("other", "it has read", SOON, |c| c["received_offset"].as_u64() >= Some(19)).await;
    daemon.terminate().await;
    std::fs::write(&path, text).unwrap();
    let told = refusal(&bench.rename("c", "d", None), 69);
    assert!(told.contains("\"d\" has a position already"), "{told}");
    let shown = bench.shown();
    assert_eq!(shown["next_offset"], before["next_offset"], "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_rename_is_refused() {
    or_skip!(refused().await);
}

/// All partitions, their list, and the dead letters: what was set aside is not set aside again, and a partition
/// that is added later is read from its first message.
async fn of_partitions() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (name, partitions) = streams::create_super(broker, "renamed", 2).await;
    for partition in &partitions {
        let bodies =
            (0..10).map(|n| if n == 4 { "bad".to_owned() } else { format!("{{\"n\":{n}}}") });
        streams::publish(broker, partition, bodies).await;
    }
    let consumer = |name_of: &str| {
        format!(
            "[[consumer]]\nname = \"{name_of}\"\nsuper_stream = \"{name}\"\nstart = \"first\"\n\
             batch = {{ max_age = \"20ms\" }}\non_bad_message = \"dead_letter\"\n\
             sink = {{ type = \"sqlite\", path = \"rows.db\", table = \"{{stream}}\", columns = {{ n = {{ from = \"/n\", type = \"integer\" }} }} }}\n\
             dead_letter = {{ type = \"file\", dir = \"dead\" }}\n"
        )
    };
    let uri = format!("uri = \"{}\"\nheartbeat = \"30s\"", broker.uri());
    let home = Home::new(&broker.uri(), &consumer("c"));
    let rows = |partition: &str| -> i64 {
        let database = rusqlite::Connection::open(home.path("rows.db")).unwrap();
        let sql = format!("SELECT count(*) FROM \"{}\"", partition.replace('-', "_"));
        database.query_row(&sql, [], |row| row.get(0)).unwrap_or_default()
    };
    let run = async |count: i64| {
        let daemon = home.start();
        let all = || async { partitions.iter().all(|one| rows(one) >= count).then_some(()) };
        eventually("all is written", SOON, all).await;
        daemon.terminate().await;
        assert_eq!([rows(&partitions[0]), rows(&partitions[1])], [count; 2]);
        for partition in &partitions {
            assert_eq!(home.offsets("dead", partition), [4]);
        }
    };
    run(9).await;
    let renamed = answer_of(&offsets(&home, &["rename", "c", "d", "--json"], None));
    let nexts =
        renamed["streams"].as_array().unwrap().iter().map(|one| one["next_offset"].as_u64());
    assert!(nexts.clone().count() == 2 && nexts.flatten().all(|next| next == 10), "{renamed}");
    home.configure(&uri, &consumer("d"));
    let list = std::fs::read_to_string(home.path(format!("state/d@{name}.partitions"))).unwrap();
    assert!(partitions.iter().all(|partition| list.contains(partition.as_str())), "{list}");
    // Read again: the bad message has its dead letter already.
    for partition in &partitions {
        let to = ["set", "d", "--stream", partition, "--to", "offset:3"];
        assert!(offsets(&home, &to, None).status.success());
    }
    run(9 + 6).await;
    Ok(())
}

#[tokio::test]
async fn partitions_and_dead_letters_are_renamed() {
    or_skip!(of_partitions().await);
}
