//! Streams of a test's own, by the official Rust client: an independent producer, and an independent
//! reader of stored offsets.
//!
//! That client blocks its thread when a producer is dropped, so all of its work runs on a runtime of its
//! own, and within a time limit. It cannot talk to RabbitMQ 3.10, because it sends a command that was
//! added in 3.11: there, rstream does the work.

use std::collections::HashMap;
use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rabbitmq_stream_client::types::{Message, ResponseCode};
use rabbitmq_stream_client::{Client, ClientOptions, Environment, error::ClientError};

use super::broker::{Broker, Version};
use super::rstream::{Outgoing, Rstream};

/// Longest time of a single request to a broker in the tests.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// The official client does not check the size of the frames that it builds.
const FRAME_BYTES: usize = 800_000;
const MESSAGES_PER_FRAME_MAX: usize = 1_000;

/// A name that no other test, process or run uses.
pub(crate) fn unique(label: &str) -> String {
    static NTH: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    format!("{label}-{}-{now:x}-{}", std::process::id(), NTH.fetch_add(1, Ordering::Relaxed))
}

/// Creates a stream of a unique name; returns the name.
pub(crate) async fn create(broker: &Broker, label: &str) -> String {
    create_with(broker, label, &[]).await
}

/// The same with arguments, such as `("max-length-bytes", "1000000")` and
/// `("stream-max-segment-size-bytes", "500000")`, for a stream that truncates soon.
pub(crate) async fn create_with(
    broker: &Broker,
    label: &str,
    arguments: &[(&str, &str)],
) -> String {
    let name = unique(label);
    create_named(broker, &name, arguments).await;
    name
}

/// Creates a stream of exactly this name: for a test that deletes and re-creates it.
pub(crate) async fn create_named(broker: &Broker, stream: &str, arguments: &[(&str, &str)]) {
    if let Some(rstream) = instead(broker).await {
        return rstream.create(stream, arguments).await;
    }
    let arguments: HashMap<String, String> =
        arguments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let name = stream.to_owned();
    let response = client(broker, |client| async move {
        let response = client.create_stream(&name, arguments).await?;
        client.close().await?;
        Ok(response)
    })
    .await;
    assert!(response.is_ok(), "creating {stream}: {:?}", response.code());
}

/// Creates a super stream of a unique name, with partitions NAME-0, NAME-1, …; returns all names. Not
/// on RabbitMQ 3.10.
pub(crate) async fn create_super(
    broker: &Broker,
    label: &str,
    partitions: usize,
) -> (String, Vec<String>) {
    let name = unique(label);
    let partitions = create_super_named(broker, &name, partitions).await;
    (name, partitions)
}

/// The same with exactly this name.
pub(crate) async fn create_super_named(
    broker: &Broker,
    super_stream: &str,
    partitions: usize,
) -> Vec<String> {
    let name = super_stream.to_owned();
    let keys: Vec<String> = (0..partitions).map(|nth| nth.to_string()).collect();
    let partitions: Vec<String> = keys.iter().map(|key| format!("{name}-{key}")).collect();
    let all = partitions.clone();
    let response = client(broker, |client| async move {
        let response = client.create_super_stream(&name, all, keys, HashMap::new()).await?;
        client.close().await?;
        Ok(response)
    })
    .await;
    assert!(response.is_ok(), "creating {super_stream}: {:?}", response.code());
    partitions
}

/// Deletes a super stream with its partitions.
pub(crate) async fn delete_super(broker: &Broker, super_stream: &str) {
    let name = super_stream.to_owned();
    let response = client(broker, |client| async move {
        let response = client.delete_super_stream(&name).await?;
        client.close().await?;
        Ok(response)
    })
    .await;
    assert!(response.is_ok(), "deleting {super_stream}: {:?}", response.code());
}

pub(crate) async fn delete(broker: &Broker, stream: &str) {
    if let Some(rstream) = instead(broker).await {
        return rstream.delete(stream).await;
    }
    let name = stream.to_owned();
    let response = client(broker, |client| async move {
        let response = client.delete_stream(&name).await?;
        client.close().await?;
        Ok(response)
    })
    .await;
    assert!(response.is_ok(), "deleting {stream}: {:?}", response.code());
}

