//! What a key accepts, in words, out of its JSON Schema.

use serde_json::{Map, Value};

use super::flat;

/// The schema of the configuration file, with its definitions.
pub(super) struct Schemas(Value);

/// Definitions that have a section of their own on the page: its title, and the type of a key that has such a value.
pub(super) const SHARED: &[(&str, &str, &str)] = &[
    ("SinkConfig", "Sinks", "[sink](#sinks)"),
    ("Columns", "Typed columns", "[columns](#typed-columns)"),
    ("TlsConfig", "TLS of a connection", "[TLS](#tls-of-a-connection)"),
    ("Oauth", "OAuth 2 tokens", "[OAuth 2](#oauth-2-tokens)"),
];

/// Definitions whose name says it all.
const WORDS: &[(&str, &str)] =
    &[("Duration", "duration"), ("ByteSize", "size"), ("Secret", "secret")];

/// The words for a definition that is not resolved.
fn words_of(name: &str) -> Option<&'static str> {
    let shared = SHARED.iter().find(|(of, ..)| *of == name).map(|(_, _, words)| *words);
    shared.or_else(|| WORDS.iter().find(|(of, _)| *of == name).map(|(_, words)| *words))
}

impl Schemas {
    pub(super) fn new(document: Value) -> Schemas {
        Schemas(document)
    }

    pub(super) fn root(&self) -> &Value {
        &self.0
    }

    pub(super) fn definition(&self, name: &str) -> &Value {
        &self.0["$defs"][name]
    }

    /// Name of the definition that a schema refers to.
    fn name_of(schema: &Value) -> Option<&str> {
        schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"))
    }

    /// The alternatives of a schema, with references resolved; without null, and without those that are shown otherwise.
    fn alternatives<'s>(&'s self, schema: &'s Value, out: &mut Vec<&'s Value>) {
        if let Some(name) = Schemas::name_of(schema) {
            if words_of(name).is_none() {
                self.alternatives(self.definition(name), out);
            }
            return;
        }
        let many = ["anyOf", "oneOf"].iter().find_map(|many| schema[*many].as_array());
        match many {
            Some(all) => all.iter().for_each(|one| self.alternatives(one, out)),
            None if schema["type"] == "null" => {}
            None => out.push(schema),
        }
    }

    /// What a value may be, in words.
    pub(super) fn accepted(&self, schema: &Value) -> String {
        let mut words: Vec<String> = Vec::new();
        self.words(schema, &mut words);
        let mut once: Vec<String> = Vec::new();
        for word in words {
            if !once.contains(&word) {
                once.push(word);
            }
        }
        match once.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some((last, _)) => last.clone(),
            None => "anything".to_owned(),
        }
    }

    fn words(&self, schema: &Value, out: &mut Vec<String>) {
        if let Some(name) = Schemas::name_of(schema) {
            match words_of(name) {
                Some(words) => out.push(words.to_owned()),
                None => self.words(self.definition(name), out),
            }
            return;
        }
        if let Some(all) = ["anyOf", "oneOf"].iter().find_map(|many| schema[*many].as_array()) {
            all.iter().for_each(|one| self.words(one, out));
            return;
        }
        if let Some(text) = schema["const"].as_str() {
            out.push(format!("`\"{text}\"`"));
        } else if let Some(texts) = schema["enum"].as_array() {
            out.extend(texts.iter().map(|text| format!("`{text}`")));
        } else {
            let types = match &schema["type"] {
                Value::Array(types) => types.clone(),
                Value::Null => Vec::new(),
                one => vec![one.clone()],
            };
            let types = types.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            out.extend(types.map(|kind| self.word(schema, kind)));
        }
    }

    fn word(&self, schema: &Value, kind: &str) -> String {
        match kind {
            "string" if schema["format"] == "date-time" => "time, as in RFC 3339".to_owned(),
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "`true` or `false`".to_owned(),
            "array" => match &schema["items"] {
                Value::Null => "list".to_owned(),
                items => format!("list of: {}", self.accepted(items)),
            },
            "object" => match (keys(schema), &schema["additionalProperties"]) {
                (Some(keys), _) => match keys.iter().next() {
                    Some((key, value)) if keys.len() == 1 => {
                        format!("`{{ {key} = … }}` ({})", self.accepted(value))
                    }
                    _ => "table".to_owned(),
                },
                (None, value @ Value::Object(_)) => {
                    format!("table of names, each with: {}", self.accepted(value))
                }
                (None, _) => "table".to_owned(),
            },
            other => other.to_owned(),
        }
    }

    /// The tables of keys that a value may be, each with what follows the key's name: nothing, `[]` for an element of a
    /// list, or `.NAME` for names of the user's choice. Tables of a single key are part of [`Schemas::accepted`].
    pub(super) fn tables<'s>(&'s self, schema: &'s Value) -> Vec<(&'static str, &'s Value)> {
        let mut all = Vec::new();
        self.alternatives(schema, &mut all);
        let mut found = Vec::new();
        for one in all {
            if keys(one).is_some_and(|keys| keys.len() > 1) {
                found.push(("", one));
            } else if one["items"].is_object() {
                found
                    .extend(self.tables(&one["items"]).into_iter().map(|(_, table)| ("[]", table)));
            } else if one["additionalProperties"].is_object() {
                let tables = self.tables(&one["additionalProperties"]);
                found.extend(tables.into_iter().map(|(_, table)| (".NAME", table)));
            }
        }
        found
    }

    /// What a key does: its own text, and that of the values which the text does not name, unless these are so short
    /// that they only repeat the names.
    pub(super) fn told(&self, schema: &Value) -> String {
        let told = flat(schema["description"].as_str().unwrap_or_default());
        let mut all = Vec::new();
        self.alternatives(schema, &mut all);
        let values = all.into_iter().filter_map(|one| {
            let single =
                keys(one).filter(|keys| keys.len() == 1).and_then(|keys| keys.iter().next());
            let (name, text) = match (one["const"].as_str(), single) {
                (Some(name), _) => (name, &one["description"]),
                (None, Some((key, value))) => (key.as_str(), &value["description"]),
                (None, None) => return None,
            };
            Some((name, lower(&flat(text.as_str()?))))
        });
        let values: Vec<_> = values.collect();
        let tell = values.iter().any(|(_, text)| text.split(' ').count() > 3);
        let named =
            |name: &str| told.contains(&format!("`{name}`")) || told.contains(&format!("{name} ="));
        let untold = values.iter().filter(|(name, _)| tell && !named(name));
        let parts = untold.map(|(name, text)| format!("`{name}`: {text}"));
        std::iter::once(told.clone()).chain(parts).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

/// The keys of a table.
pub(super) fn keys(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// The text with a small first letter, unless its first word is written in capitals.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// A default, as it would stand in the file; empty if it has none, or if its keys have their own.
pub(super) fn default(schema: &Value) -> String {
    match &schema["default"] {
        Value::Null => String::new(),
        Value::Object(table) if !table.is_empty() => String::new(),
        Value::Object(_) => "`{}`".to_owned(),
        // An empty text or a line break, as TOML too writes it.
        value => format!("`{value}`"),
    }
}
