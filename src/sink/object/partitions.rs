//! `partition_by`: the folder of each record, below the table, made of its values.
//!
//! ```text
//! STREAM/region=eu/date=2026-11-27/00000000000000481516-7.parquet
//! ```
//! A value is escaped as Hive and its heirs do: whatever is not a letter, a digit or one of `-_.` is
//! percent-encoded. Without a value, or with an empty one, it is [`NOTHING`], which readers take for null. A
//! value that is too long for a file name is shortened, with a hash of the whole.
//!
//! The folder of a record never changes as long as the configuration does not: the archive's position counts
//! on that (see [`state`](super::state)).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::utf8_percent_encode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::layout::{UNSAFE, date_of, hour_of};
use crate::sink::BadRecord;
use crate::sink::columns::{Columns, Value};
use crate::types::StreamName;
use crate::types::column::{Column, ColumnType, OnMisfit, Source};
use crate::types::file_name::fitted;
use crate::wire::block::Record;

/// Folder of records without a value, as Hive names it.
const NOTHING: &str = "__HIVE_DEFAULT_PARTITION__";

/// Most bytes of `NAME=VALUE`, which is the name of a folder.
pub(super) const SEGMENT_BYTES_MAX: usize = 160;

/// Most bytes of a name in it.
const NAME_BYTES_MAX: usize = 60;

/// Most parts of a folder.
pub(super) const PARTS_MAX: usize = 4;

/// A part of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `date=2026-11-27`, of the record's chunk, in UTC.
    Date,
    /// `hour=09`, of the record's chunk, in UTC.
    Hour,
    /// `NAME=VALUE`.
    Value {
        /// The name.
        name: String,
        /// The source of the value.
        from: Source,
    },
}

impl Part {
    /// Name of the column that readers see.
    pub fn name(&self) -> &str {
        match self {
            Part::Date => "date",
            Part::Hour => "hour",
            Part::Value { name, .. } => name,
        }
    }
}

/// How records are spread over folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    /// The parts of a folder.
    pub parts: Vec<Part>,
    /// Most objects that are open at the same time.
    pub open_max: usize,
}

/// As it is kept with the archive's position.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Date | Part::Hour => f.write_str(self.name()),
            Part::Value { name, from } => write!(f, "{name}={from}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: String,
    from: String,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        let (name, from) = match Value::deserialize(deserializer)? {
            Value::String(text) if text == "date" => return Ok(Part::Date),
            Value::String(text) if text == "hour" => return Ok(Part::Hour),
            Value::String(text) => (None, text),
            table @ Value::Object(_) => {
                let keys: Keys = serde_json::from_value(table).map_err(D::Error::custom)?;
                (Some(keys.name), keys.from)
            }
            _ => {
                return Err(D::Error::custom(
                    "expected \"date\", \"hour\", a source such as \"/region\", or a table such as \
                     { name = \"region\", from = \"/customer/region\" }",
                ));
            }
        };
        let from: Source = from.parse().map_err(|error| D::Error::custom(format!("{error}")))?;
        let name = name.unwrap_or_else(|| last_of(&from));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(D::Error::custom(format!(
                "{name:?} cannot be the name of a partition: use 1 to {NAME_BYTES_MAX} letters, digits and \
                 underscores, as in {{ name = \"region\", from = {:?} }}",
                from.to_string()
            )));
        }
        Ok(Part::Value { name, from })
    }
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
                    },
                    "required": ["name", "from"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// Reports what does not make sense. `columns` are those of the file.
pub(super) fn check<'c>(
    parts: &[Part],
    columns: impl Iterator<Item = &'c str>,
    bad: &mut impl FnMut(&str, String),
) {
    let columns: Vec<String> = columns.map(str::to_ascii_lowercase).collect();
    if parts.is_empty() || parts.len() > PARTS_MAX {
        return bad(
            "partition_by",
            format!(
                "it has {} parts: use 1 to {PARTS_MAX}, or leave it out for [\"date\", \"hour\"]",
                parts.len()
            ),
        );
    }
    for (nth, part) in parts.iter().enumerate() {
        let name = part.name().to_ascii_lowercase();
        if parts.iter().take(nth).any(|earlier| earlier.name().eq_ignore_ascii_case(&name)) {
            bad("partition_by", format!("{name:?} is in it twice: give one another `name`"));
        }
        if let Part::Value { from, .. } = part {
            if matches!(from, Source::Offset | Source::Timestamp | Source::Body) {
                bad(
                    "partition_by",
                    format!(
                        "by {from}, each record would have a folder of its own: use \"date\" or \"hour\""
                    ),
                );
            }
            if name == "date" || name == "hour" {
                bad(
                    "partition_by",
                    format!("{name:?} is the time of the chunk: use another `name`"),
                );
            }
        }
        if columns.contains(&name) {
            bad(
                "partition_by",
                format!(
                    "{name:?} is a column of the file too, and many readers refuse a column that is in both: \
                     leave it out of `columns`, or give the partition another `name`"
                ),
            );
        }
    }
}

/// Finds the folders of a stream's records.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    parts: Vec<Part>,
    columns: Columns,
    open_max: usize,
}

