//! What is wrong with a configuration, in words that lead to the line to change.
//!
//! Invariant: no text here holds a secret. Values that stand where a secret may stand are never
//! quoted, and whatever looks like the credentials of a URI is blotted out.

use std::path::PathBuf;

use crate::settings::Problem;

/// The exit code for a bad configuration (`EX_CONFIG` of sysexits).
pub const EXIT_BAD_CONFIG: u8 = 78;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}{}", path.display(), what_to_do(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("bad configuration in {}, line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
        /// What is wrong there. Never a quotation: the line may hold a password.
        message: String,
    },
    /// The keys or values are wrong.
    #[error("{}", list(.file, .problems))]
    Invalid {
        /// The file that was read, if there was one.
        file: Option<PathBuf>,
        /// What is wrong. Never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The exit code for all of these.
    pub fn exit_code(&self) -> u8 {
        EXIT_BAD_CONFIG
    }
}

fn what_to_do(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => " (name another one with -c FILE or RILLWAY_CONFIG)",
        std::io::ErrorKind::IsADirectory => " (it is a folder; name the file in it)",
        std::io::ErrorKind::PermissionDenied => " (rillway runs as a user who may not read it)",
        _ => "",
    }
}

fn list(file: &Option<PathBuf>, problems: &[Problem]) -> String {
    let place = match file {
        Some(path) => path.display().to_string(),
        None => "the environment".to_owned(),
    };
    match problems {
        [Problem { line: Some(line), .. }] => {
            format!("bad configuration in {place}, line {line}: {}", problems[0])
        }
        [one] => format!("bad configuration in {place}: {one}"),
        _ => {
            let mut text = format!("bad configuration in {place}, {} problems:", problems.len());
            for problem in problems {
                match problem.line {
                    Some(line) => text.push_str(&format!("\n  line {line}: {problem}")),
                    None => text.push_str(&format!("\n  {problem}")),
                }
            }
            text
        }
    }
}
