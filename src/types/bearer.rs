//! The token that a caller of the admin server presents.

use subtle::ConstantTimeEq;

use super::Secret;

/// Fewest characters of a token: shorter ones can be guessed.
pub const TOKEN_CHARS_MIN: usize = 16;

/// Most characters of a token: it has to fit into the head of a request.
pub const TOKEN_CHARS_MAX: usize = 4096;

/// Token of the admin server, as in `Authorization: Bearer TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerToken(Secret);

/// Reason why a text is no token. Does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// It is too short.
    #[error(
        "the token has fewer than {TOKEN_CHARS_MIN} characters, so it could be guessed: use a random one, as \
         `openssl rand -hex 32` makes"
    )]
    Short,
    /// It is too long.
    #[error(
        "the token has more than {TOKEN_CHARS_MAX} characters: use a random one, as `openssl rand -hex 32` makes"
    )]
    Long,
    /// It does not fit into a header.
    #[error(
        "the token may only contain visible ASCII characters, and no blanks: use a random one, as `openssl \
         rand -hex 32` makes"
    )]
    Unprintable,
}

impl BearerToken {
    /// The token in this text.
    ///
    /// # Errors
    /// If it could not be sent, or could be guessed.
    pub fn new(secret: Secret) -> Result<BearerToken, NoToken> {
        let text = secret.reveal();
        match text.len() {
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(NoToken::Unprintable),
            ..TOKEN_CHARS_MIN => Err(NoToken::Short),
            length if length > TOKEN_CHARS_MAX => Err(NoToken::Long),
            _ => Ok(BearerToken(secret)),
        }
    }

    /// True if the caller presented this token. The time that it takes says how long the token is, and
    /// nothing else about it.
    pub fn is(&self, presented: &[u8]) -> bool {
        self.0.reveal().as_bytes().ct_eq(presented).into()
    }

    /// The token itself, to send to a peer.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_sent_and_not_guessed_is_a_token() {
        let token = |text: &str| BearerToken::new(Secret::new(text));
        let good = "0123456789abcdef";
        for (text, wanted) in [
            ("", NoToken::Short),
            ("0123456789abcde", NoToken::Short),
            ("0123456789abcde ", NoToken::Unprintable),
            ("0123456789abc\ndef", NoToken::Unprintable),
            ("0123456789abcdeé", NoToken::Unprintable),
            (&"x".repeat(TOKEN_CHARS_MAX + 1), NoToken::Long),
        ] {
            assert_eq!(token(text), Err(wanted), "{text:?}");
        }
        let good = token(good).unwrap();
        assert_eq!(format!("{good:?}"), "BearerToken(***)");
        for (presented, is) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeF", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(good.is(presented.as_bytes()), is, "{presented}");
        }
    }
}
