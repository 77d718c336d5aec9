//! Asks a token endpoint: one request ([`web`]).
//!
//! No redirection is followed, so the client secret goes nowhere but to the configured address. No text that
//! leaves here holds the secret or a token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use serde_json::Value;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::options::TokenEndpoint;
use super::token::{Token, TokenError};
use crate::types::quote::Hidden;
use crate::web::{self, Unanswered};

/// A new token. The caller sets the time limit.
pub(super) async fn ask(endpoint: &TokenEndpoint) -> Result<Token, TokenError> {
    let answered = exchange(endpoint).await;
    let read = answered.and_then(|(status, body)| read(endpoint, status, &body));
    read.map_err(|what| {
        TokenError(format!(
            "cannot have an access token for client {:?} from {}: {what}",
            endpoint.client_id, endpoint.url
        ))
    })
}

async fn exchange(endpoint: &TokenEndpoint) -> Result<(StatusCode, Bytes), String> {
    let url = Url::parse(&endpoint.url).map_err(|error| format!("not a URL ({error})"))?;
    let answered = web::exchange(&url, &endpoint.tls, request(endpoint, &url)?).await;
    let (answer, body) = answered.map_err(|error| match error {
        Unanswered::NotConnected(_) => format!("{error}. Does it run, and is token_url right?"),
        Unanswered::Handshake(_) => {
            // The endpoint has keys of its own beside the broker's.
            let what = error.to_string().replace("tls.ca", "oauth.ca");
            what.replace(", or set tls.server_name", "")
        }
        _ => error.to_string(),
    })?;
    match answer.status.is_redirection() {
        true => Err(redirected(endpoint, &answer)),
        false => Ok((answer.status, body)),
    }
}

fn request(endpoint: &TokenEndpoint, url: &Url) -> Result<Request<Full<Bytes>>, String> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", &endpoint.scope), ("audience", &endpoint.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let login = login(endpoint);
    let mut login = HeaderValue::try_from(format!("Basic {login}")).map_err(|e| e.to_string())?;
    login.set_sensitive(true);
    web::post(url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, login)
        .body(Full::from(form.finish()))
        .map_err(|error| error.to_string())
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Name and secret as they are sent.
fn login(endpoint: &TokenEndpoint) -> String {
    // Encoded before they are put together (RFC 6749, 2.3.1).
    let (id, secret) = (encoded(&endpoint.client_id), encoded(endpoint.client_secret.reveal()));
    BASE64_STANDARD.encode(format!("{id}:{secret}"))
}

/// A quotation without the secret in any form in which it was sent.
fn hidden(endpoint: &TokenEndpoint, text: &str) -> String {
    let (login, secret) = (login(endpoint), endpoint.client_secret.reveal());
    let forms = [login.trim_end_matches('=').to_owned(), encoded(secret), secret.to_owned()];
    Hidden::new(forms).quote(text)
}

fn redirected(endpoint: &TokenEndpoint, answer: &Parts) -> String {
    let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
    format!(
        "it answers {} and leads to {}. Redirections are not followed: set token_url to the address itself",
        answer.status,
        hidden(endpoint, to)
    )
}

/// The token in an answer.
fn read(endpoint: &TokenEndpoint, status: StatusCode, body: &[u8]) -> Result<Token, String> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let text = |key: &str| json.as_ref()?.get(key)?.as_str();
    let hidden = |text: &str| hidden(endpoint, text);
    if !status.is_success() {
        let said = match (text("error"), text("error_description")) {
            (Some(error), Some(more)) => hidden(&format!("{error}: {more}")),
            (Some(error), None) => hidden(error),
            _ => hidden(&String::from_utf8_lossy(body)),
        };
        return Err(format!("it answers {status} ({said}){}", remedy(status, text("error"))));
    }
    let Some(token) = text("access_token") else {
        return Err(format!(
            "its answer {status} holds no access_token. Is token_url the token endpoint, and not another page of it?"
        ));
    };
    if let Some(kind) = text("token_type")
        && !kind.eq_ignore_ascii_case("bearer")
    {
        return Err(format!("its token is of type {}, and only Bearer can be used", hidden(kind)));
    }
    let token = Token::new(token).map_err(|error| format!("its token cannot be used: {error}"))?;
    let expires_in = json.as_ref().and_then(|json| whole(json.get("expires_in")?));
    let token = token.just_issued(expires_in);
    match token.has_expired() {
        true => {
            Err(format!("its token cannot be used: it has expired already ({})", token.facts()))
        }
        false => Ok(token),
    }
}

