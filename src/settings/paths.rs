//! Paths in the configuration: resolves relative ones, and compares them.

use std::path::{Component, Path, PathBuf};

/// Makes a relative path start at this folder.
pub fn locate(path: &mut PathBuf, folder: &Path) {
    *path = folder.join(&*path);
}

/// The path without `.` and `..`, by its text alone: links are not followed.
pub fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
