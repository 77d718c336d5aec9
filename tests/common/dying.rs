//! A daemon with a fault that it may not reach.

use std::time::{Duration, Instant};

use super::daemon::Daemon;

impl Daemon {
    /// Waits until it has died of its fault, or all is durable for these consumers, and kills it then. Where a
    /// broker is slow to store, all may be written before the fault's point is reached. True if it has died.
    pub(crate) async fn died_or_done(mut self, consumers: &[&str], last: u64) -> bool {
        let started = Instant::now();
        loop {
            if self.has_ended() {
                return true;
            }
            let mut done = 0;
            for name in consumers {
                let consumer = self.consumer(name).await;
                let durable = consumer.and_then(|c| c["durable_offset"].as_u64());
                done += usize::from(durable >= Some(last));
            }
            if done == consumers.len() {
                self.kill();
                return false;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "neither\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
