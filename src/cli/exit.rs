//! Exit codes of errors.

use crate::config::{ConfigError, EXIT_BAD_CONFIG};

/// Wrong usage, or invalid input (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// A sink does not hold what its stream does (`EX_DATAERR`).
pub const EXIT_DIFFERS: u8 = 65;
/// Something required is unavailable (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// Told to stop, and stopped before every consumer had finished (`EX_TEMPFAIL`). Nothing is lost: what was not
/// stored is read again at the next start.
pub const EXIT_UNFINISHED: u8 = 75;
/// An error in the program (`EX_SOFTWARE`).
pub const EXIT_INTERNAL: u8 = 70;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments or the input are invalid.
    #[error("{0}")]
    Usage(String),
    /// A sink does not hold what its stream does.
    #[error("{0}")]
    Differs(String),
    /// The configuration could not be loaded.
    #[error("{0}")]
    Config(String),
    /// Something required is unavailable: a broker, a stream, a destination.
    #[error("{0}")]
    Unavailable(String),
    /// Told to stop, and stopped before every consumer had finished.
    #[error("{0}")]
    Unfinished(String),
}

impl Failure {
    /// Something required is unavailable.
    pub fn unavailable(what: impl ToString) -> Failure {
        Failure::Unavailable(what.to_string())
    }
}

/// The exit code for an error: that of the first cause that has one.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let code = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(config) = cause.downcast_ref::<ConfigError>() {
            return Some(config.exit_code());
        }
        cause.downcast_ref::<Failure>().map(|failure| match failure {
            Failure::Usage(_) => EXIT_USAGE,
            Failure::Differs(_) => EXIT_DIFFERS,
            Failure::Config(_) => EXIT_BAD_CONFIG,
            Failure::Unavailable(_) => EXIT_UNAVAILABLE,
            Failure::Unfinished(_) => EXIT_UNFINISHED,
        })
    };
    error.chain().find_map(code).unwrap_or(EXIT_INTERNAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_is_found_under_any_context() {
        let nested = |failure: Failure| {
            Err::<(), _>(failure).context("one").context("two").map_err(|e| exit_code(&e))
        };
        assert_eq!(nested(Failure::Usage(String::new())), Err(64));
        assert_eq!(nested(Failure::Differs(String::new())), Err(65));
        assert_eq!(nested(Failure::Unavailable(String::new())), Err(69));
        assert_eq!(nested(Failure::Unfinished(String::new())), Err(75));
        assert_eq!(nested(Failure::Config(String::new())), Err(78));
        assert_eq!(exit_code(&anyhow::anyhow!("?")), 70);
        let missing = crate::config::Config::load(
            Some("/nowhere/rillway.toml".as_ref()),
            &crate::config::Env::default(),
        );
        assert_eq!(exit_code(&missing.unwrap_err().into()), 78);
    }
}
