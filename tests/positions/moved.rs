//! Every target: what comes next is exactly the wanted message, counted in the sink.

use serde_json::json;

use super::{Bench, Kind, SOON, json as answer_of, offsets, sorted};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, next_millisecond, streams};

/// Stages of one consumer's life: each moves it, runs the daemon to the end of the stream, and counts.
async fn to_every_target(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..100).await;
    let new = bench.shown();
    assert_eq!((&new["next_offset"], &new["mark"]), (&json!(0), &json!("agree")), "{new}");
    bench.run_to_the_end().await;
    let whole: std::ops::Range<u64> = 0..100;
    let mut expected = vec![whole];
    assert_eq!(bench.written().await, sorted(&expected));
    let read = bench.shown();
    assert_eq!(read["next_offset"], 100, "{read}");
    assert_eq!(read["stored_offset"], 99, "{read}");
    let own = if kind == Kind::Stdout { json!(null) } else { json!(99) };
    assert_eq!((&read["sink_position"], &read["lag_messages"]), (&own, &json!(0)), "{read}");
    assert_eq!(read["mark"], "agree", "{read}");

    // A dry run moves nothing, and says the same as the move.
    let would = bench.set(&["--to", "offset:40", "--dry-run"]);
    assert_eq!(bench.shown(), read);
    assert_eq!(would["moved"], false);
    let moved = bench.set(&["--to", "offset:40"]);
    assert_eq!(moved["moved"], true);
    for told in [&would, &moved] {
        let range =
            json!({ "messages": 60, "is_exact": true, "first_offset": 40, "last_offset": 99 });
        assert_eq!((&told["read_again"], &told["skipped"]), (&range, &json!(null)), "{told}");
        assert_eq!((&told["from_offset"], &told["to_offset"]), (&json!(100), &json!(40)));
    }
    let at_40 = bench.shown();
    assert_eq!((&at_40["next_offset"], &at_40["stored_offset"]), (&json!(40), &json!(39)));
    assert_eq!(at_40["lag_messages"], 60, "{at_40}");
    bench.run_to_the_end().await;
    expected.push(40..100);
    assert_eq!(bench.written().await, sorted(&expected), "from 40 on");
    assert_eq!(bench.shown()["next_offset"], 100);

    // The first message, by each of its names. Nothing can be stored on the broker for that.
    for arguments in
        [&["set", "c", "--to", "offset:0"][..], &["set", "c", "--to", "first"], &["reset", "c"]]
    {
        let told = answer_of(&bench.offsets(&[arguments, &["--json"]].concat()));
        let again = told["moves"][0]["read_again"]["messages"].as_u64().unwrap();
        assert!(again >= 100, "{told}");
        let shown = bench.shown();
        assert_eq!((&shown["next_offset"], &shown["sink_position"]), (&json!(0), &json!(null)));
        bench.run_to_the_end().await;
        expected.push(0..100);
        assert_eq!(bench.written().await, sorted(&expected), "{arguments:?}");
        assert_eq!(bench.shown()["stored_offset"], 99, "{arguments:?}");
    }

    // Skipping takes consent.
    bench.publish(100..130).await;
    let refused = super::refusal(&bench.offsets(&["set", "c", "--to", "next"]), 64);
    assert!(refused.contains("30 messages") && refused.contains("--yes"), "{refused}");
    // An upper bound: what was stored takes offsets.
    assert!(bench.shown()["lag_messages"].as_u64() >= Some(30));
    let moved = bench.set(&["--to", "next", "--yes"]);
    assert_eq!(moved["skipped"]["messages"], 30, "{moved}");
    bench.run_idle().await;
    assert_eq!(bench.written().await, sorted(&expected), "nothing to read");
    bench.publish(130..150).await;
    bench.run_to_the_end().await;
    expected.push(130..150);
    assert_eq!(bench.written().await, sorted(&expected), "what came next");

    // One in the middle of what was skipped, and back once more.
    let start = bench.set(&["--to", "last", "--dry-run"]);
    assert!(start["to_offset"].as_u64() > Some(99), "{start}");
    bench.set(&["--to", "offset:98"]);
    bench.run_to_the_end().await;
    expected.push(98..150);
    assert_eq!(bench.written().await, sorted(&expected), "from 98 on");
    Ok(())
}

macro_rules! to_every_target {
    ($($name:ident: $version:ident, $kind:ident;)*) => {
        $(#[tokio::test]
        async fn $name() {
            or_skip!(to_every_target(Version::$version, Kind::$kind).await);
        })*
    };
}

to_every_target! {
    a_file_on_rabbitmq_3_10: V3_10, File;
    a_file_on_rabbitmq_4_3: V4_3, File;
    sqlite_on_rabbitmq_4_0: V4_0, Sqlite;
    postgres_on_rabbitmq_4_3: V4_3, Postgres;
    an_archive_on_rabbitmq_4_3: V4_3, Object;
    a_stream_on_rabbitmq_3_10: V3_10, Stream;
    a_stream_on_rabbitmq_4_3: V4_3, Stream;
    no_position_on_rabbitmq_3_10: V3_10, Stdout;
    no_position_on_rabbitmq_4_3: V4_3, Stdout;
}

