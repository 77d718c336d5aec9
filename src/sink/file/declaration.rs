//! Declaration of the `file` sink.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use super::audit::FileAuditor;
use super::renaming::rename;
use super::{Compression, FileOptions, FileSettings, FileSink, committed};
use crate::settings::format::Compression as Choice;
use crate::settings::paths::plain;
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, JSON_GROWTH_MAX, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks_blocking, opens, renames_blocking};
use crate::sink::format::Format;
use crate::sink::placeholders::Names;
use crate::types::Guarantee;

impl Declaration for FileSettings {
    fn about() -> &'static About {
        &About {
            kind: "file",
            guarantee: Guarantee::ExactlyOnce,
            least: "dir = \"data\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.locate(check.folder());
    }

    fn validate_together(_: &[Use<'_, Self>], _: Option<&BrokerConfig>, _: &mut Vec<Problem>) {}

    fn place(&self) -> Option<PathBuf> {
        Some(self.dir.clone())
    }

    fn rows(&self) -> Option<String> {
        None
    }

    fn exclusive(&self) -> Option<Exclusive> {
        Some(Exclusive { key: "dir", place: plain(&self.dir).display().to_string() })
    }

    fn overhead_bytes(&self) -> u64 {
        (4 + self.compression.memory_mib(self.level())) << 20
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
        ReplayPlace::Apart
    }

    fn turn_to_replay(&mut self, suffix: &str) {
        let mut dir = OsString::from(std::mem::take(&mut self.dir));
        dir.push(suffix);
        self.dir = dir.into();
    }

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        vec![("dir", self.dir.to_string_lossy())]
    }

    fn fill(&mut self, names: &Names) {
        names.fill_path(&mut self.dir);
    }

    fn readable(&self) -> Option<Readable> {
        Some(Readable::Files(self.dir.clone()))
    }

    fn read_again(&self) -> &'static str {
        "are written again: segments that begin at the new position or behind it are renamed to NAME.aside and stay; of \
         the segment before them, the messages from the new position on are in the folder twice"
    }

    fn audit(&self, opening: &Opening) -> Auditing {
        Auditing::By(Box::new(FileAuditor {
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
            looks_blocking(move || committed(&options, &stream, &reference))
        };
        let open =
            opens(move || FileSink::open(options.clone(), stream.clone(), reference.clone()));
        (open, look)
    }

    fn renaming(&self, opening: &Opening) -> Option<Renaming> {
        let (options, stream) = (self.options(), opening.stream.clone());
        let reference = opening.reference.clone();
        Some(renames_blocking(move |former| rename(&options, &stream, &reference, former)))
    }
}

impl FileSettings {
    fn options(&self) -> FileOptions {
        let level = self.level();
        FileOptions {
            dir: self.dir.clone(),
            format: Format::of(self.format, &self.delimiter),
            compression: match self.compression {
                Choice::None => Compression::None,
                Choice::Zstd => {
                    Compression::Zstd { level: i32::try_from(level).unwrap_or(i32::MAX) }
                }
                Choice::Gzip => Compression::Gzip { level },
            },
            rotate_bytes: self.rotate_bytes.0.map(|bytes| bytes.0),
            rotate_age: self.rotate_age.0.map(|age| age.0),
        }
    }
}
