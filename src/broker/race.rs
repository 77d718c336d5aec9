//! Connects to the first usable one of several addresses, without a long wait for one that does not
//! answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::connection::Connection;
use super::error::BrokerError;
use super::options::{ConnectOptions, Endpoint};

/// Time after which the next address is tried too, if the last one has not answered. A handshake takes
/// milliseconds; a frozen node accepts the connection, and never answers.
const NEXT_AFTER: Duration = Duration::from_millis(1500);

/// Errors of all addresses, in the order in which they failed.
pub(super) type Failures = Vec<(Endpoint, BrokerError)>;

/// Tries the addresses in this order, each `NEXT_AFTER` after the one before, or at once when that has
/// failed. Cancel-safe: dropping the future ends all attempts.
pub(super) async fn race(
    endpoints: &[Endpoint],
    options: &ConnectOptions,
) -> Result<Connection, Failures> {
    let mut rest = endpoints.iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Failures::new();
    loop {
        // Only the attempt that began last is timed: the earlier ones have had their time.
        let begun = Arc::new(Notify::new());
        let is_last = match rest.next() {
            Some(endpoint) => {
                let begun = Arc::clone(&begun);
                running.push(async move {
                    let opened = Connection::open_in_turn(endpoint, options, &begun).await;
                    opened.map_err(|error| (endpoint.clone(), error))
                });
                rest.len() == 0
            }
            None => true,
        };
        let patience = async {
            if is_last {
                return std::future::pending().await;
            }
            begun.notified().await;
            tokio::time::sleep(NEXT_AFTER).await;
        };
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err((endpoint, error))) => {
                    if endpoints.len() > 1 {
                        tracing::debug!(node = %endpoint, %error, "this node cannot be used");
                    }
                    failures.push((endpoint, error));
                }
                None => return Err(failures),
            },
            () = patience => {}
        }
    }
}
