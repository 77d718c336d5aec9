//! Does each token that cannot be had, or is refused, say what to do, and show no secret?

use super::*;
use crate::common::broker::blocking;
use crate::tls::authority::Authority;

/// `check --connect` with these keys of `oauth`: whether it found everything in order, and what it says.
async fn checked(home: &Home, settings: &str, consumers: &str) -> (bool, String) {
    home.configure(settings, consumers);
    let mut command = home.command(&["check", "--connect"]);
    let checked = blocking(move || command.output().unwrap()).await;
    let all = [checked.stdout, checked.stderr].concat();
    (checked.status.success(), String::from_utf8_lossy(&all).into_owned())
}

/// A server of TLS that answers every request with a token.
async fn encrypted(issuer: &Arc<Issuer>, authority: &Authority, hosts: &[&str]) -> Web {
    use rustls_pki_types::pem::PemObject;
    let (certificate, key) = authority.broker(hosts);
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let issuer = Arc::clone(issuer);
    let pair = (certificate.unwrap(), key.secret_pkcs8_der().to_vec());
    Web::start_tls(pair, None, move |_| answer(&issuer.good(600), 600)).await
}

async fn each_says_what_to_do(version: Version) -> Result<(), Unavailable> {
    let (issuer, stranger) = (Arc::new(Issuer::new()), Issuer::new());
    let broker = trusting(version, &issuer).await?;
    let stream = streams::create(&broker, "oauth-refusals").await;
    let consumers = consumer("files", &stream, "type = \"file\", dir = \"out\"");
    let home = Home::with_broker("", &consumers);
    let files = [
        ("good", issuer.good(600), &[][..]),
        ("strange", stranger.good(600), &["is not accepted", "know the key"]),
        ("elsewhere", issuer.token("elsewhere", 600), &["is not accepted", "aud [\"elsewhere\"]"]),
        ("old", issuer.good(-1000), &["is not accepted", "expired 10", "by the clock here"]),
        ("opaque", "0123456789abcdef".to_owned(), &["is not accepted", "no JWT"]),
        ("words", "not a token".to_owned(), &["cannot use the token", "one access token"]),
        ("empty", "\n".to_owned(), &["cannot use the token", "it is empty"]),
        ("missing", String::new(), &["cannot use the token", "No such file"]),
    ];
    for (name, token, says) in &files {
        if *name != "missing" {
            std::fs::write(home.path(name), token).unwrap();
        }
        for over_amqp in [false, true] {
            let keys = format!("token_file = \"{name}\"");
            let (is_fine, said) =
                checked(&home, &login(&broker, over_amqp, &keys), &consumers).await;
            assert_eq!(is_fine, says.is_empty(), "{name}: {said}");
            assert!(says.iter().all(|says| said.contains(says)), "{name}: {said}");
            assert!(!said.contains("eyJ") && !said.contains("0123456789"), "{said}");
        }
    }

    let refused = json!({ "error": "invalid_client", "error_description": "hunter2 is wrong" });
    let script = move |seen: &Seen| match seen.target.as_str() {
        "/refused" => Reply::Answer(401, Vec::new(), refused.to_string()),
        "/page" => Reply::Answer(200, Vec::new(), "<html>".to_owned()),
        "/moved" => Reply::Answer(302, vec![("location", "/there".to_owned())], String::new()),
        "/torn" => Reply::KeepAndTear,
        _ => Reply::Hang,
    };
    let web = Web::start(script).await;
    let authority = Authority::new("authority");
    let known = encrypted(&issuer, &authority, &["127.0.0.1", "localhost"]).await;
    let misnamed = encrypted(&issuer, &authority, &["elsewhere.example"]).await;
    std::fs::write(home.path("ca.pem"), &authority.ca).unwrap();
    let nobody = crate::common::ports::nobody();
    let plain = |path: &str| client(&format!("http://{}/{path}", web.address));
    let secured = |web: &Web| client(&format!("https://{}/token", web.address));
    for (keys, says) in [
        (plain("refused"), &["401", "*** is wrong", "check client_id and client_secret"][..]),
        (plain("page"), &["no access_token", "token_url"]),
        (plain("moved"), &["leads to /there", "not followed"]),
        (plain("torn"), &["cannot have an access token"]),
        (plain("hang") + ", timeout = \"1s\"", &["no access token from rillway at", "within 1s"]),
        (client(&format!("http://{nobody}/")), &["there is no connection", "token_url"]),
        (secured(&known), &["TLS handshake", "oauth.ca"]),
        (secured(&known) + ", ca = \"ca.pem\"", &[]),
        (secured(&misnamed) + ", ca = \"ca.pem\"", &["valid for elsewhere.example"]),
    ] {
        let (is_fine, said) = checked(&home, &login(&broker, false, &keys), &consumers).await;
        assert_eq!(is_fine, says.is_empty(), "{keys}: {said}");
        assert!(says.iter().all(|says| said.contains(says)), "{keys}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("eyJ"), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_tokens_say_what_to_do_on_rabbitmq_4_3() {
    or_skip!(each_says_what_to_do(Version::V4_3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_tokens_say_what_to_do_on_rabbitmq_4_0() {
    or_skip!(each_says_what_to_do(Version::V4_0).await);
}
