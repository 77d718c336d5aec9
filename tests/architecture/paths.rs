//! The paths in a line of code.

use std::collections::BTreeSet;

/// The crate's modules that a line of code of `module` uses, as paths: `flow::lag`.
pub(super) fn uses(line: &str, module: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in line.match_indices("crate::") {
        if is_start_of_path(line, at) {
            found.extend(heads(&line[at + "crate::".len()..]));
        }
    }
    for (at, _) in line.match_indices("super::") {
        if !is_start_of_path(line, at) {
            continue;
        }
        let mut rest = &line[at..];
        let mut base = module.to_vec();
        while let Some(next) = rest.strip_prefix("super::") {
            rest = next;
            base.pop();
        }
        if base.is_empty() {
            found.extend(heads(rest));
        }
    }
    found
}

pub(super) fn is_start_of_path(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

/// The path itself, or those in `{a::b, c::{d, e}}`.
pub(super) fn listed(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![path.to_owned()] };
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

/// The first two names of each path in `a::b::C`, or in `{a::b, c::{d, e}}`.
fn heads(path: &str) -> Vec<String> {
    match path.starts_with('{') {
        true => listed(path).iter().flat_map(|part| heads(part)).collect(),
        false => head(path).into_iter().collect(),
    }
}

fn head(path: &str) -> Option<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let first = name(path);
    if first.is_empty() {
        return None;
    }
    let second = path[first.len()..].strip_prefix("::").map(name).unwrap_or_default();
    Some(if second.is_empty() { first } else { format!("{first}::{second}") })
}
