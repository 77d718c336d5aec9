//! A small file system for one test, which can be filled completely.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::skip::Unavailable;

/// Unmounted with the last user.
pub(crate) struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// A file system of this many MiB, in memory. Needs root.
    pub(crate) fn new(mib: u32) -> Result<Self, Unavailable> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "rillway-test"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        match mounted {
            true => Ok(Self { dir }),
            false => Err(Unavailable("a small file system to fill takes root, to mount it".into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut ballast = std::fs::File::create(self.path().join("ballast")).unwrap();
        for piece in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Frees the space that [`Self::fill`] used.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that still has a file open there is about to be killed.
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}
