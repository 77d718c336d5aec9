//! Any sink, whose errors say nothing of what a message holds.
//!
//! What is wrong with a bad record is told in words that may quote it: a glimpse of 24 characters at a
//! misfit, and whatever a server says. Of these only what comes from the configuration is left: the
//! column or the metric. What the decoder says names bytes and types only, and stays.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{BadReason, BadRecord, Durability, Sink, SinkError};
use crate::flow::batch::Batch;
use crate::types::{Checkpoint, Guarantee};

/// The sink, and nothing of messages in what it says.
pub struct Discreet(pub Box<dyn Sink>);

const HIDDEN: &str = "what is there is not shown (show_values = false)";

fn hide(bad: BadRecord) -> BadRecord {
    let detail = match bad.reason {
        BadReason::Undecodable | BadReason::OverLimit => bad.detail,
        BadReason::Misfit | BadReason::Refused => {
            let named = bad.detail.starts_with("column \"") || bad.detail.starts_with("metric \"");
            // Whatever stands in front is of the name, and that is the configuration's.
            let place = bad.detail.split_once("\": ").filter(|_| named);
            place.map_or_else(|| HIDDEN.to_owned(), |(place, _)| format!("{place}\": {HIDDEN}"))
        }
    };
    BadRecord { detail, ..bad }
}

fn hidden(error: SinkError) -> SinkError {
    match error {
        SinkError::Poison(bad) => SinkError::Poison(bad.into_iter().map(hide).collect()),
        other => other,
    }
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

    async fn close(&mut self) -> Result<(), SinkError> {
        self.0.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    #[test]
    fn only_what_the_configuration_says_is_left() {
        let hide = |reason, detail: &str| {
            super::hide(BadRecord { offset: Offset(1), reason, detail: detail.to_owned() }).detail
        };
        let column = format!("column \"n\": {HIDDEN}");
        assert_eq!(
            hide(BadReason::Misfit, "column \"n\": the text \"x\": y\" is no number"),
            column
        );
        assert_eq!(hide(BadReason::Refused, "column \"n\": \"secret\" is not a uuid"), column);
        assert_eq!(hide(BadReason::Refused, "Key (id)=(\"secret\": 1) exists"), HIDDEN);
        assert_eq!(hide(BadReason::Undecodable, "malformed at byte 3"), "malformed at byte 3");
    }
}
