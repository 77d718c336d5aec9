//! The sink that a replay writes to.

use std::path::PathBuf;

use serde_json::Value;

use crate::cli::exit::Failure;
use crate::config::{Config, ConsumerConfig, SinkConfig};
use crate::sink::declaration::ReplayPlace;
use crate::sink::placeholders::Names;
use crate::types::StreamName;

/// The sink, before its place is set apart from the consumer's.
pub(super) struct Through {
    sink: SinkConfig,
    /// True if the user has named the place: it is used as it is.
    is_named: bool,
    /// Whose it is, in words.
    pub(super) whose: String,
}

impl Through {
    /// The sink that `--sink` names, or else the consumer's own.
    ///
    /// # Errors
    /// If there is no such sink, or a replay must not write there.
    pub(super) fn find(
        config: &Config,
        consumer: &ConsumerConfig,
        named: Option<&str>,
        super_stream: Option<&StreamName>,
    ) -> Result<Through, Failure> {
        let names = Names { stream: consumer.stream.clone(), super_stream: super_stream.cloned() };
        let Some(named) = named else {
            let whose = format!("the sink of {:?}", consumer.name.as_str());
            return Ok(Through { sink: consumer.sink.clone(), is_named: false, whose });
        };
        if let Some(other) = config.consumers.iter().find(|other| other.name.as_str() == named) {
            let sink = other.sink.for_stream(&names);
            return Ok(Through { sink, is_named: false, whose: format!("the sink of {named:?}") });
        }
        let text = match named.trim_start().starts_with('{') {
            true => named.to_owned(),
            false => format!("{{ type = {named:?} }}"),
        };
        let sink = inline(&text).map_err(|what| {
            Failure::Usage(format!(
                "--sink: {what}. Expected the name of a consumer, a type as \"stdout\", or a table as \
                 '{{ type = \"file\", dir = \"again\" }}'"
            ))
        })?;
        let whose = format!("a sink of type {:?}", sink.kind());
        Ok(Through { sink: sink.for_stream(&names), is_named: true, whose })
    }

    /// Checks that a replay may write there.
    ///
    /// # Errors
    /// If it would write among what is there, and that was not asked for; or nowhere.
    pub(super) fn check(&self, consumer: &str, append: bool) -> Result<(), Failure> {
        let whose = &self.whose;
        match self.sink.replay_place() {
            ReplayPlace::Apart | ReplayPlace::Printed => Ok(()),
            ReplayPlace::Among if append || self.is_named => Ok(()),
            ReplayPlace::Among => Err(Failure::Usage(format!(
                "{whose} writes {}, among the messages of consumer {consumer:?}. Those of the range that are there \
                 already {}. Delete them first if need be and give --append, or name another place with --sink",
                self.place().map_or("to its own place".to_owned(), |place| format!(
                    "to {}",
                    place.display()
                )),
                self.sink.read_again()
            ))),
            ReplayPlace::Nowhere => Err(Failure::Usage(format!(
                "{whose} has type {:?}: what it makes lives in the daemon, so a replay has no effect. Name \
                 another one with --sink",
                self.sink.kind()
            ))),
        }
    }

    /// The sink of the replay with this suffix.
    pub(super) fn of_replay(&self, suffix: &str) -> SinkConfig {
        match self.is_named {
            true => self.sink.clone(),
            false => self.sink.for_replay(suffix),
        }
    }

    /// True if it writes to standard output.
    pub(super) fn prints(&self) -> bool {
        self.sink.replay_place() == ReplayPlace::Printed
    }

    fn place(&self) -> Option<PathBuf> {
        self.sink.place()
    }
}

/// A sink in TOML; its relative paths begin in the current folder.
fn inline(text: &str) -> Result<SinkConfig, String> {
    let table: toml::Table =
        toml::from_str(&format!("sink = {text}\n")).map_err(|error| error.message().to_owned())?;
    let value = match (table.len(), table.get("sink")) {
        (1, Some(sink)) => serde_json::to_value(sink).map_err(|error| error.to_string())?,
        _ => return Err("it is more than one table".to_owned()),
    };
    if !matches!(value, Value::Object(_)) {
        return Err("it is no table".to_owned());
    }
    let folder = std::env::current_dir().map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    let sink = SinkConfig::from_value(value, "sink", &folder, &mut problems);
    sink.ok_or_else(|| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_what_is_wrong_in_it_is_said() {
        let sink = inline("{ type = \"file\", dir = \"again\" }").unwrap();
        assert_eq!(sink.kind(), "file");
        assert!(sink.place().unwrap().ends_with("again"));
        for (text, says) in [
            ("{ type = \"file\" }", "dir"),
            ("{ type = \"fiel\", dir = \"x\" }", "file"),
            ("{ type = \"file\", dri = \"x\" }", "dri"),
            ("5", "no table"),
            ("{}\nother = 1", "more than one"),
            ("{ type", ""),
        ] {
            let error = inline(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
