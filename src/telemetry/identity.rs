//! Metrics of certificates and access tokens. They are counted where no consumer is known.

use super::labels::Label;
pub use super::labels::{ReloadResult, TokenResult};
use super::names;
use super::page::ABSENT;

/// Counts certificate files whose content has changed.
pub fn tls_reload(result: ReloadResult) {
    metrics::counter!(names::TLS_RELOADS.name, "result" => result.label()).increment(1);
}

/// Shows the counts of [`tls_reload`] from 0 on.
pub fn tls_in_use() {
    for result in ReloadResult::ALL {
        metrics::counter!(names::TLS_RELOADS.name, "result" => result.label()).increment(0);
    }
}

/// Shows that connections accept any certificate.
pub fn tls_unverified() {
    metrics::gauge!(names::TLS_UNVERIFIED.name).set(1.0);
}

/// Counts an attempt to have a new access token; `token` says which.
pub fn token_renewal(token: &str, result: TokenResult) {
    let token = token.to_owned();
    metrics::counter!(names::TOKEN_RENEWALS.name, "token" => token, "result" => result.label())
        .increment(1);
}

/// Shows the counts of [`token_renewal`] from 0 on.
pub fn token_in_use(token: &str) {
    for result in TokenResult::ALL {
        let token = token.to_owned();
        metrics::counter!(names::TOKEN_RENEWALS.name, "token" => token, "result" => result.label())
            .increment(0);
    }
}

/// Shows when the access token expires, in seconds since 1970; `None` if that is not known.
pub fn token_expiry(token: &str, at: Option<i64>) {
    let at = at.map_or(ABSENT, |at| at as f64);
    metrics::gauge!(names::TOKEN_EXPIRY.name, "token" => token.to_owned()).set(at);
}
