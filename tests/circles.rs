//! Does no file of a module import, by way of others, itself?
//!
//! Read out of `use super::…` in the files of one folder, as far as they name files beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folders whose files form no circle.
const FOLDERS: [&str; 1] = ["src/broker"];

/// The names that a `use super::…;` statement begins with.
fn imported(statement: &str) -> Vec<String> {
    let Some(path) = statement.strip_prefix("use super::") else { return Vec::new() };
    let first = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    match path.strip_prefix('{') {
        Some(list) => list.split([',', '}']).map(first).collect(),
        None => vec![first(path)],
    }
}

fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut found = BTreeSet::new();
    let mut statement = String::new();
    for line in code.lines() {
        if !statement.is_empty() || line.starts_with("use super::") {
            statement.push_str(line.trim());
        }
        if statement.ends_with(';') {
            found.extend(imported(&std::mem::take(&mut statement)));
        }
    }
    found
}

/// The files that are left when all are taken away whose imports are taken away.
fn circle(files: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut left = files.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, used| used.iter().any(|one| names.contains(one)));
        if left.len() == names.len() {
            return names;
        }
    }
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_circles() {
    for folder in FOLDERS {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap()
        {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                files.insert(name, imports(&std::fs::read_to_string(&path).unwrap()));
            }
        }
        let arrows: usize = files.values().map(BTreeSet::len).sum();
        assert!(arrows > 3, "{folder}: only {arrows} arrows were found");
        let circle = circle(&files);
        assert!(circle.is_empty(), "{folder}: these import each other: {circle:?}");
    }
}

#[test]
fn a_circle_is_found() {
    let file = |uses: &str| imports(uses);
    let files = BTreeMap::from([
        ("a".to_owned(), file("use super::b::B;")),
        ("b".to_owned(), file("use super::{\n    c::C,\n    d,\n};")),
        ("c".to_owned(), file("use super::a::A;\n#[cfg(test)]\nmod tests {\nuse super::d;\n}")),
        ("d".to_owned(), BTreeSet::new()),
    ]);
    let found = circle(&files).into_iter().collect::<Vec<_>>();
    assert_eq!(found, ["a", "b", "c"]);
}