impl Folders {
    pub(super) fn new(stream: &StreamName, partitioning: &Partitioning) -> Folders {
        let Partitioning { parts, open_max } = partitioning;
        let columns = parts.iter().filter_map(|part| match part {
            Part::Value { name, from } => Some(Column {
                name: name.clone(),
                from: from.clone(),
                kind: ColumnType::Text,
                required: false,
                on_misfit: OnMisfit::Null,
            }),
            _ => None,
        });
        let columns = Columns::only(stream.clone(), columns.collect());
        Folders { parts: parts.clone(), columns, open_max: *open_max }
    }

    /// Most objects that are open at the same time.
    pub(super) fn open_max(&self) -> usize {
        self.open_max
    }

    /// Puts the record's folder into `folder`.
    ///
    /// # Errors
    /// If the message cannot be decoded.
    pub(super) fn find(&self, record: Record<'_>, folder: &mut String) -> Result<(), BadRecord> {
        folder.clear();
        let mut row = Vec::with_capacity(self.columns.len());
        if !self.columns.is_empty() {
            self.columns.read(record, &mut row)?;
        }
        let mut values = row.into_iter();
        for part in &self.parts {
            if !folder.is_empty() {
                folder.push('/');
            }
            match part {
                Part::Date => folder.push_str(&date_of(record.timestamp)),
                Part::Hour => folder.push_str(&hour_of(record.timestamp)),
                Part::Value { name, .. } => {
                    let value = match values.next() {
                        Some(Value::Text(text)) => text,
                        _ => Cow::Borrowed(""),
                    };
                    folder.push_str(&segment(name, &value));
                }
            }
        }
        Ok(())
    }
}

/// `NAME=VALUE`, as the name of a folder.
fn segment(name: &str, value: &str) -> String {
    if value.is_empty() {
        return format!("{name}={NOTHING}");
    }
    let mut escaped = utf8_percent_encode(value, UNSAFE).to_string();
    // A value of this name is no null.
    if escaped == NOTHING {
        escaped.replace_range(..1, "%5F");
    }
    fitted(format!("{name}={escaped}"), value, SEGMENT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::message;
    use crate::types::{Offset, Timestamp};

    fn parts(json: &str) -> Result<Vec<Part>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn folder(parts: &[Part], body: &[u8]) -> String {
        let partitioning = Partitioning { parts: parts.to_vec(), open_max: 1 };
        let folders = Folders::new(&"s".into(), &partitioning);
        let message = message(body);
        let timestamp = Timestamp(1_767_225_600_000 + 9 * 3_600_000);
        let mut folder = "before".to_owned();
        folders
            .find(Record { offset: Offset(0), timestamp, message: &message }, &mut folder)
            .unwrap();
        folder
    }

    #[test]
    fn values_become_folders() {
        let parts = parts(r#"["/a/region", "date", "hour", {"name":"x","from":"/n"}]"#).unwrap();
        let nothing = NOTHING;
        for (body, region, x) in [
            (r#"{"a":{"region":"eu"},"n":5}"#, "eu", "5"),
            (r#"{"a":{"region":"a/b\\..%"},"n":true}"#, "a%2Fb%5C..%25", "true"),
            (r#"{"a":{"region":"São Paulo"},"n":""}"#, "S%C3%A3o%20Paulo", nothing),
            (r#"{"a":{"region":null},"n":{}}"#, nothing, nothing),
            (r#"{"a":{"region":".."},"n":[1]}"#, "..", nothing),
            (r#"{"a":{"region":"\u0000\n"},"n":1.50}"#, "%00%0A", "1.50"),
            (
                r#"{"a":{"region":"__HIVE_DEFAULT_PARTITION__"}}"#,
                "%5F_HIVE_DEFAULT_PARTITION__",
                nothing,
            ),
            ("no JSON", nothing, nothing),
            ("", nothing, nothing),
        ] {
            let expected = format!("region={region}/date=2026-01-01/hour=09/x={x}");
            assert_eq!(folder(&parts, body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn long_values_fit_and_stay_apart() {
        let parts = parts(r#"["/r"]"#).unwrap();
        let of = |last: &str| {
            folder(&parts, format!("{{\"r\":\"{}{last}\"}}", "ä".repeat(500)).as_bytes())
        };
        let (one, other) = (of("x"), of("y"));
        assert!(one.len() <= SEGMENT_BYTES_MAX && one.starts_with("r=%C3%A4"), "{one}");
        assert_ne!(one, other);
        assert_eq!(one, of("x"));
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
            (r#"["region"]"#, "is not a source"),
            (r#"[5]"#, "expected \"date\""),
            (r#"[{"name":"a"}]"#, "missing field `from`"),
        ] {
            let told = parts(json).unwrap_err();
            assert!(told.contains(says), "{json}: {told}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        for (json, columns, says) in [
            ("[]", &[][..], "use 1 to 4"),
            (r#"["/a","/b","/c","/d","/e"]"#, &[], "use 1 to 4"),
            (r#"["/a","/x/A"]"#, &[], "twice"),
            (r#"["offset"]"#, &[], "a folder of its own"),
            (r#"["/date"]"#, &[], "use another `name`"),
            (r#"["/region"]"#, &["Region"], "leave it out of `columns`"),
            (r#"["/region", "date"]"#, &["body"], ""),
        ] {
            let mut told = String::new();
            check(&parts(json).unwrap(), columns.iter().copied(), &mut |_, what| {
                told.push_str(&what)
            });
            assert!(told.contains(says), "{json}: {told}");
            assert_eq!(told.is_empty(), says.is_empty(), "{json}: {told}");
        }
    }
}
