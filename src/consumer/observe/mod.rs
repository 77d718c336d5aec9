//! Looks at the streams of all consumers, for their lag: also of one that has halted or cannot connect.
//!
//! All consumers of one broker share the connections for it, one to each node; a stream that several
//! consumers read is looked at once for all of them. Each stream has a task of its own, so that one
//! that is slow, missing or refused does not keep the others waiting.

mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::task::AbortHandle;

use self::stream::{Looking, Watchers};
use super::spec::Spec;
use super::status::Status;
use crate::source::ConnectOptions;
use crate::source::stream::StreamLookout;
use crate::sync::lock;
use crate::types::StreamName;

/// The name of its connections in RabbitMQ's list.
const CONNECTION_NAME: &str = "rillway lag";

/// Whatever looks at the streams of this process's consumers.
#[derive(Default)]
pub struct Observers {
    brokers: Mutex<Vec<Weak<Broker>>>,
}

/// One broker: what its consumers have in common.
struct Broker {
    options: ConnectOptions,
    lookout: Arc<StreamLookout>,
    streams: Mutex<HashMap<StreamName, Observed>>,
}

/// A stream that is looked at.
struct Observed {
    watchers: Arc<Watchers>,
    task: AbortHandle,
}

/// Has a consumer's stream looked at for as long as this lives.
pub struct Watching {
    broker: Arc<Broker>,
    stream: StreamName,
    status: Arc<Status>,
}

impl Observers {
    /// Looks at the consumer's stream from now on, and leaves what it sees in its status, whether the
    /// consumer runs or not.
    pub fn watch(&self, spec: &Arc<Spec>, status: &Arc<Status>) -> Watching {
        let broker = self.broker(&spec.connect);
        broker.watch(spec, status);
        Watching { broker, stream: spec.stream.clone(), status: Arc::clone(status) }
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
        let mut streams = lock(&self.streams);
        let observed = streams.entry(spec.stream.clone()).or_insert_with(|| {
            let watchers = Arc::new(Watchers::default());
            let looking = Looking::new(&self.lookout, &spec.stream, &watchers);
            Observed { watchers, task: tokio::spawn(looking.run()).abort_handle() }
        });
        observed.watchers.add(spec, status);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut streams = lock(&self.broker.streams);
        let Some(observed) = streams.get(&self.stream) else { return };
        if observed.watchers.remove(&self.status) {
            observed.task.abort();
            streams.remove(&self.stream);
        }
    }
}
