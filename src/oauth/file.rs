//! A token out of a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::token::{TOKEN_BYTES_MAX, Token, TokenError};

/// Reads the token; may block. White space around it does not count.
pub(super) fn read(path: &Path) -> Result<Token, TokenError> {
    let failed = |what: &dyn std::fmt::Display| {
        TokenError(format!(
            "cannot use the token in {}: {what}. The file has to hold one access token and nothing else",
            path.display()
        ))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut file = file.take(TOKEN_BYTES_MAX as u64 + 2);
    file.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    let token = Token::new(text.trim()).map_err(|error| failed(&error))?;
    Ok(token.by_the_clock())
}