/// The first message that was written at a time or later: the broker's clock counts, chunk by chunk.
async fn to_a_time(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..30).await;
    let between = next_millisecond().await;
    bench.publish(30..50).await;
    bench.run_to_the_end().await;
    let time = format!("time:{between}");
    let moved = bench.set(&["--to", &time]);
    assert_eq!(moved["to_offset"], 30, "{moved}");
    assert_eq!(moved["read_again"]["messages"], 20, "{moved}");
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, sorted(&[0..50, 30..50]));
    // Nothing was written since.
    let now = format!("time:{}", next_millisecond().await);
    let moved = bench.set(&["--to", &now]);
    assert_eq!(moved["to_offset"], 50, "{moved}");
    let future =
        super::refusal(&bench.offsets(&["set", "c", "--to", "time:2999-01-01T00:00:00Z"]), 69);
    assert!(future.contains("is in the future"), "{future}");
    Ok(())
}

#[tokio::test]
async fn to_a_time_on_rabbitmq_3_10() {
    or_skip!(to_a_time(Version::V3_10, Kind::File).await);
}

#[tokio::test]
async fn to_a_time_on_rabbitmq_4_3() {
    or_skip!(to_a_time(Version::V4_3, Kind::Stdout).await);
}

/// Over AMQP 0.9.1 the broker stores nothing: the state file and the sink are all there is.
async fn over_amqp(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let uri = format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port);
    let bench = Bench::by(broker, &uri, kind, "").await?;
    bench.publish(0..50).await;
    bench.run_to_the_end().await;
    let shown = bench.shown();
    assert_eq!(
        (&shown["next_offset"], &shown["broker_stores_offsets"]),
        (&json!(50), &json!(false))
    );
    let whole: std::ops::Range<u64> = 0..50;
    let mut expected = vec![whole];
    for to in [20, 0] {
        let moved = bench.set(&["--to", &format!("offset:{to}")]);
        assert_eq!(moved["read_again"]["messages"], 50 - to, "{moved}");
        assert_eq!(bench.shown()["next_offset"], to);
        bench.run_to_the_end().await;
        expected.push(to..50);
        assert_eq!(bench.written().await, sorted(&expected), "from {to} on");
    }
    let beyond = super::refusal(&bench.offsets(&["set", "c", "--to", "offset:51"]), 69);
    assert!(beyond.contains("beyond the end"), "{beyond}");
    Ok(())
}

#[tokio::test]
async fn over_amqp_into_a_file_on_rabbitmq_4_3() {
    or_skip!(over_amqp(Version::V4_3, Kind::File).await);
}

#[tokio::test]
async fn over_amqp_without_a_position_on_rabbitmq_3_10() {
    or_skip!(over_amqp(Version::V3_10, Kind::Stdout).await);
}

/// Where a whole configuration stands, written down and brought back.
async fn there_and_back(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let bench = Bench::new(broker, Kind::File).await?;
    bench.publish(0..20).await;
    bench.run_to_the_end().await;
    let file = bench.home.path("positions.json");
    let file = file.to_str().unwrap();
    assert!(bench.offsets(&["export", file]).status.success());
    bench.publish(20..40).await;
    bench.run_to_the_end().await;
    let back = answer_of(&bench.offsets(&["import", file, "--json"]));
    assert_eq!(back["moves"][0]["to_offset"], 20, "{back}");
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, sorted(&[0..40, 20..40]));
    Ok(())
}

#[tokio::test]
async fn there_and_back_on_rabbitmq_3_10() {
    or_skip!(there_and_back(Version::V3_10).await);
}

#[tokio::test]
async fn there_and_back_on_rabbitmq_4_0() {
    or_skip!(there_and_back(Version::V4_0).await);
}

/// Each partition of a super stream has positions of its own.
async fn all_partitions() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (name, partitions) = streams::create_super(broker, "moved-super", 2).await;
    for (nth, partition) in partitions.iter().enumerate() {
        let bodies = (0..10 + 5 * nth).map(|n| format!("message {n}"));
        streams::publish(broker, partition, bodies).await;
    }
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nsuper_stream = \"{name}\"\nstart = \"first\"\n\
         commit = {{ every = \"1h\", every_messages = 1000000000 }}\nbatch = {{ max_age = \"20ms\" }}\n\
         sink = {{ type = \"file\", dir = \"{{stream}}\" }}\n"
    );
    let home = Home::new(&broker.uri(), &consumer);
    let run = async |counts: [usize; 2]| {
        let daemon = home.start();
        for (partition, count) in partitions.iter().zip(counts) {
            eventually("all is written", SOON, || async {
                (home.lines(partition, partition).len() >= count).then_some(())
            })
            .await;
        }
        daemon.terminate().await;
        for (partition, count) in partitions.iter().zip(counts) {
            assert_eq!(home.lines(partition, partition).len(), count, "{partition}");
        }
    };
    run([10, 15]).await;
    let needs_one = super::refusal(&offsets(&home, &["set", "c", "--to", "offset:4"], None), 64);
    assert!(needs_one.contains("--stream"), "{needs_one}");
    let one = ["set", "c", "--to", "offset:4", "--stream", &partitions[1], "--json"];
    let moved = answer_of(&offsets(&home, &one, None));
    assert_eq!(moved["moves"][0]["read_again"]["messages"], 11, "{moved}");
    run([10, 15 + 11]).await;
    let moved = answer_of(&offsets(&home, &["reset", "c", "--json"], None));
    assert_eq!(moved["moves"].as_array().map(Vec::len), Some(2), "{moved}");
    // The files before are set aside.
    run([10, 15]).await;
    Ok(())
}

#[tokio::test]
async fn all_partitions_or_one_on_rabbitmq_4_3() {
    or_skip!(all_partitions().await);
}
