//! Python programs in the virtual environments of `scripts/setup.sh`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::skip::Unavailable;

/// The interpreter of this part of `scripts/setup.sh`; installed on first use.
pub(crate) fn of(part: &'static str) -> Result<PathBuf, Unavailable> {
    static FOUND: Mutex<BTreeMap<&str, Result<PathBuf, Unavailable>>> = Mutex::new(BTreeMap::new());
    FOUND.lock().unwrap().entry(part).or_insert_with(|| set_up(part)).clone()
}

fn set_up(part: &str) -> Result<PathBuf, Unavailable> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup.sh");
    let output = Command::new(script).args([part, "--where"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {
            let dir = String::from_utf8_lossy(&output.stdout);
            Ok(Path::new(dir.trim()).join("bin/python"))
        }
        Some(3) => Err(Unavailable(said.lines().last().unwrap_or(part).to_owned())),
        _ => panic!("setting up {part}: {said}"),
    }
}
