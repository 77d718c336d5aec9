//! What is not replayed, and why.

use super::*;
use crate::common::skip::or_skip;

fn refused(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(says), "{says}: {}", said(output));
}

#[tokio::test]
async fn what_would_double_or_hide_messages_is_refused() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = stream(broker, "replay-refused").await;
            let sink = "{ type = \"sqlite\", path = \"it.db\" }";
            let other = consumer(&stream, "{ type = \"file\", dir = \"out\" }", "")
                .replace("\"it\"", "\"filer\"");
            let of = consumer(&stream, sink, "") + &other;
            let home = Home::new(&broker.uri(), &of);
            let mut daemon = home.start();
            daemon.until_durable("filer", TOTAL - 1).await;
            daemon.until_durable("it", TOTAL - 1).await;
            let all = ["--from", "first", "--to", "end"];
            refused(&replay(&home, &all).await, 64, "in the table twice");
            let into_out = [&all[..], &["--sink", "{ type = \"file\", dir = \"out\" }"]].concat();
            // While the daemon has it, and later.
            refused(&replay(&home, &into_out).await, 69, "out");
            daemon.terminate().await;
            refused(&replay(&home, &into_out).await, 69, "Give each consumer a `dir` of its own");
            let table = format!(
                "{{ type = \"stream\", stream = \"{stream}-p\", create = true, publisher = \"p\" }}"
            );
            let as_p = ["--from", "first", "--to", "offset:9", "--sink", &table];
            assert!(replay(&home, &as_p).await.status.success());
            refused(&replay(&home, &as_p).await, 64, "up to offset 9 already");
            assert_eq!(home.offsets("out", &stream), (0..TOTAL).collect::<Vec<_>>());
            for (arguments, says) in [
                (&["--from", "next", "--to", "end"][..], "rillway run"),
                (&["--from", "first", "--to", "offset:1800"], "ends at offset"),
                (&["--from", "offset:9", "--to", "offset:8"], "ends before it begins"),
                (&["--from", "first", "--to", "time:2999-01-01T00:00:00Z"], "still to come"),
                (&["--from", "first", "--to", "end", "--stream", "x"], "leave --stream out"),
                (&["--from", "first", "--to", "end", "--sink", "nowhere"], "Expected the name"),
            ] {
                let arguments = [arguments, &["--append"]].concat();
                refused(&replay(&home, &arguments).await, 64, says);
            }
            let nobody = output(home.command(&["replay", "he", "--from", "first", "--to", "end"]));
            refused(&nobody.await, 64, "there are it, filer");
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// Retention took a part: nothing is written before that was accepted.
#[tokio::test]
async fn a_missing_part_is_told_and_has_to_be_accepted() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let limits =
                [("max-length-bytes", "20000"), ("stream-max-segment-size-bytes", "10000")];
            let stream = streams::create_with(broker, "replay-gone", &limits).await;
            crate::common::eventually("retention deletes the beginning", SOON, || async {
                streams::publish(broker, &stream, (0..20).map(|_| "x".repeat(1000))).await;
                let offsets = crate::common::reading::offsets(broker, &stream).await;
                offsets.first().copied().filter(|first| *first > 5)
            })
            .await;
            let sink = "{ type = \"file\", dir = \"out\" }";
            let home = Home::new(&broker.uri(), &consumer(&stream, sink, ""));
            for from in ["offset:0", "ago:1h"] {
                let range = ["--from", from, "--to", "end", "--json"];
                let output = replay(&home, &range).await;
                refused(&output, 69, "a part of the range is missing");
                let name = format!("{from}-out").replace(':', "-");
                let table = format!("{{ type = \"file\", dir = \"{name}\" }}");
                let accepted = ["--allow-missing", "--sink", &table];
                let done = summary(&replay(&home, &[&range[..], &accepted].concat()).await);
                assert!(done["missing"].as_str().unwrap().contains("retention"), "{done}");
                let written = home.offsets(&name, &stream);
                assert_eq!(written.len(), done["written"], "{done}");
                assert_eq!(written.first().copied(), done["from_offset"].as_u64());
                assert_eq!(written.last().copied(), done["to_offset"].as_u64());
            }
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
