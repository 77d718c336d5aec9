//! Wrong number of brackets or underscores: `[consumer]` for `[[consumer]]`, `RILLWAY_BROKER_URI`
//! for `RILLWAY__BROKER__URI`.

use serde_json::Value;

use super::env::Env;
use super::schema::{Kind, Tree};
use crate::settings::Problem;
use crate::settings::read::nearest;

/// Variables with one underscore that are not keys of the configuration.
const OTHERS: [&str; 5] =
    ["RILLWAY_BROKER", "RILLWAY_CONFIG", "RILLWAY_FAULT", "RILLWAY_LOG", "RILLWAY_PUBLISH_URI"];

/// Gives tables the right shape, so that their content is checked too, and reports the wrong ones.
pub(super) fn mend_brackets(value: &mut Value, tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(root) = value.as_object_mut() else { return problems };
    for (key, value) in root {
        let kinds = tree.kinds_at(&[key]);
        let (takes_list, takes_table) = (kinds.contains(&Kind::List), kinds.contains(&Kind::Table));
        match value {
            // A number is left by a variable with too high an index.
            Value::Object(table)
                if takes_list
                    && !takes_table
                    && table.keys().all(|key| key.parse::<u64>().is_err()) =>
            {
                problems.push(Problem::new(
                    key,
                    format!("[{key}] is one table, expected a list of them: write [[{key}]]"),
                ));
                *value = Value::Array(vec![value.take()]);
            }
            Value::Array(list) if takes_table && !takes_list => {
                problems.push(Problem::new(
                    key,
                    format!("[[{key}]] is a list, expected one table: write [{key}]"),
                ));
                *value = match list.iter().position(Value::is_object) {
                    Some(first) => list.swap_remove(first),
                    None => Value::Object(serde_json::Map::new()),
                };
            }
            _ => {}
        }
    }
    problems
}

/// A variable that sets no key, and what to say of it.
pub(super) struct LostVariable {
    pub(super) variable: String,
    pub(super) problem: Problem,
}

/// Reports variables that look as if they set a key, but set none. Others with the prefix are
/// ignored: a cluster names its services in variables such as `RILLWAY_SERVICE_HOST`.
pub(super) fn lost_variables(env: &Env, tree: &Tree) -> Vec<LostVariable> {
    let roots = tree.keys_below(&[]);
    // Nobody sets cases from the environment, and a variable about tests is not rare.
    let roots: Vec<&str> = roots.iter().map(String::as_str).filter(|key| *key != "test").collect();
    let mut problems = Vec::new();
    for name in env.names().filter(|name| !OTHERS.contains(name)) {
        let Some(rest) = name.strip_prefix("RILLWAY_").filter(|rest| !rest.starts_with('_')) else {
            continue;
        };
        let lower = rest.to_ascii_lowercase();
        let words: Vec<&str> = lower.split('_').filter(|word| !word.is_empty()).collect();
        let meant = match path_of(&words, &mut Vec::new(), tree) {
            Some(keys) => format!("did you mean {}?", variable(&keys)),
            None if words.first().is_some_and(|word| nearest(word, &roots).is_some()) => {
                "two underscores stand before each key, as in RILLWAY__BROKER__URI".to_owned()
            }
            None => continue,
        };
        let problem = Problem::new("", format!("the variable {name} sets no key; {meant}"));
        problems.push(LostVariable { variable: name.to_owned(), problem });
    }
    problems
}

fn variable(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.to_ascii_uppercase()).collect();
    format!("RILLWAY__{}", keys.join("__"))
}

/// The keys that these words can be joined to; `None` if they cannot: `state`, `dir` is the one key
/// `state_dir`.
fn path_of(words: &[&str], keys: &mut Vec<String>, tree: &Tree) -> Option<Vec<String>> {
    if words.is_empty() {
        return Some(keys.clone());
    }
    for taken in (1..=words.len()).rev() {
        keys.push(words[..taken].join("_"));
        let path: Vec<&str> = keys.iter().map(String::as_str).collect();
        if !tree.kinds_at(&path).is_empty()
            && let Some(found) = path_of(&words[taken..], keys, tree)
        {
            return Some(found);
        }
        keys.pop();
    }
    None
}
