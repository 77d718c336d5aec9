//! `partition_by`: the folder of each record, below the table, made of its values.
//!
//! ```text
//! STREAM/region=eu/date=2026-11-27/00000000000000481516-7.parquet
//! ```
//! A value is escaped so that every reader of Hive-style folders finds it again: in ASCII, whatever is not a
//! letter, a digit or one of `-_.` is percent-encoded; other characters stay, because Hive and Spark decode
//! bytes and not characters, but for those that stores refuse. Without a value, or with an empty one, it is [`NOTHING`], which readers take for
//! null. A value that is too long for a file name is shortened, with a hash of the whole.

use std::borrow::Cow;
use std::ops::{RangeFrom, RangeInclusive};

use super::layout::{date_of, hour_of};
use super::partition_keys::{NAME_BYTES_MAX, Part};
use crate::sink::columns::{Columns, Value};
use crate::sink::{BadReason, BadRecord};
use crate::types::StreamName;
use crate::types::column::Column;
use crate::types::file_name::{HASH_BYTES, shortened};
use crate::types::{Offset, Timestamp};
use crate::wire::amqp::carrying;
use crate::wire::block::Record;

/// Folder of records without a value, as Hive names it.
const NOTHING: &str = "__HIVE_DEFAULT_PARTITION__";

/// Most bytes of `NAME=VALUE`, which is the name of a folder.
pub(super) const SEGMENT_BYTES_MAX: usize = 160;

/// How records are spread over folders.
#[derive(Clone, Debug, PartialEq)]
pub struct Partitioning {
    /// The parts of a folder, without those that name a column.
    parts: Vec<Part>,
    /// Most folders of one commit.
    open_max: usize,
}

impl Partitioning {
    /// Replaces the parts that name a column by the column, and removes that from those of the file.
    pub fn new(parts: &[Part], columns: &mut Vec<Column>, open_max: usize) -> Partitioning {
        let parts = parts.iter().map(|part| match part {
            Part::Column(name) => {
                let at = columns.iter().position(|column| column.name == *name);
                at.map_or_else(|| part.clone(), |at| Part::Value(columns.remove(at)))
            }
            part => part.clone(),
        });
        Partitioning { parts: parts.collect(), open_max }
    }

    /// Most bytes of a folder.
    pub(super) fn folder_bytes_max(&self) -> usize {
        let bytes_max = |part: &Part| match part {
            Part::Date => "date=2026-11-27/".len(),
            Part::Hour => "hour=14/".len(),
            Part::Value(_) | Part::Column(_) => SEGMENT_BYTES_MAX + 1,
        };
        self.parts.iter().map(bytes_max).sum()
    }

    /// Names of the parts.
    pub(super) fn names(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.name().to_owned()).collect()
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
            Part::Value(column) => Some(column.clone()),
            _ => None,
        });
        let columns = Columns::only(stream.clone(), columns.collect());
        Folders { parts: parts.clone(), columns, open_max: *open_max }
    }

    /// Most folders of one commit.
    pub(super) fn open_max(&self) -> usize {
        self.open_max
    }

    /// Puts the record's folder into `folder`.
    ///
    /// # Errors
    /// If the message cannot be decoded, or has no value that it must have.
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
                Part::Value(Column { name, .. }) | Part::Column(name) => {
                    let value = match values.next() {
                        Some(Value::Text(text)) => text,
                        Some(Value::Integer(number)) => Cow::Owned(number.to_string()),
                        Some(Value::Boolean(truth)) => Cow::Owned(truth.to_string()),
                        _ => Cow::Borrowed(""),
                    };
                    if value.is_empty() && matches!(part, Part::Value(column) if column.required) {
                        return Err(BadRecord::about(
                            format!("partition_by {name:?}"),
                            record.offset,
                            BadReason::Misfit,
                            "the value is empty, and the folder requires one",
                        ));
                    }
                    push_segment(name, &value, folder);
                }
            }
        }
        Ok(())
    }
}

