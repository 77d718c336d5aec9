//! Is a connection over TLS as good as a plain one, over AMQP 0.9.1 too? With a certificate that is trusted, a
//! name that has to fit, and a client that proves itself by its own certificate (SASL EXTERNAL).

use std::time::Duration;

use super::{consumer, into_file};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};
use crate::tls::{by_certificate, certificates, certified, free_port};

async fn tls(version: Version) -> Result<(), Unavailable> {
    let (ours, others) = (certificates(), certificates());
    let port = free_port();
    let options =
        by_certificate(certified(&ours), false).conf(&format!("listeners.ssl.1 = {port}"));
    let broker = Broker::private_with(version, options).await?;
    let stream = streams::create(&broker, "amqp-tls").await;
    streams::publish(&broker, &stream, (0..500).map(|i| i.to_string())).await;
    let one = consumer("c", &stream, "\"first\"", &into_file("c"));
    let settings = |user: &str, rest: &str| {
        format!("uri = \"amqps://{user}localhost:{port}/%2f\"\nheartbeat = \"30s\"\n{rest}")
    };
    let home = Home::with_broker(&settings("guest:guest@", "tls = { ca = \"ca.pem\" }"), &one);
    for (name, content) in [
        ("ca.pem", &ours.ca),
        ("client.pem", &ours.client.0),
        ("client-key.pem", &ours.client.1),
        ("other-ca.pem", &others.ca),
        ("stranger.pem", &others.client.0),
        ("stranger-key.pem", &others.client.1),
    ] {
        std::fs::write(home.path(name), content).unwrap();
    }
    let mut daemon = home.start();
    daemon.until_durable("c", 499).await;
    daemon.terminate().await;

    streams::publish(&broker, &stream, (500..600).map(|i| i.to_string())).await;
    let external = "mechanism = \"external\"\ntls = { ca = \"ca.pem\", cert = \"client.pem\", key = \"client-key.pem\" }";
    home.configure(&settings("", external), &one);
    let mut daemon = home.start();
    daemon.until_durable("c", 599).await;
    daemon.terminate().await;
    assert_eq!(home.offsets("c", &stream), (0..600).collect::<Vec<_>>());

    let stranger = "mechanism = \"external\"\ntls = { ca = \"ca.pem\", cert = \"stranger.pem\", key = \"stranger-key.pem\" }";
    for (user, rest, words) in [
        ("guest:guest@", "", ["TLS handshake"; 2]),
        ("guest:guest@", "tls = { ca = \"other-ca.pem\" }", ["TLS handshake"; 2]),
        (
            "guest:guest@",
            "tls = { ca = \"ca.pem\", server_name = \"elsewhere.example\" }",
            ["valid for localhost, not for elsewhere.example"; 2],
        ),
        // A certificate of another authority: by an alert, or by the end of the connection.
        ("", stranger, ["UnknownCA", "reset by peer"]),
        ("guest:hunter2@", "tls = { ca = \"ca.pem\" }", ["login"; 2]),
    ] {
        home.configure(&settings(user, rest), &one);
        let mut daemon = home.start();
        let refused =
            daemon.until("c", "refused", Duration::from_secs(60), |c| c["state"] == "backoff");
        let reason = refused.await["reason"].as_str().unwrap().to_owned();
        let says = words.iter().any(|words| reason.contains(words));
        assert!(says && !reason.contains("hunter2"), "{rest}: {reason}");
        daemon.terminate().await;
    }
    assert_eq!(home.offsets("c", &stream), (0..600).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn amqp_over_tls_and_external_on_rabbitmq_3_10() {
    or_skip!(tls(Version::V3_10).await);
}

#[tokio::test]
async fn amqp_over_tls_and_external_on_rabbitmq_4_0() {
    or_skip!(tls(Version::V4_0).await);
}

#[tokio::test]
async fn amqp_over_tls_and_external_on_rabbitmq_4_3() {
    or_skip!(tls(Version::V4_3).await);
}
