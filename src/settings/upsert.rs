//! `mode`, `key`, `delete_when` and `evolve`: rows that are replaced by their key, and tables that get new
//! columns.
//!
//! ```toml
//! mode = "upsert"
//! key = ["id"]
//! delete_when = { from = "/op", equals = "d" }
//! ```

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::columns::ColumnsConfig;
use crate::types::column::{ColumnType, Property, Source};
use crate::types::upsert::{Missing, Upsert};

/// Most columns of a key.
const KEY_COLUMNS_MAX: usize = 16;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A row of its own.
    #[default]
    Append,
    /// The row of its key: the latest message replaces it, or deletes it.
    Upsert,
}

/// Treatment of columns that an existing table lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evolve {
    /// They are added.
    Add,
}

/// Treatment of columns that an existing table lacks, as sinks know it.
pub fn missing(evolve: Option<Evolve>) -> Missing {
    match evolve {
        Some(Evolve::Add) => Missing::Add,
        None => Missing::Refuse,
    }
}

/// Which messages delete the row of their key.
#[derive(Clone, Debug, PartialEq)]
pub enum DeleteWhen {
    /// Those without a body.
    EmptyBody,
    /// None.
    Never,
    /// Those with this value at this source; and those without a body, if they have a key.
    Equals {
        /// The source.
        from: Source,
        /// The value, as text.
        equals: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    from: String,
    equals: serde_json::Value,
}

const EXPECTED: &str =
    "expected \"empty_body\", \"never\", or a value such as { from = \"/op\", equals = \"d\" }";

impl<'de> Deserialize<'de> for DeleteWhen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        let keys: Keys = match Value::deserialize(deserializer)? {
            Value::String(text) if text == "empty_body" => return Ok(DeleteWhen::EmptyBody),
            Value::String(text) if text == "never" => return Ok(DeleteWhen::Never),
            table @ Value::Object(_) => serde_json::from_value(table).map_err(|error| {
                let what = error.to_string().replace("missing field", "there is no");
                D::Error::custom(format!("{what}; {EXPECTED}"))
            })?,
            _ => return Err(D::Error::custom(EXPECTED)),
        };
        let from = keys.from.parse().map_err(|error| D::Error::custom(format!("{error}")))?;
        let equals = match keys.equals {
            Value::String(text) => text,
            Value::Bool(truth) => truth.to_string(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => return Err(D::Error::custom("`equals` is a text, a whole number, true or false")),
        };
        Ok(DeleteWhen::Equals { from, equals })
    }
}

impl Serialize for DeleteWhen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            DeleteWhen::EmptyBody => serializer.serialize_str("empty_body"),
            DeleteWhen::Never => serializer.serialize_str("never"),
            DeleteWhen::Equals { from, equals } => {
                serializer.collect_map([("from", from.to_string()), ("equals", equals.clone())])
            }
        }
    }
}

impl JsonSchema for DeleteWhen {
    fn schema_name() -> Cow<'static, str> {
        "DeleteWhen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": ["empty_body", "never"] },
                {
                    "type": "object",
                    "properties": {
                        "from": {
                            "type": "string",
                            "description": "Source of the value, as in `columns`: \"/op\".",
                        },
                        "equals": {
                            "type": ["string", "integer", "boolean"],
                            "description": "The value that deletes.",
                        },
                    },
                    "required": ["from", "equals"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// The keys that belong together, as a sink's settings have them.
#[derive(Clone, Copy, Debug)]
pub struct UpsertKeys<'a> {
    /// `mode`.
    pub mode: Mode,
    /// `key`.
    pub key: &'a [String],
    /// `delete_when`.
    pub delete_when: Option<&'a DeleteWhen>,
    /// `columns`.
    pub columns: Option<&'a ColumnsConfig>,
}

/// A column that may be in a key.
struct Candidate<'a> {
    name: &'a str,
    from: Source,
    kind: ColumnType,
}

impl<'a> UpsertKeys<'a> {
    /// How messages become the latest row of each key; `None` if each is a row of its own. The keys were
    /// checked.
    pub fn upsert(&self) -> Option<Upsert> {
        if self.mode == Mode::Append {
            return None;
        }
        let delete_if = match self.delete_when {
            Some(DeleteWhen::Equals { from, equals }) => Some((from.clone(), equals.clone())),
            _ => None,
        };
        let empty_body_deletes =
            self.delete_when != Some(&DeleteWhen::Never) && self.in_the_body().is_none();
        Some(Upsert { key: self.key.to_vec(), empty_body_deletes, delete_if })
    }

