//! A broker that does not answer what is stored: it is asked again, and the missing answer never counts
//! as "nothing". That would begin this reference again, and would show as offsets 0 to 9 written twice.

use std::time::Duration;

use rillway::wire::commands::keys;

use super::{STDOUT, assert_says, consumer, forecast, offsets, printed};
use crate::common::daemon::Home;
use crate::common::scripted::{Chunk, Say, Scripted};
use crate::common::{Version, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A request timeout that no answer of this broker reaches.
const LATE: &str = "30s";

async fn broker(version: Version, request_timeout: &str) -> (Scripted, Home) {
    let broker = Scripted::start(version).await;
    broker.append(Chunk::plain(0, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]));
    broker.append(Chunk::plain(10, &["k", "l", "m"]));
    broker.set_stored("c", 9);
    let settings = format!("uri = \"{}\"\nrequest_timeout = \"{request_timeout}\"", broker.uri());
    let home = Home::with_broker(&settings, &consumer("c", "s", STDOUT, "start = \"first\""));
    (broker, home)
}

async fn never_read_as_none(say: Say, words: &[&str]) {
    for version in [Version::V3_10, Version::V4_3] {
        // Short only where it is waited for: a request that is merely late would fail, too.
        let timeout = if matches!(say, Say::Nothing) { "500ms" } else { LATE };
        let (broker, home) = broker(version, timeout).await;
        let failing = say.clone();
        broker.script(move |heard| match heard.key {
            keys::QUERY_OFFSET => failing.clone(),
            _ => Say::Usual,
        });
        let mut daemon = home.start();
        eventually("it asks again and again", SOON, || async {
            (broker.heard(keys::QUERY_OFFSET) >= 3).then_some(())
        })
        .await;
        let waits = daemon.until("c", "it waits, and says for what", SOON, |c| {
            let reason = c["reason"].as_str().unwrap_or_default();
            c["state"] == "backoff" && words.iter().all(|word| reason.contains(word))
        });
        waits.await;
        assert_eq!(offsets(&printed(&home)), [0; 0], "{version:?}");

        broker.script(|_| Say::Usual);
        daemon.until_durable("c", 12).await;
        daemon.terminate().await;
        assert_eq!(offsets(&printed(&home)), [10, 11, 12], "{version:?} {say:?}");
        let mut stores = broker.stores();
        // A store whose confirmation is late is sent again.
        stores.dedup();
        assert_eq!(stores, [("c".to_owned(), 12)]);
    }
}

#[tokio::test]
async fn stream_not_available_is_not_none() {
    never_read_as_none(Say::Code(0x06), &["\"s\"", "not available"]).await;
}

#[tokio::test]
async fn stream_does_not_exist_is_not_none() {
    never_read_as_none(Say::Code(0x02), &["\"s\"", "does not exist"]).await;
}

#[tokio::test]
async fn access_refused_is_not_none() {
    never_read_as_none(Say::Code(0x10), &["\"s\"", "access refused", "set_permissions"]).await;
}

#[tokio::test]
async fn internal_error_is_not_none() {
    never_read_as_none(Say::Code(0x0f), &["QueryOffset", "internal error"]).await;
}

#[tokio::test]
async fn an_unknown_code_does_not_mean_none() {
    never_read_as_none(Say::Code(0x77), &["QueryOffset"]).await;
}

#[tokio::test]
async fn no_answer_is_not_none() {
    never_read_as_none(Say::Nothing, &["QueryOffset", "did not answer", "500ms"]).await;
}

#[tokio::test]
async fn a_connection_that_ends_instead_is_not_none() {
    never_read_as_none(Say::HangUp, &["the connection to ", "was lost"]).await;
}

/// The counter-check: if the broker does answer "none", the start counts.
#[tokio::test]
async fn none_is_none() {
    let (broker, home) = broker(Version::V4_3, LATE).await;
    broker.script(|heard| match heard.key {
        keys::QUERY_OFFSET if heard.nth == 0 => Say::Code(0x13),
        _ => Say::Usual,
    });
    let mut daemon = home.start();
    daemon.until_durable("c", 12).await;
    daemon.terminate().await;
    assert_eq!(offsets(&printed(&home)), (0..13).collect::<Vec<_>>());
}

#[tokio::test]
async fn check_says_that_it_could_not_be_asked() {
    let (broker, home) = broker(Version::V4_3, LATE).await;
    broker.script(|heard| match heard.key {
        keys::QUERY_OFFSET => Say::Code(0x10),
        _ => Say::Usual,
    });
    let mut command = home.command(&["check", "--connect"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["\"c\"", "access refused", "set_permissions"],
    );

    broker.script(|_| Say::Usual);
    assert_says(&forecast(&home).await["c"], &["offset 10 ", "stored on the broker"]);
    assert_eq!(broker.stores(), []);
}
