//! Do the files of a module use each other one way only?
//!
//! The module's own `mod.rs` counts as one of them: a file that it uses must not use its definitions. A
//! name that it only re-exports (`pub use self::file::Name`) counts as a use of that file. In the modules that are
//! not in the first list, only `mod.rs` and a file of it may use each other.

use std::collections::BTreeMap;

use super::*;

/// Modules whose files use each other one way only, `mod.rs` included.
const WITHOUT_CIRCLES: &[&str] = &[
    "admin",
    "broker",
    "cli/cases",
    "cli/check",
    "cli/print",
    "cli/run",
    "cli/tail",
    "cli/verify",
    "config",
    "files",
    "flow",
    "oauth",
    "republish",
    "settings",
    "sink/columns",
    "sink/envelope",
    "sink/exactly_once",
    "sink/file",
    "sink/http",
    "sink/metrics",
    "sink/null",
    "sink/object",
    "sink/postgres",
    "sink/sqlite",
    "sink/stdout",
    "sink/stream",
    "supervisor",
    "telemetry",
    "types",
];

/// Modules with a circle among their files, and why it stays.
const WITH_A_CIRCLE: &[(&str, &str)] = &[
    ("consumer/brain", "one state machine, whose parts each have a file"),
    ("sink", "a declaration is given what two sinks ask for: `Recorder` and `Publisher`"),
];

/// The name of `mod.rs` among the files of a module.
const TOP: &str = "mod";

type Sources = Vec<(Vec<String>, String)>;

/// The statements of a file, each on one line.
fn statements(text: &str) -> Vec<String> {
    let (mut found, mut statement) = (Vec::new(), String::new());
    for line in code_lines(text) {
        statement.push_str(&line);
        if statement.contains("use ") && !line.ends_with(';') && !line.is_empty() {
            continue;
        }
        found.push(std::mem::take(&mut statement));
    }
    found
}

/// The first name of each path behind `from` in a statement; `*` for a glob import.
fn names_behind(statement: &str, from: &str) -> Vec<String> {
    let starts = statement.match_indices(from).filter(|(at, _)| is_start_of_path(statement, *at));
    let paths = starts.flat_map(|(at, _)| listed(&statement[at + from.len()..]));
    paths
        .map(|path| path.chars().take_while(|c| c.is_alphanumeric() || "_*".contains(*c)).collect())
        .collect()
}

