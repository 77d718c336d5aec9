//! References that other programs own: their streams are observed by the observers of the consumers, over
//! the same connections. The partitions of a super stream are asked for again and again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use indexmap::IndexMap;

use super::connect::connect_options;
use super::partitions::{Changes, Present};
use super::set::Shared;
use super::super_stream::empty;
use crate::admin::WatchView;
use crate::broker::{self, BrokerError, ConnectOptions};
use crate::config::{Config, WatchConfig};
use crate::consumer::observe::{WatchedReference, Watching};
use crate::flow::backoff::Backoff;
use crate::flow::trouble::Trouble;
use crate::source::{ErrorKind, SourceError};
use crate::sync::lock;
use crate::telemetry::{Heartbeats, Pulse};
use crate::types::{Offset, Reference, StreamName, Timestamp};

/// Time between two questions for the partitions. Those that are gone are left after two answers.
const EVERY: Duration = Duration::from_secs(15);
/// Shortest time between two questions while they are not known.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest time between two questions while they are not known.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Time limit of a question, with connecting to all nodes.
const ASK_MAX: Duration = Duration::from_secs(60);
/// How long the task may show no sign of life.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The references of one `[[watch]]`.
pub(super) struct Watch {
    config: WatchConfig,
    connect: ConnectOptions,
    rows: Mutex<IndexMap<StreamName, Vec<Row>>>,
    /// The references by the super stream's own name, shown while it has no row. Empty for a stream.
    whole: Mutex<Vec<WatchedReference>>,
    /// Why the partitions are not known; `None` if they are, or for a stream.
    unknown: Mutex<Option<String>>,
    /// Held here, so that a task that panicked counts as stuck. `None` for a stream, and once it is told to
    /// end.
    pulse: Mutex<Option<Pulse>>,
}

