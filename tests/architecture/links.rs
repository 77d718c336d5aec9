//! Does the target of every relative link in the documentation exist?

use super::*;

/// The targets of the links in a Markdown text, except those in code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second part is between backticks.
        for prose in line.split('`').step_by(2) {
            for part in prose.split("](").skip(1) {
                found.extend(part.split(')').next().map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn every_relative_link_leads_somewhere() {
    assert_eq!(links("[a](b.md) [`c`](d.md#e) `[x](y)`\n```\n[f](g)\n```"), ["b.md", "d.md#e"]);
    let (mut seen, mut dead) = (0, Vec::new());
    for file in files_below("", "md") {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            if !file.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {link}", file.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(dead.is_empty(), "links to nowhere:\n{}", dead.join("\n"));
    assert!(seen > 20, "only {seen} links were read");
}
