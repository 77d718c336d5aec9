//! Keys of `{ type = "stdout" }`: defaults and validation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::format::{RecordFormat, check_delimiter, newline};

/// A sink that writes to standard output.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct StdoutSettings {
    /// `ndjson`: one JSON object per message, with all its parts. `raw`: the bodies, each followed
    /// by the delimiter.
    pub format: RecordFormat,
    /// Delimiter after each body; with `raw` only.
    pub delimiter: String,
}

impl Default for StdoutSettings {
    fn default() -> Self {
        Self { format: RecordFormat::Ndjson, delimiter: newline() }
    }
}

impl StdoutSettings {
    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        check_delimiter(self.format, &self.delimiter, bad);
    }
}
