//! The JSON Schema of the configuration, and queries on it.
//!
//! The schema is generated from the types that the values are read into, so no second list of keys
//! exists. It is queried for unknown keys (all at once, each with its path and the nearest known
//! key), for the places where a secret may be, and for the type of a key.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::settings::read::nearest;
use crate::settings::secret::SECRET_MARK;
use crate::settings::{Problem, join};

/// Type of value that a key accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    Table,
    List,
}

/// The schema with all references resolved.
pub(super) struct Tree(Value);

impl Tree {
    pub(super) fn of<Root: JsonSchema>() -> Tree {
        let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        Tree(settings.into_generator().into_root_schema_for::<Root>().to_value())
    }

    /// Removes the unknown keys from the value, and returns them as problems.
    pub(super) fn take_unknown_keys(&self, value: &mut Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        take_unknown_keys(&[&self.0], value, "", &mut problems);
        problems
    }

    /// Calls `f` with the path and the value of every place where a secret may be.
    pub(super) fn each_secret(&self, value: &mut Value, f: &mut dyn FnMut(&str, &mut Value)) {
        each_secret(&[&self.0], value, "", f);
    }

    /// Types that the key at this path accepts; empty if there is no such key.
    pub(super) fn kinds_at(&self, keys: &[&str]) -> Vec<Kind> {
        let mut schemas = vec![&self.0];
        for key in keys {
            let below = branches(&schemas);
            schemas = below
                .iter()
                .filter_map(|b| match key.parse::<usize>() {
                    Ok(_) => b.get("items"),
                    Err(_) => of_key(b, key),
                })
                .collect();
        }
        branches(&schemas).iter().flat_map(|b| kinds(b)).collect()
    }

    /// Names of the keys in the table at this path.
    pub(super) fn keys_below(&self, keys: &[&str]) -> Vec<String> {
        let mut schemas = vec![&self.0];
        for key in keys {
            schemas = branches(&schemas).iter().filter_map(|b| of_key(b, key)).collect();
        }
        let tables = branches(&schemas);
        let named = tables.iter().filter_map(|b| b.get("properties")?.as_object());
        named.flat_map(|keys| keys.keys().cloned()).collect()
    }

    /// Path of every key, with `[]` for any element of a list and `*` for a key that the user
    /// chooses.
    #[cfg(test)]
    pub(super) fn paths(&self) -> std::collections::BTreeSet<String> {
        fn walk(schemas: &[&Value], at: &str, out: &mut std::collections::BTreeSet<String>) {
            for branch in branches(schemas) {
                if let Some(items) = branch.get("items") {
                    walk(&[items], &format!("{at}[]"), out);
                }
                if of_any_key(branch).is_some() {
                    out.insert(format!("{at}.*"));
                }
                for (key, schema) in
                    branch.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    let path = join(at, key);
                    walk(&[schema], &path, out);
                    out.insert(path);
                }
            }
        }
        let mut out = std::collections::BTreeSet::new();
        walk(&[&self.0], "", &mut out);
        out
    }
}

/// The given schemas and all their alternatives.
fn branches<'s>(schemas: &[&'s Value]) -> Vec<&'s Map<String, Value>> {
    let mut out = Vec::new();
    for map in schemas.iter().filter_map(|s| s.as_object()) {
        for many in ["anyOf", "oneOf", "allOf"] {
            if let Some(inner) = map.get(many).and_then(Value::as_array) {
                out.extend(branches(&inner.iter().collect::<Vec<_>>()));
            }
        }
        out.push(map);
    }
    out
}

/// The alternatives that describe this table: those with keys whose constants (a sink's `type`) do
/// not contradict it, and those whose keys the user chooses.
fn branches_for<'s>(
    schemas: &[&'s Value],
    table: &Map<String, Value>,
) -> Vec<&'s Map<String, Value>> {
    let mut found = branches(schemas);
    found.retain(|branch| match branch.get("properties").and_then(Value::as_object) {
        Some(keys) => {
            keys.iter().all(|(key, schema)| match (schema.get("const"), table.get(key)) {
                (Some(wanted), Some(found)) => wanted == found,
                _ => true,
            })
        }
        None => of_any_key(branch).is_some(),
    });
    found
}

fn below<'s>(found: &[&'s Map<String, Value>], key: &str) -> Vec<&'s Value> {
    found.iter().filter_map(|b| of_key(b, key)).collect()
}

/// Schema of the value under this key.
fn of_key<'s>(branch: &'s Map<String, Value>, key: &str) -> Option<&'s Value> {
    branch.get("properties").and_then(|keys| keys.get(key)).or_else(|| of_any_key(branch))
}

