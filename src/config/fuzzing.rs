//! Fuzz target for configuration files. It panics where a promise is broken.
//!
//! Not part of the crate's interface.

use std::path::Path;

use super::{Config, Env};

/// Value of the only variable that a configuration can name, as `{ env = "SECRET" }`.
const SECRET: &str = "correct-horse";

/// Takes the bytes for a configuration file: what is wrong is told, and neither that nor what was read
/// shows a secret.
pub fn configuration(data: &[u8]) {
    let env = Env::from([("SECRET", SECRET)]);
    let told = match Config::parse(Path::new("rillway.toml"), data.to_vec(), &env) {
        Ok(config) => format!("{config:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!told.is_empty());
    let given = data.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(given || !told.contains(SECRET), "a secret is shown: {told}");
}
