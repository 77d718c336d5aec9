//! Does a TLS connection work like a plain one? With a trusted certificate, a name that has to fit, and a
//! client that authenticates by its own certificate (SASL EXTERNAL).

pub(crate) mod authority;
mod refusals;
mod rotation;

use self::authority::{Authority, Pair};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Options, Version, streams};

pub(crate) struct Certificates {
    pub(crate) ca: String,
    /// Certificate and key of the broker, on the name `localhost`.
    broker: Pair,
    /// Certificate and key of the client, on the common name `guest`.
    pub(crate) client: Pair,
}

pub(crate) fn certificates() -> Certificates {
    let authority = Authority::new("test authority");
    Certificates {
        broker: authority.broker(&["localhost"]),
        client: authority.guest("test"),
        ca: authority.ca,
    }
}

/// A port below the range from which the system takes ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    crate::common::ports::for_good()
}

/// A node that has these certificates.
pub(crate) fn certified(certificates: &Certificates) -> Options {
    with_pair(&certificates.ca, &certificates.broker)
}

/// A node that trusts these authorities, and has this certificate.
fn with_pair(authorities: &str, (certificate, key): &Pair) -> Options {
    Options::default()
        .file("ca.pem", authorities)
        .file("cert.pem", certificate)
        .file("key.pem", key)
        .conf("ssl_options.cacertfile = /node/ca.pem")
        .conf("ssl_options.certfile = /node/cert.pem")
        .conf("ssl_options.keyfile = /node/key.pem")
}

/// The ports of a node for both protocols over TLS.
#[derive(Clone, Copy)]
struct Ports {
    stream: u16,
    amqp: u16,
}

/// Takes the user from the common name of a client's certificate; `is_demanded` if every client needs one.
pub(crate) fn by_certificate(options: Options, is_demanded: bool) -> Options {
    options
        .plugins("rabbitmq_stream,rabbitmq_auth_mechanism_ssl")
        .conf("ssl_options.verify = verify_peer")
        .conf(&format!("ssl_options.fail_if_no_peer_cert = {is_demanded}"))
        .conf("ssl_cert_login_from = common_name")
        .conf("auth_mechanisms.1 = PLAIN")
        .conf("auth_mechanisms.2 = EXTERNAL")
}

/// A node that wants a certificate of every client, and takes the user from its common name.
async fn demanding(
    version: Version,
    authorities: &str,
    pair: &Pair,
) -> Result<(Broker, Ports), Unavailable> {
    let ports = Ports { stream: free_port(), amqp: free_port() };
    let options = by_certificate(with_pair(authorities, pair), true)
        .conf(&format!("stream.listeners.ssl.1 = 127.0.0.1:{}", ports.stream))
        .conf(&format!("listeners.ssl.1 = 127.0.0.1:{}", ports.amqp));
    Ok((Broker::private_with(version, options).await?, ports))
}

/// Gives the node another certificate, for all connections from now on.
async fn certify(broker: &Broker, (certificate, key): &Pair) {
    std::fs::write(broker.dir.join("cert.pem"), certificate).unwrap();
    std::fs::write(broker.dir.join("key.pem"), key).unwrap();
    broker.ctl(&["rabbitmqctl", "eval", "ssl:clear_pem_cache()."]).await;
}

/// Lines of `[broker]` for this port: of the stream protocol or of AMQP.
fn settings(scheme: &str, user: &str, port: u16, rest: &str) -> String {
    format!(
        "uri = \"{scheme}://{user}localhost:{port}/%2f\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false\n{rest}"
    )
}

async fn tls(version: Version) -> Result<(), Unavailable> {
    let certificates = certificates();
    let port = free_port();
    let options = by_certificate(certified(&certificates), false)
        .conf(&format!("stream.listeners.ssl.1 = {port}"));
    let broker = Broker::private_with(version, options).await?;
    let stream = streams::create(&broker, "tls").await;
    streams::publish(&broker, &stream, (0..500).map(|i| format!("{i}"))).await;

    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"file\", dir = \"out\" }}\n"
    );
    // The broker advertises its plain port, so the configured address is used.
    let settings = |user: &str, rest: &str| settings("rabbitmq-stream+tls", user, port, rest);
    let plain = settings("guest:guest@", "tls = { ca = \"ca.pem\" }");
    let home = Home::with_broker(&plain, &consumer);
    for (name, content) in [
        ("ca.pem", &certificates.ca),
        ("client.pem", &certificates.client.0),
        ("client-key.pem", &certificates.client.1),
    ] {
        std::fs::write(home.path(name), content).unwrap();
    }
    let mut daemon = home.start();
    daemon.until_durable("c", 499).await;
    daemon.terminate().await;
    assert_eq!(streams::stored_offset(&broker, &stream, "c").await, Some(499));

    streams::publish(&broker, &stream, (500..600).map(|i| format!("{i}"))).await;
    let external = "mechanism = \"external\"\ntls = { ca = \"ca.pem\", cert = \"client.pem\", key = \"client-key.pem\" }";
    home.configure(&settings("", external), &consumer);
    let mut daemon = home.start();
    daemon.until_durable("c", 599).await;
    daemon.terminate().await;
    let bodies: Vec<u64> =
        home.lines("out", &stream).iter().map(|line| line["body"].as_u64().unwrap()).collect();
    assert_eq!(bodies, (0..600).collect::<Vec<_>>());

    // An untrusted authority, and a name that does not fit: both are refused, with the reason.
    for (rest, words) in [
        ("", "certificate"),
        (
            "tls = { ca = \"ca.pem\", server_name = \"elsewhere.example\" }",
            "valid for localhost, not for elsewhere.example",
        ),
    ] {
        home.configure(&settings("guest:guest@", rest), &consumer);
        let mut daemon = home.start();
        let refused = daemon
            .until("c", "refused", std::time::Duration::from_secs(60), |c| c["state"] == "backoff");
        let reason = refused.await["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("TLS handshake") && reason.contains(words), "{reason}");
        daemon.terminate().await;
    }
    Ok(())
}

#[tokio::test]
async fn tls_and_external_on_rabbitmq_4_3() {
    or_skip!(tls(Version::V4_3).await);
}

#[tokio::test]
async fn tls_and_external_on_rabbitmq_4_0() {
    or_skip!(tls(Version::V4_0).await);
}