    /// What becomes of messages that are written again. Follows "they ".
    pub fn read_again(&self) -> &'static str {
        match self.mode {
            Mode::Append => {
                "become rows again: they are in the table twice. If a unique key of the table refuses that, they count \
                 as bad messages, for on_bad_message"
            }
            Mode::Upsert => {
                "change no row that a later message of their stream has written; a row that was deleted since comes \
                 back, until its delete is read again"
            }
        }
    }

    /// A sentence on what is in the table, for `rillway check`.
    pub fn in_words(&self) -> Option<String> {
        let upsert = self.upsert()?;
        let mut words = format!("one for each ({}), of its latest message", upsert.key.join(", "));
        let value = upsert.delete_if.map(|(from, equals)| format!("with {equals:?} at {from}"));
        let body = upsert.empty_body_deletes.then(|| "without a body".to_owned());
        let deletes: Vec<String> = value.into_iter().chain(body).collect();
        words.push_str(&match deletes.is_empty() {
            false => format!("; a message {} deletes it", deletes.join(" or ")),
            true => "; no message deletes one".to_owned(),
        });
        Some(words)
    }

    /// Reports what does not make sense.
    pub fn check(&self, bad: &mut impl FnMut(&str, String)) {
        if self.mode == Mode::Append {
            let alone = "it has no effect without mode = \"upsert\": add that, or remove the key";
            if !self.key.is_empty() {
                bad("key", alone.to_owned());
            }
            if self.delete_when.is_some() {
                bad("delete_when", alone.to_owned());
            }
            return;
        }
        let columns = self.candidates();
        let names = || columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        if self.key.is_empty() || self.key.len() > KEY_COLUMNS_MAX {
            return bad(
                "key",
                format!(
                    "mode = \"upsert\" needs a key of 1 to {KEY_COLUMNS_MAX} columns: name them, as in \
                     key = [\"id\"], out of {}",
                    names()
                ),
            );
        }
        for (nth, name) in self.key.iter().enumerate() {
            if self.key.iter().take(nth).any(|earlier| earlier == name) {
                bad("key", format!("{name:?} is in it twice"));
                continue;
            }
            let Some(column) = columns.iter().find(|column| column.name == name) else {
                bad("key", format!("there is no column {name:?}: the columns are {}", names()));
                continue;
            };
            if let Some(why) = column.unfit() {
                bad("key", format!("the column {name:?} {why}"));
            }
        }
        if let (Some(DeleteWhen::EmptyBody), Some(column)) = (self.delete_when, self.in_the_body())
        {
            bad(
                "delete_when",
                format!(
                    "a message without a body has no key, because the key's column {:?} is read from the \
                     body ({:?}): read it from elsewhere (`from` = \"properties.message_id\" or \
                     \"application_properties.NAME\"), or delete by a value in the body: \
                     delete_when = {{ from = \"/op\", equals = \"d\" }}",
                    column.name,
                    column.from.to_string()
                ),
            );
        }
    }

    /// A column of the key that a message without a body does not have.
    fn in_the_body(&self) -> Option<Candidate<'a>> {
        self.candidates().into_iter().find(|column| {
            self.key.iter().any(|name| name == column.name)
                && matches!(column.from, Source::Body | Source::Json(_))
        })
    }

    fn candidates(&self) -> Vec<Candidate<'a>> {
        let text = ColumnType::Text;
        let stream = Candidate { name: "stream", from: Source::Stream, kind: text };
        match self.columns {
            Some(columns) => std::iter::once(stream)
                .chain(columns.0.iter().map(|column| Candidate {
                    name: &column.name,
                    from: column.from.clone(),
                    kind: column.kind,
                }))
                .collect(),
            None => {
                let of = |name, property| Candidate {
                    name,
                    from: Source::Property(property),
                    kind: text,
                };
                vec![
                    stream,
                    of("message_id", Property::MessageId),
                    of("subject", Property::Subject),
                ]
            }
        }
    }
}

