//! Placeholders in a sink's values: a place for each stream.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `{stream}` | the name of the stream, or of the partition |
//! | `{partition}` | the same without the super stream's name and a hyphen before it: `2` of `orders-2`. Only with `super_stream` |
//!
//! In a path or a URL, and in the name of a table, characters that mean something there are replaced;
//! in the name of a stream or a publisher, names stand as they are. There is no other placeholder, and
//! no other `{` or `}` in such a value.

use std::path::PathBuf;

use crate::types::file_name::as_part;
use crate::types::{StreamName, table_name};

/// See the module.
const STREAM: &str = "{stream}";

/// See the module.
const PARTITION: &str = "{partition}";

/// The stream that a sink is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The stream, or the partition.
    pub stream: StreamName,
    /// The super stream; `None` if the consumer reads a stream.
    pub super_stream: Option<StreamName>,
}

impl Names {
    /// Name of the partition without the super stream's name and the hyphen before it. The whole
    /// name if that is not its beginning, or nothing would be left. Only a hyphen, as RabbitMQ names
    /// partitions: `orders-2` and `orders.2` must not become one.
    fn partition(&self) -> &str {
        let whole = self.stream.as_str();
        let of = self.super_stream.as_ref().map_or("", StreamName::as_str);
        let rest = whole.strip_prefix(of).map(|rest| rest.strip_prefix('-'));
        rest.flatten().filter(|rest| !rest.is_empty()).unwrap_or(whole)
    }

    /// In one pass: a name may look like a placeholder itself.
    fn fill(&self, text: &str, written: impl Fn(&str) -> String) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            rest = if let Some(after) = from.strip_prefix(STREAM) {
                filled.push_str(&written(self.stream.as_str()));
                after
            } else if let Some(after) = from.strip_prefix(PARTITION) {
                filled.push_str(&written(self.partition()));
                after
            } else {
                filled.push('{');
                from.get(1..).unwrap_or_default()
            };
        }
        filled.push_str(rest);
        filled
    }

    /// Puts the names into a path.
    pub fn fill_path(&self, path: &mut PathBuf) {
        if let Some(text) = path.to_str().filter(|text| has_any(text)) {
            *path = PathBuf::from(self.fill(text, as_part));
        }
    }

    /// Puts the names into a URL.
    pub fn fill_url(&self, url: &mut String) {
        *url = self.fill(url, as_part);
    }

    /// Puts the names into the name of a table.
    pub fn fill_table(&self, table: &mut String) {
        if has_any(table) {
            *table = table_name::fitted(self.fill(table, table_name::as_part));
        }
    }

    /// Puts the names into the name of a stream or a publisher.
    pub fn fill_name(&self, name: &mut String) {
        *name = self.fill(name, str::to_owned);
    }
}

/// True if it holds a placeholder.
pub fn has_any(text: &str) -> bool {
    text.contains(STREAM) || text.contains(PARTITION)
}

/// Whether two values may be the same once names stand in place of their placeholders. Where it depends on
/// the names, they may.
pub fn may_be_same(one: &str, other: &str) -> bool {
    let fixed = |text: &str| {
        let ends = [STREAM, PARTITION].into_iter().filter_map(|placeholder| text.find(placeholder));
        ends.min().unwrap_or(text.len())
    };
    if !has_any(one) && !has_any(other) {
        return one == other;
    }
    let both = fixed(one).min(fixed(other));
    one.as_bytes().get(..both) == other.as_bytes().get(..both)
}

/// Checks a value as it stands in the configuration; returns what is wrong with it.
pub fn problem(text: &str) -> Option<String> {
    let rest = text.replace(STREAM, "").replace(PARTITION, "");
    let at = rest.find(['{', '}'])?;
    let from = rest.get(at..).unwrap_or_default();
    let what = match from.split_once('}') {
        Some((name, _)) if name.starts_with('{') => format!("{name}}} is not a placeholder"),
        _ => "a single { or } means nothing".to_owned(),
    };
    Some(format!("{what}: there are {STREAM} and, with `super_stream`, {PARTITION}"))
}

/// Checks a value of a consumer that reads a stream; returns what is wrong with it.
pub fn problem_without_super_stream(text: &str) -> Option<String> {
    text.contains(PARTITION).then(|| {
        format!("{PARTITION} is a part of a super stream, and this consumer reads a stream: use {STREAM}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_with_placeholders_may_be_any_that_begins_like_it() {
        for (one, other, expected) in [
            ("/d/s", "/d/s", true),
            ("/d/s", "/d/t", false),
            ("/d/{stream}", "/d/s-0", true),
            ("/d/{stream}", "/d/{partition}", true),
            ("/d/{stream}/x", "/e/s-0/x", false),
            ("/d/{stream}", "/d", true),
            ("{stream}.db", "/anywhere", true),
        ] {
            assert_eq!(may_be_same(one, other), expected, "{one} {other}");
            assert_eq!(may_be_same(other, one), expected, "{other} {one}");
        }
    }

    fn names(stream: &str, super_stream: Option<&str>) -> Names {
        Names { stream: stream.into(), super_stream: super_stream.map(Into::into) }
    }

    #[test]
    fn a_partition_is_named_without_its_super_stream() {
        for (stream, super_stream, partition) in [
            ("orders-2", Some("orders"), "2"),
            ("orders.eu-1", Some("orders"), "orders.eu-1"),
            ("orders--2", Some("orders"), "-2"),
            ("orders", Some("orders"), "orders"),
            ("orders-", Some("orders"), "orders-"),
            ("elsewhere", Some("orders"), "elsewhere"),
            ("orders-2", None, "orders-2"),
        ] {
            assert_eq!(names(stream, super_stream).partition(), partition, "{stream}");
        }
    }

    #[test]
    fn names_are_written_as_the_place_needs_them() {
        let of = names("orders-a/../b", Some("orders"));
        let (mut path, mut url) =
            (PathBuf::from("x/{stream}/{partition}.db"), "s3://b/{partition}".to_owned());
        let (mut table, mut name) = ("t_{stream}".to_owned(), "{stream}-copy".to_owned());
        of.fill_path(&mut path);
        of.fill_url(&mut url);
        of.fill_table(&mut table);
        of.fill_name(&mut name);
        let parts: Vec<_> = path.to_str().unwrap().split('/').collect();
        assert_eq!(parts.len(), 3, "{path:?}");
        assert!(parts[1].starts_with("orders-a_.._b~") && parts[2].ends_with(".db"), "{path:?}");
        assert!(url.starts_with("s3://b/a_.._b~"), "{url}");
        assert_eq!((table.as_str(), name.as_str()), ("t_orders_a____b", "orders-a/../b-copy"));
    }

    #[test]
    fn a_name_with_a_placeholder_in_it_is_not_filled_again() {
        let mut name = "{partition}".to_owned();
        names("{stream}", Some("x")).fill_name(&mut name);
        assert_eq!(name, "{stream}");
    }

    #[test]
    fn what_is_no_placeholder_is_told() {
        for (text, says) in [
            ("a/{streams}/b", "{streams} is not a placeholder"),
            ("a{", "a single { or }"),
            ("a}b", "a single { or }"),
            ("{}", "{} is not a placeholder"),
        ] {
            assert!(problem(text).unwrap().contains(says), "{text}: {:?}", problem(text));
        }
        for text in ["", "plain", "{stream}", "a/{partition}/{stream}.db"] {
            assert_eq!(problem(text), None, "{text}");
        }
        assert!(problem_without_super_stream("{partition}").is_some());
        assert!(problem_without_super_stream("{stream}").is_none());
    }
}
