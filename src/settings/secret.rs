//! Reads secrets into a [`Secret`], which cannot be shown.
//!
//! In the merged tree, a reference to a secret (`{ env = "NAME" }`, …) is replaced by the secret
//! itself before a type reads it. An error names the reference, never the content.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::types::Secret;

/// Marks, in the schema, a value that may be a reference to a secret.
pub const SECRET_MARK: &str = "x-secret";

/// Forms of a secret, for errors.
pub const ALLOWED: &str =
    "\"the text itself\", { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";

/// Form of a secret in the schema.
pub struct SecretText;

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
            "description": "A text that is never shown: the text itself, or where to read it.",
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

/// Reads a secret that the configuration has already resolved.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(Secret::new(text)),
        // The value is not shown: an unquoted password of digits is a password.
        _ => Err(serde::de::Error::custom(format!("not a text: expected {ALLOWED}"))),
    }
}

/// The same, for an optional key.
pub fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    deserialize(from).map(Some)
}

/// The same, for a list.
pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
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

/// The same, for a table whose keys the user chooses.
pub fn table<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Secret>, D::Error> {
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