/// Adds `NAME=VALUE`, as the name of a folder.
fn push_segment(name: &str, value: &str, folder: &mut String) {
    folder.push_str(name);
    folder.push('=');
    if value.is_empty() {
        return folder.push_str(NOTHING);
    }
    // A dot at the end becomes two bytes longer.
    let dot = if value.ends_with('.') { 2 } else { 0 };
    let bytes_max = SEGMENT_BYTES_MAX - name.len().min(NAME_BYTES_MAX) - 1 - dot;
    let escaped = escaped(value, bytes_max);
    // A value of this name is no null.
    match (escaped.strip_prefix('_'), escaped.strip_suffix('.')) {
        (Some(rest), _) if escaped == NOTHING => {
            folder.push_str("%5F");
            folder.push_str(rest);
        }
        // Some stores and file systems drop a dot at the end, and so take two values for one.
        (_, Some(rest)) => {
            folder.push_str(rest);
            folder.push_str("%2E");
        }
        _ => folder.push_str(&escaped),
    }
}

/// Whether every store and file system takes it in a name, and can list it. A name that is refused after its
/// commit was claimed could never be created.
fn stays(c: char) -> bool {
    const PRIVATE: RangeInclusive<u32> = 0xE000..=0xF8FF;
    const NO_CHARACTERS: RangeInclusive<u32> = 0xFDD0..=0xFDEF;
    const PRIVATE_PLANES: RangeFrom<u32> = 0xF_0000..;
    let code = u32::from(c);
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || "-_.".contains(c),
        false => {
            !c.is_control()
                && code & 0xFFFE != 0xFFFE
                && !PRIVATE.contains(&code)
                && !NO_CHARACTERS.contains(&code)
                && !PRIVATE_PLANES.contains(&code)
        }
    }
}

