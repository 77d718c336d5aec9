//! One thing that is wrong with a configuration.
//!
//! Invariant: no text here holds a secret. Values that stand where a secret may stand are never
//! quoted, and whatever looks like the credentials of a URI is blotted out.

use std::fmt;

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
    /// What is wrong with the key at this path. Credentials of a URI in the message are blotted out.
    pub fn new(path: impl Into<String>, message: impl AsRef<str>) -> Problem {
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

/// `consumer[1]` and `batch` → `consumer[1].batch`.
pub fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
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
