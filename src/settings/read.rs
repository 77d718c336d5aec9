//! Reads a tree of values into a type, with the path of a wrong value; finds the known word nearest
//! to an unknown one.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::problem::{Problem, join};

/// Least similarity (0 to 1) for proposing one key in place of another.
const LIKENESS_MIN: f64 = 0.6;

/// Reads a value into its type. The error names the path of the wrong value.
pub fn typed<T: DeserializeOwned>(value: Value, at: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let inner = error.path().to_string();
        let path = if inner == "." { at.to_owned() } else { join(at, &inner) };
        let mut message = error.inner().to_string();
        if let Some(found) = message.strip_suffix(CHOICE)
            && let Some(choice) = choice::<T>(value.clone(), error.path())
        {
            message = format!("{found}, {choice}");
        }
        Problem::new(path, reworded(&message))
    })
}

/// End of serde's message for what is not even the name of a choice.
const CHOICE: &str = ", expected string or map";

/// The names that are expected at a path, as in "expected `a` or `b`": what is said of a wrong name there.
fn choice<T: DeserializeOwned>(mut value: Value, path: &Path) -> Option<String> {
    let mut place = &mut value;
    for segment in path.iter() {
        place = match segment {
            Segment::Seq { index } => place.get_mut(index)?,
            Segment::Map { key } => place.get_mut(key)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    *place = Value::String(String::new());
    let error = serde_json::from_value::<T>(value).err()?.to_string();
    error.rfind("expected ").and_then(|from| error.get(from..)).map(str::to_owned)
}

/// Rewrites serde's message in the terms of TOML.
fn reworded(message: &str) -> String {
    // An unexpected text may be anything, even a password: it is not quoted.
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
        ("expected string or map", "expected a text in quotes"),
        ("expected path string", "expected a path in quotes"),
        ("expected a sequence", "expected a list, [ … ]"),
        ("expected a boolean", "expected true or false"),
    ] {
        out = out.replace(rust, human);
    }
    out
}

/// The known word nearest to this one; `None` if none is similar.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(word, k).max(half(word, k)), *k))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Similarity (0 to 1) for half-remembered names: `timeout` for `connect_timeout`.
fn half(word: &str, known: &str) -> f64 {
    let whole = known.split('_').any(|part| part == word) || word.split('_').any(|p| p == known);
    if whole { LIKENESS_MIN } else { 0.0 }
}
