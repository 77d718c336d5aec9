//! Gives an archive another reference: one exchange of its checkpoint.

use super::state::State;
use super::store::{Store, Swapped};
use super::{ObjectOptions, find_names};
use crate::sink::SinkError;
use crate::sink::factory::Former;
use crate::types::{Reference, StreamName};

/// Has the archive belong to `reference` and no longer to the former one, and takes it from its owner. An
/// archive that does not exist, or is of another stream or reference, stays as it is: the sink's start says what
/// is wrong with that.
///
/// # Errors
/// If the checkpoint is damaged, or cannot be read or replaced.
pub(super) async fn rename(
    options: &ObjectOptions,
    stream: &StreamName,
    reference: &Reference,
    former: &Former,
) -> Result<(), SinkError> {
    let store = options.place.open().await?;
    let names = find_names(&*store, options, stream, reference).await?;
    exchange(&*store, &names.checkpoint, (stream, reference), former).await
}

async fn exchange(
    store: &dyn Store,
    key: &str,
    (stream, reference): (&StreamName, &Reference),
    former: &Former,
) -> Result<(), SinkError> {
    let Some((bytes, version)) = store.read(key).await? else { return Ok(()) };
    let place = store.place(key);
    if State::decode(&bytes, &place, (stream, reference)).is_ok() {
        return Ok(());
    }
    let state = State::decode(&bytes, &place, (stream, &former.reference))?;
    if former.is_trial {
        return Ok(());
    }
    let renamed = state.renamed(reference.clone());
    match store.swap(key, Some(&version), renamed.encode()?).await? {
        Swapped::Moved(_) => Ok(()),
        Swapped::Lost => Err(SinkError::transient(format!(
            "{place} was replaced by another process meanwhile: does a daemon still write there?"
        ))),
    }
}
