//! A wrapper for any sink that removes message content from its errors.
//!
//! The text about a bad record may quote its value: up to 24 characters for a value that does not
//! fit its column, and any text from a server. Only the part from the configuration is kept: the
//! name of the column or metric, `about` in [`BadRecord`]. Errors of the decoder contain only bytes
//! and types, and are kept.
//! In other errors of a write, quoted text is removed: it may come from the server.

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
        SinkError::Transient { what, retry_after } => {
            SinkError::Transient { what: without_quotes(&what), retry_after }
        }
        SinkError::Fatal(what) => SinkError::Fatal(without_quotes(&what)),
    }
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
        self.0.position().await
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
        self.0.restart().await
    }

    async fn move_to(&mut self, to: Option<Checkpoint>) -> Result<Option<Checkpoint>, SinkError> {
        self.0.move_to(to).await
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
