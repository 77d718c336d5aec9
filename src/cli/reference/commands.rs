//! The page of the command line.

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::super::Cli;
use super::{Table, flat};

const INTRODUCTION: &str = "\
This page is made from the program itself; `rillway COMMAND --help` says the same. The Debian package has a manual page for
each command, and completions for bash, zsh and fish (`rillway man`, `rillway completions`).

";

pub(super) fn page() -> String {
    let mut cli = Cli::command();
    // Fills in what commands take from their parents.
    cli.build();
    let mut out = INTRODUCTION.to_owned();
    out += "Every command has these options:\n\n";
    out += &options(cli.get_arguments().filter(|arg| arg.is_global_set()));
    if let Some(text) = cli.get_after_help() {
        out += &format!("\n{}\n", flat(&text.to_string()));
    }
    for command in cli.get_subcommands() {
        section(command, &mut out);
    }
    out
}

fn section(command: &Command, out: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    // The name with those of its parents, as `build` has set it.
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let depth = name.split(' ').count();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    *out += &format!("\n{} `{name}`\n", "#".repeat(depth));
    if let Some(about) = about {
        *out += &paragraphs(&about);
    }
    if command.has_subcommands() {
        for below in command.get_subcommands() {
            section(below, out);
        }
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage =
        usage.trim_start_matches("Usage: ").split_whitespace().collect::<Vec<_>>().join(" ");
    *out += &format!("\n```text\n{usage}\n```\n");
    let own = |arg: &&Arg| {
        !arg.is_global_set()
            && !arg.is_hide_set()
            && !matches!(arg.get_id().as_str(), "help" | "version")
    };
    if command.get_arguments().any(|arg| own(&arg)) {
        *out += &format!("\n{}", options(command.get_arguments().filter(own)));
    }
    if let Some(text) = command.get_after_long_help().or(command.get_after_help()) {
        *out += &format!("\n{}", paragraphs(&text.to_string()));
    }
}

/// Text with a full stop at its end. Lines that are indented are examples, and stay as they are.
fn paragraphs(text: &str) -> String {
    let (mut out, mut is_example) = (String::new(), false);
    for line in text.trim_end().lines() {
        if line.starts_with("  ") != is_example {
            out += if is_example { "```\n" } else { "\n```sh\n" };
            is_example = !is_example;
        }
        out += line.trim_start();
        out.push('\n');
    }
    if is_example {
        out += "```\n";
    } else if !out.ends_with(".\n") {
        out.truncate(out.trim_end().len());
        out += ".\n";
    }
    out
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let mut rows = Table::new(&["option", "default", "environment", "what it does"]);
    for arg in args {
        let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let values = arg.get_value_names().unwrap_or_default();
        let value = values.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let name = match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, Some(long)) => format!("--{long}"),
            (None, None) => value.clone(),
        };
        let name = if takes && !arg.is_positional() { format!("{name} {value}") } else { name };
        let defaults =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.display()));
        let defaults = if takes { defaults.collect::<Vec<_>>().join(" ") } else { String::new() };
        let env = arg.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
        let help =
            arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        rows.row([format!("`{}`", flat(&name)), defaults, env, told(arg, flat(&help), takes)]);
    }
    rows.markdown()
}

/// What an option does, with the values that are possible, each with its own text.
fn told(arg: &Arg, help: String, takes: bool) -> String {
    let possible = if takes { arg.get_possible_values() } else { Vec::new() };
    let shown = possible.iter().filter(|value| !value.is_hide_set()).map(|value| {
        let about = value.get_help().map(|about| format!(" ({})", flat(&about.to_string())));
        format!("`{}`{}", value.get_name(), about.unwrap_or_default())
    });
    let shown: Vec<_> = shown.collect();
    if shown.is_empty() { help } else { format!("{help}: {}", shown.join(", ")) }
}
