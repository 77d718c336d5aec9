//! A wrapper for any sink that removes message content from its errors.
//!
//! The text about a bad record may quote its value: up to 24 characters for a value that does not
//! fit its column, and any text from a server. Only the part from the configuration is kept: the
//! name of the column or metric, `about` in [`BadRecord`]. Errors of the decoder contain only bytes
//! and types, and are kept.
//! In other errors of a write, quoted text is removed: it may come from the server. Errors of an opening quote
//! what is configured, with the remedy, and are kept. In all errors, folders of the form `NAME=VALUE` are removed
//! from keys and paths: they may be made of values.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{BadReason, BadRecord, Durability, Sink, SinkError};
use crate::flow::batch::Batch;
use crate::types::{Checkpoint, Guarantee};

/// The wrapped sink.
pub struct Discreet(pub Box<dyn Sink>);

const HIDDEN: &str = "the value is not shown (show_values = false)";

/// The report without message content.
pub fn hide(bad: BadRecord) -> BadRecord {
    let detail = match bad.reason {
        BadReason::Undecodable => bad.detail,
        // This, too, may come from a server.
        BadReason::OverLimit => without_quotes(&bad.detail),
        BadReason::Misfit | BadReason::Refused | BadReason::Program => match &bad.about {
            Some(about) => format!("{about}: {HIDDEN}"),
            None => HIDDEN.to_owned(),
        },
    };
    BadRecord { detail, ..bad }
}

fn hidden(error: SinkError) -> SinkError {
    match error {
        SinkError::Poison(bad) => SinkError::Poison(bad.into_iter().map(hide).collect()),
        other => told_by(other, |what| without_quotes(&without_folders(&what))),
    }
}

/// The error of an opening, without message content.
pub(super) fn of_opening(error: SinkError) -> SinkError {
    told_by(error, |what| without(&without_folders(&what), "=(", ")"))
}

fn told_by(error: SinkError, tell: impl FnOnce(String) -> String) -> SinkError {
    match error {
        SinkError::Transient { what, retry_after } => {
            SinkError::Transient { what: tell(what), retry_after }
        }
        SinkError::Fatal(what) => SinkError::Fatal(tell(what)),
        poison @ SinkError::Poison(_) => poison,
    }
}

/// The text without the folders of keys and paths that are made of values: from the first part with a `=`, also
/// as a part of a URL, up to the name of the object.
pub fn without_folders(text: &str) -> String {
    let is_end = |c: char| c.is_ascii_whitespace() || "\"'`<>(),;".contains(c);
    let words = text.split_inclusive(is_end);
    words
        .map(|word| match word.strip_suffix(is_end) {
            Some(short) => without_folder(short) + word.get(short.len()..).unwrap_or_default(),
            None => without_folder(word),
        })
        .collect()
}

fn without_folder(word: &str) -> String {
    let mut at = 0;
    for part in word.split('/') {
        let is_made = part.contains('=') || part.contains("%3D");
        if let (true, Some(before)) = (is_made && at > 0, word.get(..at)) {
            let name = word.rsplit('/').next().filter(|name| is_name_of_object(name));
            return match name {
                Some(name) => format!("{before}…/{name}"),
                None => format!("{before}…"),
            };
        }
        at += part.len() + 1;
    }
    word.to_owned()
}

/// Whether it is an offset of 20 digits, and more.
fn is_name_of_object(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    digits == 20 && name.as_bytes().get(20) == Some(&b'-')
}

/// The text without values that a server may have quoted: the part between the first and the last
/// quotation mark, and between the first `=(` and the last `)`, PostgreSQL's format of a key.
fn without_quotes(text: &str) -> String {
    let text = without(text, "\"", "\"");
    without(&text, "=(", ")")
}

fn without(text: &str, open: &str, close: &str) -> String {
    let Some((before, rest)) = text.split_once(open) else { return text.to_owned() };
    let after = rest.rsplit_once(close).map_or("", |(_, after)| after);
    format!("{before}{open}…{close}{after}")
}

#[async_trait]
impl Sink for Discreet {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn guarantee(&self) -> Guarantee {
        self.0.guarantee()
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        self.0.position().await.map_err(of_opening)
    }

    async fn write(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.0.write(batch).await.map_err(hidden)
    }

    async fn wind_up(&mut self, batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        self.0.wind_up(batch).await.map_err(hidden)
    }

    fn flush_at(&self) -> Option<Instant> {
        self.0.flush_at()
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.0.flush().await.map_err(hidden)
    }

    fn joins_batches(&self) -> bool {
        self.0.joins_batches()
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.0.restart().await.map_err(of_opening)
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.0.move_to(to).await.map_err(of_opening)
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        self.0.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance;
    use crate::types::Offset;

    /// A sink whose answers all differ from the trait's defaults.
    struct Odd;

    #[async_trait]
    impl Sink for Odd {
        fn kind(&self) -> &'static str {
            "odd"
        }

        fn guarantee(&self) -> Guarantee {
            Guarantee::ExactlyOnce
        }

        async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
            Ok(Some(Checkpoint { offset: Offset(7), chunk: None }))
        }

        async fn write(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
            Ok(Durability::Held)
        }

        async fn wind_up(&mut self, _: &Arc<Batch>) -> Result<Durability, SinkError> {
            Ok(Durability::Part(None))
        }

        fn flush_at(&self) -> Option<Instant> {
            Some(Instant::now())
        }

