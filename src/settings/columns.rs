//! `columns`: a table of column names, each with the source of its value.
//!
//! ```toml
//! columns = { user_id = "/user/id", amount = { from = "/amount", type = "numeric", required = true } }
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::column::{Column, ColumnType, OnMisfit, Source};

/// Columns at the beginning of every table.
pub const OWN: [&str; 3] = ["stream", "offset", "timestamp"];

/// Typed columns, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnsConfig(pub Vec<Column>);

/// One column, as a table of keys.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a text or a table")]
struct Keys {
    /// Source of the value: a pointer into a JSON body ("/user/id"), `stream`, `offset`,
    /// `timestamp`, `body`, `properties.NAME`, `application_properties`,
    /// `application_properties.NAME` or `message_annotations.NAME`.
    from: String,
    /// Type of the column.
    #[serde(default, rename = "type")]
    kind: ColumnType,
    /// True if a message without the value is bad; else the column is null there.
    #[serde(default)]
    required: bool,
    /// Treatment of a value of another type: the message is bad, or the column is null.
    #[serde(default)]
    on_misfit: OnMisfit,
}

/// A column in the file.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "a text such as \"/user/id\", or a table with the key `from`")]
enum Written {
    /// The source alone; the type is text.
    Source(String),
    /// A table of keys.
    Table(Keys),
}

impl ColumnsConfig {
    /// Reports names that are already used, by one of the table's own columns or by an earlier column.
    /// Most readers ignore the case of column names; with `cased`, case matters.
    pub fn check_names(&self, own: &[&str], cased: bool, bad: &mut impl FnMut(&str, String)) {
        let plain = |name: &str| if cased { name.to_owned() } else { name.to_ascii_lowercase() };
        let mut names: BTreeSet<String> = own.iter().map(|name| plain(name)).collect();
        for column in &self.0 {
            if !names.insert(plain(&column.name)) {
                let (name, own) = (&column.name, own.join(", "));
                bad("columns", format!("{name:?} is used twice ({own} always exist)"));
            }
        }
    }

    /// Reports more columns than this destination allows.
    pub fn check_count(&self, max: usize, bad: &mut impl FnMut(&str, String)) {
        if self.0.len() > max {
            bad("columns", format!("a table has at most {max} of them"));
        }
    }
}

impl<'de> Deserialize<'de> for ColumnsConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = IndexMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let mut columns = Vec::with_capacity(table.len());
        for (name, written) in table {
            let about = |what: String| D::Error::custom(format!("column {name:?}: {what}"));
            // Not through the untagged type, whose error message does not name the problem.
            let keys = match written {
                serde_json::Value::String(from) => Keys {
                    from,
                    kind: ColumnType::default(),
                    required: false,
                    on_misfit: OnMisfit::default(),
                },
                table @ serde_json::Value::Object(_) => {
                    serde_json::from_value(table).map_err(|error| about(error.to_string()))?
                }
                _ => {
                    return Err(about(
                        "expected a text such as \"/user/id\", or a table such as \
                         { from = \"/user/id\", type = \"integer\" }"
                            .to_owned(),
                    ));
                }
            };
            let from: Source = keys.from.parse().map_err(|error| about(format!("{error}")))?;
            if name.is_empty() || name.contains(char::is_control) {
                return Err(about("a column needs a name, without control characters".to_owned()));
            }
            columns.push(Column {
                name,
                from,
                kind: keys.kind,
                required: keys.required,
                on_misfit: keys.on_misfit,
            });
        }
        if columns.is_empty() {
            return Err(D::Error::custom(
                "no column is named; without the key, there are columns for the whole envelope",
            ));
        }
        Ok(ColumnsConfig(columns))
    }
}

impl Serialize for ColumnsConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|column| {
            let keys = Keys {
                from: column.from.to_string(),
                kind: column.kind,
                required: column.required,
                on_misfit: column.on_misfit,
            };
            (&column.name, Written::Table(keys))
        }))
    }
}

impl JsonSchema for ColumnsConfig {
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = <std::collections::BTreeMap<String, Written>>::json_schema(generator);
        schema.insert("minProperties".to_owned(), 1.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parsed in the same way as the whole file.
    fn read(toml: &str) -> Result<ColumnsConfig, String> {
        let file = config::File::from_str(toml, config::FileFormat::Toml);
        let merged = config::Config::builder().add_source(file).build().unwrap();
        let value: serde_json::Value = merged.try_deserialize().unwrap();
        serde_json::from_value(value["columns"].clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_keep_their_case_and_their_order() {
        let toml = r#"[columns]
            zone = "/zone"
            userId = { from = "properties.user_id", type = "integer", required = true }
            "a b.c" = { from = "body", type = "bytes", on_misfit = "null" }
            A = "offset""#;
        let columns = read(toml).unwrap();
        let found: Vec<_> = columns
            .0
            .iter()
            .map(|c| (c.name.as_str(), c.from.to_string(), c.kind, c.required, c.on_misfit))
            .collect();
        let bad = OnMisfit::BadMessage;
        assert_eq!(
            found,
            [
                ("zone", "/zone".to_owned(), ColumnType::Text, false, bad),
                ("userId", "properties.user_id".to_owned(), ColumnType::Integer, true, bad),
                ("a b.c", "body".to_owned(), ColumnType::Bytes, false, OnMisfit::Null),
                ("A", "offset".to_owned(), ColumnType::Text, false, bad),
            ]
        );
        let again = serde_json::from_value(serde_json::to_value(&columns).unwrap());
        assert_eq!(again.ok(), Some(columns));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_columns_name() {
        for (toml, says) in [
            ("columns = {}", "no column"),
            ("columns = { a = 1 }", "column \"a\": expected a text"),
            ("columns = { a = { type = \"text\" } }", "missing field `from`"),
            ("columns = { a = { from = \"/a\", typ = \"text\" } }", "unknown field `typ`"),
            ("columns = { a = { from = \"/a\", type = \"varchar\" } }", "unknown variant"),
            ("columns = { a = \"user.id\" }", "\"user.id\" is not a source"),
            ("columns = { a = \"/~\" }", "not a JSON pointer"),
        ] {
            let why = read(toml).unwrap_err();
            assert!(why.contains(says), "{toml}: {why}");
        }
    }
}
