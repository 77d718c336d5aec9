//! Access tokens as logins: real ones, of a real endpoint, which RabbitMQ's OAuth 2 plugin checks.

mod living;
mod refusals;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::sign::SigningKey;

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Seen, Web};
use crate::common::{Broker, Options, Version, eventually, streams};

/// Signs tokens.
struct Issuer {
    key: Arc<dyn SigningKey>,
    public_pem: String,
}

impl Issuer {
    fn new() -> Issuer {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let der = PrivatePkcs8KeyDer::from(pair.serialize_der());
        Issuer { key: any_supported_type(&der.into()).unwrap(), public_pem: pair.public_key_pem() }
    }

    /// A token for this audience that expires so many seconds from now.
    fn token(&self, audience: &str, expires_in_s: i64) -> String {
        let now = now_s();
        let claims = json!({
            "iss": "the tests", "sub": "rillway", "aud": [audience],
            "iat": now.min(now + expires_in_s), "exp": now + expires_in_s,
            "jti": fastrand::u64(..).to_string(),
            "scope": ["rabbitmq.read:*/*", "rabbitmq.write:*/*", "rabbitmq.configure:*/*"],
        });
        let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" });
        let text = format!("{}.{}", encoded(&head), encoded(&claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).unwrap();
        let signature = signer.sign(text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// One that the broker takes.
    fn good(&self, expires_in_s: i64) -> String {
        self.token("rabbitmq", expires_in_s)
    }
}

fn now_s() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap()
}

/// A node that takes this issuer's tokens.
async fn trusting(version: Version, issuer: &Issuer) -> Result<Broker, Unavailable> {
    let options = Options::default()
        .plugins("rabbitmq_stream,rabbitmq_auth_backend_oauth2")
        .file("k1.pem", &issuer.public_pem)
        .conf("auth_backends.1 = rabbit_auth_backend_oauth2")
        .conf("auth_backends.2 = internal")
        .conf("auth_oauth2.resource_server_id = rabbitmq")
        .conf("auth_oauth2.default_key = k1")
        .conf("auth_oauth2.signing_keys.k1 = /node/k1.pem");
    Broker::private_with(version, options).await
}

/// `[broker]` with these keys of `oauth`, over either protocol.
fn login(broker: &Broker, over_amqp: bool, oauth: &str) -> String {
    let uri = match over_amqp {
        true => format!("amqp://localhost:{}", broker.amqp_port),
        false => format!("rabbitmq-stream://localhost:{}", broker.stream_port),
    };
    format!("uri = \"{uri}/%2f\"\nheartbeat = \"30s\"\noauth = {{ {oauth} }}")
}

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ {sink} }}\n")
}

/// `client_id` and the rest, for the endpoint at this URL.
fn client(url: &str) -> String {
    format!(
        "token_url = \"{url}\", client_id = \"rillway\", client_secret = \"hunter2\", scope = \"rabbitmq.read:*/* x\""
    )
}

/// An answer with a token.
fn answer(token: &str, expires_in_s: i64) -> Reply {
    let body = json!({ "access_token": token, "token_type": "bearer", "expires_in": expires_in_s });
    Reply::Answer(200, vec![("content-type", "application/json".to_owned())], body.to_string())
}

/// Writes a file as a program should that replaces tokens.
fn replace(home: &Home, name: &str, content: &str) {
    std::fs::write(home.path("new"), content).unwrap();
    std::fs::rename(home.path("new"), home.path(name)).unwrap();
}
