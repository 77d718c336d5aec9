//! TLS to the server: whom it trusts, what it presents, and the errors if that does not fit.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rillway::sink::conformance::batch;
use rillway::tls::TlsOptions;

use super::*;

#[tokio::test]
async fn whom_it_trusts() {
    let named = |name: &str, hosts: Vec<String>| {
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
    };
    let (ca, issuer) = authority("test authority");
    let (other_ca, _) = authority("another authority");
    let signed = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (cert, key) = signed(named("server", vec!["db.example".to_owned()]));
    let (client_cert, client_key) = signed(named("encrypted", Vec::new()));

    let postgres = or_skip!(Postgres::private(&[]).await);
    postgres.write("data/server.crt", &cert);
    postgres.write("data/server.key", &key);
    postgres.write("data/ca.crt", &ca);
    postgres.run("CREATE ROLE encrypted SUPERUSER LOGIN").await;
    let schema = postgres.schema().await;
    for setting in ["ssl_ca_file = 'ca.crt'", "ssl = on"] {
        postgres.run(&format!("ALTER SYSTEM SET {setting}")).await;
    }
    // The user `encrypted` needs a certificate of that name.
    let hba = "hostssl all encrypted 127.0.0.1/32 cert\nhostnossl all encrypted 127.0.0.1/32 reject\n\
               host all all 127.0.0.1/32 trust\n";
    postgres.write("data/pg_hba.conf", hba);
    postgres.stop().await;
    postgres.start().await;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let trusting = TlsOptions {
        ca: Some(file("ca.pem", &ca)),
        cert: Some(file("cert.pem", &client_cert)),
        key: Some(file("key.pem", &client_key)),
        server_name: Some("db.example".to_owned()),
        insecure_skip_verify: false,
    };
    let with = |tls: Option<TlsOptions>| {
        let url = postgres.url_of("encrypted", postgres.port);
        open(PostgresOptions { tls, ..options(&url, &schema) })
    };
    let mut sink = with(Some(trusting.clone())).await.unwrap();
    write(&mut sink, batch(0..3)).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE ssl AND usename = 'encrypted' AND client_dn = '/CN=encrypted'";
    let encrypted: i64 = postgres.client().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(encrypted, 1);
    sink.close().await.unwrap();

    for (tls, words) in [
        (None, "28000"),
        (Some(TlsOptions { cert: None, key: None, ..trusting.clone() }), "certificate"),
        (
            Some(TlsOptions { ca: Some(file("other.pem", &other_ca)), ..trusting.clone() }),
            "certificate",
        ),
        (Some(TlsOptions { server_name: None, ..trusting.clone() }), "certificate"),
        (Some(TlsOptions { ca: Some("/nowhere.pem".into()), ..trusting.clone() }), "/nowhere.pem"),
    ] {
        let what = transient(with(tls.clone()).await.map(drop));
        assert!(what.contains(words), "{tls:?}: {what}");
    }
    let skips =
        TlsOptions { insecure_skip_verify: true, ca: None, server_name: None, ..trusting.clone() };
    with(Some(skips)).await.unwrap().close().await.unwrap();

    // Nothing is written to a server that does not encrypt.
    let plain = or_skip!(Postgres::shared().await);
    let options = PostgresOptions { tls: Some(trusting), ..options(&plain.url(), &schema) };
    let what = transient(open(options).await.map(drop));
    assert!(what.contains("TLS"), "{what}");
}