impl Candidate<'_> {
    /// Why it cannot be in a key.
    fn unfit(&self) -> Option<String> {
        match (&self.from, self.kind) {
            (Source::Offset | Source::Timestamp, _) => Some(format!(
                "is made of the {}, so that each message would have a key of its own: that is mode = \
                 \"append\"",
                self.from
            )),
            (_, ColumnType::Float | ColumnType::Json) => Some(format!(
                "is of type {:?}, whose values are not equal whenever they mean the same: make it \"text\", \
                 \"integer\" or \"numeric\"",
                if self.kind == ColumnType::Float { "float" } else { "json" }
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> ColumnsConfig {
        serde_json::from_value(serde_json::json!({
            "id": "/id",
            "mid": "properties.message_id",
            "at": { "from": "timestamp", "type": "timestamp" },
            "f": { "from": "/f", "type": "float" },
            "j": { "from": "/j", "type": "json" },
        }))
        .unwrap()
    }

    fn problems(mode: Mode, key: &[&str], delete_when: Option<&str>) -> (String, Option<Upsert>) {
        let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
        let delete_when = delete_when.map(|text| serde_json::from_str(text).unwrap());
        let columns = columns();
        let keys = UpsertKeys {
            mode,
            key: &key,
            delete_when: delete_when.as_ref(),
            columns: Some(&columns),
        };
        let mut told = String::new();
        keys.check(&mut |key, what| told.push_str(&format!("{key}: {what}\n")));
        (told, keys.upsert())
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        let by_op = r#"{"from":"/op","equals":"d"}"#;
        for (mode, key, delete_when, says) in [
            (Mode::Append, &["id"][..], None, "key: it has no effect without mode"),
            (Mode::Append, &[], Some("\"never\""), "delete_when: it has no effect"),
            (Mode::Upsert, &[], None, "needs a key"),
            (Mode::Upsert, &["id", "id"], None, "twice"),
            (Mode::Upsert, &["uid"], None, "no column \"uid\": the columns are stream, id, mid"),
            (Mode::Upsert, &["at"], None, "made of the timestamp"),
            (Mode::Upsert, &["f"], None, "is of type \"float\""),
            (Mode::Upsert, &["j"], None, "is of type \"json\""),
            (Mode::Upsert, &["id"], Some("\"empty_body\""), "has no key"),
            (Mode::Upsert, &["id"], Some(by_op), ""),
            (Mode::Upsert, &["stream", "mid"], Some("\"empty_body\""), ""),
        ] {
            let (told, _) = problems(mode, key, delete_when);
            assert!(told.contains(says), "{key:?}: {told}");
            assert_eq!(told.is_empty(), says.is_empty(), "{key:?}: {told}");
        }
    }

    #[test]
    fn a_message_without_a_body_deletes_if_it_has_a_key() {
        let by_op = r#"{"from":"/op","equals":"d"}"#;
        for (key, delete_when, expected) in [
            (&["id"][..], None, false),
            (&["mid"], None, true),
            (&["mid"], Some("\"empty_body\""), true),
            (&["mid"], Some("\"never\""), false),
            (&["mid"], Some(by_op), true),
            (&["mid", "id"], Some(by_op), false),
        ] {
            let (told, upsert) = problems(Mode::Upsert, key, delete_when);
            let upsert = upsert.unwrap();
            assert_eq!(upsert.empty_body_deletes, expected, "{key:?} {delete_when:?} {told}");
            assert_eq!(upsert.delete_if.is_some(), delete_when == Some(by_op));
        }
    }

    #[test]
    fn a_condition_without_all_of_its_keys_says_which() {
        let error = serde_json::from_str::<DeleteWhen>(r#"{"from":"/op"}"#).unwrap_err();
        let says = "there is no `equals`; expected \"empty_body\", \"never\", or a value such as";
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn conditions_are_read_and_written() {
        for (text, expected) in [
            ("\"empty_body\"", DeleteWhen::EmptyBody),
            ("\"never\"", DeleteWhen::Never),
            (
                r#"{"from":"/a/b","equals":true}"#,
                DeleteWhen::Equals { from: "/a/b".parse().unwrap(), equals: "true".to_owned() },
            ),
            (
                r#"{"from":"application_properties.op","equals":3}"#,
                DeleteWhen::Equals {
                    from: "application_properties.op".parse().unwrap(),
                    equals: "3".to_owned(),
                },
            ),
        ] {
            let read: DeleteWhen = serde_json::from_str(text).unwrap();
            assert_eq!(read, expected);
            let again = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<DeleteWhen>(&again).unwrap(), expected);
        }
        for (text, says) in [
            ("\"nobody\"", "expected \"empty_body\""),
            ("5", "expected \"empty_body\""),
            (r#"{"from":"/op"}"#, "there is no `equals`"),
            (r#"{"from":"op","equals":"d"}"#, "is not a source"),
            (r#"{"from":"/op","equals":1.5}"#, "a whole number"),
            (r#"{"from":"/op","equals":"d","not":1}"#, "unknown field `not`"),
        ] {
            let told = serde_json::from_str::<DeleteWhen>(text).unwrap_err().to_string();
            assert!(told.contains(says), "{text}: {told}");
        }
    }
}
