//! The consumer that reads a range, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::bounded::Range;
use crate::cli::progress::Progress;
use crate::consumer::{self, Command, Outcome, Resources, Spec, Status};
use crate::sink::factory::SinkFactory;
use crate::telemetry::Heartbeats;
use crate::telemetry::logging::consumer_span;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running reader.
pub(super) struct Reader {
    tasks: JoinSet<Outcome>,
    commands: mpsc::Sender<Command>,
}

impl Reader {
    pub(super) fn start(
        spec: &Arc<Spec>,
        sink: &SinkFactory,
        dead_letters: Option<SinkFactory>,
        status: &Arc<Status>,
    ) -> Reader {
        let resources = Resources {
            sink: Arc::clone(sink),
            dead_letters,
            hold: None,
            renaming: None,
            shares_hold: false,
        };
        let (commands, receive) = mpsc::channel(1);
        let (spec, status) = (Arc::clone(spec), Arc::clone(status));
        let span = consumer_span(&spec.name, &spec.stream, Some(&spec.reference));
        let mut tasks = JoinSet::new();
        tasks.spawn(
            async move {
                let heartbeats = Heartbeats::new();
                consumer::run(spec, resources, status, receive, &heartbeats).await
            }
            .instrument(span),
        );
        Reader { tasks, commands }
    }

    /// Waits for its end, which it is told when the range is done.
    pub(super) async fn ended(&mut self, range: &Range, progress: &Progress) -> Outcome {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut is_told = false;
        loop {
            tokio::select! {
                outcome = self.tasks.join_next() => return of(outcome),
                () = range.done(), if !is_told => {
                    is_told = true;
                    self.drain();
                }
                _ = look.tick() => progress.at(range.reached()),
            }
        }
    }

    /// Has it finish what it has begun, within this time.
    pub(super) async fn stop(&mut self, grace: Duration) {
        self.drain();
        // What is not durable by then is read again.
        drop(tokio::time::timeout(grace, self.tasks.join_next()).await);
    }

    fn drain(&self) {
        // It has ended if it takes no command, or has been told.
        drop(self.commands.try_send(Command::Drain));
    }
}

fn of(outcome: Option<Result<Outcome, tokio::task::JoinError>>) -> Outcome {
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Outcome::Panicked(format!("internal error: {error}")),
        None => Outcome::Failed("internal error: no task".to_owned()),
    }
}
