//! Observes the ends of all consumers' streams, for their lag: also for a consumer that has halted
//! or cannot connect. The same for references that other programs own ([`WatchedReference`]).
//!
//! All consumers of one broker share the connections for it, one per node; a stream that several
//! consumers read is observed once for all. Each stream has its own task, so that a slow, missing
//! or refused one does not delay the others.

mod reference;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::task::AbortHandle;

pub use self::reference::{Seen, WatchedReference};
use self::stream::{Looking, Watchers};
use super::spec::Spec;
use super::status::Status;
use crate::source::ConnectOptions;
use crate::source::stream::StreamLookout;
use crate::sync::lock;
use crate::types::StreamName;

/// Name of the connections in RabbitMQ's list.
const CONNECTION_NAME: &str = "rillway lag";

/// The observers of this process's streams.
#[derive(Default)]
pub struct Observers {
    brokers: Mutex<Vec<Weak<Broker>>>,
}

/// State shared by all consumers of one broker.
struct Broker {
    options: ConnectOptions,
    lookout: Arc<StreamLookout>,
    streams: Mutex<HashMap<StreamName, Observed>>,
}

/// A stream that is observed.
struct Observed {
    watchers: Arc<Watchers>,
    task: AbortHandle,
}

/// Keeps the observation of a stream running for a consumer or a reference; dropping it ends that.
pub struct Watching {
    /// `None` where the stream cannot be observed.
    broker: Option<Arc<Broker>>,
    stream: StreamName,
    who: Who,
}

/// Whose stream is observed.
enum Who {
    Consumer(Arc<Status>),
    Reference(Arc<WatchedReference>),
}

impl Observers {
    /// Observes the consumer's stream from now on, and stores the results in its status, whether
    /// the consumer runs or not.
    pub fn watch(&self, spec: &Arc<Spec>, status: &Arc<Status>) -> Watching {
        let broker = spec.source.is_observable().then(|| self.broker(&spec.connect));
        broker.iter().for_each(|broker| broker.watch(spec, status));
        Watching { broker, stream: spec.stream.clone(), who: Who::Consumer(Arc::clone(status)) }
    }

    /// Observes the stream of a reference that another program owns, and what that stores.
    pub fn watch_reference(
        &self,
        connect: &ConnectOptions,
        reference: &Arc<WatchedReference>,
    ) -> Watching {
        let broker = self.broker(connect);
        broker.watchers(&reference.stream, |all| all.add_reference(reference));
        let who = Who::Reference(Arc::clone(reference));
        Watching { broker: Some(broker), stream: reference.stream.clone(), who }
    }

    fn broker(&self, connect: &ConnectOptions) -> Arc<Broker> {
        let options = ConnectOptions { name: CONNECTION_NAME.to_owned(), ..connect.clone() };
        let mut brokers = lock(&self.brokers);
        brokers.retain(|broker| broker.strong_count() > 0);
        let known = brokers.iter().filter_map(Weak::upgrade).find(|b| b.options == options);
        known.unwrap_or_else(|| {
            let lookout = Arc::new(StreamLookout::new(options.clone()));
            let broker = Arc::new(Broker { options, lookout, streams: Mutex::default() });
            brokers.push(Arc::downgrade(&broker));
            broker
        })
    }
}

impl Broker {
    fn watch(&self, spec: &Arc<Spec>, status: &Arc<Status>) {
        self.watchers(&spec.stream, |all| all.add(spec, status));
    }

    /// Has the stream observed, for those whom `add` adds.
    fn watchers(&self, stream: &StreamName, add: impl FnOnce(&Watchers)) {
        let mut streams = lock(&self.streams);
        let observed = streams.entry(stream.clone()).or_insert_with(|| {
            let watchers = Arc::new(Watchers::default());
            let looking = Looking::new(&self.lookout, stream, &watchers);
            Observed { watchers, task: tokio::spawn(looking.run()).abort_handle() }
        });
        add(&observed.watchers);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let Some(broker) = &self.broker else { return };
        let mut streams = lock(&broker.streams);
        let Some(observed) = streams.get(&self.stream) else { return };
        if observed.watchers.remove(&self.who) {
            observed.task.abort();
            streams.remove(&self.stream);
        }
    }
}
