//! Small files that hold one secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::unread;

/// Largest secret in bytes; a larger one is a mistake (a key store, or an endless device).
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The text in the file, without a line break at its end.
///
/// # Errors
/// Why it cannot be read, in words that do not show it.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    let failed = |what: &dyn std::fmt::Display| {
        format!("cannot read the secret from {}: {what}", path.display())
    };
    let file = File::open(path).map_err(|e| failed(&unread(path, &e)))?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed(&format!("it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
