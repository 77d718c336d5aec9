//! Do connections outlive their tokens, over both protocols and with the sink `stream`? And does a broker
//! close those whose token is not renewed?

use super::*;
use crate::common::daemon::Daemon;

const LONG: Duration = Duration::from_secs(120);

/// Lifetime of a token that has to be renewed, in seconds.
const SHORT_S: i64 = 30;

const INTO_FILE: &str = "type = \"file\", dir = \"out\"";

/// All restarts of a consumer so far.
async fn restarts(daemon: &Daemon, consumer: &str) -> f64 {
    let consumer = format!("consumer=\"{consumer}\"");
    let mut sum = 0.0;
    for reason in ["connection", "broker", "stream", "sink", "other"] {
        let reason = format!("reason=\"{reason}\"");
        let labels = [consumer.as_str(), reason.as_str()];
        sum += daemon.metric("rillway_restarts_total", &labels).await.unwrap_or(0.0);
    }
    sum
}

async fn past(time_s: i64) {
    let what = format!("it is later than {time_s}");
    eventually(&what, LONG, || async { (now_s() > time_s).then_some(()) }).await;
}

fn bodies(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| format!("{i}")).collect()
}

fn landed(home: &Home, stream: &str) -> Vec<String> {
    home.lines("out", stream).iter().map(|line| line["body"].to_string()).collect()
}

