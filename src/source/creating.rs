//! Creates what a consumer reads, if it is absent when the consumer first starts.
//!
//! Invariant: a stream that the consumer has read, or has stood by for, is never created: if it is gone, so
//! are its messages, and an operator has to be told.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{ConnectOptions, ErrorKind, SourceError};
use crate::broker::{BrokerError, Declared, Layout, declare};

/// A stream or super stream that is created if it is absent.
#[derive(Debug)]
pub struct Creating {
    options: ConnectOptions,
    layout: Layout,
    /// True once it was found or created: it is not looked for again.
    settled: AtomicBool,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// Nothing: it exists as it is wanted, or is not to be created.
    Nothing,
    /// It would be created, in this form.
    Creates(String),
    /// Nothing: it exists. What is worth knowing about it.
    Differs(String),
}

impl Creating {
    /// Nothing is asked before [`Creating::prepare`].
    pub fn new(options: ConnectOptions, layout: Layout) -> Creating {
        Creating { options, layout, settled: AtomicBool::new(false) }
    }

    /// See [`Source::prepare`](super::Source::prepare).
    ///
    /// # Errors
    /// If it cannot be created, or is not to be although it is absent.
    pub async fn prepare(&self, has_begun: bool) -> Result<(), SourceError> {
        if self.is_settled() {
            return Ok(());
        }
        let (name, kind) = (self.layout.name.as_str(), self.kind());
        let declared = match declare(&self.options, &self.layout, !has_begun).await {
            // As while one node of a cluster is frozen. A stream that exists can be found all the same, and a
            // missing one is told when it is connected to: then this is tried again.
            Err(error @ BrokerError::Timeout { .. }) if self.layout.partitions.is_none() => {
                tracing::debug!(name, %error, "whether the {kind} exists is not told");
                return Ok(());
            }
            declared => declared?,
        };
        match declared {
            Declared::Absent => return Err(self.gone()),
            Declared::Created => {
                let with = self.layout.to_string();
                tracing::info!(name, with, "{kind} created, because it did not exist");
            }
            Declared::Same => {}
            Declared::Different(what) => {
                tracing::warn!(name, what, "{}", self.unchanged());
            }
            Declared::Unknown => {
                tracing::info!(name, "{}", self.unknown());
            }
            Declared::NotCompared(why) => {
                tracing::debug!(name, why, "the {kind} exists, and was not compared with `create`");
            }
        }
        self.settle();
        Ok(())
    }

    /// It was found: it is not created any more.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// See [`Source::foresee`](super::Source::foresee).
    ///
    /// # Errors
    /// As [`Creating::prepare`].
    pub async fn foresee(&self, has_begun: bool) -> Result<Foreseen, SourceError> {
        Ok(match declare(&self.options, &self.layout, false).await? {
            Declared::Absent if has_begun => return Err(self.gone()),
            Declared::Absent => Foreseen::Creates(self.layout.to_string()),
            Declared::Created | Declared::Same => Foreseen::Nothing,
            Declared::Different(what) => Foreseen::Differs(format!("{}: {what}", self.unchanged())),
            Declared::Unknown => Foreseen::Differs(self.unknown()),
            Declared::NotCompared(why) => Foreseen::Differs(format!(
                "the {} exists. Whether its arguments are those in `create` is not told: {why}",
                self.kind()
            )),
        })
    }

    /// True once it was found or created.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    fn kind(&self) -> &'static str {
        if self.layout.partitions.is_some() { "super stream" } else { "stream" }
    }

    fn unchanged(&self) -> String {
        format!("the {} exists otherwise than `create` says, and is not changed", self.kind())
    }

    fn unknown(&self) -> String {
        format!(
            "the {} exists. Whether its arguments are those in `create` is not known: only a user who may configure it can compare them",
            self.kind()
        )
    }

    /// Error for one that is absent, although it was there.
    pub fn gone(&self) -> SourceError {
        let (kind, name, vhost) = (self.kind(), self.layout.name.as_str(), &self.options.vhost);
        let what = format!(
            "{kind} {name:?} does not exist in virtual host {vhost:?}, but this consumer has begun to read it: it was deleted, and `create` does not create it again, as if nothing had been lost. Create it by hand; on_offset_lost then says how to go on"
        );
        SourceError::new(ErrorKind::Missing, what)
    }
}
