//! From a tree of values to a type, with the path of what does not fit; and the known word that is most
//! like one that is not known.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::{Problem, join};

/// How unlike two keys may be for one to be proposed in place of the other.
const LIKENESS_MIN: f64 = 0.6;

/// Reads a value into its type; where it does not fit, says at which path.
pub fn typed<T: DeserializeOwned>(value: Value, at: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let path = if inner == "." { at.to_owned() } else { join(at, &inner) };
        Problem::new(path, reworded(&error.inner().to_string()))
    })
}

/// serde's words in those of a person who writes TOML.
fn reworded(message: &str) -> String {
    // A text in the place of something else may be anything, a password too: it is not quoted.
    if let Some((_, expected)) = message
        .strip_prefix("invalid type: string ")
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        return reworded(&format!("found a text, expected {expected}"));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    let mut out = message.replace("invalid type: ", "found ").replace("invalid value: ", "found ");
    for (rust, human) in [
        ("unknown variant", "unknown value"),
        ("found map", "found a table"),
        ("found sequence", "found a list"),
        ("found null", "found nothing"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected a string", "expected a text in quotes"),
        ("expected path string", "expected a path in quotes"),
        ("expected a sequence", "expected a list, [ … ]"),
        ("expected a boolean", "expected true or false"),
    ] {
        out = out.replace(rust, human);
    }
    out
}

/// The known word that is most like this one, if any is like it at all.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(word, k).max(half(word, k)), *k))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Names are often remembered by half: `timeout` for `connect_timeout`.
fn half(word: &str, known: &str) -> f64 {
    let whole = known.split('_').any(|part| part == word) || word.split('_').any(|p| p == known);
    if whole { LIKENESS_MIN } else { 0.0 }
}
