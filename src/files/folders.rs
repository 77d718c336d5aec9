//! Folders that survive a power loss.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Access, access};

use super::rights::lacking_to_write;
use crate::sync::lock;

/// Folders that this process has synced, together with all their parents.
static DURABLE: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// Checks whether files could be created in this folder, or the folder itself if it is missing, as
/// far as the permissions show. Creates nothing. The error is a sentence.
pub(crate) fn could_write_in(folder: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // The nearest existing parent: the missing folders would be created in it.
    let Some(above) = absolute.ancestors().find(|above| above.exists()) else { return Ok(()) };
    if !above.is_dir() {
        return Err(format!(
            "{} cannot be created: {} is not a folder",
            folder.display(),
            above.display()
        ));
    }
    if let Some(what) = lacking_to_write(&absolute) {
        return Err(format!("could not write to {}: {what}", folder.display()));
    }
    access(above, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("could not write to {}: {error}", above.display()))
}

/// Creates the folder and its parents where they are missing, and makes their names durable, also
/// if an earlier process died before that. Cheap once it is done.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    if folder.is_dir() && known(|known| known.contains(&folder)) {
        return Ok(());
    }
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.is_dir()).collect();
    for path in missing.into_iter().rev() {
        create(path)?;
    }
    for above in folder.ancestors().skip(1) {
        sync_if_ours(above).inspect_err(|_| remove_empty(&folder, above))?;
    }
    known(|known| {
        // A folder for each value of a message: they are looked at once more then.
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(folder.clone())
    });
    Ok(())
}

/// Creates a folder durably, or not at all: the next attempt would find a folder left behind, and
/// could not make its name durable by a second sync.
fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Another process may have been faster.
            return if path.is_dir() { Ok(()) } else { Err(rustix::io::Errno::NOTDIR.into()) };
        }
        made => made?,
    }
    path.parent().map_or(Ok(()), sync_folder).inspect_err(|_| {
        // Another process may already have put something into it.
        fs::remove_dir(path).unwrap_or_default();
    })
}

/// Removes the folder, and those above it that are empty then, up to `above`, whose sync failed: the
/// next attempt creates them, and so gives their names anew.
fn remove_empty(folder: &Path, above: &Path) {
    for path in folder.ancestors().take_while(|path| *path != above) {
        if fs::remove_dir(path).is_err() {
            return;
        }
    }
}

/// Syncs a folder that existed before. One that we may not open is not ours, nor is its content;
/// some file systems cannot sync folders.
fn sync_if_ours(folder: &Path) -> io::Result<()> {
    match sync_folder(folder) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::InvalidInput
                    | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Makes the names in the folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // A relative path of one name lies in the current folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder)?.sync_all();
    #[cfg(test)]
    let synced = super::testing::synced(folder, synced);
    synced
}

/// Most folders that are remembered.
const KNOWN_MAX: usize = 10_000;

pub(super) fn known<R>(look: impl FnOnce(&mut HashSet<PathBuf>) -> R) -> R {
    let mut known = lock(&DURABLE);
    look(known.get_or_insert_default())
}
