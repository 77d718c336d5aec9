//! A reader of a stream that is no consumer of the configuration: it has no reference of its own, and
//! leaves neither an offset on the broker nor a state file behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::connect::connect_options;
use crate::broker::{self, BrokerError, Pool};
use crate::config::{BrokerConfig, Protocol};
use crate::consumer::{Begin, Spec, Surroundings};
use crate::source::amqp::AmqpSource;
use crate::source::stream::StreamSource;
use crate::source::{Selection, Source};
use crate::types::{Reference, StreamName};

/// Name of the readers, shown in the broker's list of connections and in the log.
const NAME: &str = "rillway-tail";

/// Memory of one reader: received, and inflated.
const MEMORY_BYTES: u64 = 64 << 20;

/// A broker whose streams are read, and what is wanted of them.
#[derive(Clone)]
pub struct Guest {
    broker: BrokerConfig,
    selection: Option<Selection>,
    pool: Arc<Pool>,
}

impl Guest {
    /// A guest of this broker.
    pub fn new(broker: BrokerConfig, selection: Option<Selection>) -> Guest {
        Guest { broker, selection, pool: Pool::new() }
    }

    /// True if the broker is read from over AMQP 0.9.1.
    pub fn is_amqp(&self) -> bool {
        self.broker.protocol == Protocol::Amqp
    }

    /// The stream, on a connection of its own.
    pub fn source(&self, stream: &StreamName) -> Arc<dyn Source> {
        self.make(stream, false)
    }

    fn make(&self, stream: &StreamName, shares: bool) -> Arc<dyn Source> {
        let connect = connect_options(&self.broker, NAME);
        if self.is_amqp() {
            let source = AmqpSource::new(connect, stream.clone());
            return match self.selection.clone() {
                Some(selection) => Arc::new(source.selecting(selection)),
                None => Arc::new(source),
            };
        }
        let reference = Reference::from(NAME);
        let mut source = StreamSource::new(connect, stream.clone(), reference).without_offsets();
        if shares {
            source = source.sharing(&self.pool);
        }
        match self.selection.clone() {
            Some(selection) => Arc::new(source.selecting(selection)),
            None => Arc::new(source),
        }
    }

    /// The partitions of a super stream.
    ///
    /// # Errors
    /// If the broker cannot say, or there is no such super stream.
    pub async fn partitions(&self, name: &StreamName) -> Result<Vec<StreamName>, BrokerError> {
        broker::partitions(&connect_options(&self.broker, NAME), name).await
    }

    /// A reader of the stream, one of `of` that run at the same time: these share connections.
    pub fn spec(&self, stream: &StreamName, begin: Begin, of: usize) -> Spec {
        let memory_bytes = MEMORY_BYTES / u64::try_from(of.max(1)).unwrap_or(u64::MAX);
        let memory_bytes = memory_bytes.max(MEMORY_BYTES / 16);
        let surroundings = Surroundings {
            source: self.make(stream, of > 1),
            connect: connect_options(&self.broker, NAME),
            state_dir: PathBuf::new(),
            wind_up_after: Duration::from_secs(1),
        };
        Spec::of_reader(NAME, stream, begin, memory_bytes, surroundings)
    }
}
