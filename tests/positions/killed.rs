//! Kills between the writes of a move: the consumer goes on from the old position or from the target, as what
//! is shown says, and another move repairs what is left.

use rillway::faults::Point;
use serde_json::{Value, json};

use super::{Bench, Kind, offsets, sorted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version};

/// Moves it, and dies there; `None` if the move does not come by.
fn set_and_die(bench: &Bench, to: &str, point: Point) -> Option<()> {
    let fault = format!("die@{}:1", point.name());
    let output = offsets(&bench.home, &["set", "c", "--to", to, "--yes"], Some(&fault));
    if output.status.success() {
        return None;
    }
    assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// What is shown of a move that was interrupted is where the daemon then goes on.
async fn killed_anywhere(version: Version, kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let mut reached = Vec::new();
    for point in Point::OF_A_MOVE {
        for to in [0, 40] {
            let bench = Bench::new(broker, kind).await?;
            bench.publish(0..60).await;
            bench.run_to_the_end().await;
            let target = format!("offset:{to}");
            let Some(()) = set_and_die(&bench, &target, point) else { continue };
            reached.push(point.name());
            let shown = bench.shown();
            assert_eq!(shown["next_offset"], to, "{point:?}: {shown}");
            let at_once = bench.shown();
            assert_eq!(at_once, shown, "looking changes nothing");
            if point == Point::MoveNoted && kind != Kind::Stdout {
                assert_eq!(shown["mark"], "interrupted", "{shown}");
                let text = shown["explanation"].as_str().unwrap();
                assert!(text.contains("another `rillway offsets set`"), "{text}");
            }
            bench.run_to_the_end().await;
            assert_eq!(bench.written().await, sorted(&[0..60, to..60]), "{point:?} to {to}");
            let after = bench.shown();
            assert_eq!((&after["next_offset"], &after["mark"]), (&json!(60), &json!("agree")));
        }
    }
    assert!(reached.contains(&"move_noted") && reached.contains(&"move_kept"), "{reached:?}");
    assert_eq!(reached.contains(&"sink_moved"), kind != Kind::Stdout, "{reached:?}");
    assert!(reached.contains(&"offset_moved"), "{reached:?}");
    Ok(())
}

#[tokio::test]
async fn killed_anywhere_with_a_file_on_rabbitmq_4_3() {
    or_skip!(killed_anywhere(Version::V4_3, Kind::File).await);
}

#[tokio::test]
async fn killed_anywhere_with_sqlite_on_rabbitmq_3_10() {
    or_skip!(killed_anywhere(Version::V3_10, Kind::Sqlite).await);
}

#[tokio::test]
async fn killed_anywhere_with_a_stream_on_rabbitmq_4_3() {
    or_skip!(killed_anywhere(Version::V4_3, Kind::Stream).await);
}

#[tokio::test]
async fn killed_anywhere_without_a_position_on_rabbitmq_4_0() {
    or_skip!(killed_anywhere(Version::V4_0, Kind::Stdout).await);
}

/// Whatever an interrupted move has left, another one goes where it is told; also one that is interrupted in
/// its turn.
async fn another_repairs_it(kind: Kind) -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let bench = Bench::new(broker, kind).await?;
    bench.publish(0..60).await;
    bench.run_to_the_end().await;
    for (nth, point) in Point::OF_A_MOVE.into_iter().enumerate() {
        for to in ["offset:0", "offset:50", "offset:20"] {
            set_and_die(&bench, to, point);
            let shown: Value = bench.shown();
            assert_eq!(shown["next_offset"].to_string(), to.replace("offset:", ""), "{shown}");
        }
        let to = 30 + nth as u64;
        bench.set(&["--to", &format!("offset:{to}"), "--yes"]);
        let shown = bench.shown();
        assert_eq!(
            (&shown["next_offset"], &shown["mark"]),
            (&json!(to), &json!("agree")),
            "{shown}"
        );
    }
    bench.run_to_the_end().await;
    assert_eq!(bench.written().await, sorted(&[0..60, 33..60]));
    Ok(())
}

#[tokio::test]
async fn another_repairs_it_with_a_file() {
    or_skip!(another_repairs_it(Kind::File).await);
}

#[tokio::test]
async fn another_repairs_it_with_an_archive() {
    or_skip!(another_repairs_it(Kind::Object).await);
}

#[tokio::test]
async fn another_repairs_it_without_a_position() {
    or_skip!(another_repairs_it(Kind::Stdout).await);
}
