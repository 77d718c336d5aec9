//! `rillway schema`: the JSON Schema of the configuration file, for editors.

use super::exit::Failure;
use crate::config::schema::document;

pub(super) fn print() -> anyhow::Result<()> {
    write(&format!("{:#}\n", document()))
}

/// Writes to standard output. A reader that has gone is an error that can be told from success.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::Unavailable(format!("cannot write to standard output: {e}")).into())
}
