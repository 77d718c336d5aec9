//! A replay of a range of messages through a consumer's sink, beside the consumer itself.
//!
//! It is a consumer of its own, under a reference that is used once: its position is kept in its sink, if
//! that keeps one, and in its own state file. It stores no offset on the broker, is not one of several
//! instances, and creates no stream; so the consumer may go on running meanwhile, and nothing of it
//! changes.

use std::path::PathBuf;
use std::sync::Arc;

use super::connect::connect_options;
use super::plan::{connection_name, source, spec_of};
use super::sinks;
use crate::config::{Config, ConsumerConfig, Protocol};
use crate::consumer::{Begin, Spec};
use crate::flow::resume::{OnLost, Start};
use crate::sink::factory::{self, Look, SinkFactory};
use crate::source::Source;
use crate::types::{ConsumerName, Offset, Reference};

/// A replay, ready to run.
pub struct RangeReplay {
    /// The reader's specification.
    pub spec: Spec,
    /// Opens the sink.
    pub sink: SinkFactory,
    /// Inspects the sink's position.
    pub look: Look,
    /// Opens the sink of the dead letters; `None` if the policy needs none.
    pub dead_letters: Option<SinkFactory>,
}

/// Parameters of a replay that follow from its arguments.
#[derive(Clone, Debug)]
pub struct RangeArgs {
    /// Suffix of everything that is named after the reference; see [`Reference::range_suffix`].
    pub suffix: String,
    /// First offset.
    pub from: Offset,
    /// Last offset.
    pub upto: Offset,
    /// True if messages that retention has dropped are passed over.
    pub allows_missing: bool,
    /// Folder of its state file.
    pub state_dir: PathBuf,
}

/// The consumer as a replay reads for it: of one stream, and with nothing that concerns others.
#[must_use]
pub fn replaying(config: &Config, consumer: &ConsumerConfig) -> ConsumerConfig {
    let mut consumer = ConsumerConfig { single_active: false, create: None, ..consumer.clone() };
    if let Some(filter) = &mut consumer.filter
        && config.broker.protocol == Protocol::Amqp
        && filter.by.is_some()
    {
        // A range whose last messages the broker leaves out would not end there.
        filter.client_side = true;
    }
    consumer
}

/// The stream of a consumer as the replay reads it, from [`replaying`].
#[must_use]
pub fn replay_source(config: &Config, consumer: &ConsumerConfig) -> Arc<dyn Source> {
    let connect = connect_options(&config.broker, &format!("{} replay", connection_name(consumer)));
    source(config, consumer, &connect, None, false)
}

/// The replay of a range for a consumer from [`replaying`], whose sinks are those of the replay.
#[must_use]
pub fn range_replay(config: &Config, consumer: &ConsumerConfig, args: &RangeArgs) -> RangeReplay {
    let RangeArgs { suffix, from, upto, allows_missing, state_dir } = args;
    let named = |name: &str| format!("{name}{suffix}");
    let spec = Spec {
        // Its dead letters are not among the consumer's own, whose order they would break.
        name: ConsumerName::new(named(consumer.name.as_str())),
        reference: Reference::new(named(consumer.reference.as_str())),
        begin: Begin::At(Start::Offset(*from)),
        upto: Some(*upto),
        on_lost: if *allows_missing { OnLost::First } else { OnLost::Halt },
        source: replay_source(config, consumer),
        state_dir: state_dir.clone(),
        ..spec_of(config, consumer, None)
    };
    let (mut sink, mut look) = sinks::factory(&consumer.sink, &spec);
    if !consumer.show_values {
        (sink, look) = (factory::discreet(sink), factory::discreet_look(look));
    }
    let dead_letters = consumer.dead_letter.as_ref().map(|sink| {
        let reference = Reference::new(named(consumer.dead_letter_reference().as_str()));
        let spec = Spec { reference, ..spec.clone() };
        let open = sinks::factory(&sink.for_replay(suffix), &spec).0;
        if consumer.show_values { open } else { factory::discreet(open) }
    });
    RangeReplay { spec, sink, look, dead_letters }
}
