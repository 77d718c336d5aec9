//! What `rillway check` says of watched references.

use std::fmt;

use futures_util::future::join_all;
use serde::Serialize;

use crate::config::{Config, WatchConfig};
use crate::supervisor::{Stored, stored_of};

/// What a `[[watch]]` comes to.
#[derive(Debug, Serialize)]
pub struct WatchPlan {
    /// The stream, or the super stream.
    pub stream: String,
    /// True if it is a super stream.
    pub is_super_stream: bool,
    /// The references.
    pub references: Vec<String>,
    /// The stored offset of each reference on each stream; `None` without `--connect`, or if the broker
    /// could not say.
    pub stored: Option<Vec<StoredReport>>,
    /// Why the broker could not say; `None` if that was not asked, or it could.
    pub problem: Option<String>,
}

/// The offset stored for one reference on one stream.
#[derive(Debug, Serialize)]
pub struct StoredReport {
    /// The stream.
    pub stream: String,
    /// The reference.
    pub reference: String,
    /// The offset; `None` if none is stored.
    pub offset: Option<u64>,
}

impl WatchPlan {
    pub(super) fn new(watch: &WatchConfig) -> WatchPlan {
        WatchPlan {
            stream: watch.stream.to_string(),
            is_super_stream: watch.is_super_stream,
            references: watch.references.iter().map(ToString::to_string).collect(),
            stored: None,
            problem: None,
        }
    }
}

/// Asks the broker for the stored offsets. Adds what it could not say to `wrong`.
pub(super) async fn ask_all(config: &Config, plans: &mut [WatchPlan], wrong: &mut Vec<String>) {
    let asked = join_all(config.watches.iter().map(|watch| stored_of(config, watch))).await;
    for (plan, asked) in plans.iter_mut().zip(asked) {
        match asked {
            Ok(stored) => {
                let report = |Stored { stream, reference, offset }| StoredReport {
                    stream: stream.to_string(),
                    reference: reference.to_string(),
                    offset: offset.map(|offset| offset.0),
                };
                plan.stored = Some(stored.into_iter().map(report).collect());
            }
            Err(what) => {
                wrong.push(format!("watch of {:?}: {what}", plan.stream));
                plan.problem = Some(what);
            }
        }
    }
}

impl fmt::Display for WatchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "watch")?;
        let kind = if self.is_super_stream { "super:      " } else { "stream:     " };
        writeln!(f, "  {kind}{:?}, references {}", self.stream, self.references.join(", "))?;
        for StoredReport { stream, reference, offset } in self.stored.iter().flatten() {
            match offset {
                Some(offset) => {
                    writeln!(f, "  stored:     {offset} for {reference:?} on {stream:?}")?
                }
                None => writeln!(f, "  stored:     nothing for {reference:?} on {stream:?}")?,
            }
        }
        match &self.problem {
            Some(problem) => writeln!(f, "  PROBLEM:    {problem}"),
            None => Ok(()),
        }
    }
}