/// Schema of each value in a table whose keys the user chooses: names of columns, headers.
fn of_any_key(branch: &Map<String, Value>) -> Option<&Value> {
    branch.get("additionalProperties").filter(|schema| schema.is_object())
}

fn items<'s>(schemas: &[&'s Value]) -> Vec<&'s Value> {
    branches(schemas).iter().filter_map(|b| b.get("items")).collect()
}

fn take_unknown_keys(schemas: &[&Value], value: &mut Value, at: &str, out: &mut Vec<Problem>) {
    match value {
        Value::Array(list) => {
            let schemas = items(schemas);
            let mut nth = 0;
            list.retain_mut(|value| {
                let at = format!("{at}[{nth}]");
                nth += 1;
                if is_list_for_table(&schemas, value) {
                    out.push(list_for_table(&at));
                    return false;
                }
                take_unknown_keys(&schemas, value, &at, out);
                true
            });
        }
        Value::Object(table) => {
            let found = branches_for(schemas, table);
            if found.is_empty() {
                return; // A table is wrong here: the types report that.
            }
            table.retain(|key, value| {
                let (schemas, at_key) = (below(&found, key), join(at, key));
                if schemas.is_empty() {
                    out.push(unknown(key, at, &found));
                    return false;
                }
                if is_list_for_table(&schemas, value) {
                    out.push(list_for_table(&at_key));
                    return false;
                }
                take_unknown_keys(&schemas, value, &at_key, out);
                true
            });
        }
        _ => {}
    }
}

/// True for a list where only a table makes sense. The types would take it for the table's values, in the
/// order of its keys.
fn is_list_for_table(schemas: &[&Value], value: &Value) -> bool {
    if !value.is_array() {
        return false;
    }
    let branches = branches(schemas);
    // Which table a sink is, its `type` says: the sinks report a list themselves.
    let is_chosen = |branch: &Map<String, Value>| {
        let keys = branch.get("properties").and_then(Value::as_object);
        keys.is_some_and(|keys| keys.values().any(|schema| schema.get("const").is_some()))
    };
    let kinds: Vec<Kind> = branches.iter().flat_map(|branch| kinds(branch)).collect();
    !kinds.is_empty()
        && kinds.iter().all(|kind| *kind == Kind::Table)
        && !branches.iter().any(|branch| is_chosen(branch))
}

fn list_for_table(at: &str) -> Problem {
    Problem::new(at, "found a list, expected one table: { … }, or [NAME] in single brackets")
}

fn unknown(key: &str, at: &str, found: &[&Map<String, Value>]) -> Problem {
    let known: Vec<&str> = found
        .iter()
        .filter_map(|b| b.get("properties")?.as_object())
        .flat_map(|keys| keys.keys().map(String::as_str))
        .collect();
    let message = match nearest(key, &known) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => {
            let mut known = known;
            known.sort_unstable();
            known.dedup();
            let known: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
            format!("unknown key; there are {}", known.join(", "))
        }
    };
    Problem { is_unknown_key: true, ..Problem::new(join(at, key), message) }
}

fn each_secret(
    schemas: &[&Value],
    value: &mut Value,
    at: &str,
    f: &mut dyn FnMut(&str, &mut Value),
) {
    if branches(schemas).iter().any(|b| b.contains_key(SECRET_MARK)) {
        return f(at, value);
    }
    match value {
        Value::Array(list) => {
            let schemas = items(schemas);
            for (i, value) in list.iter_mut().enumerate() {
                each_secret(&schemas, value, &format!("{at}[{i}]"), f);
            }
        }
        Value::Object(table) => {
            let found = branches_for(schemas, table);
            for (key, value) in table.iter_mut() {
                each_secret(&below(&found, key), value, &join(at, key), f);
            }
        }
        _ => {}
    }
}

fn kinds(branch: &Map<String, Value>) -> Vec<Kind> {
    let named = |name: &str| match name {
        "string" => Some(Kind::Text),
        "integer" | "number" => Some(Kind::Number),
        "boolean" => Some(Kind::Switch),
        "object" => Some(Kind::Table),
        "array" => Some(Kind::List),
        _ => None,
    };
    let mut out: Vec<Kind> = match branch.get("type") {
        Some(Value::String(name)) => named(name).into_iter().collect(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter_map(named).collect()
        }
        _ => Vec::new(),
    };
    if branch.get("const").is_some_and(Value::is_string) || branch.contains_key("enum") {
        out.push(Kind::Text);
    }
    out
}
