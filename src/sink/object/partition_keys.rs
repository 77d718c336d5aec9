//! The key `partition_by`: its form, and what is refused.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::types::column::{Column, ColumnType, OnMisfit, Source};

/// Most bytes of the name of a part.
pub(super) const NAME_BYTES_MAX: usize = 60;

/// Most parts of a folder.
const PARTS_MAX: usize = 4;

/// A part of the path.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// `date=2026-11-27`, of the record's chunk, in UTC.
    Date,
    /// `hour=09`, of the record's chunk, in UTC.
    Hour,
    /// A value of the message.
    Value(Column),
    /// The value of a column of `columns`, which is then not in the file.
    Column(String),
}

impl Part {
    /// Name of the column that readers see.
    pub fn name(&self) -> &str {
        match self {
            Part::Date => "date",
            Part::Hour => "hour",
            Part::Value(column) => &column.name,
            Part::Column(name) => name,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: String,
    from: String,
    #[serde(default)]
    required: bool,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        let (name, from, required) = match Value::deserialize(deserializer)? {
            Value::String(text) if text == "date" => return Ok(Part::Date),
            Value::String(text) if text == "hour" => return Ok(Part::Hour),
            Value::String(text) if is_column(&text) => return Ok(Part::Column(text)),
            Value::String(text) => (None, text, false),
            table @ Value::Object(_) => {
                let keys: Keys = serde_json::from_value(table).map_err(D::Error::custom)?;
                (Some(keys.name), keys.from, keys.required)
            }
            _ => {
                return Err(D::Error::custom(
                    "expected \"date\", \"hour\", a source such as \"/region\", the name of a column of \
                     `columns`, or a table such as { name = \"region\", from = \"/customer/region\" }",
                ));
            }
        };
        let from: Source = from.parse().map_err(|error| D::Error::custom(format!("{error}")))?;
        let name = name.unwrap_or_else(|| last_of(&from));
        if !is_plain(&name) {
            return Err(D::Error::custom(format!(
                "{name:?} cannot be the name of a folder: use 1 to {NAME_BYTES_MAX} letters, digits and \
                 underscores, and no underscore in front, as in {{ name = \"region\", from = {:?} }}",
                from.to_string()
            )));
        }
        let (kind, on_misfit) =
            (ColumnType::Text, if required { OnMisfit::BadMessage } else { OnMisfit::Null });
        Ok(Part::Value(Column { name, from, kind, required, on_misfit }))
    }
}

/// Whether a text can only be the name of a column. A source has a slash or a dot, or is one of these words.
fn is_column(text: &str) -> bool {
    const WORDS: [&str; 5] = ["stream", "offset", "timestamp", "body", "application_properties"];
    !text.is_empty() && !text.contains(['/', '.']) && !WORDS.contains(&text)
}

/// Whether it can be a name of a folder, and of a column for every reader: many take no notice of folders that begin
/// with `_`.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('_')
        && name.chars().all(is_plain)
}

/// The last part of a source, which is the name if none is given.
fn last_of(from: &Source) -> String {
    match from {
        Source::Json(pointer) => pointer.0.last().cloned().unwrap_or_default(),
        Source::ApplicationProperty(name) | Source::MessageAnnotation(name) => name.clone(),
        Source::Property(property) => property.name().to_owned(),
        other => other.to_string(),
    }
}

