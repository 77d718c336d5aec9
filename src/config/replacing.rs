//! Replacing a configuration that is in use: how its file is recognised, and which keys cannot change.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::admin::AdminConfig;
use super::daemon::Config;
use super::traces::TracesConfig;
use crate::settings::{Problem, join};

/// SHA-256 in hexadecimal, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a String does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

impl Config {
    /// A problem for each key that differs from the running configuration and is fixed while the daemon
    /// runs.
    pub(super) fn fixed_keys_that_differ(&self, running: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut fixed = |key: &str, now: Option<String>| {
            let now = now.map(|now| format!(" ({now})")).unwrap_or_default();
            problems.push(Problem::new(
                key,
                format!(
                    "it cannot change while the daemon runs: restart rillway to change it, or restore the value \
                     that is in use{now} and reload again"
                ),
            ));
        };
        if self.state_dir != running.state_dir {
            fixed("state_dir", Some(running.state_dir.display().to_string()));
        }
        if self.log.format != running.log.format {
            let now = serde_json::to_value(running.log.format).ok();
            fixed("log.format", now.map(|now| now.to_string()));
        }
        // Headers are passed on to the export that runs.
        let of = |config: &Config| config.traces.as_ref().map(TracesConfig::without_headers);
        if of(self) != of(running) {
            fixed("traces", None);
        }
        for (key, now) in differing(&self.admin, &running.admin) {
            fixed(&join("admin", &key), now);
        }
        problems
    }
}

/// The keys of `[admin]` that differ, each with its running value.
fn differing(new: &AdminConfig, running: &AdminConfig) -> Vec<(String, Option<String>)> {
    let table = |admin: &AdminConfig| match serde_json::to_value(admin) {
        Ok(Value::Object(table)) => table,
        _ => serde_json::Map::new(),
    };
    let (shown_new, shown_running) = (table(new), table(running));
    let differs = |(key, now): (&String, &Value)| {
        (shown_new.get(key) != Some(now)).then(|| (key.clone(), Some(now.to_string())))
    };
    let mut keys: Vec<_> = shown_running.iter().filter_map(differs).collect();
    // It is not shown. One in a file is read again by the server itself.
    let is_another_text = new.token_file.is_none() && new.token != running.token;
    if new.token_file != running.token_file || is_another_text {
        keys.push(("token".to_owned(), None));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    #[test]
    fn the_hash_is_the_one_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }

    #[test]
    fn fixed_keys_are_refused_with_their_line_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rillway.toml");
        let env = Env::default();
        let rest = "[[consumer]]\nname = \"c\"\nstream = \"s\"\nsink = { type = \"null\" }\n";
        let write = |text: &str| std::fs::write(&path, format!("{text}{rest}")).unwrap();
        write("state_dir = \"a\"\n[admin]\nlisten = \"127.0.0.1:1\"\n");
        let running = Config::load(Some(&path), &env).unwrap();
        let anew = |text: &str| {
            write(text);
            Config::load_anew(Some(&path), &env, &running).map_err(|error| error.to_string())
        };
        let ok = "state_dir = \"a\"\nshutdown_grace = \"3s\"\n[broker]\nheartbeat = \"3s\"\n[log]\nlevel = \"debug\"\n\
                  [admin]\nlisten = \"127.0.0.1:1\"\n";
        let config = anew(ok).unwrap();
        assert_ne!(config.sha256, running.sha256);
        for (text, says) in [
            (
                "state_dir = \"b\"\n[admin]\nlisten = \"127.0.0.1:1\"\n",
                "line 1: state_dir: it cannot change",
            ),
            ("[admin]\nlisten = \"127.0.0.1:1\"\n", ": state_dir: it cannot change"),
            (
                "state_dir = \"a\"\n[admin]\nlisten = \"127.0.0.1:2\"\n",
                "line 3: admin.listen: it cannot change while the daemon runs: restart rillway to change it, or \
                 restore the value that is in use (\"127.0.0.1:1\")",
            ),
            (
                "state_dir = \"a\"\n[admin]\nlisten = \"127.0.0.1:1\"\nenabled = false\n",
                "line 4: admin.enabled: it cannot change",
            ),
            (
                "state_dir = \"a\"\n[admin]\nlisten = \"127.0.0.1:1\"\n[log]\nformat = \"json\"\n",
                "line 5: log.format: it cannot change",
            ),
            (
                "state_dir = \"a\"\n[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"0123456789abcdef\"\n",
                "line 4: admin.token: it cannot change while the daemon runs: restart rillway to change it, or \
                 restore the value that is in use and",
            ),
        ] {
            let told = anew(text).unwrap_err();
            assert!(told.contains(says), "{told}");
        }
    }
}