        async fn flush(&mut self) -> Result<(), SinkError> {
            Err(SinkError::Fatal("flush".to_owned()))
        }

        fn joins_batches(&self) -> bool {
            true
        }

        async fn restart(&mut self) -> Result<(), SinkError> {
            Err(SinkError::Fatal("restart".to_owned()))
        }

        async fn move_to(
            &mut self,
            _: Option<Checkpoint>,
        ) -> Result<Option<Checkpoint>, SinkError> {
            Err(SinkError::Fatal("move".to_owned()))
        }

        async fn close(&mut self) -> Result<(), SinkError> {
            Err(SinkError::Fatal("close".to_owned()))
        }
    }

    #[tokio::test]
    async fn every_answer_is_the_sinks_own() {
        let mut sink = Discreet(Box::new(Odd));
        let batch = Arc::new(conformance::batch(0..1));
        assert_eq!((sink.kind(), sink.guarantee()), ("odd", Guarantee::ExactlyOnce));
        assert_eq!(sink.position().await.unwrap().map(|at| at.offset), Some(Offset(7)));
        assert_eq!(sink.write(&batch).await.unwrap(), Durability::Held);
        assert_eq!(sink.wind_up(&batch).await.unwrap(), Durability::Part(None));
        assert!(sink.flush_at().is_some() && sink.joins_batches());
        for (answer, name) in [
            (sink.flush().await, "flush"),
            (sink.restart().await, "restart"),
            (sink.move_to(None).await.map(drop), "move"),
            (sink.close().await, "close"),
        ] {
            assert_eq!(answer.unwrap_err().to_string(), name);
        }
    }

    #[test]
    fn a_servers_answer_is_not_quoted() {
        let fatal = |text: &str| match hidden(SinkError::Fatal(text.to_owned())) {
            SinkError::Fatal(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            fatal("POST h was answered with 413: \"no \\\"secret\\\"!\". Raise refusals_max"),
            "POST h was answered with 413: \"…\". Raise refusals_max"
        );
        assert_eq!(fatal("Key (id)=(a secret) exists. Hint"), "Key (id)=(…) exists. Hint");
        assert_eq!(fatal("syntax: \"half a quote"), "syntax: \"…\"");
        assert_eq!(fatal("no route to host"), "no route to host");
        let refused = hide(BadRecord {
            offset: Offset(1),
            reason: BadReason::OverLimit,
            about: None,
            detail: "answered with 413: \"secret is too long\"".to_owned(),
        });
        assert_eq!(refused.detail, "answered with 413: \"…\"");
    }

    /// What stores and file systems say about an object, in their own spellings of its key.
    #[test]
    fn folders_of_values_are_not_shown() {
        const NAME: &str = "00000000000000000005-7.ndjson.zst";
        let (key, shown) =
            (format!("events/email=a%40b/date=2026-11-27/{NAME}"), format!("events/…/{NAME}"));
        for (text, expected) in [
            (
                format!("could not create s3://b/p/{key}: no answer within 60s"),
                format!("could not create s3://b/p/{shown}: no answer within 60s"),
            ),
            (
                format!(
                    "PUT http://127.0.0.1:9/b/events/email%3Da%2540b/{NAME} in 1.2s - status 400: <Key>{key}</Key>"
                ),
                format!(
                    "PUT http://127.0.0.1:9/b/{shown} in 1.2s - status 400: <Key>{shown}</Key>"
                ),
            ),
            // GCS.
            (
                "PUT https://h/b/events%2Femail%3Da%2540b%2F00000000000000000005%2D7%2Endjson in 1s".to_owned(),
                "PUT https://h/b/… in 1s".to_owned(),
            ),
            (
                "could not write to /srv/my archive/events/email=a@b: denied".to_owned(),
                "could not write to /srv/my archive/events/…".to_owned() + " denied",
            ),
            ("took over (epoch=5) a=b s3://b/_rillway/events/x".to_owned(), String::new()),
        ] {
            let expected = if expected.is_empty() { text.clone() } else { expected };
            assert_eq!(without_folders(&text), expected);
            let SinkError::Fatal(told) = of_opening(SinkError::Fatal(text)) else { panic!() };
            assert!(!told.contains("a%40b") && !told.contains("a@b"), "{told}");
        }
    }

    #[test]
    fn only_what_the_configuration_says_is_left() {
        let (at, of) = (Offset(1), || "column \"n\"".to_owned());
        let hide = |bad: BadRecord| super::hide(bad).detail;
        let plain = |reason, detail: &str| {
            hide(BadRecord { offset: at, reason, about: None, detail: detail.to_owned() })
        };
        let column = format!("column \"n\": {HIDDEN}");
        let misfit = "the text \"x\": y\" is no number";
        assert_eq!(hide(BadRecord::about(of(), at, BadReason::Misfit, misfit)), column);
        let refused = "\"secret\" is not a uuid";
        assert_eq!(hide(BadRecord::about(of(), at, BadReason::Refused, refused)), column);
        assert_eq!(plain(BadReason::Refused, "Key (id)=(\"secret\": 1) exists"), HIDDEN);
        // Who writes such a text may have it from a message.
        assert_eq!(plain(BadReason::Refused, "column \"secret\": no"), HIDDEN);
        assert_eq!(plain(BadReason::Undecodable, "malformed at byte 3"), "malformed at byte 3");
    }
}