/// Some write it as a text.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn remedy(status: StatusCode, error: Option<&str>) -> &'static str {
    match (status.as_u16(), error) {
        (_, Some("invalid_client")) | (401, _) => ": check client_id and client_secret",
        (_, Some("unauthorized_client" | "unsupported_grant_type")) => {
            ": allow the grant client_credentials for this client there"
        }
        (_, Some("invalid_scope")) => ": check scope",
        (_, Some("invalid_target")) => ": check audience",
        (404 | 405, _) => ": check the path in token_url",
        (429 | 500.., _) => ". It is asked again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HOST;

    use super::*;
    use crate::tls;
    use crate::types::Secret;

    fn endpoint() -> TokenEndpoint {
        TokenEndpoint {
            url: "http://localhost/token?tenant=1".to_owned(),
            client_id: "a b:c".to_owned(),
            client_secret: Secret::new("hunter2/&"),
            scope: Some("rabbitmq.read:*/* x".to_owned()),
            audience: None,
            tls: tls::TlsOptions::default(),
        }
    }

    #[test]
    fn the_request() {
        let endpoint = endpoint();
        let request = request(&endpoint, &Url::parse(&endpoint.url).unwrap()).unwrap();
        assert_eq!(request.uri(), "/token?tenant=1");
        assert_eq!(request.headers()[HOST], "localhost");
        let login = request.headers()[AUTHORIZATION].to_str().unwrap();
        let login = BASE64_STANDARD.decode(login.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(login, b"a+b%3Ac:hunter2%2F%26");
        assert!(!format!("{:?}", request.headers()).contains("Basic"));
    }

    #[test]
    fn answers() {
        let read = |status: u16, body: &str| {
            read(&endpoint(), StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };
        for (body, lifetime_s) in [
            (r#"{"access_token":"x","token_type":"bearer","expires_in":20}"#, Some(20)),
            (r#"{"access_token":"x","token_type":"Bearer","expires_in":"20"}"#, Some(20)),
            (r#"{"access_token":"x","expires_in":19.9}"#, Some(19)),
            (r#"{"access_token":"x"}"#, None),
        ] {
            let token = read(200, body).unwrap();
            assert_eq!(token.secret().reveal(), "x");
            assert_eq!(token.lifetime.map(|l| l.as_secs()), lifetime_s, "{body}");
        }
        for (status, body, says) in [
            (200, "<html>", "no access_token"),
            (200, r#"{"access_token":7}"#, "no access_token"),
            (200, r#"{"access_token":""}"#, "it is empty"),
            (200, r#"{"access_token":"x","token_type":"mac"}"#, "only Bearer"),
            (200, r#"{"access_token":"x","expires_in":0}"#, "expired already"),
            (401, r#"{"error":"invalid_client"}"#, "check client_id and client_secret"),
            (400, r#"{"error":"invalid_scope","error_description":"no\nsuch"}"#, "no such"),
            (400, r#"{"error":"what hunter2/& is it"}"#, "what *** is it"),
            (404, "not here", "404 Not Found (not here): check the path"),
            (503, "", "asked again"),
        ] {
            let error = read(status, body).unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2"), "{body}: {error}");
        }
        let login = login(&endpoint());
        let body = format!("invalid: Basic {login}, hunter2%2F%26");
        let error = read(401, &body).unwrap_err();
        assert!(error.contains("invalid: Basic ***") && error.contains(", ***)"), "{error}");
        let never = read(200, r#"{"access_token":"x","expires_in":1e19}"#).unwrap();
        assert_eq!((never.lifetime, never.expires_at()), (None, None));
    }
}
