//! Do the arrows between modules still point one way, and does every file stay small?
//!
//! The arrows are read from the sources: every `crate::…` path, also if it is written with `super::`.
//! Comments, strings and items under `#[cfg(test)]` do not count. ARCHITECTURE.md describes the same
//! arrows.

mod circles;
mod links;
mod paths;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::paths::{is_start_of_path, listed, uses};

/// A file is split before it reaches this.
const LINES_MAX: usize = 500;

/// What each module may use of the crate, and which other crates it must not use. A path with a `::`
/// allows only that part. Everything that is not in this table is forbidden.
struct Rule {
    module: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

/// Crates and modules that wait or do I/O: forbidden in pure modules.
const IMPURE: &[&str] = &["tokio", "std::net", "std::fs", "std::thread", "tracing", "metrics"];

const RULES: &[Rule] = &[
    Rule { module: "types", may_use: &[], never: IMPURE },
    Rule { module: "sync", may_use: &[], never: IMPURE },
    Rule { module: "seeds", may_use: &[], never: IMPURE },
    Rule { module: "faults", may_use: &[], never: &["tokio"] },
    Rule { module: "files", may_use: &["flow::trouble", "sync"], never: &["tokio", "tracing"] },
    Rule { module: "wire", may_use: &["types"], never: IMPURE },
    Rule { module: "flow", may_use: &["types", "wire::block"], never: IMPURE },
    Rule { module: "telemetry", may_use: &["sync", "types"], never: &[] },
    Rule {
        module: "tls",
        may_use: &["files", "sync", "telemetry::identity"],
        never: &["tokio", "metrics"],
    },
    Rule {
        module: "oauth",
        may_use: &[
            "flow::backoff",
            "flow::trouble",
            "sync",
            "telemetry::identity",
            "tls",
            "types",
            "web",
        ],
        never: &["metrics"],
    },
    Rule { module: "web", may_use: &["tls"], never: &["metrics", "tracing", "std::fs"] },
    Rule {
        module: "otlp",
        may_use: &["flow::backoff", "flow::trouble", "sync", "telemetry", "tls", "types", "web"],
        never: &["metrics", "std::fs"],
    },
    Rule {
        module: "transform",
        may_use: &["types::time"],
        never: &["tokio", "std::fs", "std::env", "tracing"],
    },
    Rule { module: "settings", may_use: &["oauth", "tls", "types"], never: &["tokio"] },
    Rule {
        module: "admin",
        may_use: &["files", "flow::trouble", "sync", "telemetry", "tls", "types"],
        never: &[],
    },
    Rule {
        module: "broker",
        may_use: &[
            "flow::backoff",
            "flow::batch",
            "flow::continuity",
            "flow::credit",
            "flow::lag",
            "flow::resume",
            "oauth",
            "sync",
            "tls",
            "types",
            "wire",
        ],
        never: &["metrics"],
    },
    Rule {
        module: "sink",
        may_use: &[
            "faults",
            "files",
            "flow::batch",
            "settings",
            "sync",
            "tls",
            "types",
            "wire::amqp",
            "wire::block",
        ],
        never: &["metrics"],
    },
    Rule {
        module: "config",
        may_use: &[
            "files",
            "otlp",
            "settings",
            "sink::declaration",
            "sink::placeholders",
            "sink::registry",
            "transform",
            "types",
        ],
        never: &["tokio"],
    },
    Rule {
        module: "republish",
        may_use: &["broker", "sink::stream", "types", "wire::commands"],
        never: &["metrics"],
    },
    Rule {
        module: "source",
        may_use: &["broker", "flow::lag", "flow::resume", "oauth", "sync", "tls", "types", "wire"],
        never: &["metrics"],
    },
    Rule {
        module: "consumer",
        may_use: &[
            "config::consumer",
            "faults",
            "files",
            "flow",
            "settings",
            "sink",
            "source",
            "sync",
            "telemetry",
            "transform",
            "types",
            "wire",
        ],
        never: &["rabbitmq_stream_client"],
    },
    Rule {
        module: "audit",
        may_use: &["consumer", "flow", "sink", "source", "types", "wire"],
        never: &["metrics", "std::fs"],
    },
    Rule {
        module: "supervisor",
        may_use: &[
            "admin",
            "audit",
            "broker",
            "config",
            "consumer",
            "faults",
            "flow",
            "republish",
            "sink",
            "source",
            "sync",
            "telemetry",
            "tls",
            "types",
        ],
        never: &["rabbitmq_stream_client"],
    },
    Rule {
        module: "cli",
        may_use: &[
            "admin",
            "audit",
            "broker",
            "config",
            "consumer",
            "faults",
            "files",
            "flow",
            "oauth",
            "otlp",
            "sink",
            "source",
            "supervisor",
            "sync",
            "telemetry",
            "tls",
            "transform",
            "types",
            "wire",
        ],
        never: &[],
    },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, except those that are built, fetched or made at run time.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    const NOT_OURS: [&str; 6] = ["target", "demo-data", ".git", "node_modules", ".venv", "corpus"];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !NOT_OURS.contains(&name) {
            files(&path, into);
        } else if path.is_file() {
            into.push(path);
        }
    }
}

fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(&root().join(folder), &mut all);
    all.retain(|path| path.extension().is_some_and(|e| e == extension));
    all.sort();
    all
}

/// The path of a file's module below the crate: `src/flow/lag.rs` is `["flow", "lag"]`.
fn module_of(file: &Path) -> Vec<String> {
    let below = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut parts: Vec<_> = below.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The modules that are only compiled for tests: declared as `mod name;` under `#[cfg(test)]`.
fn test_modules(sources: &[(Vec<String>, String)]) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (module, text) in sources {
        let mut test_only = false;
        for line in text.lines().map(str::trim) {
            let name = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
            if let (true, Some(name)) = (test_only, name) {
                let mut path = module.clone();
                path.push(name.to_owned());
                found.insert(path);
            }
            test_only = line == "#[cfg(test)]";
        }
    }
    found
}

/// The text without comments, string literals and items under `#[cfg(test)]`; line by line, so that line
/// numbers stay. Works for code that rustfmt has formatted.
fn code_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut skipping: Option<usize> = None;
    let mut pending = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let code = without_comment_and_strings(line);
        let code = code.trim().to_owned();
        if let Some(until) = skipping {
            if indent == until && code.starts_with('}') {
                skipping = None;
            }
            lines.push(String::new());
        } else if code.starts_with("#[cfg(test)]") {
            pending = true;
            lines.push(String::new());
        } else if pending && !code.is_empty() {
            if !code.starts_with("#[") {
                pending = false;
                if code.ends_with('{') {
                    skipping = Some(indent);
                }
            }
            lines.push(String::new());
        } else {
            lines.push(code);
        }
    }
    lines
}

fn without_comment_and_strings(line: &str) -> String {
    let mut out = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => out.push(c),
        }
    }
    out
}

/// The violations in one file, and the number of its arrows.
fn judge(module: &[String], text: &str) -> (Vec<String>, usize) {
    let top = &module[0];
    let Some(rule) = RULES.iter().find(|rule| rule.module == top) else {
        return (vec![format!("module {top} is not in the table of tests/architecture.rs")], 0);
    };
    let (mut wrong, mut arrows) = (Vec::new(), 0);
    // A statement may span several lines, most often `use crate::{`.
    let mut statement = String::new();
    for (index, line) in code_lines(text).into_iter().enumerate() {
        let number = index + 1;
        for other in rule.never {
            let hit = line
                .match_indices(&format!("{other}::"))
                .any(|(at, _)| is_start_of_path(&line, at));
            if hit {
                wrong.push(format!("line {number}: {top} must not use {other}"));
            }
        }
        statement.push_str(&line);
        if statement.contains("use ") && !line.ends_with(';') && !line.is_empty() {
            continue;
        }
        for used in uses(&statement, module) {
            let target = used.split("::").next().unwrap();
            if target == top {
                continue;
            }
            arrows += 1;
            let allowed = rule.may_use.iter().any(|may| *may == used || *may == target);
            if !allowed {
                wrong.push(format!("line {number}: {top} must not use crate::{used}"));
            }
        }
        statement.clear();
    }
    (wrong, arrows)
}

#[test]
fn arrows_between_modules_point_one_way() {
    let sources: Vec<_> = files_below("src", "rs")
        .into_iter()
        .map(|file| (module_of(&file), std::fs::read_to_string(&file).unwrap()))
        .collect();
    let tests = test_modules(&sources);
    let (mut wrong, mut arrows, mut seen) = (Vec::new(), 0, BTreeSet::new());
    for (module, text) in &sources {
        let for_tests = (1..=module.len()).any(|n| tests.contains(&module[..n]));
        if for_tests || ["lib", "main"].contains(&module[0].as_str()) {
            continue;
        }
        let (problems, found) = judge(module, text);
        let name = module.join("/");
        wrong.extend(problems.into_iter().map(|problem| format!("src/{name}, {problem}")));
        arrows += found;
        seen.insert(module[0].clone());
    }
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
    let expected: BTreeSet<_> = RULES.iter().map(|rule| rule.module.to_owned()).collect();
    assert_eq!(seen, expected, "the table's modules are not those in src/");
    assert!(tests.len() > 10, "only {} modules for tests were found", tests.len());
    assert!(arrows > 100, "only {arrows} arrows were found: the sources were not read");
}

