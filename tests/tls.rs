//! Does a TLS connection work like a plain one? With a trusted certificate, a name that has to fit, and a
//! client that authenticates by its own certificate (SASL EXTERNAL).

use std::net::{Ipv4Addr, TcpListener};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Options, Version, streams};

pub(crate) struct Certificates {
    pub(crate) ca: String,
    /// Certificate and key of the broker, on the name `localhost`.
    broker: (String, String),
    /// Certificate and key of the client, on the common name `guest`.
    client: (String, String),
}

pub(crate) fn certificates() -> Certificates {
    let named = |name: &str, hosts: Vec<String>| {
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = named("test authority", Vec::new());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let signed = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    Certificates {
        ca: ca_pem,
        broker: signed(named("broker", vec!["localhost".to_owned()])),
        client: signed(named("guest", Vec::new())),
    }
}

/// A port below the range from which the system takes ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(30_000..32_000)).find(is_free).unwrap()
}

/// A node that has these certificates.
pub(crate) fn certified(certificates: &Certificates) -> Options {
    Options::default()
        .file("ca.pem", &certificates.ca)
        .file("cert.pem", &certificates.broker.0)
        .file("key.pem", &certificates.broker.1)
        .conf("ssl_options.cacertfile = /node/ca.pem")
        .conf("ssl_options.certfile = /node/cert.pem")
        .conf("ssl_options.keyfile = /node/key.pem")
}

async fn tls(version: Version) -> Result<(), Unavailable> {
    let certificates = certificates();
    let port = free_port();
    let options = certified(&certificates)
        .plugins("rabbitmq_stream,rabbitmq_auth_mechanism_ssl")
        .conf("ssl_options.verify = verify_peer")
        .conf("ssl_options.fail_if_no_peer_cert = false")
        .conf("ssl_cert_login_from = common_name")
        .conf("auth_mechanisms.1 = PLAIN")
        .conf("auth_mechanisms.2 = EXTERNAL")
        .conf(&format!("stream.listeners.ssl.1 = {port}"));
    let broker = Broker::private_with(version, options).await?;
    let stream = streams::create(&broker, "tls").await;
    streams::publish(&broker, &stream, (0..500).map(|i| format!("{i}"))).await;

    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"file\", dir = \"out\" }}\n"
    );
    // The broker advertises its plain port, so the configured address is used.
    let settings = |user: &str, rest: &str| {
        format!(
            "uri = \"rabbitmq-stream+tls://{user}localhost:{port}/%2f\"\nheartbeat = \"2s\"\nfollow_advertised_hosts = false\n{rest}"
        )
    };
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
            .until("c", "refused", std::time::Duration::from_secs(20), |c| c["state"] == "backoff");
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
