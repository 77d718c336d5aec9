//! `rillway reference PAGE`: the reference pages of the documentation, as Markdown, made from what the program itself
//! reads: the types of the configuration, the table of metrics, the definition of the command line.
//!
//! The pages of docs/reference are these; a test compares them. `UPDATE_REFERENCE=1 cargo test --lib reference` writes
//! them again. config/reference.toml is no source of them: it is an example that explains itself, in an order of its own,
//! and a test holds its keys and defaults to the same types.

mod commands;
mod configuration;
mod metrics;
mod values;

use clap::{Args, ValueEnum};

use super::schema;

#[derive(Debug, Args)]
pub(super) struct ReferenceArgs {
    /// The page
    #[arg(value_enum)]
    page: Page,
}

/// A page of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Page {
    /// Every key of the configuration file
    Configuration,
    /// Every metric
    Metrics,
    /// Every command, with its options
    Commands,
}

impl Page {
    fn markdown(self) -> String {
        let (title, body) = match self {
            Page::Configuration => ("Every key of the configuration", configuration::page()),
            Page::Metrics => ("Every metric", metrics::page()),
            Page::Commands => ("Every command", commands::page()),
        };
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        format!("<!-- Made by `rillway reference {name}`: do not edit. -->\n# {title}\n\n{body}")
    }
}

pub(super) fn print(args: &ReferenceArgs) -> anyhow::Result<()> {
    schema::write(&args.page.markdown())
}

/// A table in Markdown, without columns in which nothing stands.
struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn markdown(&self) -> String {
        let kept: Vec<usize> = (0..self.head.len())
            .filter(|n| self.rows.iter().any(|row| !row[*n].is_empty()))
            .collect();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(kept.iter().map(|n| self.head[*n].to_owned()).collect());
        out += &format!("|{}\n", "---|".repeat(kept.len()));
        for row in &self.rows {
            out += &line(kept.iter().map(|n| row[*n].replace('|', "\\|")).collect());
        }
        out
    }
}

/// Text of several lines as one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(all(
    test,
    feature = "http",
    feature = "object-stores",
    feature = "postgres",
    feature = "transform"
))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_pages_of_the_documentation_are_these() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
        for page in Page::value_variants() {
            let name = page.to_possible_value().unwrap().get_name().to_owned();
            let (path, wanted) = (folder.join(format!("{name}.md")), page.markdown());
            if std::env::var_os("UPDATE_REFERENCE").is_some() {
                std::fs::write(&path, &wanted).unwrap();
                continue;
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == wanted,
                "{} is out of date: UPDATE_REFERENCE=1 cargo test --lib reference",
                path.display()
            );
        }
    }

    #[test]
    fn a_table_has_no_empty_column_and_no_broken_cell() {
        let mut table = Table::new(&["a", "b", "c"]);
        table.row([flat("x | y\n  z"), String::new(), "1".to_owned()]);
        assert_eq!(table.markdown(), "| a | c |\n|---|---|\n| x \\| y z | 1 |\n");
    }
}
