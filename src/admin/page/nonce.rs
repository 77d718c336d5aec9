//! A text that nobody can guess, by which the browser knows the page's own style and script.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

/// Another text each time; `None` if the system has no random numbers.
pub(in crate::admin) fn nonce() -> Option<String> {
    let mut bytes = [0; 18];
    default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}
