//! The rights of this process on files and folders, in words.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The error of reading this file, with who lacks which right, and what to do, if that is the reason.
pub(crate) fn unread(path: &Path, error: &io::Error) -> String {
    match lacking(path, Access::READ_OK, "read").filter(|_| is_denial(error)) {
        Some(what) => format!("{error}: {what}. Allow the user that Rillway runs as to read it"),
        None => error.to_string(),
    }
}

/// The error of writing or creating this file or folder, with who lacks which right, if that is the
/// reason.
pub(crate) fn unwritten(path: &Path, error: &io::Error) -> String {
    match lacking_to_write(path).filter(|_| is_denial(error)) {
        Some(what) => format!("{error}: {what}"),
        None => error.to_string(),
    }
}

/// The right that this process lacks to write this file, to write into this folder, or to create
/// either; `None` if it lacks none.
pub(crate) fn lacking_to_write(path: &Path) -> Option<String> {
    let both = Access::READ_OK | Access::WRITE_OK;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if path.is_file() {
        return lacking(path, both, "read and write")
            .or_else(|| lacking(folder, Access::WRITE_OK, CREATE));
    }
    // What is missing would be created in the nearest folder that exists.
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|above| above.exists())?;
    let entering = (existing != absolute).then(|| lacking(existing, Access::EXEC_OK, ENTER));
    entering.flatten().or_else(|| lacking(existing, Access::WRITE_OK | Access::EXEC_OK, CREATE))
}

const CREATE: &str = "create files in";
const ENTER: &str = "enter";

/// `user 1000 may not read /etc/key (it belongs to user 0 and group 0, with mode 600)`. Of the folders on
/// the way, the first that may not be entered is named.
fn lacking(path: &Path, wanted: Access, verb: &str) -> Option<String> {
    let absolute = std::path::absolute(path).ok()?;
    let above: Vec<&Path> = absolute.ancestors().skip(1).collect();
    let closed = above.into_iter().rev().find(|folder| is_refused(folder, Access::EXEC_OK));
    let (path, verb) = match closed {
        Some(folder) => (folder, ENTER),
        None if is_refused(&absolute, wanted) => (absolute.as_path(), verb),
        None => return None,
    };
    let user = geteuid().as_raw();
    let owner = fs::metadata(path).map_or_else(
        |_| String::new(),
        |found| {
            let (uid, gid, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
            format!(" (it belongs to user {uid} and group {gid}, with mode {mode:03o})")
        },
    );
    Some(format!("user {user} may not {verb} {}{owner}", path.display()))
}

fn is_refused(path: &Path, wanted: Access) -> bool {
    matches!(access(path, wanted), Err(Errno::ACCESS | Errno::PERM))
}

fn is_denial(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}
