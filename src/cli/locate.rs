//! Where the configuration file is.

use std::path::{Path, PathBuf};

use super::exit::Failure;

/// Where a file is looked for that nobody names.
const DEFAULTS: [&str; 2] = ["rillway.toml", "/etc/rillway/rillway.toml"];

/// The file that was named, or else the first of the usual ones that is there.
pub(super) fn optional(named: Option<&Path>) -> Option<PathBuf> {
    first(named, &DEFAULTS.map(PathBuf::from))
}

/// The same, for what cannot do without.
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
        // Not looked for elsewhere if it is missing: that would run with another configuration
        // than the one that was asked for.
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
