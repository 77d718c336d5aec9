//! Shared by the tests of several sinks: expected errors, processes of their own, full disks.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{BadRecord, SinkError};

/// The reason of a fatal error.
pub(super) fn fatal<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Fatal(why)) => why,
        Err(other) => panic!("not fatal: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

/// The reason of an error that may pass.
pub(super) fn transient<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Transient { what, .. }) => what,
        Err(other) => panic!("not transient: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

/// The bad records of a batch.
pub(super) fn poison<T>(result: Result<T, SinkError>) -> Vec<BadRecord> {
    match result {
        Err(SinkError::Poison(bad)) => bad,
        Err(other) => panic!("not poison: {other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

/// Names the folder in which a test works that runs in a process of its own.
const CHILD_DIR: &str = "RILLWAY_TEST_CHILD_DIR";

/// The folder to work in, if this process is one that [`child`] or [`on_a_small_file_system`]
/// started.
pub(super) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// This test binary, and the arguments with which it runs one test below `sink` and shows its output.
pub(super) fn this_test(name: &str) -> (PathBuf, [String; 3]) {
    let name = format!("sink::{name}");
    (std::env::current_exe().unwrap(), ["--exact".to_owned(), name, "--nocapture".to_owned()])
}

/// A test below `sink`, in a process of its own, in this folder.
pub(super) fn child(name: &str, dir: &Path) -> Child {
    let (program, arguments) = this_test(name);
    let mut command = Command::new(program);
    command.args(arguments).env(CHILD_DIR, dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// The folder of a small file system, in a process of its own that runs only this test below
/// `sink`. `None` in the parent of that process: all is done, or the test is skipped by name because
/// the machine allows no mounts.
pub(super) fn on_a_small_file_system(test: &str, size: &str) -> Option<PathBuf> {
    if let Some(dir) = child_dir() {
        return Some(dir);
    }
    let dir = tempfile::TempDir::new().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} rillway-test \"${CHILD_DIR}\" || exit 77; exec \"$0\" \"$@\""
    );
    let (program, arguments) = this_test(test);
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(program)
        .args(arguments)
        .env(CHILD_DIR, dir.path())
        .output();
    match output {
        Ok(output) if matches!(output.status.code(), Some(0 | 101)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("1 passed"), "{text}\n{errors}");
        }
        other => {
            let why = other.map(|told| String::from_utf8_lossy(&told.stderr).trim().to_owned());
            eprintln!("SKIPPED {test}: it needs a file system of its own: {why:?}");
        }
    }
    None
}

/// Fills the file system of this path up to the last byte.
pub(super) fn fill(path: &Path) {
    let mut ballast = std::fs::File::create(path).unwrap();
    for size in [65_536, 4_096, 1] {
        while ballast.write_all(&vec![b'.'; size]).is_ok() {}
    }
}
