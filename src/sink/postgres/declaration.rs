//! Declaration of the `postgres` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::audit::PostgresAuditor;
use super::renaming::rename;
use super::{Claim, PostgresOptions, PostgresSettings, PostgresSink, examine};
use crate::settings::TlsConfig;
use crate::settings::columns::ColumnsConfig;
use crate::settings::upsert::missing;
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    bad_records_of_both_sides,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks, opens, renames};
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for PostgresSettings {
    fn about() -> &'static About {
        &About {
            kind: "postgres",
            guarantee: Guarantee::ExactlyOnce,
            least: "url = \"postgres://rillway@localhost/events\"\ntable = \"events\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.locate(check.folder());
    }

    fn validate_together(_: &[Use<'_, Self>], _: Option<&BrokerConfig>, _: &mut Vec<Problem>) {}

    fn place(&self) -> Option<PathBuf> {
        Some(format!("table {:?}", self.table).into())
    }

    fn rows(&self) -> Option<String> {
        self.upsert_keys().in_words()
    }

    fn exclusive(&self) -> Option<Exclusive> {
        Some(Exclusive { key: "table", place: self.table_and_database() })
    }

    /// Pieces of rows on their way to the server, with room for a row that is larger than a piece.
    fn overhead_bytes(&self) -> u64 {
        16 << 20
    }

    fn growth_max(&self) -> u64 {
        JSON_GROWTH_MAX
    }

    fn bad_records_max(&self, batch_messages: u64) -> u64 {
        bad_records_of_both_sides(batch_messages)
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
        vec![("table", self.table.as_str().into())]
    }

    fn fill(&mut self, names: &Names) {
        names.fill_table(&mut self.table);
    }

    fn readable(&self) -> Option<Readable> {
        None
    }

    fn read_again(&self) -> &'static str {
        self.upsert_keys().read_again()
    }

    fn audit(&self, opening: &Opening) -> Auditing {
        Auditing::By(Box::new(PostgresAuditor {
            options: self.options(),
            stream: opening.stream.clone(),
            reference: opening.reference.clone(),
        }))
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let (stream, reference) = (opening.stream.clone(), opening.reference.clone());
        let options = self.options();
        let look = {
            let (options, stream, reference) = (options.clone(), stream.clone(), reference.clone());
            looks(move || {
                let (options, stream, reference) =
                    (options.clone(), stream.clone(), reference.clone());
                async move { examine(&options, &stream, &reference).await }
            })
        };
        // One for as long as the process lives: what it lost to another, it does not take back. Where the
        // broker says whose turn it is, one for each turn.
        let (claim, by_broker) = (Claim::new(), opening.by_broker);
        let open = opens(move || {
            let claim = if by_broker { Claim::new() } else { claim.clone() };
            PostgresSink::open(options.clone(), stream.clone(), reference.clone(), claim)
        });
        (open, look)
    }

    fn renaming(&self, opening: &Opening) -> Option<Renaming> {
        let (options, opening) = (self.options(), opening.clone());
        Some(renames(move |former| {
            let (options, opening) = (options.clone(), opening.clone());
            async move { rename(&options, &opening.stream, &opening.reference, &former).await }
        }))
    }
}

impl PostgresSettings {
    fn options(&self) -> PostgresOptions {
        PostgresOptions {
            url: self.url.clone(),
            tls: self.tls.as_ref().map(TlsConfig::options),
            schema: self.schema.clone(),
            table: self.table.clone(),
            columns: self.columns.as_ref().map(|columns| columns.0.clone()),
            create: self.create,
            upsert: self.upsert_keys().upsert(),
            missing: missing(self.evolve),
            connect_timeout: self.connect_timeout.0,
            write_timeout: self.write_timeout.0,
            lock_timeout: self.lock_timeout.0,
        }
    }
}
