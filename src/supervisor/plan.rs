//! Makes consumers' plans from the configuration.

use std::sync::Arc;
use std::time::Duration;

use super::claims::Claims;
use super::connect::connect_options;
use super::create::layout_of;
use super::desired::Planned;
use super::sinks;
use crate::audit::TargetAuditor;
use crate::broker::{ConnectOptions, Pool};
use crate::config::{self, BrokerConfig, Config, ConsumerConfig};
use crate::consumer::positions::Subject;
use crate::consumer::{Spec, Surroundings};
use crate::sink::audit::{Auditing, Auditor};
use crate::sink::factory::{self, Look, Renaming, SinkFactory};
use crate::source::amqp::AmqpSource;
use crate::source::stream::{SingleActive, StreamSource};
use crate::source::{Selection, Source};
use crate::types::{ConsumerKey, Guarantee, Reference, StreamName};

/// One consumer, ready to run.
#[derive(Clone)]
pub struct Plan {
    /// The consumer's task.
    pub spec: Arc<Spec>,
    /// What the consumer uses alone: the whole one, also for a partition.
    pub claims: Arc<Claims>,
    /// Opens its sink.
    pub sink: SinkFactory,
    /// Opens the sink of its dead letters; `None` if the policy needs none.
    pub dead_letters: Option<SinkFactory>,
    /// Gives what the sinks keep under a former reference that of the consumer.
    pub renaming: Renaming,
    /// True if the sink's position can be given another reference.
    pub renames: bool,
    /// Inspects its sink's position, for `rillway check`.
    pub look: Look,
    /// Inspects the sink's position, and nothing of the dead letters.
    pub look_at_sink: Look,
    /// What becomes of messages that the sink is given again.
    pub read_again: &'static str,
    /// The super stream that its stream is a partition of.
    pub super_stream: Option<StreamName>,
    /// The sink's kind, as in the configuration.
    pub sink_kind: &'static str,
    /// Guarantee of the sink.
    pub guarantee: Guarantee,
    /// Upper bound of its memory in bytes, as `rillway check` prints it.
    pub memory_bound_bytes: u64,
    /// Time limit for finishing when it is paused, replaced or removed.
    pub drain_grace: Duration,
}

impl Plan {
    /// True if the sink keeps its position with the data. Such a sink keeps a second process out by itself.
    pub fn keeps_position(&self) -> bool {
        matches!(self.guarantee, Guarantee::ExactlyOnce | Guarantee::EffectivelyOnce)
    }

    /// What the position of this consumer is, and where it is kept.
    pub fn subject(&self) -> Subject {
        Subject {
            spec: Arc::clone(&self.spec),
            sink: Arc::clone(&self.sink),
            look: Arc::clone(&self.look_at_sink),
            renaming: Arc::clone(&self.renaming),
            renames: self.renames,
            keeps_position: self.keeps_position(),
        }
    }
}

impl Planned for Plan {
    fn key(&self) -> ConsumerKey {
        self.spec.key()
    }

    fn drain_grace(&self) -> Duration {
        self.drain_grace
    }
}

/// Opens the consumer's sink for a replay of its dead letters: separate from the consumer's own
/// output, under a reference for this round.
pub fn replay_sink(config: &Config, consumer: &ConsumerConfig, round: u32) -> SinkFactory {
    let suffix = Reference::replay_suffix(round);
    let reference = Reference::new(format!("{}{suffix}", consumer.reference));
    let spec = Spec { reference, ..spec_of(config, consumer, None) };
    let open = sinks::factory(&consumer.sink.for_replay(&suffix), &spec).0;
    if consumer.show_values { open } else { factory::discreet(open) }
}

/// The consumer of one stream, and the auditor of its sink. Its source takes part in no group and creates
/// nothing, and nobody stores an offset by it.
///
/// # Errors
/// If the sink cannot be audited; the text says why.
pub fn audit_of(
    config: &Config,
    consumer: &ConsumerConfig,
) -> Result<(Spec, Box<dyn Auditor>), String> {
    let bystander = ConsumerConfig { single_active: false, create: None, ..consumer.clone() };
    let spec = spec_of(config, &bystander, None);
    match consumer.sink.audit(&sinks::opening(&spec)) {
        Auditing::By(auditor) => Ok((spec, auditor)),
        Auditing::Not(why) => Err(why),
        Auditing::Stream(audit) => {
            let (stream, broker) = (audit.stream.clone(), audit.broker.as_deref());
            let connect = stream_sink_options(config, stream.as_str(), broker);
            let target = StreamSource::new(connect, stream, spec.reference.clone());
            let auditor = TargetAuditor::new(*audit, Arc::new(target));
            Ok((spec, Box::new(auditor)))
        }
    }
}

/// Connection options of the stream that a sink publishes to: on this broker or, without one, on
/// our own.
pub fn stream_sink_options(
    config: &Config,
    stream: &str,
    broker: Option<&BrokerConfig>,
) -> ConnectOptions {
    sinks::connect(stream, broker, &connect_options(&config.broker, "rillway"))
}

