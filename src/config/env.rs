//! The environment, which overrides the configuration file.
//!
//! `RILLWAY__BROKER__HEARTBEAT=5s` sets `broker.heartbeat`; `RILLWAY__CONSUMER__0__MEMORY=64MiB`
//! sets `consumer[0].memory`. A value is read as text if the key accepts text. Otherwise (numbers,
//! true and false), or if the key accepts a table or a list and the value begins with `{` or `[`,
//! it is read as TOML.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value};

use super::schema::{Kind, Tree};

/// Prefix of every variable that sets a key.
const PREFIX: &str = "RILLWAY__";

/// Highest index of a consumer in a variable; a list is never made longer.
const INDEX_MAX: usize = 999;

/// The environment variables that the configuration may read.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The variables of this process. A variable that is not UTF-8 is left out.
    pub fn of_process() -> Env {
        let text = |s: std::ffi::OsString| s.into_string().ok();
        Env(std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect())
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Value of a variable; `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Env {
    fn from(pairs: [(K, V); N]) -> Env {
        Env(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Names only: any of the values may be a secret.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The keys that the environment sets.
#[derive(Clone, Default)]
pub(super) struct Overlay(Vec<Setting>);

#[derive(Clone)]
struct Setting {
    variable: String,
    path: String,
    value: Value,
}

impl Overlay {
    pub(super) fn new(env: &Env, tree: &Tree) -> Overlay {
        let settings = env.0.iter().filter_map(|(variable, text)| {
            let keys = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
            let keys: Vec<&str> = keys.split("__").collect();
            let value = read(text, &tree.kinds_at(&keys), variable);
            Some(Setting { variable: variable.clone(), path: path(&keys), value })
        });
        Overlay(settings.collect())
    }

    /// Variable that set this key or a key above it or, with `below`, a key below it; `None` if
    /// none did.
    pub(super) fn variable_of(&self, path: &str, below: bool) -> Option<&str> {
        let within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0
            .iter()
            .find(|s| within(path, &s.path) || (below && within(&s.path, path)))
            .map(|s| s.variable.as_str())
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|s| &s.variable)).finish()
    }
}

impl Source for Overlay {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.iter().map(|s| (s.path.clone(), s.value.clone())).collect())
    }
}

/// `["consumer", "0", "memory"]` → `consumer[0].memory`.
fn path(keys: &[&str]) -> String {
    let mut path = String::new();
    for key in keys {
        match key.parse::<usize>() {
            Ok(index) if index <= INDEX_MAX && !path.is_empty() => {
                path.push_str(&format!("[{index}]"));
            }
            _ => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
        }
    }
    path
}

fn read(text: &str, kinds: &[Kind], variable: &str) -> Value {
    let takes = |kind: Kind| kinds.contains(&kind);
    let as_toml = match text.trim_start().as_bytes().first() {
        Some(b'{') => takes(Kind::Table) || takes(Kind::List),
        Some(b'[') => takes(Kind::List),
        _ => !takes(Kind::Text) && !kinds.is_empty(),
    };
    let origin = variable.to_owned();
    // A value that is not TOML stays text, and is refused where its type is checked.
    match as_toml.then(|| toml_value(text)).flatten() {
        Some(value) => Value::new(Some(&origin), value.kind),
        None => Value::new(Some(&origin), text.to_owned()),
    }
}

fn toml_value(text: &str) -> Option<Value> {
    let document = format!("value = {text}\n");
    let mut map = config::File::from_str(&document, config::FileFormat::Toml).collect().ok()?;
    // More than one key: the text held a line break and a key of its own.
    if map.len() == 1 { map.swap_remove("value") } else { None }
}
