//! Functions that open a consumer's sink, or inspect it for `rillway check`, as values.
//!
//! Knows nothing of the sink or the caller.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::discreet::{Discreet, of_opening};
use super::{Sink, SinkError};
use crate::types::Checkpoint;

/// Opens a sink; called again for each restart.
pub type SinkFactory =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Sink>, SinkError>> + Send + Sync>;

/// Reads the sink's own position without locking or changing its destination. The error says why
/// the sink could not write, as far as it can know in advance.
pub type Look =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Checkpoint>, SinkError>> + Send + Sync>;

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
