//! Errors of a configuration, with the line to change.
//!
//! Invariant: no text here contains a secret. A value in the place of a secret is never quoted, and
//! anything that looks like the credentials of a URI is replaced by `***`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::files;
use crate::settings::Problem;

/// The exit code for a bad configuration (`EX_CONFIG` of sysexits).
pub const EXIT_BAD_CONFIG: u8 = 78;

/// Reason why the configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}{}", path.display(), what_to_do(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("bad configuration in {}, line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
        /// Description of the error. Never a quotation: the line may contain a password.
        message: String,
    },
    /// The keys or values are wrong.
    #[error("{}", list(.file, .problems))]
    Invalid {
        /// The file that was read; `None` if there was none.
        file: Option<PathBuf>,
        /// The problems; never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Exit code of all these errors.
    pub fn exit_code(&self) -> u8 {
        EXIT_BAD_CONFIG
    }
}

fn what_to_do(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => " (name another one with -c FILE or RILLWAY_CONFIG)".to_owned(),
        ErrorKind::IsADirectory => " (it is a folder; give the path of a file)".to_owned(),
        ErrorKind::PermissionDenied => format!(" ({})", files::unread(path, error)),
        _ => String::new(),
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
