//! The claims in a token that is a JWT (RFC 7519), read without checking its signature: they say when
//! to renew it, and help to find out why a broker refuses it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// Longest claim that is quoted.
const CLAIM_CHARS_MAX: usize = 80;

/// What a token says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims {
    /// Time of its expiry, in seconds since 1970.
    pub(super) expires: Option<i64>,
    /// Time at which it was issued.
    issued: Option<i64>,
    /// Issuer, subject and audience, for errors.
    named: Vec<(&'static str, String)>,
}

impl Claims {
    /// The claims of a token; `None` if it is no JWT.
    pub(super) fn of(token: &str) -> Option<Claims> {
        let mut parts = token.split('.');
        let (_head, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let claims = claims.as_object()?;
        let names = ["iss", "sub", "client_id", "aud"];
        let named = names.into_iter().filter_map(|name| Some((name, shown(claims.get(name)?))));
        Some(Claims {
            expires: seconds(claims.get("exp")),
            issued: seconds(claims.get("iat")),
            named: named.collect(),
        })
    }

    /// Time from its issue to its expiry, in seconds.
    pub(super) fn lifetime_s(&self) -> Option<i64> {
        self.expires?.checked_sub(self.issued?)
    }

    /// Its claims as a text.
    pub(super) fn text(&self) -> String {
        let named: Vec<_> =
            self.named.iter().map(|(name, value)| format!("{name} {value}")).collect();
        named.join(", ")
    }
}

/// RFC 7519 allows fractions.
fn seconds(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

/// As JSON, cut off.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(CLAIM_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn what_a_token_says() {
        let claims = Claims::of(&token(r#"{"exp":1000,"iat":900.5,"aud":["a","b"],"sub":"me"}"#));
        let claims = claims.unwrap();
        assert_eq!((claims.expires, claims.lifetime_s()), (Some(1000), Some(100)));
        assert_eq!(claims.text(), r#"sub "me", aud ["a","b"]"#);
        assert_eq!(Claims::of(&token("{}")).unwrap(), Claims::default());
        let long = Claims::of(&token(&format!("{{\"iss\":\"{}\"}}", "ü".repeat(500)))).unwrap();
        assert_eq!(long.text().chars().count(), CLAIM_CHARS_MAX + "iss …".chars().count());
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for text in ["", "opaque", "a.b", "a.!.c", "a.e30", &token("[]"), &token("{"), "..."] {
            assert_eq!(Claims::of(text), None, "{text}");
        }
        for payload in [r#"{"exp":"soon"}"#, r#"{"exp":null}"#] {
            assert_eq!(Claims::of(&token(payload)).unwrap().expires, None);
        }
    }
}
