//! Reads secrets from the places that the configuration names.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::env::Env;
use crate::files;
use crate::settings::secret::ALLOWED;

/// Largest secret in bytes; a larger one is a mistake (a key store, or an endless device).
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Variable in which systemd passes the folder of the unit's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Sources of secrets.
pub(super) struct Places<'a> {
    pub(super) env: &'a Env,
    pub(super) folder: &'a Path,
}

impl Places<'_> {
    /// Replaces a reference to a secret by the secret. Leaves anything but a table unchanged.
    pub(super) fn resolve(&self, value: &mut Value) -> Result<(), String> {
        let Value::Object(place) = value else { return Ok(()) };
        let text = self.fetch(place)?;
        if text.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        *value = Value::String(text);
        Ok(())
    }

    fn fetch(&self, place: &Map<String, Value>) -> Result<String, String> {
        let mut entries = place.iter();
        let (Some((key, Value::String(name))), None) = (entries.next(), entries.next()) else {
            return Err(format!("not a reference to a secret: expected {ALLOWED}"));
        };
        match key.as_str() {
            "env" => match self.env.get(name) {
                Some(text) => Ok(text.to_owned()),
                None => Err(format!("the environment variable {name} is not set")),
            },
            "file" => read(&self.folder.join(name)),
            "credential" => self.credential(name),
            _ => Err(format!("not a reference to a secret: expected {ALLOWED}")),
        }
    }

    fn credential(&self, name: &str) -> Result<String, String> {
        if name.is_empty() || name.contains('/') || name == ".." || name == "." {
            return Err(format!("{name:?} is not the name of a credential: expected a file name"));
        }
        match self.env.get(CREDENTIALS_DIRECTORY) {
            Some(folder) => read(&PathBuf::from(folder).join(name)),
            None => Err(format!(
                "there is no credential {name:?}: {CREDENTIALS_DIRECTORY} is not set. systemd sets \
                 it for a unit with LoadCredential={name}:PATH"
            )),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |what: &dyn std::fmt::Display| {
        format!("cannot read the secret from {}: {what}", path.display())
    };
    let file = std::fs::File::open(path).map_err(|e| failed(&files::unread(path, &e)))?;
    let mut bytes = Vec::new();
    let limited = std::io::Read::take(file, SECRET_BYTES_MAX + 1);
    std::io::Read::read_to_end(&mut { limited }, &mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed(&format!("it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