/// An endpoint with short tokens: nobody is disconnected. RabbitMQ 3.10 takes a new token over the stream
/// protocol only on a new connection, which loses and repeats nothing either.
async fn renewed(broker: &Broker, issuer: &Arc<Issuer>, over_amqp: bool) {
    let stream = streams::create(broker, "oauth-renewed").await;
    let web = Web::start({
        let issuer = Arc::clone(issuer);
        move |_: &Seen| answer(&issuer.good(SHORT_S), SHORT_S)
    })
    .await;
    let (mut consumers, mut names) = (consumer("files", &stream, INTO_FILE), vec!["files"]);
    let target = streams::create(broker, "oauth-copy").await;
    if !over_amqp {
        let copy = format!("type = \"stream\", stream = \"{target}\"");
        consumers += &consumer("copy", &stream, &copy);
        names.push("copy");
    }
    let home = Home::with_broker(&login(broker, over_amqp, &client(&web.url())), &consumers);
    streams::publish(broker, &stream, bodies(0..100)).await;
    let daemon = home.start();
    home.until_landed(&daemon, "out", &stream, 100).await;
    // The first token has expired by then, and the second one is in use.
    past(now_s() + SHORT_S + 2).await;
    assert!(web.seen().len() >= 2, "{} requests", web.seen().len());
    streams::publish(broker, &stream, bodies(100..200)).await;
    home.until_landed(&daemon, "out", &stream, 200).await;
    if !over_amqp {
        let copied = eventually("all is copied", LONG, || async {
            let copied = crate::common::reading::bodies(broker, &target).await;
            (copied.len() >= 200).then_some(copied)
        })
        .await;
        assert_eq!(copied, bodies(0..200));
    }
    let log = home.log();
    let is_elder = broker.version == Version::V3_10 && !over_amqp;
    assert_eq!(log.contains("takes only on a new connection"), is_elder, "{log}");
    assert_eq!(log.contains("the broker has the new access token"), !is_elder, "{log}");
    for name in names {
        let restarts = restarts(&daemon, name).await;
        assert_eq!(restarts > 0.0, is_elder, "{name}: {}", home.log_tail());
    }
    assert!(!log.contains("its access token has expired"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("eyJ"), "no secret is shown");
    let expiry = daemon.metric("rillway_token_expiry_timestamp_seconds", &["rillway at"]).await;
    assert!(expiry.is_some_and(|at| at > now_s() as f64), "{expiry:?}");
    daemon.terminate().await;
    assert_eq!(landed(&home, &stream), bodies(0..200));
    let seen = &web.seen()[0];
    assert_eq!(seen.body, "grant_type=client_credentials&scope=rabbitmq.read%3A*%2F*+x");
    assert_eq!(seen.header("authorization"), "Basic cmlsbHdheTpodW50ZXIy");
}

/// A file that is replaced before its token expires: nobody is disconnected.
async fn replaced(broker: &Broker, issuer: &Issuer, over_amqp: bool) {
    let stream = streams::create(broker, "oauth-replaced").await;
    let broker_keys = login(broker, over_amqp, "token_file = \"token\"");
    let home = Home::with_broker(&broker_keys, &consumer("files", &stream, INTO_FILE));
    replace(&home, "token", &format!("{}\n", issuer.good(SHORT_S)));
    let expires = now_s() + SHORT_S;
    streams::publish(broker, &stream, bodies(0..100)).await;
    let daemon = home.start();
    home.until_landed(&daemon, "out", &stream, 100).await;
    // What cannot be a token does not replace one.
    replace(&home, "token", "");
    eventually("the empty file was noticed", LONG, || async {
        home.log().contains("cannot use the token in").then_some(())
    })
    .await;
    replace(&home, "token", &issuer.good(600));
    eventually("the new token is in use", LONG, || async {
        home.log().contains("the broker has the new access token").then_some(())
    })
    .await;
    past(expires + 2).await;
    streams::publish(broker, &stream, bodies(100..200)).await;
    home.until_landed(&daemon, "out", &stream, 200).await;
    assert_eq!(restarts(&daemon, "files").await, 0.0, "{}", home.log_tail());
    daemon.terminate().await;
    assert_eq!(landed(&home, &stream), bodies(0..200));
}

/// The control: a file that nobody replaces. The broker closes the connection, and takes the next token as
/// soon as it is there.
async fn expired(broker: &Broker, issuer: &Issuer, over_amqp: bool) {
    let stream = streams::create(broker, "oauth-expired").await;
    let broker_keys = login(broker, over_amqp, "token_file = \"token\"");
    let home = Home::with_broker(
        &broker_keys,
        &format!("{}restart = {{ max_backoff = \"2s\" }}\n", consumer("files", &stream, INTO_FILE)),
    );
    replace(&home, "token", &issuer.good(SHORT_S));
    streams::publish(broker, &stream, bodies(0..100)).await;
    let mut daemon = home.start();
    home.until_landed(&daemon, "out", &stream, 100).await;
    let refused = daemon
        .until("files", "the expired token is refused", LONG, |c| {
            c["reason"].as_str().is_some_and(|reason| reason.contains("is not accepted"))
        })
        .await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("s ago by the clock here"), "{reason}");
    assert!(reason.contains("auth_oauth2.resource_server_id"), "{reason}");
    let log = home.log();
    assert!(log.contains("its access token has expired"), "{log}");
    assert!(log.contains("has expired: have it replaced"), "{log}");
    streams::publish(broker, &stream, bodies(100..200)).await;
    replace(&home, "token", &issuer.good(600));
    home.until_landed(&daemon, "out", &stream, 200).await;
    daemon.terminate().await;
    assert_eq!(landed(&home, &stream), bodies(0..200));
}

async fn tokens(version: Version) -> Result<(), Unavailable> {
    let issuer = Arc::new(Issuer::new());
    let broker = trusting(version, &issuer).await?;
    tokio::join!(
        renewed(&broker, &issuer, false),
        renewed(&broker, &issuer, true),
        replaced(&broker, &issuer, false),
        replaced(&broker, &issuer, true),
        expired(&broker, &issuer, false),
        async {
            // RabbitMQ 4.0 does not close connections of AMQP 0.9.1 whose token has expired.
            if version == Version::V4_3 {
                expired(&broker, &issuer, true).await;
            }
        },
    );
    Ok(())
}

async fn tokens_of_an_elder() -> Result<(), Unavailable> {
    let issuer = Arc::new(Issuer::new());
    let broker = trusting(Version::V3_10, &issuer).await?;
    tokio::join!(renewed(&broker, &issuer, false), renewed(&broker, &issuer, true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_on_new_connections_on_rabbitmq_3_10() {
    or_skip!(tokens_of_an_elder().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_while_running_on_rabbitmq_4_3() {
    or_skip!(tokens(Version::V4_3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_while_running_on_rabbitmq_4_0() {
    or_skip!(tokens(Version::V4_0).await);
}
