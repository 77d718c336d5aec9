//! Functions that open a consumer's sink, or inspect it for `rillway check`, as values.
//!
//! Knows nothing of the sink or the caller.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::discreet::{Discreet, of_opening};
use super::{Sink, SinkError};
use crate::types::{Checkpoint, Reference};

/// Opens a sink; called again for each restart.
pub type SinkFactory =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Sink>, SinkError>> + Send + Sync>;

/// Reads the sink's own position without locking or changing its destination. The error says why
/// the sink could not write, as far as it can know in advance.
pub type Look =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Checkpoint>, SinkError>> + Send + Sync>;

/// Gives what the sink keeps under a former reference the one that it is opened under: its position, and those of
/// replays through it. Where nothing is kept under the former one, nothing happens. What is there under both is
/// an error, and nothing is changed.
pub type Renaming = Arc<dyn Fn(Former) -> BoxFuture<'static, Result<(), SinkError>> + Send + Sync>;

/// A former reference of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The reference.
    pub reference: Reference,
    /// True if nothing is to be changed: whether it could be is all that is asked.
    pub is_trial: bool,
}

/// A renaming that calls `rename`.
pub fn renames<F>(rename: impl Fn(Former) -> F + Send + Sync + 'static) -> Renaming
where
    F: Future<Output = Result<(), SinkError>> + Send + 'static,
{
    Arc::new(move |former| Box::pin(rename(former)))
}

/// A renaming that blocks. It runs on its own thread.
pub fn renames_blocking(
    rename: impl Fn(&Former) -> Result<(), SinkError> + Clone + Send + Sync + 'static,
) -> Renaming {
    renames(move |former| {
        let rename = rename.clone();
        let renaming = tokio::task::spawn_blocking(move || rename(&former));
        async { renaming.await.unwrap_or_else(|error| Err(SinkError::Fatal(error.to_string()))) }
    })
}

impl Former {
    /// Each of these references that is the former one, or a replay of it, with what it is to be called.
    ///
    /// # Errors
    /// If one is called that already.
    pub(super) fn renamed(
        &self,
        all: &[String],
        to: &Reference,
        place: &str,
    ) -> Result<Vec<(String, String)>, SinkError> {
        let from = self.reference.as_str();
        let of = |one: &&String| Reference::from(one.as_str()).without_replay() == from;
        let pairs: Vec<_> = all
            .iter()
            .filter(of)
            .filter_map(|one| Some((one.clone(), format!("{to}{}", one.strip_prefix(from)?))))
            .collect();
        match pairs.iter().find(|(_, to)| all.contains(to)) {
            None => Ok(pairs),
            Some((from, to)) => Err(SinkError::Fatal(format!(
                "{place} has a position of reference {to:?} already, beside that of {from:?}: choose another name, or \
                 delete what is kept there under {to:?} if nothing needs it"
            ))),
        }
    }
}

/// A factory that calls `open`.
pub fn opens<S, F>(open: impl Fn() -> F + Send + Sync + 'static) -> SinkFactory
where
    S: Sink + 'static,
    F: Future<Output = Result<S, SinkError>> + Send + 'static,
{
    Arc::new(move || {
        let opening = open();
        Box::pin(async move { opening.await.map(|sink| Box::new(sink) as Box<dyn Sink>) })
    })
}

/// A look that calls `look`.
pub fn looks<F>(look: impl Fn() -> F + Send + Sync + 'static) -> Look
where
    F: Future<Output = Result<Option<Checkpoint>, SinkError>> + Send + 'static,
{
    Arc::new(move || Box::pin(look()))
}

/// A look that blocks, for example on a disk. It runs on its own thread, so that a hanging disk
/// delays nothing else.
pub fn looks_blocking(
    look: impl Fn() -> Result<Option<Checkpoint>, SinkError> + Clone + Send + Sync + 'static,
) -> Look {
    looks(move || {
        let looking = tokio::task::spawn_blocking(look.clone());
        async { looking.await.unwrap_or_else(|error| Err(SinkError::Fatal(error.to_string()))) }
    })
}

/// The look of a sink that keeps no position.
pub fn looks_nowhere() -> Look {
    looks(|| async { Ok(None) })
}

/// A factory of the same sink, whose errors contain no message content.
pub fn discreet(open: SinkFactory) -> SinkFactory {
    Arc::new(move || {
        let opening = open();
        Box::pin(async move {
            let sink = opening.await.map_err(of_opening)?;
            Ok(Box::new(Discreet(sink)) as Box<dyn Sink>)
        })
    })
}

/// The same look, whose errors contain no message content.
pub fn discreet_look(look: Look) -> Look {
    Arc::new(move || {
        let looking = look();
        Box::pin(async move { looking.await.map_err(of_opening) })
    })
}

/// Inspects the dead letters' sink first; its problems are reported.
pub fn with_dead_letters(letters: Look, sink: Look) -> Look {
    looks(move || {
        let (letters, sink) = (letters(), sink());
        async move {
            match letters.await {
                Ok(_) => sink.await,
                Err(SinkError::Fatal(what)) => {
                    Err(SinkError::Fatal(format!("dead letters: {what}")))
                }
                Err(error) => {
                    let what = format!("dead letters: {error}");
                    Err(SinkError::transient(what))
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_go_with_their_reference_and_others_stay() {
        let all = ["a", "a.replay-1", "a.replay-x", "ab", "b.replay-2"].map(str::to_owned);
        let renamed = |from: &str, to: &str| {
            let former = Former { reference: from.into(), is_trial: false };
            former.renamed(&all, &to.into(), "it").map_err(|error| error.to_string())
        };
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(renamed("a", "b"), Ok(vec![pair("a", "b"), pair("a.replay-1", "b.replay-1")]));
        assert!(renamed("a", "ab").unwrap_err().contains("\"ab\" already"));
        assert_eq!(renamed("x", "ab"), Ok(vec![]));
    }
}
