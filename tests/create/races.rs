//! Several daemons that create the same at once, and streams that go away.

use super::{ARGUMENTS, LONG, arguments, assert_arguments, check, consumer, until_rows};
use crate::common::daemon::{Daemon, Home};
use crate::common::load::{assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

const DAEMONS: usize = 5;

async fn stream_at_once(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::unique("created-at-once");
    let homes: Vec<_> = (0..DAEMONS)
        .map(|nth| {
            let source = format!("stream = \"{stream}\"\nreference = \"r{nth}\"");
            Home::new(&broker.uri(), &consumer("c", &source, ARGUMENTS))
        })
        .collect();
    let mut daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    for daemon in &mut daemons {
        daemon.until("c", "it runs", LONG, |c| c["state"] == "running").await;
    }
    assert_arguments(&arguments(broker, &stream).await[&stream]);
    streams::publish(broker, &stream, (0..20).map(body)).await;
    for (home, daemon) in homes.iter().zip(daemons) {
        home.until_landed(&daemon, "c", &stream, 20).await;
        daemon.terminate().await;
        assert!(!home.log().contains("exists otherwise"), "{}", home.log_tail());
    }
    let makers = homes.iter().filter(|home| home.log().contains("created, because")).count();
    assert_eq!(makers, 1, "one of them created it");
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_create_a_stream_at_once_all_read_it() {
    for version in Version::ALL {
        or_skip!(stream_at_once(version).await);
    }
}

async fn super_stream_at_once(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let orders = streams::unique("created-super-at-once");
    let homes: Vec<_> = (0..DAEMONS)
        .map(|nth| {
            let source = format!("super_stream = \"{orders}\"\nreference = \"r{nth}\"");
            Home::new(&broker.uri(), &consumer("c", &source, "partitions = 3"))
        })
        .collect();
    let daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    let names: Vec<String> = (0..3).map(|nth| format!("{orders}-{nth}")).collect();
    for daemon in &daemons {
        until_rows(daemon, &names).await;
    }
    for daemon in daemons {
        daemon.terminate().await;
    }
    let makers = homes.iter().filter(|home| home.log().contains("created, because")).count();
    assert_eq!(makers, 1, "one of them created it");
    streams::delete_super(broker, &orders).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_create_a_super_stream_at_once_all_read_it() {
    for version in [Version::V4_0, Version::V4_3] {
        or_skip!(super_stream_at_once(version).await);
    }
}

/// A stream that is deleted takes messages with it: it is not created again in silence.
async fn deleted(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let stream = streams::unique("created-deleted");
    let home =
        Home::new(&broker.uri(), &consumer("c", &format!("stream = \"{stream}\""), ARGUMENTS));
    let mut daemon = home.start();
    daemon.until("c", "it runs", LONG, |c| c["state"] == "running").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    daemon.until_durable("c", 99).await;
    streams::delete(broker, &stream).await;
    let says = |c: &serde_json::Value| {
        c["reason"].as_str().is_some_and(|reason| {
            reason.contains("`create` does not create it again")
                && reason.contains("on_offset_lost")
        })
    };
    daemon.until("c", "it says that its stream is gone", LONG, says).await;
    // Several attempts later there is none.
    let restarts = daemon.consumer("c").await.unwrap()["restarts"].as_u64().unwrap();
    daemon
        .until("c", "it tries again", LONG, |c| c["restarts"].as_u64() >= Some(restarts + 2))
        .await;
    assert!(arguments(broker, &stream).await.is_empty());
    daemon.terminate().await;
    // Nor does a new process create it, which knows of it from the sink and the state file.
    let (code, said) = check(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("`create` does not create it again"), "{said}");
    let mut daemon = home.start();
    daemon.until("c", "it says that its stream is gone", LONG, says).await;
    assert!(arguments(broker, &stream).await.is_empty());

    // Created by hand, it is another stream: a loss, and a policy decides.
    streams::create_named(broker, &stream, &[]).await;
    let reason = daemon.until_halted("c").await;
    assert!(reason.contains("99") || reason.contains("100"), "{reason}");
    daemon.terminate().await;
    assert_exact("c", &home.lines("c", &stream), 100);
    streams::delete(broker, &stream).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_read_is_not_created_again_on_rabbitmq_3_10() {
    or_skip!(deleted(Version::V3_10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_read_is_not_created_again_on_rabbitmq_4_3() {
    or_skip!(deleted(Version::V4_3).await);
}

/// One that stands by never had a position. It knows all the same that the stream was there.
async fn deleted_before_one_that_stands_by() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::unique("created-standby");
    let source = format!("stream = \"{stream}\"\nsingle_active = true");
    let homes: Vec<_> =
        (0..2).map(|_| Home::new(&broker.uri(), &consumer("c", &source, ARGUMENTS))).collect();
    let mut first = homes[0].start();
    first.until("c", "it is active", LONG, |c| c["state"] == "running").await;
    let mut second = homes[1].start();
    second.until("c", "it stands by", LONG, |c| c["state"] == "passive").await;
    streams::publish(broker, &stream, (0..100).map(body)).await;
    first.until_durable("c", 99).await;
    streams::delete(broker, &stream).await;
    for daemon in [&mut first, &mut second] {
        daemon
            .until("c", "it says that its stream is gone", LONG, |c| {
                c["reason"].as_str().is_some_and(|r| r.contains("does not create it again"))
            })
            .await;
    }
    first.terminate().await;
    second.terminate().await;
    // Nor in another process.
    let mut second = homes[1].start();
    second
        .until("c", "it still says that its stream is gone", LONG, |c| {
            c["reason"].as_str().is_some_and(|r| r.contains("does not create it again"))
        })
        .await;
    let (code, said) = check(&homes[1]);
    assert_eq!(code, Some(69), "{said}");
    assert!(arguments(broker, &stream).await.is_empty());
    second.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_does_not_create_it_again_either() {
    or_skip!(deleted_before_one_that_stands_by().await);
}

async fn deleted_super() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let orders = streams::unique("created-super-deleted");
    let home = Home::new(
        &broker.uri(),
        &consumer("c", &format!("super_stream = \"{orders}\""), "partitions = 2"),
    );
    let names: Vec<String> = (0..2).map(|nth| format!("{orders}-{nth}")).collect();
    let daemon = home.start();
    until_rows(&daemon, &names).await;
    daemon.terminate().await;
    streams::delete_super(broker, &orders).await;
    let (code, said) = check(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("`create` does not create it again"), "{said}");
    let mut daemon = home.start();
    daemon
        .until("c", "it says that it is gone", LONG, |c| {
            c["reason"].as_str().is_some_and(|r| r.contains("does not create it again"))
        })
        .await;
    assert!(arguments(broker, &orders).await.is_empty());
    daemon.terminate().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_super_stream_that_was_read_is_not_created_again() {
    or_skip!(deleted_super().await);
}
