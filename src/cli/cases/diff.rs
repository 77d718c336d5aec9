//! What differs between two JSON values, line by line.

use serde::Serialize;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// A difference from what a case expects.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    /// What is wrong.
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Value>,
}

impl Problem {
    /// One that a sentence tells.
    pub(super) fn told(what: impl Into<String>) -> Problem {
        Problem { what: what.into(), expected: None, found: None }
    }

    /// Two values that differ.
    pub(super) fn differs(what: &str, expected: &Value, found: &Value) -> Problem {
        let (expected, found) = (Some(expected.clone()), Some(found.clone()));
        Problem { what: what.to_owned(), expected, found }
    }

    pub(super) fn text(&self, coloured: bool) -> String {
        let (Some(expected), Some(found)) = (&self.expected, &self.found) else {
            return self.what.clone();
        };
        let (expected, found) = (lines(expected), lines(found));
        let mut text = format!("{} (- expected, + found):\n", self.what);
        for change in TextDiff::from_lines(&expected, &found).iter_all_changes() {
            let (sign, colour) = match change.tag() {
                ChangeTag::Delete => ('-', "31"),
                ChangeTag::Insert => ('+', "32"),
                ChangeTag::Equal => (' ', "0"),
            };
            let line = format!("{sign} {}", change.value().trim_end_matches('\n'));
            match coloured {
                true => text.push_str(&format!("\x1b[{colour}m{line}\x1b[0m\n")),
                false => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }
}

/// With its keys in order, so that only values differ.
fn lines(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    format!("{sorted:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_lines_that_differ_are_marked() {
        let problem = Problem::differs(
            "the body differs",
            &json!({"b": 1, "a": [1]}),
            &json!({"a": [1], "b": 2}),
        );
        let text = problem.text(false);
        let marked: Vec<&str> = text.lines().filter(|line| line.starts_with(['-', '+'])).collect();
        assert_eq!(marked, ["-   \"b\": 1", "+   \"b\": 2"], "{text}");
        assert!(problem.text(true).contains("\x1b[31m-   \"b\": 1\x1b[0m"));
    }
}
