//! Reads secrets from the places that the configuration names.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::env::Env;
use crate::files;
use crate::settings::secret::ALLOWED;

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

    /// The file that a reference to a secret names; `None` if the secret is elsewhere.
    pub(super) fn file_of(&self, value: &Value) -> Option<PathBuf> {
        let name = |key: &str| value.get(key)?.as_str();
        let file = name("file").map(|path| self.folder.join(path));
        file.or_else(|| {
            let folder = self.env.get(CREDENTIALS_DIRECTORY)?;
            Some(PathBuf::from(folder).join(name("credential")?))
        })
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
            "file" => files::read_secret(&self.folder.join(name)),
            "credential" => self.credential(name),
            _ => Err(format!("not a reference to a secret: expected {ALLOWED}")),
        }
    }

    fn credential(&self, name: &str) -> Result<String, String> {
        if name.is_empty() || name.contains('/') || name == ".." || name == "." {
            return Err(format!("{name:?} is not the name of a credential: expected a file name"));
        }
        match self.env.get(CREDENTIALS_DIRECTORY) {
            Some(folder) => files::read_secret(&PathBuf::from(folder).join(name)),
            None => Err(format!(
                "there is no credential {name:?}: {CREDENTIALS_DIRECTORY} is not set. systemd sets \
                 it for a unit with LoadCredential={name}:PATH"
            )),
        }
    }
}
