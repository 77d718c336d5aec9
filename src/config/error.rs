//! What is wrong with a configuration, in words that lead to the line to change.
//!
//! Invariant: no text here holds a secret. Values that stand where a secret may stand are never
//! quoted, and whatever looks like the credentials of a URI is blotted out.

use std::fmt;
use std::path::PathBuf;

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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The full path of the key, as in `consumer[1].batch.max_messages`; empty for the whole.
    pub path: String,
    /// The line in the file, counted from 1, where the key stands there.
    pub line: Option<usize>,
    /// The environment variable that set the key, where it was one.
    pub variable: Option<String>,
    /// The name of the consumer that the key belongs to, where it has one.
    pub consumer: Option<String>,
    /// What was found, and what is allowed.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: impl Into<String>, message: impl AsRef<str>) -> Problem {
        Problem {
            path: path.into(),
            line: None,
            variable: None,
            consumer: None,
            message: without_credentials(message.as_ref()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            if let Some(consumer) = &self.consumer {
                write!(f, " (consumer {consumer:?})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        if let Some(variable) = &self.variable {
            write!(f, " (set by the environment variable {variable})")?;
        }
        Ok(())
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

/// The text without what stands between `://` and `@`. Greedy up to the last `@`: it would rather
/// blot out too much than leave the tail of a password that holds an `@` itself.
fn without_credentials(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_blotted_out() {
        for (text, shown) in [
            ("no uri, me@here", "no uri, me@here"),
            ("found \"amqp://u:p@h/x\", sorry", "found \"amqp://***@h/x\", sorry"),
            ("a://u:p@s@s/w@h and b", "a://***@h and b"),
            ("a://u:p@h, b://u:q@i", "a://***@i"),
            ("http://example", "http://example"),
        ] {
            assert_eq!(Problem::new("", text).message, shown);
        }
    }
}