/// The files of one module, and the other files that each one uses.
fn arrows(top: &[String], sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let below: Vec<_> = sources.iter().filter(|(module, _)| module.starts_with(top)).collect();
    let name = |module: &[String]| module.get(top.len()).cloned().unwrap_or_else(|| TOP.to_owned());
    let files: BTreeSet<String> = below.iter().map(|(module, _)| name(module)).collect();
    let mut passed_on = BTreeMap::new();
    for (_, text) in below.iter().filter(|(module, _)| module == top) {
        for statement in
            statements(text).iter().filter(|statement| statement.contains("use self::"))
        {
            let file = names_behind(statement, "self::").remove(0);
            let (_, names) = statement.split_once(&format!("{file}::")).unwrap_or_default();
            let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
            passed_on.extend(words.map(|word| (word.to_owned(), file.clone())));
        }
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &below {
        let own = name(module);
        let used = found.entry(own.clone()).or_default();
        for statement in statements(text) {
            let mut names = names_behind(&statement, &format!("crate::{}::", top.join("::")));
            match module.len() - top.len() {
                0 => {
                    names.extend(names_behind(&statement, "self::"));
                    let is_used =
                        |file: &&String| !names_behind(&statement, &format!("{file}::")).is_empty();
                    names.extend(files.iter().filter(is_used).cloned());
                }
                depth => names.extend(names_behind(&statement, &"super::".repeat(depth))),
            }
            // A path that leads further up is outside of this module.
            for name in names.iter().filter(|name| !["super", "self"].contains(&name.as_str())) {
                let file = files.get(name).or_else(|| passed_on.get(name));
                used.insert(file.cloned().unwrap_or_else(|| TOP.to_owned()));
            }
        }
        used.remove(&own);
    }
    found
}

/// The remaining files after repeatedly removing those that use none of the others, or that none of the
/// others uses.
fn circle(mut files: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let names: BTreeSet<String> = files.keys().cloned().collect();
        let used: BTreeSet<String> = files.values().flatten().cloned().collect();
        files.retain(|name, uses| used.contains(name) && !uses.is_disjoint(&names));
        if files.len() == names.len() {
            return files;
        }
    }
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_circles() {
    let sources = sources();
    let mut wrong = Vec::new();
    for path in WITHOUT_CIRCLES {
        let found = arrows(&parts(path), &sources);
        assert!(!found.is_empty(), "{path}: nothing was read");
        let circle = circle(found);
        if !circle.is_empty() {
            wrong.push(format!("{path}: these use each other: {circle:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_listed_modules_have_circles_besides_their_mod_rs() {
    let sources = sources();
    let mut modules: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, _) in &sources {
        modules.extend((1..module.len()).map(|depth| module[..depth].to_vec()));
    }
    assert!(modules.len() > 30, "only {} modules were read", modules.len());
    let mut with_a_circle = Vec::new();
    for top in &modules {
        let mut found = arrows(top, &sources);
        found.remove(TOP);
        for used in found.values_mut() {
            used.remove(TOP);
        }
        let circle = circle(found);
        if !circle.is_empty() {
            with_a_circle.push((top.join("/"), circle));
        }
    }
    let names: Vec<&str> = with_a_circle.iter().map(|(name, _)| name.as_str()).collect();
    let expected: Vec<&str> = WITH_A_CIRCLE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "{with_a_circle:?}");
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

/// All sources but those of tests.
fn sources() -> Sources {
    let mut sources: Sources = files_below("src", "rs")
        .into_iter()
        .map(|file| (module_of(&file), std::fs::read_to_string(&file).unwrap()))
        .collect();
    let tests = test_modules(&sources);
    sources.retain(|(module, _)| !(1..=module.len()).any(|n| tests.contains(&module[..n])));
    sources
}

#[test]
fn a_planted_circle_is_found() {
    let source = |path: &str, text: &str| {
        (path.split('/').map(str::to_owned).collect::<Vec<_>>(), text.to_owned())
    };
    let found = |files: &[(&str, &str)]| {
        let sources: Sources = files.iter().map(|(path, text)| source(path, text)).collect();
        circle(arrows(&["sink".to_owned(), "x".to_owned()], &sources))
            .into_keys()
            .collect::<Vec<_>>()
    };
    // Through `mod.rs`, through a third file, and through a re-export of `mod.rs`.
    let options = ("sink/x/a", "use super::Options;");
    assert_eq!(found(&[("sink/x", "use self::a::A;\npub struct Options;"), options]), ["a", "mod"]);
    assert_eq!(
        found(&[("sink/x", "fn f() { a::g() }\npub struct Options;"), options]),
        ["a", "mod"]
    );
    assert_eq!(
        found(&[
            ("sink/x/a", "use super::b::B;"),
            ("sink/x/b", "use super::{\n    c::C,\n    d,\n};"),
            (
                "sink/x/c",
                "use crate::sink::x::a::A;\n#[cfg(test)]\nmod tests {\n    use super::d;\n}"
            ),
            ("sink/x/d", ""),
        ]),
        ["a", "b", "c"]
    );
    let passes_on = ("sink/x", "pub use self::b::{B, C};");
    assert_eq!(
        found(&[passes_on, ("sink/x/a", "use super::C;"), ("sink/x/b", "use super::a;")]),
        ["a", "b"]
    );
    // One way only.
    let nested = ("sink/x/a/deep", "use super::super::b::B;\nuse super::Own;");
    assert!(found(&[passes_on, nested, ("sink/x/b", "use super::super::Sink;")]).is_empty());
}