/// The super stream that a stream is a partition of.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a> {
    name: &'a StreamName,
    /// Connections that its partitions share.
    pool: &'a Arc<Pool>,
}

pub(super) fn spec_of(
    config: &Config,
    consumer: &ConsumerConfig,
    whole: Option<Whole<'_>>,
) -> Spec {
    let connect = connect_options(&config.broker, &connection_name(consumer));
    let surroundings = Surroundings {
        source: source(config, consumer, &connect, whole, true),
        connect,
        state_dir: config.state_dir.clone(),
        // The other half is for batches in flight at that time.
        wind_up_after: config.shutdown_grace.0 / 2,
    };
    Spec::new(consumer, surroundings)
}

pub(super) fn connection_name(consumer: &ConsumerConfig) -> String {
    format!("rillway {}", consumer.name)
}

/// The plan that the configuration gives for a consumer of one stream.
pub fn plan_of(config: &Config, consumer: &ConsumerConfig) -> Plan {
    make(config, &consumer.of_stream(None), consumer, None)
}

/// The plan for one partition of the consumer's super stream. A partition that appeared `late`, after the
/// consumer began, holds only messages from after that, so it is read from its first message.
pub(super) fn plan_of_partition(
    config: &Config,
    consumer: &ConsumerConfig,
    partition: &StreamName,
    late: bool,
    pool: &Arc<Pool>,
) -> Plan {
    let mut one = consumer.of_stream(Some(partition));
    // A point in time means the same for every partition, whenever it appeared.
    if late && !matches!(one.start, config::Start::Timestamp(_)) {
        one.start = config::Start::First;
    }
    make(config, &one, consumer, Some(Whole { name: &consumer.stream, pool }))
}

/// Connection options of a consumer of a super stream, with the connections of its partitions.
pub(super) fn sharing(
    config: &Config,
    consumer: &ConsumerConfig,
    pool: &Arc<Pool>,
) -> ConnectOptions {
    ConnectOptions {
        sharing: Some(pool.sharing()),
        ..connect_options(&config.broker, &connection_name(consumer))
    }
}

pub(super) fn source(
    config: &Config,
    consumer: &ConsumerConfig,
    connect: &ConnectOptions,
    whole: Option<Whole<'_>>,
    stores_offsets: bool,
) -> Arc<dyn Source> {
    let (connect, stream) = (connect.clone(), consumer.stream.clone());
    let filter = consumer.filter.as_ref().filter(|filter| filter.is_at_broker());
    let selection = filter.map(|filter| Selection {
        values: filter.values.clone(),
        match_unfiltered: filter.match_unfiltered,
    });
    match config.broker.protocol {
        config::Protocol::Amqp => {
            let source = AmqpSource::new(connect, stream);
            match selection {
                Some(selection) => Arc::new(source.selecting(selection)),
                None => Arc::new(source),
            }
        }
        config::Protocol::Stream => {
            let mut source = StreamSource::new(connect, stream, consumer.reference.clone());
            if !stores_offsets {
                source = source.without_offsets();
            }
            if let Some(whole) = whole {
                source = source.sharing(whole.pool);
            }
            if let Some(layout) = layout_of(consumer) {
                source = source.creating(layout);
            }
            if consumer.single_active {
                let super_stream = whole.map(|whole| whole.name.clone());
                source = source.single_active(SingleActive { super_stream });
            }
            if let Some(selection) = selection {
                source = source.selecting(selection);
            }
            Arc::new(source)
        }
    }
}

fn make(
    config: &Config,
    consumer: &ConsumerConfig,
    configured: &ConsumerConfig,
    whole: Option<Whole<'_>>,
) -> Plan {
    let spec = spec_of(config, consumer, whole);
    let (mut sink, mut look) = sinks::factory(&consumer.sink, &spec);
    if !consumer.show_values {
        (sink, look) = (factory::discreet(sink), factory::discreet_look(look));
    }
    let look_at_sink = Arc::clone(&look);
    // Under a reference of its own, so that its position differs from the consumer's.
    let dead_letters = consumer.dead_letter.as_ref().map(|sink| {
        let spec = Spec { reference: consumer.dead_letter_reference(), ..spec.clone() };
        let (mut open, mut letters) = sinks::factory(sink, &spec);
        if !consumer.show_values {
            (open, letters) = (factory::discreet(open), factory::discreet_look(letters));
        }
        look = factory::with_dead_letters(letters, look.clone());
        open
    });
    let (renaming, renames) = sinks::renaming(consumer, &spec);
    Plan {
        sink,
        dead_letters,
        renaming,
        renames,
        look,
        look_at_sink,
        read_again: consumer.sink.read_again(),
        spec: Arc::new(spec),
        claims: Arc::new(Claims::of(configured)),
        super_stream: whole.map(|whole| whole.name.clone()),
        sink_kind: consumer.sink.kind(),
        guarantee: consumer.sink.guarantee(),
        memory_bound_bytes: consumer.memory_bound().0,
        drain_grace: config.shutdown_grace.0,
    }
}
