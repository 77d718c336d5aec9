//! Skips tests by name. A test that cannot run here is added to a list, which `make test` prints
//! and counts; with `RILLWAY_SKIP_NOTHING` it fails instead.

use std::io::Write;
use std::path::PathBuf;

/// Reason why something is unavailable on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Unavailable(pub(crate) String);

/// File with the list of skipped tests. `make test` sets its path; otherwise it is in the target
/// directory.
pub(crate) fn list() -> PathBuf {
    std::env::var_os("RILLWAY_SKIPPED_TESTS").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("skipped-tests"),
        Into::into,
    )
}

/// Records that `test` did not run. Called by the macros below.
pub(crate) fn skipped(test: &str, why: &Unavailable) {
    let line = format!("SKIPPED {test}: {}\n", why.0);
    assert!(std::env::var_os("RILLWAY_SKIP_NOTHING").is_none(), "{line}");
    eprint!("{line}");
    // One write, so that lines of parallel tests stay whole.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(list())
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
}

/// Path of the calling function, as `cargo test` shows it.
macro_rules! test_name {
    () => {{
        fn here() {}
        std::any::type_name_of_val(&here)
            .trim_end_matches("::here")
            .trim_end_matches("::{{closure}}")
            .split_once("::")
            .map_or("", |(_crate, path)| path)
    }};
}

/// The value of a `Result<_, Unavailable>`; skips the calling test if there is none.
macro_rules! or_skip {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(why) => {
                $crate::common::skip::skipped($crate::common::skip::test_name!(), &why);
                return;
            }
        }
    };
}

pub(crate) use {or_skip, test_name};