/// One reference on one stream; it is observed as long as the second part lives.
struct Row(Arc<WatchedReference>, #[expect(dead_code, reason = "a guard")] Watching);

impl Watch {
    /// Begins to observe a stream. A super stream is observed by [`Watch::run`].
    pub(super) fn new(
        config: &Config,
        watch: &WatchConfig,
        shared: &Shared,
        heartbeats: &Heartbeats,
    ) -> Watch {
        let (pulse, unknown) = match watch.is_super_stream {
            false => (None, None),
            true => (
                Some(heartbeats.register(format!("partitions of {}", watch.stream), SILENCE_MAX)),
                Some("asking for the partitions".to_owned()),
            ),
        };
        let whole = watch.references.iter().filter(|_| watch.is_super_stream);
        let whole = whole.map(|reference| WatchedReference::new(reference, &watch.stream));
        let new = Watch {
            config: watch.clone(),
            connect: connect_options(&config.broker, "rillway watch"),
            rows: Mutex::default(),
            whole: Mutex::new(whole.collect()),
            unknown: Mutex::new(unknown),
            pulse: Mutex::new(pulse),
        };
        if !watch.is_super_stream {
            new.observe(&watch.stream, shared);
        }
        new
    }

    pub(super) fn config(&self) -> &WatchConfig {
        &self.config
    }

    pub(super) fn is_of_super_stream(&self) -> bool {
        self.config.is_super_stream
    }

    fn observe(&self, stream: &StreamName, shared: &Shared) {
        let row = |reference| {
            let watched = Arc::new(WatchedReference::new(reference, stream));
            let watching = shared.set().observers().watch_reference(&self.connect, &watched);
            Row(watched, watching)
        };
        let rows = self.config.references.iter().map(row).collect();
        lock(&self.rows).insert(stream.clone(), rows);
    }

    /// Asks for the partitions indefinitely; ends when its task is aborted.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let mut present = Present::default();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut trouble = Trouble::default();
        let name = &self.config.stream;
        loop {
            lock(&self.pulse).iter().for_each(Pulse::touch);
            let asked =
                tokio::time::timeout(ASK_MAX, broker::partitions(&self.connect, name)).await;
            let unknown = match asked {
                Ok(Ok(partitions)) if partitions.is_empty() => {
                    Some(SourceError::new(ErrorKind::Missing, empty(name)))
                }
                Ok(Ok(partitions)) => {
                    let Changes { new, gone } = present.answered(&partitions);
                    for partition in gone {
                        tracing::info!(super_stream = %name, %partition, "no longer a partition: not watched any more");
                        lock(&self.rows).shift_remove(&partition);
                    }
                    for partition in new {
                        present.add(&partition);
                        self.observe(&partition, &shared);
                    }
                    None
                }
                Ok(Err(error)) => Some(error.into()),
                Err(_) => {
                    let what = format!("no answer within {ASK_MAX:?}");
                    Some(SourceError::new(ErrorKind::Connection, what))
                }
            };
            if let Some(error) = &unknown {
                lock(&self.whole).iter().for_each(|reference| reference.failed(error));
            }
            let unknown = unknown.map(|error| error.to_string());
            let now = std::time::Instant::now();
            match &unknown {
                Some(reason) if trouble.failed(reason, now) => {
                    tracing::warn!(super_stream = %name, reason, "the partitions to watch are not known; those that are watched already are watched on");
                }
                Some(_) => {}
                None => drop(trouble.over(now)),
            }
            *lock(&self.unknown) = unknown;
            let wait = match present.is_empty() {
                true => backoff.next(fastrand::f64()),
                false => EVERY,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Observes nothing any more.
    pub(super) fn end(&self) {
        *lock(&self.pulse) = None;
        lock(&self.rows).clear();
        lock(&self.whole).clear();
    }

    fn references(&self) -> Vec<Arc<WatchedReference>> {
        lock(&self.rows).values().flatten().map(|row| Arc::clone(&row.0)).collect()
    }

    pub(super) fn refresh_gauges(&self) {
        let references = self.references();
        references.iter().for_each(|reference| reference.refresh_gauges());
        lock(&self.whole).iter().for_each(|reference| match references.is_empty() {
            true => reference.refresh_gauges(),
            false => reference.hide_gauges(),
        });
    }

    /// What is shown: a row for each reference and partition, or one for the whole while there is none.
    pub(super) fn views(&self) -> Vec<WatchView> {
        let super_stream = self.config.is_super_stream.then(|| self.config.stream.clone());
        let references = self.references();
        if references.is_empty() {
            let problem = lock(&self.unknown).clone();
            let row = |reference: &_| WatchView {
                super_stream: super_stream.clone(),
                problem: problem.clone(),
                ..WatchView::new(&self.config.stream, reference)
            };
            return self.config.references.iter().map(row).collect();
        }
        let now = Timestamp::now();
        let row = |reference: Arc<WatchedReference>| {
            let seen = reference.seen();
            let lag = seen.watched.lag(now);
            WatchView {
                super_stream: super_stream.clone(),
                stored_offset: seen.watched.stored(),
                stream_first_offset: seen.watched.first(),
                stream_last_offset: seen.watched.end(),
                stream_seen_age_seconds: seen.watched.last_look().map(|at| at.seconds_until(now)),
                lag_messages: lag.map(|lag| lag.messages),
                lag_seconds: lag.map(|lag| lag.seconds),
                headroom_messages: seen.watched.headroom(),
                problem: seen.problem(),
                ..WatchView::new(&reference.stream, &reference.reference)
            }
        };
        references.into_iter().map(row).collect()
    }
}

/// What the broker holds for one reference on one stream.
pub struct Stored {
    /// The stream.
    pub stream: StreamName,
    /// The reference.
    pub reference: Reference,
    /// The offset; `None` if none is stored.
    pub offset: Option<Offset>,
}

/// The stored offset of each reference on each stream of a watch, for `rillway check`.
///
/// # Errors
/// If the broker cannot say.
pub async fn stored_of(config: &Config, watch: &WatchConfig) -> Result<Vec<Stored>, String> {
    let connect = connect_options(&config.broker, "rillway check");
    let told = |error: BrokerError| error.to_string();
    let streams = match watch.is_super_stream {
        false => vec![watch.stream.clone()],
        true => broker::partitions(&connect, &watch.stream).await.map_err(told)?,
    };
    if streams.is_empty() {
        return Err(empty(&watch.stream));
    }
    let mut all = Vec::new();
    for stream in streams {
        let connected = broker::connect_to_stream(&connect, &stream, broker::Prefer::Replica).await;
        let connection = connected.map_err(told)?;
        for reference in &watch.references {
            let offset = connection.query_offset(&stream, reference).await.map_err(told)?;
            all.push(Stored { stream: stream.clone(), reference: reference.clone(), offset });
        }
        connection.close().await;
    }
    Ok(all)
}
