//! Gives the position in a stream's folder another reference: one commit into the other slot.

use super::disk::Disk;
use super::position::{self, Position, State};
use super::{FileOptions, segment};
use crate::files;
use crate::sink::SinkError;
use crate::sink::factory::Former;
use crate::types::{Reference, StreamName};

/// Has the folder belong to `reference` and no longer to the former one. A folder without a position, or of
/// another stream or reference, stays as it is: the sink's start says what is wrong with that.
///
/// # Errors
/// If the position is damaged or cannot be written, or another process has the folder.
pub(super) fn rename(
    options: &FileOptions,
    stream: &StreamName,
    reference: &Reference,
    former: &Former,
) -> Result<(), SinkError> {
    let name = segment::folder(stream);
    let folder = options.dir.join(&name);
    let is_former = |state: &State| state.stream == *stream && state.reference == former.reference;
    if position::look(&folder)?.is_none_or(|state| !is_former(&state)) {
        return Ok(());
    }
    if former.is_trial {
        return files::could_write_in(&folder)
            .map_err(|what| SinkError::Fatal(format!("file sink: {what}")));
    }
    let mut storage = Disk::open(&options.dir, &name)?;
    // Read again, under the lock.
    let Some(mut position) = Position::adopt(&mut storage)? else { return Ok(()) };
    let state = position.durable().state().clone();
    if is_former(&state) {
        position.commit(&mut storage, State { reference: reference.clone(), ..state })?;
    }
    Ok(())
}
