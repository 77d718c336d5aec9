//! `rillway schema`: the JSON Schema of the configuration file, for editors.

use super::exit::Failure;
use crate::config::document;

pub(super) fn print() -> anyhow::Result<()> {
    write(&format!("{:#}\n", document()))
}

/// Writes to standard output. A reader that has gone (`rillway check | head -1`) has had what it wanted,
/// and that is no error; a disk that is full is one.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Unavailable(format!("cannot write to standard output: {error}")).into())
        }
        _ => Ok(()),
    }
}