fn escaped(value: &str, bytes_max: usize) -> String {
    let mut escaped = String::with_capacity(value.len());
    // Where to cut it, if it does not fit: not in the middle of an escape.
    let mut cut = 0;
    for c in value.chars() {
        if stays(c) {
            escaped.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        if escaped.len() + HASH_BYTES <= bytes_max {
            cut = escaped.len();
        }
        if escaped.len() > bytes_max {
            escaped.truncate(cut);
            // No other value has a `~`, which is escaped.
            return shortened(&escaped, value);
        }
    }
    escaped
}

/// Fuzz target: reads the first line as the parts of `partition_by`, and the rest as a message and as its
/// body.
#[doc(hidden)]
pub fn fuzz_folders(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (keys, body) = data.split_at(end);
    let Ok(parts) = serde_json::from_slice::<Vec<Part>>(keys) else { return };
    let mut wrong = false;
    super::partition_keys::check(&parts, &[], &[], &mut |_, _| wrong = true);
    if wrong {
        return;
    }
    let partitioning = Partitioning::new(&parts, &mut Vec::new(), 1);
    let folders = Folders::new(&"s".into(), &partitioning);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let mut folder = String::new();
    for message in [&carrying(&[], body)[..], body] {
        let record = Record { offset: Offset(7), timestamp: Timestamp(1), message };
        if folders.find(record, &mut folder).is_err() {
            continue;
        }
        let segments: Vec<&str> = folder.split('/').collect();
        assert_eq!(segments.len(), parts.len(), "{folder:?}");
        for (segment, part) in segments.iter().zip(&parts) {
            assert!(segment.len() <= SEGMENT_BYTES_MAX, "{segment:?}");
            let value = segment.strip_prefix(part.name()).and_then(|rest| rest.strip_prefix('='));
            assert!(value.is_some_and(|value| !value.is_empty()), "{segment:?}");
            assert!(!segment.ends_with('.') && !segment.contains(char::is_control), "{segment:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition_keys::check;
    use super::*;
    use crate::sink::conformance::message;
    use crate::types::column::{ColumnType, OnMisfit};

    fn parts(json: &str) -> Result<Vec<Part>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn column(name: &str, kind: ColumnType) -> Column {
        let (from, on_misfit) = (format!("/{name}").parse().unwrap(), OnMisfit::BadMessage);
        Column { name: name.to_owned(), from, kind, required: false, on_misfit }
    }

    fn try_folder(partitioning: &Partitioning, body: &[u8]) -> Result<String, BadRecord> {
        let folders = Folders::new(&"s".into(), partitioning);
        let message = message(body);
        let timestamp = Timestamp(1_767_225_600_000 + 9 * 3_600_000);
        let mut folder = "before".to_owned();
        let record = Record { offset: Offset(7), timestamp, message: &message };
        folders.find(record, &mut folder).map(|()| folder)
    }

    fn folder(parts: &[Part], body: &[u8]) -> String {
        try_folder(&Partitioning::new(parts, &mut Vec::new(), 1), body).unwrap()
    }

    #[test]
    fn values_become_folders() {
        let parts = parts(r#"["/a/region", "date", "hour", {"name":"x","from":"/n"}]"#).unwrap();
        let nothing = NOTHING;
        for (body, region, x) in [
            (r#"{"a":{"region":"eu"},"n":5}"#, "eu", "5"),
            (r#"{"a":{"region":"a/b\\..%"},"n":true}"#, "a%2Fb%5C..%25", "true"),
            (r#"{"a":{"region":"São Paulo"},"n":""}"#, "São%20Paulo", nothing),
            (r#"{"a":{"region":null},"n":{}}"#, nothing, nothing),
            (r#"{"a":{"region":".."},"n":[1]}"#, ".%2E", nothing),
            (
                r#"{"a":{"region":"Acme Inc."},"n":"\u0085\ue000\uffff"}"#,
                "Acme%20Inc%2E",
                "%C2%85%EE%80%80%EF%BF%BF",
            ),
            (r#"{"a":{"region":"\u0000\n"},"n":1.50}"#, "%00%0A", "1.50"),
            (r#"{"a":{"region":"a=b:c~"},"n":"日本"}"#, "a%3Db%3Ac%7E", "日本"),
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
        for letter in ["ä", "x", "%", "日", "\\u0085"] {
            let of = |last: &str| {
                folder(&parts, format!("{{\"r\":\"{}{last}\"}}", letter.repeat(500)).as_bytes())
            };
            let (one, other) = (of("x"), of("y"));
            assert!(one.len() <= SEGMENT_BYTES_MAX && one.len() > SEGMENT_BYTES_MAX - 6, "{one}");
            let (beginning, hash) = one.split_once('~').unwrap();
            assert!(hash.len() == 16 && !beginning.ends_with(['%', '2']), "{one}");
            assert_ne!(one, other);
            assert_eq!(one, of("x"));
        }
        // One that just fits is not shortened.
        let fits = "x".repeat(SEGMENT_BYTES_MAX - 2);
        assert_eq!(folder(&parts, format!("{{\"r\":\"{fits}\"}}").as_bytes()), format!("r={fits}"));
    }

    #[test]
    fn a_required_value_is_not_empty() {
        let parts = parts(r#"[{"name":"r","from":"/r","required":true}]"#).unwrap();
        let partitioning = Partitioning::new(&parts, &mut Vec::new(), 1);
        assert_eq!(try_folder(&partitioning, br#"{"r":"x"}"#).unwrap(), "r=x");
        for body in [r#"{"r":""}"#, r#"{"r":null}"#, "{}"] {
            assert_eq!(
                try_folder(&partitioning, body.as_bytes()).unwrap_err().offset,
                Offset(7),
                "{body}"
            );
        }
    }

    #[test]
    fn a_column_moves_into_the_path() {
        let parts = parts(r#"["b", "n"]"#).unwrap();
        let mut columns = vec![
            column("a", ColumnType::Text),
            column("n", ColumnType::Integer),
            Column { required: true, ..column("b", ColumnType::Boolean) },
        ];
        let mut told = Vec::new();
        check(&parts, &columns, &["stream"], &mut |_, what| told.push(what));
        assert_eq!(told, Vec::<String>::new());
        let partitioning = Partitioning::new(&parts, &mut columns, 1);
        assert!(columns.iter().map(|column| &*column.name).eq(["a"]));
        assert_eq!(partitioning.names(), ["b", "n"]);
        let found = |body: &str| try_folder(&partitioning, body.as_bytes());
        assert_eq!(found(r#"{"b":true,"n":"-7"}"#).unwrap(), "b=true/n=-7");
        assert_eq!(found(r#"{"b":false}"#).unwrap(), format!("b=false/n={NOTHING}"));
        // The rules of the column still hold.
        for bad in [r#"{"n":1}"#, r#"{"b":true,"n":"much"}"#, r#"{"b":2}"#] {
            assert_eq!(found(bad).unwrap_err().offset, Offset(7), "{bad}");
        }
    }

    #[test]
    fn a_required_value_must_be_there() {
        let parts = parts(r#"[{"name":"r","from":"/r","required":true}]"#).unwrap();
        let partitioning = Partitioning::new(&parts, &mut Vec::new(), 1);
        assert_eq!(try_folder(&partitioning, br#"{"r":"eu"}"#).unwrap(), "r=eu");
        for body in [&br#"{"x":1}"#[..], br#"{"r":null}"#, b"no JSON"] {
            assert!(try_folder(&partitioning, body).is_err(), "{body:?}");
        }
    }
}
