//! Declaration of the `sqlite` sink.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use super::audit::SqliteAuditor;
use super::{SqliteOptions, SqliteSettings, SqliteSink, examine, renaming};
use crate::settings::columns::ColumnsConfig;
use crate::settings::paths::plain;
use crate::settings::upsert::missing;
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks_blocking, opens, renames_blocking};
use crate::sink::placeholders::Names;
use crate::types::{Guarantee, StreamName, table_name};

impl Declaration for SqliteSettings {
    fn about() -> &'static About {
        &About {
            kind: "sqlite",
            guarantee: Guarantee::ExactlyOnce,
            least: "path = \"data.db\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.locate(check.folder());
    }

    /// Two streams may get the same table by default, unless both consumers name it.
    fn validate_together(
        uses: &[Use<'_, Self>],
        _: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let mut tables = HashMap::new();
        for one in uses.iter().filter(|one| one.sink.table.is_none()) {
            let table = table_name::of(one.stream);
            let place = (plain(&one.sink.path), table.to_ascii_lowercase());
            if let Some((other, stream)) = tables.insert(place, (one.at, one.stream))
                && stream != one.stream
            {
                problems.push(Problem::new(
                    one.path("table"),
                    format!(
                        "by default the rows of stream {:?} would go into {table:?}, where {other} writes \
                         those of stream {stream:?}: set `table = \"...\"` to another one (or the same on \
                         both, if they are meant to share it)",
                        one.stream,
                    ),
                ));
            }
        }
    }

    fn place(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn rows(&self) -> Option<String> {
        self.upsert_keys().in_words()
    }

    fn exclusive(&self) -> Option<Exclusive> {
        let path = plain(&self.path);
        let table = self.table.as_deref().unwrap_or("of the stream").to_ascii_lowercase();
        let place = format!("table {table:?} of {}", path.display());
        Some(Exclusive { key: "table", place })
    }

    /// The cache, and as much again for a row that is being built and the log's index.
    fn overhead_bytes(&self) -> u64 {
        16 << 20
    }

    fn growth_max(&self) -> u64 {
        JSON_GROWTH_MAX
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        bad_records_up_to_the_limit(batch_messages)
    }

    fn start(&self) -> Start {
        Start::First
    }

    fn replay_place(&self) -> ReplayPlace {
        ReplayPlace::Among
    }

    fn turn_to_replay(&mut self, _: &str) {}

    fn columns(&self) -> Option<&ColumnsConfig> {
        self.columns.as_ref()
    }

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let table = self.table.iter().map(|table| ("table", table.into()));
        [("path", self.path.to_string_lossy())].into_iter().chain(table).collect()
    }

    fn fill(&mut self, names: &Names) {
        names.fill_path(&mut self.path);
        match (&mut self.table, &names.super_stream) {
            (Some(table), _) => names.fill_table(table),
            // All partitions share the file.
            (None, Some(super_stream)) => self.table = Some(table_name::of(super_stream)),
            (None, None) => {}
        }
    }

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        self.upsert_keys().read_again()
    }

    fn audit(&self, opening: &Opening) -> Auditing {
        Auditing::By(Box::new(SqliteAuditor {
            options: self.options(&opening.stream),
            stream: opening.stream.clone(),
            reference: opening.reference.clone(),
        }))
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let (stream, reference) = (opening.stream.clone(), opening.reference.clone());
        let options = self.options(&stream);
        let look = {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            looks_blocking(move || examine(&options, &stream, &reference))
        };
        let open =
            opens(move || SqliteSink::open(options.clone(), stream.clone(), reference.clone()));
        (open, look)
    }

    fn renaming(&self, opening: &Opening) -> Option<Renaming> {
        let (path, stream) = (self.path.clone(), opening.stream.clone());
        let reference = opening.reference.clone();
        Some(renames_blocking(move |former| renaming::rename(&path, &stream, &reference, former)))
    }
}

impl SqliteSettings {
    fn options(&self, stream: &StreamName) -> SqliteOptions {
        SqliteOptions {
            path: self.path.clone(),
            table: self.table.clone().unwrap_or_else(|| table_name::of(stream)),
            columns: self.columns.as_ref().map(|columns| columns.0.clone()),
            create: self.create,
            upsert: self.upsert_keys().upsert(),
            missing: missing(self.evolve),
        }
    }
}
