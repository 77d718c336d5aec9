//! One error in a configuration.
//!
//! Invariant: no text here contains a secret. A value in the place of a secret is never quoted, and
//! anything that looks like the credentials of a URI is replaced by `***`.

use std::fmt;

/// One error in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full path of the key, as in `consumer[1].batch.max_messages`; empty for the whole file.
    pub path: String,
    /// Line of the key in the file, counted from 1; `None` if it is not in the file.
    pub line: Option<usize>,
    /// Environment variable that set the key; `None` if none did.
    pub variable: Option<String>,
    /// Name of the consumer that the key belongs to; `None` if it has none.
    pub consumer: Option<String>,
    /// True if there is no such key.
    pub is_unknown_key: bool,
    /// The value found, and the values allowed.
    pub message: String,
}

impl Problem {
    /// A problem with the key at this path. Credentials of a URI in the message are replaced.
    pub fn new(path: impl Into<String>, message: impl AsRef<str>) -> Problem {
        Problem {
            path: path.into(),
            line: None,
            variable: None,
            consumer: None,
            is_unknown_key: false,
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

/// `consumer[1]` and `batch` → `consumer[1].batch`.
pub fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// The text without the part between `://` and `@`. Greedy up to the last `@`: a password may
/// itself contain an `@`, so removing too much is safer.
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
