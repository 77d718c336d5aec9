//! Super streams: every partition, merged by time.

use std::collections::BTreeMap;

use super::*;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, streams};

#[tokio::test]
async fn partitions_are_merged_by_time() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let (name, partitions) = streams::create_super(broker, "tail-super", 3).await;
            let mut total = 0;
            for round in 0..6 {
                let partition = &partitions[round % 2];
                streams::publish(broker, partition, (total..total + 20).map(|n| format!("{n}")))
                    .await;
                total += 20;
            }
            // By itself, and on request; the third partition is empty.
            for how in [&[][..], &["--super"]] {
                let arguments = [how, &["--until", "end", "--json"]].concat();
                let run = tail(&broker.uri(), &name, &arguments).await;
                assert_eq!(run.code, Some(0), "{}", run.err);
                let lines = run.lines();
                let bodies: Vec<u64> = lines.iter().map(|l| l["body"].as_u64().unwrap()).collect();
                let times: Vec<&str> =
                    lines.iter().map(|l| l["timestamp"].as_str().unwrap()).collect();
                assert!(times.is_sorted(), "{times:?}");
                // Each round was confirmed before the next one, so their times tell the order, unless two
                // fall into one millisecond.
                let mut sorted = bodies.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..total).collect::<Vec<_>>());
                let mut of_each: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
                for line in &lines {
                    let stream = line["stream"].as_str().unwrap();
                    of_each.entry(stream).or_default().push(line["offset"].as_u64().unwrap());
                }
                for (stream, offsets) in of_each {
                    assert_eq!(offsets, (0..60).collect::<Vec<_>>(), "{stream}");
                }
            }
            let run = tail(&broker.uri(), &name, &["--until", "end", "-n", "1"]).await;
            assert!(run.out.starts_with(&format!("-- {name}-0 offset 0, ")), "{}", run.out);
            let run = tail(&broker.uri(), &name, &["--from", "offset:5"]).await;
            assert_eq!(run.code, Some(64));
            assert!(run.err.contains("is a super stream"), "{}", run.err);
            streams::delete_super(broker, &name).await;
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

#[tokio::test]
async fn partitions_are_followed() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let (name, partitions) = streams::create_super(broker, "tail-super", 3).await;
            let arguments = ["--from", "first", "--json"];
            let mut following = Following::start(command(&broker.uri(), &name, &arguments));
            for nth in 0..9 {
                streams::publish(broker, &partitions[nth % 3], [format!("{nth}")]).await;
                following.until_printed(nth + 1).await;
            }
            assert_eq!(following.interrupt().await, Some(0));
            let bodies: Vec<u64> =
                lines(&following.out()).iter().map(|line| line["body"].as_u64().unwrap()).collect();
            assert_eq!(bodies, (0..9).collect::<Vec<_>>());
            assert_eq!(following.read("err"), "");
            streams::delete_super(broker, &name).await;
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
