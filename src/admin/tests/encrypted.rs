//! The server with TLS, and the commands' own client.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;
use crate::tls::{ServerOptions, pinned};

/// Writes a certificate and its key, signed by itself or by an issuer.
fn write_pair(folder: &Path, name: &str, issuer: Option<&Issuer<'_, KeyPair>>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["rillway.example".to_owned()]).unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn options(folder: &Path, name: &str, client_ca: Option<&str>) -> ServerOptions {
    ServerOptions {
        cert: folder.join(format!("{name}.crt")),
        key: folder.join(format!("{name}.key")),
        client_ca: client_ca.map(|name| folder.join(name)),
    }
}

async fn serve(options: ServerOptions) -> Server {
    let door = Door::at(([127, 0, 0, 1], 0).into());
    let entrance = Entrance { door, tls: Some(Tls::load(options).unwrap()) };
    Server::behind(entrance, Scripted::default(), Limits::default()).await
}

async fn asked(client: Client) -> Result<(u16, String), ProbeError> {
    tokio::task::spawn_blocking(move || client.get("/livez")).await.unwrap()
}

#[tokio::test]
async fn only_the_configured_certificate_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_pair(folder, "ours", None);
    write_pair(folder, "other", None);
    let server = serve(options(folder, "ours", None)).await;
    let client = Client::new(server.address);
    let trusting =
        |name: &str| client.clone().with_tls(Some(pinned(&folder.join(name), None).unwrap()));
    assert_eq!(asked(trusting("ours.crt")).await.unwrap(), (200, "ok\n".to_owned()));
    let error = asked(trusting("other.crt")).await.unwrap_err();
    assert!(matches!(error, ProbeError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("[admin] tls.cert"), "{error}");
    // Plain HTTP is told what is missing.
    let (status, body) = asked(client.clone()).await.unwrap();
    assert!(status == 400 && body.contains("https://"), "{status} {body}");
    // Replaced files are used by later connections.
    write_pair(folder, "ours", None);
    crate::admin::tests::eventually(async || asked(trusting("ours.crt")).await.is_ok()).await;
    server.stop().await;
}

#[tokio::test]
async fn clients_may_need_a_certificate_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    write_pair(folder, "ours", Some(&Issuer::new(params, key)));
    let server = serve(options(folder, "ours", Some("ca.crt"))).await;
    let client = Client::new(server.address);
    let cert = folder.join("ours.crt");
    let without = client.clone().with_tls(Some(pinned(&cert, None).unwrap()));
    assert!(asked(without).await.is_err());
    let key = folder.join("ours.key");
    let with = client.with_tls(Some(pinned(&cert, Some(&key)).unwrap()));
    assert_eq!(asked(with).await.unwrap().0, 200);
    server.stop().await;
}

/// A client that never finishes its handshake takes a place, and keeps nobody out.
#[tokio::test]
async fn handshakes_that_hang_do_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "ours", None);
    let server = serve(options(folder.path(), "ours", None)).await;
    let tls = pinned(&folder.path().join("ours.crt"), None).unwrap();
    let mut held = Vec::new();
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        for _ in 0..Limits::default().connections {
            let mut stream = server.connect().await;
            stream.write_all(begun).await.unwrap();
            held.push(stream);
        }
        let client = Client::new(server.address).with_tls(Some(Arc::clone(&tls)));
        assert_eq!(asked(client).await.unwrap().0, 200, "{begun:?}");
    }
    server.stop().await;
}
