//! Notes every while what each consumer has received and how far behind it is: for its rate, and for the
//! charts of the last hour.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::set::Shared;
use crate::flow::history::{COUNT_EVERY, Cadence};
use crate::types::Timestamp;

/// Starts it; it runs until it is aborted.
pub(super) fn start(shared: &Arc<Shared>) -> AbortHandle {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let (mut ticks, mut pace) = (interval(COUNT_EVERY), Cadence::default());
        // After a pause of the process, one count is as good as many.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let members = shared.set().members();
            let (now, wall) = (Instant::now(), Timestamp::now());
            let is_due = pace.is_due(now);
            members.iter().for_each(|member| member.status.note_history(now, wall, is_due));
        }
    })
    .abort_handle()
}