/// Publishes a message for each body, in order, and returns when all are confirmed.
pub(crate) async fn publish<B: Into<Vec<u8>>>(
    broker: &Broker,
    stream: &str,
    bodies: impl IntoIterator<Item = B>,
) {
    let bodies: Vec<Vec<u8>> = bodies.into_iter().map(Into::into).collect();
    if let Some(rstream) = instead(broker).await {
        let messages: Vec<Outgoing> = bodies.iter().map(Outgoing::body).collect();
        return rstream.publish(stream, &messages).await;
    }
    let messages = bodies.into_iter().map(|body| Message::builder().body(body).build()).collect();
    publish_messages(broker, stream, messages).await;
}

/// The same for whole messages, with properties and annotations. Not for RabbitMQ 3.10.
pub(crate) async fn publish_messages(broker: &Broker, stream: &str, messages: Vec<Message>) {
    let (port, name) = (broker.stream_port, stream.to_owned());
    let largest = messages
        .iter()
        .map(|message| message.data().map_or(0, <[u8]>::len) + 1_000)
        .max()
        .unwrap_or(1);
    let per_frame = (FRAME_BYTES / largest).clamp(1, MESSAGES_PER_FRAME_MAX);
    apart(async move {
        let environment = Environment::builder().host("localhost").port(port).build().await?;
        let producer = environment.producer().batch_size(per_frame).build(&name).await?;
        let expected = messages.len();
        let confirmed = if expected == 0 {
            0
        } else {
            let confirmations = producer.batch_send_with_confirm(messages).await?;
            confirmations.iter().filter(|confirmation| confirmation.confirmed()).count()
        };
        producer.close().await?;
        assert_eq!(confirmed, expected, "messages confirmed of those published to {name}");
        Ok(())
    })
    .await;
}

/// The offset stored for `reference`; `None` if there is none.
pub(crate) async fn stored_offset(broker: &Broker, stream: &str, reference: &str) -> Option<u64> {
    if let Some(rstream) = instead(broker).await {
        return rstream.stored_offset(stream, reference).await;
    }
    let (name, reference) = (stream.to_owned(), reference.to_owned());
    client(broker, |client| async move {
        let answer = client.query_offset(reference, &name).await;
        client.close().await?;
        match answer {
            Ok(offset) => Ok(Some(offset)),
            Err(ClientError::RequestError(ResponseCode::OffsetNotFound)) => Ok(None),
            Err(other) => Err(other.into()),
        }
    })
    .await
}

/// Stores an offset, as an operator or another tool may, and returns when it can be read back.
pub(crate) async fn store_offset(broker: &Broker, stream: &str, reference: &str, offset: u64) {
    if let Some(rstream) = instead(broker).await {
        return rstream.store_offset(stream, reference, offset).await;
    }
    let (name, by) = (stream.to_owned(), reference.to_owned());
    client(broker, move |client| async move {
        client.store_offset(&by, &name, offset).await?;
        client.close().await?;
        Ok(())
    })
    .await;
    super::eventually("a stored offset can be read back", WAIT_MAX, || async {
        (stored_offset(broker, stream, reference).await == Some(offset)).then_some(())
    })
    .await;
}

/// The client for a broker that the official one cannot talk to. A broker of that version is only started
/// if rstream is installed.
async fn instead(broker: &Broker) -> Option<Rstream> {
    match broker.version {
        Version::V3_10 => Some(Rstream::at(broker).await.expect("rstream was there")),
        Version::V4_0 | Version::V4_3 => None,
    }
}

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One operation with a connection of its own.
async fn client<T, F>(broker: &Broker, work: impl FnOnce(Client) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send,
{
    let options = ClientOptions::builder().host("localhost").port(broker.stream_port).build();
    apart(async move { work(Client::connect(options).await?).await }).await
}

/// The runtime of the official client.
pub(super) static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime for the official client")
});

async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> T {
    match RUNTIME.spawn(tokio::time::timeout(WAIT_MAX, work)).await {
        Ok(Ok(Ok(value))) => value,
        Ok(Ok(Err(failure))) => panic!("the official client: {failure}"),
        Ok(Err(_elapsed)) => panic!("the official client was not done within {WAIT_MAX:?}"),
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}
