//! The page of the configuration: a table for each section and each sink.

use serde_json::Value;

use super::values::{SHARED, Schemas, default, keys};
use super::{Table, flat};
use crate::config::document;
use crate::sink::registry::SINKS;

const INTRODUCTION: &str = "\
This page is made from the program itself. [config/reference.toml](../../config/reference.toml) has the same keys as one
file that explains itself, with the reasons for the defaults; [the guide](../guides/configuration.md) tells how a
configuration is written.

- **duration**: a text such as `\"500ms\"`, `\"5s\"`, `\"1m30s\"`, `\"2h\"` or `\"7d\"`. **size**: bytes as a number, or a text such
  as `\"64MiB\"` (1024²) or `\"8MB\"` (1000²).
- **secret**: a text, or where to read it: `{ env = \"NAME\" }`, `{ file = \"PATH\" }` or `{ credential = \"NAME\" }` (systemd's
  `LoadCredential=`). It is never shown.
- A key without a default, and not required, is optional. `key.other` is a key in the table `key`, `key[].other` in each
  element of a list, and `NAME` stands for a name of your choice.
- Every key can be set in the environment: `RILLWAY__BROKER__HEARTBEAT` is `heartbeat` of `[broker]`,
  `RILLWAY__CONSUMER__0__MEMORY` is `memory` of the first consumer.

";

/// The sections of the file: the key at its top, and the title.
const SECTIONS: &[(&str, &str)] = &[
    ("broker", "`[broker]`"),
    ("admin", "`[admin]`"),
    ("log", "`[log]`"),
    ("consumer", "`[[consumer]]`"),
    ("watch", "`[[watch]]`"),
    ("test", "`[[test]]`"),
];

pub(super) fn page() -> String {
    let schemas = Schemas::new(document());
    let mut out = INTRODUCTION.to_owned();
    let is_section = |key: &str| SECTIONS.iter().any(|(section, _)| *section == key);
    out += "## Outside of any section\n\n";
    out += &table(&schemas, schemas.root(), &is_section);
    for (key, title) in SECTIONS {
        let schema = &schemas.root()["properties"][*key];
        let Some((_, keys)) = schemas.tables(schema).into_iter().next() else { continue };
        out += &format!("\n## {title}\n{}\n\n", schemas.told(schema));
        out += &table(&schemas, keys, &|_| false);
    }
    for (name, title, _) in SHARED {
        let schema = schemas.definition(name);
        out += &format!("\n## {title}\n\n");
        if *name == "SinkConfig" {
            sinks(&schemas, schema, &mut out);
            continue;
        }
        let mut rows = Table::new(HEAD);
        for (suffix, keys) in schemas.tables(schema) {
            add(&schemas, keys, suffix.trim_start_matches('.'), &|_| false, &mut rows);
        }
        out += &rows.markdown();
    }
    out
}

/// One section for each sink of this build.
fn sinks(schemas: &Schemas, schema: &Value, out: &mut String) {
    *out += "What each guarantee means: [guarantees](../guarantees.md).\n";
    let all = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
    for about in SINKS.iter().map(|about| about()) {
        let kind = about.kind;
        let Some(sink) = all.iter().find(|sink| sink["properties"]["type"]["const"] == kind) else {
            continue;
        };
        *out += &format!(
            "\n### `{kind}`\n{} Guarantee: {}.\n",
            flat(sink["description"].as_str().unwrap_or_default()),
            about.guarantee
        );
        let rows = table(schemas, sink, &|key| key == "type");
        if rows.lines().count() > 2 {
            *out += &format!("\n{rows}");
        } else {
            *out += "It has no keys.\n";
        }
    }
}

const HEAD: &[&str] = &["key", "type", "default", "what it does"];

fn table(schemas: &Schemas, of: &Value, left_out: &dyn Fn(&str) -> bool) -> String {
    let mut rows = Table::new(HEAD);
    add(schemas, of, "", left_out, &mut rows);
    rows.markdown()
}

/// Adds a row for each key, and for the keys below it.
fn add(schemas: &Schemas, of: &Value, at: &str, left_out: &dyn Fn(&str) -> bool, rows: &mut Table) {
    let required = of["required"].as_array();
    for (key, schema) in keys(of).into_iter().flatten().filter(|(key, _)| !left_out(key)) {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let is_required = required.is_some_and(|all| all.iter().any(|one| one == key));
        let default = if is_required { "**required**".to_owned() } else { default(schema) };
        rows.row([format!("`{path}`"), schemas.accepted(schema), default, schemas.told(schema)]);
        for (suffix, below) in schemas.tables(schema) {
            add(schemas, below, &format!("{path}{suffix}"), &|_| false, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_of_key_is_told() {
        let page = page();
        let row = |key: &str| {
            let head = format!("| `{key}` | ");
            let found = page.lines().find(|line| line.starts_with(&head));
            found.unwrap_or_else(|| panic!("no {key}: {page}")).to_owned()
        };
        for (key, says) in [
            ("heartbeat", "| duration | `\"10s\"` | "),
            ("password", "| secret | "),
            ("name", "| text | **required** | "),
            ("commit.every_messages", "| whole number | `10000` | "),
            ("on_offset_lost", "`\"halt\"`, `\"first\"` or `\"next\"` | `\"halt\"` | "),
            ("start", "`{ ago = … }` (duration)"),
            ("start", "`ago`: start with the first chunk"),
            ("sink", "| [sink](#sinks) | **required** | "),
            ("rotate_age", "duration"),
            ("NAME.from", "**required**"),
            ("metrics[].name", "**required**"),
        ] {
            assert!(row(key).contains(says), "{key}: {}", row(key));
        }
        assert!(!page.contains("$ref"), "{page}");
    }

    #[test]
    fn every_key_of_the_file_has_a_row() {
        fn names<'a>(schema: &'a Value, out: &mut BTreeSet<&'a str>) {
            // A table of a single key is told beside the key that it is a value of.
            if let Some(keys) = keys(schema).filter(|keys| keys.len() > 1) {
                out.extend(keys.keys().map(String::as_str));
            }
            match schema {
                Value::Object(map) => {
                    for (word, below) in map {
                        match below.as_object().filter(|_| word == "properties") {
                            // By name, of which one may be `properties` too.
                            Some(keys) => keys.values().for_each(|key| names(key, out)),
                            None => names(below, out),
                        }
                    }
                }
                Value::Array(list) => list.iter().for_each(|below| names(below, out)),
                _ => {}
            }
        }
        let (document, page) = (document(), page());
        let mut wanted = BTreeSet::new();
        names(&document, &mut wanted);
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let told: BTreeSet<&str> = rows.filter_map(|path| path.rsplit(['.', ']']).next()).collect();
        let sections = SECTIONS.iter().map(|(key, _)| *key);
        let told: BTreeSet<&str> = told.into_iter().chain(sections).collect();
        let missing: Vec<_> = wanted.difference(&told).collect();
        assert!(wanted.len() > 80 && missing.is_empty(), "{missing:?}");
    }
}
