//! What a service's answer means for the records that were sent.
//!
//! | status | meaning |
//! |---|---|
//! | 2xx | accepted |
//! | 413 | too large: the request is halved; a single record is bad |
//! | 400, 422 | this content is refused: the request is halved; a single record is bad |
//! | 401, 403, 404, 407 | not the records' fault, and often temporary: a token or a route that is being replaced. Tried again indefinitely: nothing is lost, the consumer shows the reason, and it continues by itself once the service works again |
//! | 408, 409, 421, 423, 425, 429, 5xx | tried again later, after `Retry-After` if given |
//! | 3xx | fatal: an operator has to decide where requests go, because they contain credentials |
//! | other 4xx | fatal: this request can never work, so an operator has to change the configuration |
//!
//! Pure: takes a status, a header and some text; returns a verdict.

use std::time::Duration;

use reqwest::StatusCode;

use crate::types::quote::Hidden;

/// Longest wait that a service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The service has accepted the records.
    Accepted,
    /// The request is too large for the service.
    TooLarge(String),
    /// The service refuses the content.
    Refused(String),
    /// It may succeed later.
    Later {
        /// What was tried, and what came back.
        what: String,
        /// How long the service asked to wait.
        retry_after: Option<Duration>,
    },
    /// It fails until an operator acts.
    Never(String),
}

/// The parts of an answer that count.
pub(super) struct Answer<'a> {
    pub(super) status: StatusCode,
    /// `Retry-After`, as it was received.
    pub(super) retry_after: Option<&'a str>,
    /// `Location`, without what may be secret.
    pub(super) location: Option<String>,
    /// The beginning of the body, fit to be shown.
    pub(super) quote: String,
}

/// Judges an answer. `request` says what was sent, and where: `POST http://… with 5 records (…)`.
pub(super) fn judge(request: &str, answer: &Answer<'_>, now_ms: i64) -> Verdict {
    let status = answer.status;
    let said = format!("{request} was answered with {status}{}", answer.quote);
    let later = |hint: &str| Verdict::Later {
        what: format!("{said}{hint}"),
        retry_after: answer.retry_after.and_then(|text| retry_after(text, now_ms)),
    };
    match status.as_u16() {
        200..=299 => Verdict::Accepted,
        300..=399 => {
            let to = answer.location.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
            Verdict::Never(format!(
                "{said}, a redirection{to}. Redirections are not followed: if that is the right \
                 place, give it as the sink's `url`"
            ))
        }
        413 => Verdict::TooLarge(said),
        400 | 422 => Verdict::Refused(said),
        401 | 407 => later(
            ". The service does not know who we are: check the sink's `headers` and the secrets in \
             them. It is tried again",
        ),
        403 => later(
            ". The service does not let us in: check what these credentials may do. It is tried \
             again",
        ),
        404 => later(". Nothing is found there: check the sink's `url`. It is tried again"),
        408 | 409 | 421 | 423 | 425 | 429 => later(""),
        400..=499 => Verdict::Never(format!(
            "{said}. No request of this kind will be accepted: check the sink's `url`, `method`, \
             `format` and `compression`"
        )),
        _ => later(""),
    }
}

/// How long to wait: a number of seconds, or until a date in HTTP's form.
fn retry_after(text: &str, now_ms: i64) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            let ms = until.as_millisecond().saturating_sub(now_ms);
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The beginning of an answer's body, behind a colon, without the secrets that a service may send back.
pub(super) fn quote(body: &[u8], secrets: &Hidden) -> String {
    let text = secrets.quote(&String::from_utf8_lossy(body));
    if text.is_empty() { text } else { format!(": {text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after,
            location: Some("http://elsewhere/".to_owned()),
            quote: quote(b" no\nway ", &Hidden::default()),
        };
        judge("POST http://h/ with 1 record (offset 5)", &answer, 784_111_777_000)
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 100..=599 {
            let found = verdict(status, None);
            let as_expected = match status {
                200..=299 => found == Verdict::Accepted,
                413 => matches!(found, Verdict::TooLarge(_)),
                400 | 422 => matches!(found, Verdict::Refused(_)),
                401 | 403 | 404 | 407 | 408 | 409 | 421 | 423 | 425 | 429 => {
                    matches!(found, Verdict::Later { .. })
                }
                300..=499 => matches!(found, Verdict::Never(_)),
                _ => matches!(found, Verdict::Later { .. }),
            };
            assert!(as_expected, "{status}: {found:?}");
        }
    }

    #[test]
    fn the_text_says_what_was_sent_and_what_came_back() {
        let Verdict::Refused(text) = verdict(422, None) else { panic!() };
        assert_eq!(
            text,
            "POST http://h/ with 1 record (offset 5) was answered with 422 Unprocessable Entity: \
             \"no way\""
        );
        let Verdict::Never(text) = verdict(308, None) else { panic!() };
        assert!(text.contains("a redirection to http://elsewhere/"), "{text}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // The date of RFC 9110's own example; the waits count from the moment above.
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999", None),
            ("999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            let found = match verdict(429, Some(text)) {
                Verdict::Later { retry_after, .. } => retry_after.map(|wait| wait.as_secs()),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, seconds, "{text:?}");
        }
    }

    #[test]
    fn a_quote_is_behind_a_colon() {
        let secrets = Hidden::new(["hunter2".to_owned()]);
        assert_eq!(quote(b"", &secrets), "");
        assert_eq!(quote(b"\n \r\n", &secrets), "");
        assert_eq!(quote(b"bad token hunter2\xff", &secrets), ": \"bad token ***\u{fffd}\"");
    }
}
