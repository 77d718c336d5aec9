//! One access token, and how long it is good for.

use std::time::{Duration, Instant, SystemTime};

use super::jwt::Claims;
use crate::types::Secret;

/// Longest token in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Longest lifetime in seconds that is taken for one: 100 years. More means that it does not expire.
const LIFETIME_S_MAX: i64 = 100 * 365 * 24 * 3600;

/// Reason why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);

/// An access token.
#[derive(Clone, Debug)]
pub struct Token {
    text: Secret,
    /// Number in the order in which they came.
    pub(super) number: u64,
    pub(super) acquired: Instant,
    /// Time for which it is good from then on; `None` if that is not known.
    pub(super) lifetime: Option<Duration>,
    claims: Option<Claims>,
}

impl Token {
    /// A token that has just come.
    ///
    /// # Errors
    /// If it is no token.
    pub(super) fn new(text: &str) -> Result<Token, TokenError> {
        if text.is_empty() {
            return Err(TokenError("it is empty".to_owned()));
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError(format!("it is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError("it holds blanks or other characters that no token has".into()));
        }
        Ok(Token {
            text: Secret::new(text),
            number: 0,
            acquired: Instant::now(),
            lifetime: None,
            claims: Claims::of(text),
        })
    }

    /// The token, to send it to the broker.
    pub fn secret(&self) -> &Secret {
        &self.text
    }

    pub(super) fn numbered(self, number: u64) -> Token {
        Token { number, ..self }
    }

    /// Reads its lifetime from its own expiry, by this machine's clock.
    pub(super) fn by_the_clock(mut self) -> Token {
        let left_s = self.expires_at().map(|at| at.saturating_sub(now_s()));
        self.lifetime = left_s.and_then(lifetime);
        self
    }

    /// Reads its lifetime, as one that was issued just now: from its own claims, and from what the
    /// issuer says of it. Neither needs this machine's clock.
    pub(super) fn just_issued(self, expires_in_s: Option<i64>) -> Token {
        let claimed_s = self.claims.as_ref().and_then(Claims::lifetime_s);
        let lifetime_s = match (claimed_s, expires_in_s) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match lifetime_s {
            Some(s) => Token { lifetime: lifetime(s), ..self },
            None => self.by_the_clock(),
        }
    }

    /// Time at which it expires, in seconds since 1970.
    pub(super) fn expires_at(&self) -> Option<i64> {
        if let Some(at) = self.claims.as_ref().and_then(|claims| claims.expires) {
            return Some(at);
        }
        let lifetime = i64::try_from(self.lifetime?.as_secs()).ok()?;
        Some(now_s().saturating_sub(seconds(self.acquired.elapsed())).saturating_add(lifetime))
    }

    /// Time that is left; zero if it has expired, `None` if that is not known.
    pub(super) fn left(&self) -> Option<Duration> {
        Some(self.lifetime?.saturating_sub(self.acquired.elapsed()))
    }

    pub(super) fn has_expired(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// What is known of it, without the token itself.
    pub(super) fn facts(&self) -> String {
        let left_s = self.expires_at().map(|at| at.saturating_sub(now_s()));
        let expiry = match left_s {
            None => "without a known expiry".to_owned(),
            Some(s) if s > 0 => format!("expires in {s} s by the clock here"),
            Some(s) => format!("expired {} s ago by the clock here", s.saturating_neg()),
        };
        match self.claims.as_ref().map(Claims::text) {
            None => format!("no JWT, {expiry}"),
            Some(claims) if claims.is_empty() => expiry,
            Some(claims) => format!("{claims}, {expiry}"),
        }
    }
}

/// `None` if it never expires.
fn lifetime(seconds: i64) -> Option<Duration> {
    let seconds = Some(seconds).filter(|seconds| *seconds <= LIFETIME_S_MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn now_s() -> i64 {
    seconds(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    fn token(payload: &str) -> Token {
        Token::new(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))).unwrap()
    }

    /// A clock that is wrong by years must not matter for a token that was issued just now.
    #[test]
    fn the_lifetime_of_a_new_token_is_relative() {
        let s = |token: Token| token.lifetime.map(|l| l.as_secs());
        let claims = r#"{"exp":1060,"iat":1000}"#;
        assert_eq!(s(token(claims).just_issued(None)), Some(60));
        assert_eq!(s(token(claims).just_issued(Some(20))), Some(20));
        assert_eq!(s(token(claims).just_issued(Some(3600))), Some(60));
        assert_eq!(s(token("{}").just_issued(Some(20))), Some(20));
        assert_eq!(s(token("{}").just_issued(None)), None);
        assert_eq!(s(Token::new("opaque").unwrap().just_issued(Some(5))), Some(5));
        assert_eq!(s(token(claims).by_the_clock()), Some(0), "it expired in 1970");
        assert!(token(claims).by_the_clock().has_expired());
        let later = format!("{{\"exp\":{}}}", now_s() + 100);
        assert!((99..=100).contains(&s(token(&later).by_the_clock()).unwrap()));
    }

    /// Whatever an issuer writes: no number ends the keeper.
    #[test]
    fn no_number_is_too_large_or_too_small() {
        for number in [i64::MAX, i64::MAX - 1, i64::MIN, 0] {
            let opaque = Token::new("opaque").unwrap().just_issued(Some(number));
            assert_eq!(opaque.lifetime.is_none(), number > 0);
            let claims = format!("{{\"exp\":{number}}}");
            for token in [opaque, token(&claims).by_the_clock(), token(&claims).just_issued(None)] {
                assert_eq!(token.has_expired(), number <= 0, "{}", token.facts());
                token.expires_at();
            }
        }
        let token = token(r#"{"exp":-1e300,"iat":1e300}"#).just_issued(Some(i64::MAX));
        assert!(token.facts().contains("expired"), "{}", token.facts());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "two words", "line\nline", "ümlaut", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            Token::new(text).unwrap_err();
        }
        assert!(!format!("{:?}", Token::new("opaque").unwrap()).contains("opaque"));
        assert_eq!(Token::new("opaque").unwrap().facts(), "no JWT, without a known expiry");
    }
}
