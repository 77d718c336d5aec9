//! The connections that observe streams: does a stream that is no longer observed leave a connection, or
//! a request, behind?

use std::time::Duration;

use futures_util::poll;
use rillway::broker::{ConnectOptions, Lookout};
use rillway::wire::commands::keys;

use super::LONG;
use crate::common::proxy::Proxy;
use crate::common::reading::connect_options;
use crate::common::scripted::{Say, Scripted};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

async fn only(proxy: &Proxy, connections: usize) {
    eventually(&format!("{connections} connections"), LONG, || async {
        (proxy.open() == connections).then_some(())
    })
    .await;
}

async fn seeds() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let proxy = Proxy::to(broker.stream_port).await;
    let stream = |name: String| name.as_str().into();
    let (one, other) = (
        stream(streams::create(broker, "seed").await),
        stream(streams::create(broker, "seed").await),
    );
    let lookout = Lookout::new(connect_options(proxy.port));
    lookout.member(&one).await.unwrap();
    lookout.member(&other).await.unwrap();
    only(&proxy, 1).await;
    // As if the node behind a load balancer had no member of the stream.
    lookout.failed(&one, true);
    lookout.member(&one).await.unwrap();
    only(&proxy, 2).await;
    // Both move to another node, one after the other: the connections that they leave are closed.
    lookout.failed(&other, true);
    lookout.member(&other).await.unwrap();
    only(&proxy, 1).await;
    // Forgotten: its connection is closed when another stream is looked up.
    lookout.failed(&one, true);
    lookout.member(&one).await.unwrap();
    only(&proxy, 2).await;
    lookout.forget(&one);
    lookout.failed(&other, false);
    lookout.member(&other).await.unwrap();
    only(&proxy, 1).await;
    Ok(())
}

#[tokio::test]
async fn seeds_that_no_stream_uses_are_not_kept() {
    or_skip!(seeds().await);
}

/// A stream that is forgotten while its lookup waits is not looked up, and an answer about it is not
/// kept.
#[tokio::test]
async fn a_stream_that_is_forgotten_while_it_is_looked_for() {
    let broker = Scripted::start(Version::V4_3).await;
    broker.script(|heard| match heard.key {
        keys::METADATA => Say::Nothing,
        _ => Say::Usual,
    });
    let lookout = Lookout::new(ConnectOptions {
        follow_advertised_hosts: true,
        request_timeout: Duration::from_secs(1),
        ..connect_options(broker.port)
    });
    let [first, waiting, later] = ["first", "waiting", "later"].map(Into::into);
    {
        let mut first = Box::pin(lookout.member(&first));
        while broker.heard(keys::METADATA) == 0 {
            let step = tokio::time::timeout(Duration::from_millis(10), &mut first).await;
            assert!(step.is_err(), "nothing was answered");
        }
        // Waits for its turn, and is forgotten.
        let mut asks = Box::pin(lookout.member(&waiting));
        assert!(poll!(&mut asks).is_pending());
        drop(asks);
        lookout.forget(&waiting);
        assert!(first.await.is_err());
    }
    lookout.forget(&first);
    broker.script(|heard| {
        let about = |name: &[u8]| heard.payload.windows(name.len()).any(|part| part == name);
        match heard.key {
            keys::METADATA if about(b"waiting") || about(b"first") => Say::HangUp,
            _ => Say::Usual,
        }
    });
    lookout.member(&later).await.unwrap();

    // A stream that was forgotten while it waited with others does not get that old answer later.
    broker.script(|heard| match heard.key {
        keys::METADATA => Say::Nothing,
        _ => Say::Usual,
    });
    lookout.failed(&later, false);
    let asked = broker.heard(keys::METADATA);
    {
        let mut leads = Box::pin(lookout.member(&later));
        let mut follows = Box::pin(lookout.member(&waiting));
        assert!(poll!(&mut leads).is_pending());
        while broker.heard(keys::METADATA) == asked {
            let step = tokio::time::timeout(Duration::from_millis(10), &mut leads).await;
            assert!(step.is_err(), "nothing was answered");
        }
        assert!(poll!(&mut follows).is_pending());
        assert!(leads.await.is_err());
        // Its own lookup fails too; a third stream that waited with it gets the same error.
        let mut third = Box::pin(lookout.member(&first));
        assert!(poll!(&mut third).is_pending());
        assert!(follows.await.is_err());
        drop(third);
        lookout.forget(&first);
    }
    broker.script(|_| Say::Usual);
    lookout.member(&first).await.expect("what failed for nobody was not kept");
}
