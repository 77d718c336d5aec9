//! Declaration of the `stream` sink.

use std::borrow::Cow;
use std::path::PathBuf;

use super::publisher::NAME_BYTES_MAX;
use super::{
    Destination, StreamAudit, StreamOptions, StreamSettings, StreamSink, committed, conflicts,
};
use crate::settings::{BrokerConfig, Problem, Start};
use crate::sink::audit::Auditing;
use crate::sink::declaration::{
    About, Check, Declaration, Exclusive, Opening, Readable, ReplayPlace, Use,
    bad_records_up_to_the_limit,
};
use crate::sink::factory::{Look, Renaming, SinkFactory, looks, opens};
use crate::sink::placeholders::Names;
use crate::types::file_name::fitted;
use crate::types::{Guarantee, StreamName};

impl Declaration for StreamSettings {
    fn about() -> &'static About {
        &About {
            kind: "stream",
            guarantee: Guarantee::EffectivelyOnce,
            least: "stream = \"events-copy\"",
            reference: include_str!("reference.toml"),
        }
    }

    fn validate(&mut self, check: &mut Check<'_>) {
        self.check(&mut check.bad());
        self.connect(check);
    }

    fn validate_together(
        uses: &[Use<'_, Self>],
        broker: Option<&BrokerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        conflicts::check(uses, broker, problems);
    }

    fn place(&self) -> Option<PathBuf> {
        Some(format!("stream {:?}", self.stream).into())
    }

    fn rows(&self) -> Option<String> {
        None
    }

    fn exclusive(&self) -> Option<Exclusive> {
        None
    }

    /// The window of unconfirmed messages, the frames in flight, and the connection's read buffer.
    fn overhead_bytes(&self) -> u64 {
        (8 << 20) + self.in_flight * 64
    }

    fn growth_max(&self) -> u64 {
        1
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

    fn turn_to_replay(&mut self, suffix: &str) {
        if let Some(name) = &mut self.publisher {
            name.push_str(suffix);
        }
    }

    fn templates(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let publisher = self.publisher.iter().map(|name| ("publisher", name.into()));
        [("stream", self.stream.as_str().into())].into_iter().chain(publisher).collect()
    }

    fn fill(&mut self, names: &Names) {
        names.fill_name(&mut self.stream);
        if let Some(publisher) = &mut self.publisher {
            names.fill_name(publisher);
        }
    }

    fn readable(&self) -> Option<Readable> {
        let stream = StreamName::from(self.stream.as_str());
        Some(Readable::Stream { stream, broker: self.broker.clone() })
    }

    fn read_again(&self) -> &'static str {
        "are published again, by a publisher with another name (NAME~1, NAME~2, …), because the target would drop them \
         from the old one: they are in the target twice"
    }

    fn audit(&self, opening: &Opening) -> Auditing {
        Auditing::Stream(Box::new(StreamAudit {
            options: self.options(opening),
            look: self.prepare(opening).1,
            stream: StreamName::from(self.stream.as_str()),
            broker: self.broker.clone(),
        }))
    }

    fn prepare(&self, opening: &Opening) -> (SinkFactory, Look) {
        let services = opening.services.clone();
        let options = self.options(opening);
        let destination = Destination {
            broker: self.broker.clone(),
            stream: StreamName::from(self.stream.as_str()),
            create: self.create,
            in_flight: usize::try_from(self.in_flight).unwrap_or(usize::MAX),
            timeout: self.timeout.0,
        };
        let look = {
            // A look changes nothing.
            let unchanged = Destination { create: false, ..destination.clone() };
            let (options, services, create) = (options.clone(), services.clone(), self.create);
            looks(move || {
                let (options, publisher) = (options.clone(), services.publisher(&unchanged));
                async move {
                    if publisher.is_missing().await && create {
                        return Ok(None);
                    }
                    committed(&options, publisher).await
                }
            })
        };
        let open =
            opens(move || StreamSink::open(options.clone(), services.publisher(&destination)));
        (open, look)
    }

    /// A publisher cannot be renamed: its position becomes that of the state file, and another one publishes.
    fn renaming(&self, _: &Opening) -> Option<Renaming> {
        None
    }
}

impl StreamSettings {
    fn options(&self, opening: &Opening) -> StreamOptions {
        StreamOptions {
            source: opening.stream.clone(),
            publisher: shortened(self.publisher_name(&opening.stream, &opening.reference)),
            annotate: self.annotate,
        }
    }
}

/// Name of the publisher, shortened if a replay's suffix makes it too long.
fn shortened(name: String) -> String {
    fitted(name.clone(), &name, NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_of_a_publisher_with_a_long_name_has_a_name_of_its_own() {
        let name = "p".repeat(244);
        assert_eq!(shortened(name.clone()), name);
        let rounds = [0, 1].map(|round| shortened(format!("{name}.replay-{round}")));
        assert!(rounds[0] != rounds[1] && !rounds.contains(&name), "{rounds:?}");
        assert!(rounds.iter().all(|round| round.len() <= 244), "{rounds:?}");
    }
}
