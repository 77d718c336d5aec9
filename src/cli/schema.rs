//! `rillway schema`: the JSON Schema of the configuration file, for editors.

use super::exit::Failure;
use crate::config::document;

pub(super) fn print() -> anyhow::Result<()> {
    write(&format!("{:#}\n", document()))
}

/// Writes to standard output. A closed pipe (`rillway check | head -1`) is no error: the reader has
/// what it needs. A full disk is an error.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    write_bytes(text.as_bytes())
}

/// The same for what may not be text.
pub(super) fn write_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Unavailable(format!("cannot write to standard output: {error}")).into())
        }
        _ => Ok(()),
    }
}
