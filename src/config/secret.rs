//! Secrets: where they may come from, and how they are fetched.
//!
//! In the merged tree, the place of a secret (`{ env = "NAME" }`, …) is replaced by the secret
//! itself before any type sees it; the types then read it into a [`Secret`], which cannot be shown.
//! An error names the place, never what was found there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::env::Env;
use super::schema::SECRET_MARK;
use crate::types::Secret;

/// A secret longer than this is a mistake (a whole key store, or a device that never ends).
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where systemd says that the unit's credentials are.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

const ALLOWED: &str =
    "\"the text itself\", { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";

/// How a secret is written; for the schema.
pub(super) struct SecretText;

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let place = |key: &str, description: &str| {
            serde_json::json!({
                "type": "object",
                "properties": { key: { "type": "string", "description": description } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "A text that is never shown: the text itself, or the place to read it from.",
            SECRET_MARK: true,
            "anyOf": [
                { "type": "string" },
                place("env", "The environment variable that holds it."),
                place("file", "The file that holds it; a line break at its end is dropped."),
                place("credential", "The systemd credential that holds it (LoadCredential=)."),
            ],
        })
    }
}

/// Reads a secret that [`Places::resolve`] has fetched.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(Secret::new(text)),
        // What was found is not shown: an unquoted password of digits is a password.
        _ => Err(serde::de::Error::custom(format!("not a text: expected {ALLOWED}"))),
    }
}

/// The same, for a key that may be absent.
pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    deserialize(from).map(Some)
}

/// The same, for a list.
pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "deserialize")] Secret);
    match Value::deserialize(from)? {
        Value::Array(list) => list
            .into_iter()
            .map(|one| One::deserialize(one).map(|one| one.0).map_err(serde::de::Error::custom))
            .collect(),
        _ => Err(serde::de::Error::custom("not a list: expected [ … ]")),
    }
}

/// The same, for a table whose keys are the user's own.
pub(super) fn table<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, Secret>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "deserialize")] Secret);
    match Value::deserialize(from)? {
        Value::Object(table) => table
            .into_iter()
            .map(|(key, one)| match One::deserialize(one) {
                Ok(one) => Ok((key, one.0)),
                Err(error) => Err(serde::de::Error::custom(format!("{key:?}: {error}"))),
            })
            .collect(),
        _ => Err(serde::de::Error::custom("not a table: expected { NAME = …, … }")),
    }
}

/// Where secrets are looked for.
pub(super) struct Places<'a> {
    pub(super) env: &'a Env,
    pub(super) folder: &'a Path,
}

impl Places<'_> {
    /// Replaces the place of a secret by the secret. Leaves alone what is no table.
    pub(super) fn resolve(&self, value: &mut Value) -> Result<(), String> {
        let Value::Object(place) = value else { return Ok(()) };
        let text = self.fetch(place)?;
        if text.is_empty() {
            return Err("the secret is empty there".to_owned());
        }
        *value = Value::String(text);
        Ok(())
    }

    fn fetch(&self, place: &Map<String, Value>) -> Result<String, String> {
        let mut entries = place.iter();
        let (Some((key, Value::String(name))), None) = (entries.next(), entries.next()) else {
            return Err(format!("not the place of a secret: expected {ALLOWED}"));
        };
        match key.as_str() {
            "env" => match self.env.get(name) {
                Some(text) => Ok(text.to_owned()),
                None => Err(format!("the environment variable {name} is not set")),
            },
            "file" => read(&self.folder.join(name)),
            "credential" => self.credential(name),
            _ => Err(format!("not the place of a secret: expected {ALLOWED}")),
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
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
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
