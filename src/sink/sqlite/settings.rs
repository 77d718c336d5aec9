//! The keys of `{ type = "sqlite" }`: defaults and validation.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::columns::{ColumnsConfig, OWN};
use crate::settings::upsert::{DeleteWhen, Evolve, Mode, UpsertKeys};

/// SQLite's own limit for the columns of a table, less the fixed ones.
const COLUMNS_MAX: usize = 2000 - 3;

/// A sink that writes rows into a table of a SQLite database.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SqliteSettings {
    /// The database's file.
    pub path: PathBuf,
    /// The table that takes the records; by default the stream's name, with an underscore in place of
    /// every other character than letters, digits and underscores.
    #[serde(default)]
    pub table: Option<String>,
    /// Columns that take typed values, behind `stream`, `offset` and `timestamp`; by default there
    /// are `message_id`, `subject`, `application_properties` and `body`.
    #[serde(default)]
    pub columns: Option<ColumnsConfig>,
    /// Whether a missing file or table is created.
    #[serde(default = "create")]
    pub create: bool,
    /// `append`: a row for each message. `upsert`: a row for each `key`, of its latest message.
    #[serde(default)]
    pub mode: Mode,
    /// Names of the columns that tell the rows apart. With `mode = "upsert"` only, which requires it.
    #[serde(default)]
    pub key: Vec<String>,
    /// Messages that delete the row of their key: `empty_body` (those without a body: the default, if the
    /// key is not in the body), `never`, or those with a value, as in `{ from = "/op", equals = "d" }`.
    /// With `mode = "upsert"` only.
    #[serde(default)]
    pub delete_when: Option<DeleteWhen>,
    /// `add`: `columns` that an existing table lacks are added to it at the start. By default the start is
    /// refused.
    #[serde(default)]
    pub evolve: Option<Evolve>,
}

fn create() -> bool {
    true
}

impl SqliteSettings {
    /// Relative paths start at the folder of the configuration file.
    pub(super) fn locate(&mut self, folder: &Path) {
        self.path = folder.join(&self.path);
    }

    pub(super) fn upsert_keys(&self) -> UpsertKeys<'_> {
        UpsertKeys {
            mode: self.mode,
            key: &self.key,
            delete_when: self.delete_when.as_ref(),
            columns: self.columns.as_ref(),
        }
    }

    pub(super) fn check(&self, bad: &mut impl FnMut(&str, String)) {
        if self.path.as_os_str().is_empty() {
            bad("path", "an empty path: expected a file".to_owned());
        }
        if let Some(table) = &self.table {
            if table.is_empty() || table.contains(char::is_control) {
                bad(
                    "table",
                    format!(
                        "{table:?} is no name for a table: it is empty or holds a control character"
                    ),
                );
            }
            let lower = table.to_ascii_lowercase();
            if lower == "rillway_positions" || lower.starts_with("sqlite_") {
                bad("table", format!("{table:?} is taken: rillway or SQLite keeps its own there"));
            }
        }
        if let Some(columns) = &self.columns {
            columns.check_names(&OWN, false, bad);
            columns.check_count(COLUMNS_MAX, bad);
        }
        self.upsert_keys().check(bad);
    }
}
