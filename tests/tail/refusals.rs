//! What cannot be read is said at once, with what to do.

use super::*;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Version, streams};

#[tokio::test]
async fn what_is_not_there_is_said() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let missing = streams::unique("missing");
            for (uri, says) in
                [(broker.uri(), "does not exist"), (amqp_uri(broker), "there is no stream")]
            {
                for arguments in [&[][..], &["--until", "end"]] {
                    let run = tail(&uri, &missing, arguments).await;
                    assert_eq!(run.code, Some(69), "{}", run.err);
                    assert!(run.err.contains(says), "{}", run.err);
                    assert!(run.err.contains(&missing), "{}", run.err);
                }
            }
            let run = tail(&broker.uri(), &missing, &["--super"]).await;
            assert_eq!(run.code, Some(69));
            assert!(run.err.contains("super stream") && run.err.contains("add_super_stream"));
            let filtered = ["--until", "end", "--filter-value", "eu"];
            let run = tail(&amqp_uri(broker), &missing, &filtered).await;
            assert_eq!(run.code, Some(64));
            assert!(run.err.contains("use --filter in place"), "{}", run.err);
            let run = tail("rabbitmq-stream://guest:guest@localhost:1/%2f", &missing, &[]).await;
            assert_eq!(run.code, Some(69), "{}", run.err);
            let run = tail(&broker.uri().replace(":guest@", ":wrong@"), &missing, &[]).await;
            assert_eq!(run.code, Some(69));
            assert!(
                run.err.contains("refused the login") && !run.err.contains("wrong"),
                "{}",
                run.err
            );
            Ok::<_, Unavailable>(())
        }
        .await
    );
}

/// Retention took what was asked for: that is told, and the rest is printed.
#[tokio::test]
async fn what_retention_has_deleted_is_told() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let limits =
                [("max-length-bytes", "20000"), ("stream-max-segment-size-bytes", "10000")];
            let stream = streams::create_with(broker, "tail-gone", &limits).await;
            let first = eventually("retention deletes the beginning", SOON, || async {
                streams::publish(broker, &stream, (0..20).map(|_| "x".repeat(1000))).await;
                let run = tail(&broker.uri(), &stream, &["--until", "end", "--json"]).await;
                run.offsets().first().copied().filter(|first| *first > 5)
            })
            .await;
            let arguments = ["--from", "offset:3", "-n", "1", "--json"];
            let run = tail(&broker.uri(), &stream, &arguments).await;
            assert!(run.offsets()[0] >= first, "{}", run.out);
            assert!(run.err.contains("offsets 3 to "), "{}", run.err);
            assert!(run.err.contains("retention has deleted them"), "{}", run.err);
            Ok::<_, Unavailable>(())
        }
        .await
    );
}
