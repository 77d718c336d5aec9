//! Do the parts of a module use each other one way only?

use std::collections::BTreeMap;

use super::*;

/// Modules whose parts use each other one way only.
const WITHOUT_CIRCLES: &[&str] = &["admin", "supervisor", "telemetry"];

/// The parts of the module `top` that this code of its part `module` uses.
fn siblings(module: &[String], text: &str) -> BTreeSet<String> {
    let (mut found, mut statement) = (BTreeSet::new(), String::new());
    for line in code_lines(text) {
        statement.push_str(&line);
        if statement.contains("use ") && !line.ends_with(';') && !line.is_empty() {
            continue;
        }
        // A path up to the module itself is as good as one from the root.
        let up = "super::".repeat(module.len() - 1);
        for from in [up, format!("crate::{}::", module[0])] {
            for (at, _) in statement.match_indices(&from) {
                if is_start_of_path(&statement, at) {
                    let used = heads(&statement[at + from.len()..]);
                    found.extend(used.iter().map(|path| path.split("::").next().unwrap().into()));
                }
            }
        }
        statement.clear();
    }
    found.remove(&module[1]);
    found
}

#[test]
fn parts_of_a_module_do_not_use_each_other_in_circles() {
    let sources: Vec<_> = files_below("src", "rs")
        .into_iter()
        .map(|file| (module_of(&file), std::fs::read_to_string(&file).unwrap()))
        .collect();
    let tests = test_modules(&sources);
    for top in WITHOUT_CIRCLES {
        let mut parts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, text) in &sources {
            let for_tests = (1..=module.len()).any(|n| tests.contains(&module[..n]));
            if module[0] == *top && module.len() > 1 && !for_tests {
                parts.entry(module[1].clone()).or_default().extend(siblings(module, text));
            }
        }
        assert!(parts.values().any(|used| !used.is_empty()), "{top}: nothing was read");
        // Takes away, again and again, what uses none of the others.
        while let Some(last) = parts
            .iter()
            .find(|(_, used)| !used.iter().any(|one| parts.contains_key(one)))
            .map(|(part, _)| part.clone())
        {
            parts.remove(&last);
        }
        assert!(parts.is_empty(), "{top}: these use each other: {parts:?}");
    }
}