#[test]
fn what_only_decides_neither_waits_nor_does_io() {
    const SQL: &[&str] = &["rusqlite", "tokio_postgres"];
    const OTHERS: &[&str] =
        &["async ", "crate::broker", "dyn Sink", "ConsumerMetrics", "Heartbeats", "Status"];
    const CLOCKS: &[&str] = &["Instant::now", "Timestamp::now"];
    for (folder, never) in [("src/consumer/brain", OTHERS), ("src/sink/exactly_once", SQL)] {
        let files = files_below(folder, "rs");
        assert!(!files.is_empty());
        let is_test = |file: &Path| file.to_str().unwrap().contains("simulation");
        for file in files.iter().filter(|file| !is_test(file)) {
            let code = code_lines(&std::fs::read_to_string(file).unwrap()).join("\n");
            for word in never.iter().chain(IMPURE).chain(CLOCKS) {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn one_file_of_a_consumer_knows_its_keys() {
    let knows = |file: &PathBuf| {
        let code = code_lines(&std::fs::read_to_string(file).unwrap()).join("\n");
        code.contains("config::") || code.contains("settings::")
    };
    let found: Vec<_> = files_below("src/consumer", "rs").into_iter().filter(knows).collect();
    assert_eq!(found, [root().join("src/consumer/spec.rs")]);
}

#[test]
fn the_table_itself_has_no_circle() {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let next = RULES.iter().find(|rule| {
            !done.contains(rule.module)
                && rule.may_use.iter().all(|used| done.contains(used.split("::").next().unwrap()))
        });
        match next {
            Some(rule) => drop(done.insert(rule.module)),
            None => break,
        }
    }
    let left: Vec<_> = RULES.iter().map(|r| r.module).filter(|m| !done.contains(m)).collect();
    assert!(left.is_empty(), "these use each other, or what is not in the table: {left:?}");
}

#[test]
fn a_planted_arrow_is_found() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    for (path, code) in [
        ("sink/file/log", "use crate::broker::Connection;"),
        ("sink/null", "use crate::{broker::Connection, types::Offset};"),
        ("sink/null", "use crate::{\n    types::Offset,\n    consumer,\n};"),
        ("sink/null", "use crate::flow::ledger::Ledger;"),
        ("sink/file/log", "use super::super::super::supervisor::Plan;"),
        ("flow/lag", "use crate::broker::Bounds;"),
        ("flow/lag", "fn f() -> crate::wire::chunk::Chunk { g() }"),
        ("flow/lag", "use tokio::sync::mpsc;"),
        ("wire/chunk", "    let now = tokio::time::Instant::now();"),
        ("wire/chunk", "use std::net::TcpStream;"),
        ("types", "use crate::wire::block::Block;"),
        ("admin/routes", "use crate::supervisor::Supervisor;"),
        ("broker/tail", "use crate::consumer::Status;"),
        ("nowhere", "fn f() {}"),
    ] {
        let (wrong, _) = judge(&module(path), code);
        assert_eq!(wrong.len(), 1, "{path}: {code:?}: {wrong:?}");
    }
    for (path, code) in [
        ("sink/null", "// use crate::broker::Connection;"),
        ("sink/null", "//! See [`crate::broker`]."),
        ("sink/null", "let text = \"crate::broker\";"),
        ("sink/null", "#[cfg(test)]\nmod tests {\n    use crate::broker::Connection;\n}"),
        ("sink/file/log", "use super::super::format::Format;"),
        ("flow/lag", "let mytokio::x = 1;"),
    ] {
        let (wrong, _) = judge(&module(path), code);
        assert!(wrong.is_empty(), "{path}: {code:?}: {wrong:?}");
    }
    // Code after an excluded part counts again.
    let code = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse crate::broker::Connection;";
    assert_eq!(judge(&module("sink/null"), code).0, ["line 5: sink must not use crate::broker"]);
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    let mut seen = 0;
    for folder in ["src", "tests", "benches"] {
        for file in files_below(folder, "rs") {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines: split it", file.display());
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} files were read");
}
