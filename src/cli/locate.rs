//! Finds the configuration file.

use std::path::{Path, PathBuf};

use super::exit::Failure;

/// Paths that are tried if no file is named.
const DEFAULTS: [&str; 2] = ["rillway.toml", "/etc/rillway/rillway.toml"];

/// The named file, or else the first default path that exists.
pub(super) fn optional(named: Option<&Path>) -> Option<PathBuf> {
    first(named, &DEFAULTS.map(PathBuf::from))
}

/// The same, but a missing file is an error.
pub(super) fn required(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    optional(named).ok_or_else(|| {
        Failure::Config(format!(
            "there is no configuration file: tried {}. Name one with -c FILE or RILLWAY_CONFIG",
            DEFAULTS.map(|path| absolute(Path::new(path))).join(" and ")
        ))
        .into()
    })
}

fn first(named: Option<&Path>, usual: &[PathBuf]) -> Option<PathBuf> {
    match named {
        // If the named file is missing, no default is used: that would run with another
        // configuration than the requested one.
        Some(path) => Some(path.to_owned()),
        None => usual.iter().find(|path| path.exists()).cloned(),
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_file_or_the_first_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let usual = [a.clone(), b.clone()];
        assert_eq!(first(None, &usual), None);
        std::fs::write(&b, "").unwrap();
        assert_eq!(first(None, &usual), Some(b.clone()));
        std::fs::write(&a, "").unwrap();
        assert_eq!(first(None, &usual), Some(a));
        let missing = folder.path().join("c");
        assert_eq!(first(Some(&missing), &usual), Some(missing));
    }
}
