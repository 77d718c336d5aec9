//! What cannot be created says why, and what to do.

use super::{ARGUMENTS, LONG, arguments, check, consumer};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Options, Version, amqp091, streams};

async fn too_old() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V3_10).await?;
    let orders = streams::unique("created-too-old");
    let source = format!("super_stream = \"{orders}\"");
    let home = Home::new(&broker.uri(), &consumer("c", &source, "partitions = 3"));
    let (code, said) = check(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("create of a super stream needs RabbitMQ 3.13 or later"), "{said}");
    let mut daemon = home.start();
    daemon
        .until("c", "it says why", LONG, |c| {
            c["reason"].as_str().is_some_and(|r| r.contains("needs RabbitMQ 3.13 or later"))
        })
        .await;
    daemon.terminate().await;
    assert!(arguments(broker, &orders).await.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_too_old_for_super_streams_is_named() {
    or_skip!(too_old().await);
}

async fn name_taken(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let queue = streams::unique("created-queue");
    amqp091::declare_queue(broker, &queue, "classic").await;
    let home =
        Home::new(&broker.uri(), &consumer("c", &format!("stream = \"{queue}\""), ARGUMENTS));
    let mut daemon = home.start();
    daemon
        .until("c", "it says why", LONG, |c| {
            c["reason"]
                .as_str()
                .is_some_and(|r| r.contains("A classic or quorum queue has this name"))
        })
        .await;
    daemon.terminate().await;
    amqp091::delete_queue(broker, &queue).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_a_queue_has_is_told() {
    for version in Version::ALL {
        or_skip!(name_taken(version).await);
    }
}

/// A user who may read, and configure nothing.
async fn not_permitted(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::private_with(version, Options::default()).await?;
    for command in [
        vec!["rabbitmqctl", "add_user", "reader", "secret"],
        vec!["rabbitmqctl", "set_permissions", "-p", "/", "reader", "", "", ".*"],
    ] {
        broker.ctl(&command).await;
    }
    let uri = broker.uri().replace("guest:guest", "reader:secret");
    let missing = streams::unique("created-forbidden");
    let home = Home::new(&uri, &consumer("c", &format!("stream = \"{missing}\""), ARGUMENTS));
    let mut daemon = home.start();
    daemon
        .until("c", "it says why", LONG, |c| {
            c["reason"].as_str().is_some_and(|r| {
                r.contains("configure") && r.contains("set_permissions") && r.contains("reader")
            })
        })
        .await;
    daemon.terminate().await;
    assert!(arguments(&broker, &missing).await.is_empty());

    // One that exists is read; only its arguments cannot be compared.
    let there = streams::create(&broker, "created-readable").await;
    let home = Home::new(&uri, &consumer("c", &format!("stream = \"{there}\""), ARGUMENTS));
    let (code, said) = check(&home);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("only a user who may configure it can compare them"), "{said}");
    let mut daemon = home.start();
    daemon.until("c", "it runs", LONG, |c| c["state"] == "running").await;
    daemon.terminate().await;

    if version != Version::V3_10 {
        let orders = streams::unique("created-forbidden-super");
        let source = format!("super_stream = \"{orders}\"");
        let home = Home::new(&uri, &consumer("c", &source, "partitions = 2"));
        let mut daemon = home.start();
        daemon
            .until("c", "it says why", LONG, |c| {
                c["reason"].as_str().is_some_and(|r| {
                    r.contains("`configure` and `read` for the exchange") && r.contains("reader")
                })
            })
            .await;
        daemon.terminate().await;
        assert!(arguments(&broker, &orders).await.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_create_is_told_what_is_missing_on_rabbitmq_3_10() {
    or_skip!(not_permitted(Version::V3_10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_create_is_told_what_is_missing_on_rabbitmq_4_3() {
    or_skip!(not_permitted(Version::V4_3).await);
}

/// The partitions are there, and the exchange is not: the broker refuses, and so do we.
async fn left_over() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let orders = streams::unique("created-left-over");
    let partition = format!("{orders}-1");
    streams::create_named(broker, &partition, &[]).await;
    let source = format!("super_stream = \"{orders}\"");
    let home = Home::new(&broker.uri(), &consumer("c", &source, "partitions = 2"));
    let mut daemon = home.start();
    daemon
        .until("c", "it says why", LONG, |c| {
            c["reason"].as_str().is_some_and(|r| {
                r.contains(&partition) && r.contains("Bind the streams to the exchange")
            })
        })
        .await;
    daemon.terminate().await;
    let left: Vec<_> = arguments(broker, &orders).await.into_keys().collect();
    assert_eq!(left, std::slice::from_ref(&partition), "nothing was created or deleted");
    streams::delete(broker, &partition).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_over_of_a_super_stream_is_told() {
    or_skip!(left_over().await);
}