impl JsonSchema for Part {
    fn schema_name() -> Cow<'static, str> {
        "Partition".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "name": {
                            "type": "string",
                            "description": "Name of the column, in front of the value.",
                        },
                        "from": {
                            "type": "string",
                            "description": "Source of the value, as in `columns`: \"/customer/region\".",
                        },
                        "required": {
                            "type": "boolean",
                            "default": false,
                            "description": "True if a message without the value is bad; else it goes into the \
                                            folder __HIVE_DEFAULT_PARTITION__, which reads as null.",
                        },
                    },
                    "required": ["name", "from"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// Reports what does not make sense. `columns` are the configured ones, `others` are in the file as well.
pub(super) fn check(
    parts: &[Part],
    columns: &[Column],
    others: &[&str],
    bad: &mut impl FnMut(&str, String),
) {
    let mut bad = |what: String| bad("partition_by", what);
    if parts.is_empty() || parts.len() > PARTS_MAX {
        return bad(format!(
            "it has {} parts: use 1 to {PARTS_MAX}, or leave it out for [\"date\", \"hour\"]",
            parts.len()
        ));
    }
    for (nth, part) in parts.iter().enumerate() {
        let name = part.name();
        let is_same = |other: &str| other.eq_ignore_ascii_case(name);
        if parts.iter().take(nth).any(|earlier| is_same(earlier.name())) {
            bad(format!("{name:?} is in it twice: give one another `name`"));
            continue;
        }
        match part {
            Part::Date | Part::Hour => {}
            Part::Column(name) => {
                check_column(name, columns, &mut bad);
                continue;
            }
            Part::Value(Column { from, .. }) => {
                if matches!(from, Source::Offset | Source::Timestamp | Source::Body) {
                    bad(format!(
                        "by {from}, each record would have a folder of its own: use \"date\" or \"hour\""
                    ));
                }
                if is_same("date") || is_same("hour") {
                    bad(format!("{name:?} is the time of the chunk: use another `name`"));
                }
            }
        }
        let moved = |column: &&Column| !parts.contains(&Part::Column(column.name.clone()));
        let mut in_file = columns.iter().filter(moved).map(|column| column.name.as_str());
        if in_file.any(is_same) || others.iter().copied().any(is_same) {
            bad(format!(
                "{name:?} is a column of the file too, and many readers refuse a column that is in both: name the \
                 column itself in `partition_by`, leave it out of `columns`, or give the part another `name`"
            ));
        }
    }
}

/// Reports a column that does not exist, or whose values make no folders.
fn check_column(name: &str, columns: &[Column], bad: &mut impl FnMut(String)) {
    let Some(column) = columns.iter().find(|column| column.name == name) else {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let known = match names.is_empty() {
            true => "there are no `columns`".to_owned(),
            false => format!("`columns` has {}", names.join(", ")),
        };
        return bad(format!(
            "{name:?} is no column ({known}): name one of those, or give a source, such as \"/{name}\" for a key \
             of the JSON body"
        ));
    };
    if !is_plain(name) {
        bad(format!(
            "{name:?} cannot be the name of a folder: use 1 to {NAME_BYTES_MAX} letters, digits and underscores, \
             and no underscore in front"
        ));
    }
    let kind = match column.kind {
        ColumnType::Text | ColumnType::Integer | ColumnType::Boolean => return,
        ColumnType::Float => "float",
        ColumnType::Numeric => "numeric",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Json => "json",
        ColumnType::Bytes => "bytes",
    };
    bad(format!(
        "{name:?} is of type {kind}, whose values are no names of folders: use a column of type text, integer or \
         boolean, or \"date\" and \"hour\" for the time"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(json: &str) -> Result<Vec<Part>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn column(name: &str, kind: ColumnType) -> Column {
        let (from, on_misfit) = (format!("/{name}").parse().unwrap(), OnMisfit::BadMessage);
        Column { name: name.to_owned(), from, kind, required: false, on_misfit }
    }

    #[test]
    fn names_come_from_the_source() {
        let all = parts(
            r#"["/a/b", "application_properties.tenant", "properties.subject", "message_annotations.x_y", "stream"]"#,
        );
        let names: Vec<String> = all.unwrap().iter().map(|part| part.name().to_owned()).collect();
        assert_eq!(names, ["b", "tenant", "subject", "x_y", "stream"]);
        for (json, says) in [
            (r#"[""]"#, "cannot be the name"),
            (r#"["/a b"]"#, "cannot be the name"),
            (r#"["message_annotations.x-y"]"#, "use 1 to 60 letters"),
            (r#"["header.ttl"]"#, "is not a source"),
            (r#"[5]"#, "expected \"date\""),
            (r#"[{"name":"a"}]"#, "missing field `from`"),
            (r#"[{"name":"a/../b","from":"/a"}]"#, "cannot be the name"),
        ] {
            let told = parts(json).unwrap_err();
            assert!(told.contains(says), "{json}: {told}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        use ColumnType::*;
        let columns = [
            column("Region", Text),
            column("at", Timestamp),
            column("price", Float),
            column("a b", Text),
        ];
        for (json, says) in [
            ("[]", "use 1 to 4"),
            (r#"["/a","/b","/c","/d","/e"]"#, "use 1 to 4"),
            (r#"["/a","/x/A"]"#, "twice"),
            (r#"["offset"]"#, "a folder of its own"),
            (r#"["/date"]"#, "use another `name`"),
            (r#"["/region"]"#, "leave it out of `columns`"),
            (r#"["/body"]"#, "is a column of the file too"),
            (r#"["regoin"]"#, "`columns` has Region, at, price, a b"),
            (r#"["region"]"#, "such as \"/region\""),
            (r#"["at"]"#, "of type timestamp"),
            (r#"["price"]"#, "of type float"),
            (r#"["a b"]"#, "cannot be the name of a folder"),
            (r#"["Region", "date"]"#, ""),
            (r#"["/tenant", "date"]"#, ""),
        ] {
            let mut told = String::new();
            check(&parts(json).unwrap(), &columns, &["body"], &mut |_, what| told.push_str(&what));
            assert!(told.contains(says), "{json}: {told}");
            assert_eq!(told.is_empty(), says.is_empty(), "{json}: {told}");
        }
        let mut told = String::new();
        check(&parts(r#"["a"]"#).unwrap(), &[], &["body"], &mut |_, what| told.push_str(&what));
        assert!(told.contains("there are no `columns`"), "{told}");
    }
}
