//! `[broker.oauth]` and `[broker.tls]`: what contradicts itself is refused, and nothing is checked less
//! than it looks.

use super::*;
use crate::oauth::TokenOrigin;

fn with(broker: &str) -> String {
    format!("[broker]\n{broker}\n{MINIMAL}")
}

const ENDPOINT: &str = "token_url = \"https://idp.example/token\", client_id = \"rillway\", client_secret = \"hunter2\"";

#[test]
fn where_tokens_come_from() {
    let config = load(&with(&format!("oauth = {{ {ENDPOINT}, scope = \"a b\" }}"))).unwrap();
    assert_eq!(config.broker.username, "rillway");
    let tokens = config.broker.oauth.as_ref().unwrap();
    assert_eq!(tokens.to_string(), "rillway at https://idp.example/token, scope a b");
    assert!(!format!("{config:?}").contains("hunter2"));

    let text = with(
        "uri = \"rabbitmq-stream://me@h\"\noauth = { token_file = \"token\", timeout = \"3s\" }",
    );
    let file = File::new(&text);
    let config = file.load(&Env::default()).unwrap();
    assert_eq!(config.broker.username, "me");
    let tokens = config.broker.oauth.unwrap();
    assert_eq!(tokens.origin, TokenOrigin::File(file.0.path().join("token")));
    assert_eq!(tokens.timeout.as_secs(), 3);

    let secret = "client_secret = { env = \"S\" }";
    let text =
        with(&format!("oauth = {{ {} }}", ENDPOINT.replace("client_secret = \"hunter2\"", secret)));
    assert!(problems(&text, &Env::default())[0].contains("broker.oauth.client_secret"));
}

#[test]
fn what_is_wrong_with_tokens() {
    let url =
        |url: &str| format!("oauth = {{ {} }}", ENDPOINT.replace("https://idp.example/token", url));
    for (broker, path, says) in [
        ("oauth = {}".to_owned(), "broker.oauth", "neither `token_file` nor `token_url`"),
        (
            format!("oauth = {{ {ENDPOINT}, token_file = \"t\" }}"),
            "broker.oauth.token_file",
            "both given",
        ),
        (
            "oauth = { token_url = \"https://h/t\", client_id = \"c\" }".to_owned(),
            "broker.oauth.client_secret",
            "missing",
        ),
        (
            "oauth = { token_file = \"t\", scope = \"s\" }".to_owned(),
            "broker.oauth.scope",
            "no effect",
        ),
        (url("http://idp.example/token"), "broker.oauth.token_url", "unencrypted"),
        (url("https://u:hunter2@idp.example/"), "broker.oauth.token_url", "a user or a password"),
        (url("idp.example"), "broker.oauth.token_url", "not a URL"),
        (url("ftp://idp.example"), "broker.oauth.token_url", "expected https://HOST/PATH"),
        (
            format!(
                "oauth = {{ {}, ca = \"c\" }}",
                ENDPOINT.replace("https://idp.example", "http://localhost")
            ),
            "broker.oauth.ca",
            "nothing is encrypted",
        ),
        (
            "oauth = { token_file = \"t\", timeout = \"0s\" }".to_owned(),
            "broker.oauth.timeout",
            "out of range",
        ),
        (
            "password = \"hunter2\"\noauth = { token_file = \"t\" }".to_owned(),
            "broker.oauth",
            "a password is given too",
        ),
        (
            "uri = \"rabbitmq-stream://u:hunter2@h\"\noauth = { token_file = \"t\" }".to_owned(),
            "broker.oauth",
            "a password is given too",
        ),
        (
            "uri = \"rabbitmq-stream+tls://h\"\nmechanism = \"external\"\n\
             tls = { cert = \"c\", key = \"k\" }\noauth = { token_file = \"t\" }"
                .to_owned(),
            "broker.oauth",
            "no effect with the mechanism `external`",
        ),
    ] {
        let found = problems(&with(&broker), &Env::default());
        assert_eq!(found.len(), 1, "{broker}\n{found:#?}");
        assert!(found[0].starts_with(path) && found[0].contains(says), "{broker}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_stream_sink_has_tokens_for_its_own_broker() {
    let sink = |keys: &str| {
        format!(
            "[[consumer]]\nname = \"a\"\nstream = \"s\"\n\
             sink = {{ type = \"stream\", stream = \"t\", oauth = {{ token_file = \"t\" }}{keys} }}"
        )
    };
    load(&sink(", uri = \"rabbitmq-stream://other\"")).unwrap();
    let found = problems(&sink(""), &Env::default());
    assert!(found.len() == 1 && found[0].contains("without `uri`"), "{found:?}");
}

#[test]
fn names_are_not_left_unchecked_by_accident() {
    let uri = "uri = \"rabbitmq-stream+tls://h\"\n";
    for keys in ["ca = \"ca.pem\"", "server_name = \"h.example\""] {
        let text = with(&format!("{uri}tls = {{ {keys}, insecure_skip_verify = true }}"));
        let found = problems(&text, &Env::default());
        assert!(found.len() == 1 && found[0].contains("accepts any certificate"), "{found:?}");
    }
    let found = problems(&with(&format!("{uri}tls = {{ server_name = \"\" }}")), &Env::default());
    assert!(found.len() == 1 && found[0].contains("neither a host name"), "{found:?}");
    let taken = load(&with(&format!("{uri}tls = {{ insecure_skip_verify = true }}"))).unwrap();
    assert!(taken.broker.tls.unwrap().insecure_skip_verify);
    // An empty value in the environment turns nothing off.
    let env = Env::from([("RILLWAY__BROKER__TLS__INSECURE_SKIP_VERIFY", "")]);
    let text = with(&format!("{uri}tls = {{}}"));
    match File::new(&text).load(&env) {
        Ok(config) => assert!(!config.broker.tls.unwrap().insecure_skip_verify),
        Err(error) => assert!(error.to_string().contains("insecure_skip_verify"), "{error}"),
    }
}
