//! The daemon's HTTP server: metrics, health, and the state of each consumer.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | a status page for people: plain HTML, nothing loaded from other hosts |
//! | GET | `/metrics` | every metric, in Prometheus' text format 0.0.4 |
//! | GET | `/livez` | 200 `ok` while every loop makes progress; 503 and a sentence that names the
//! stuck one |
//! | GET | `/readyz` | 200 while every consumer does its work; 503 with a reason for each that does not. JSON either way: `{"ready": bool, "consumers": [{"name", "stream", "state", "ready", "reason"}]}`. `?exclude=halted` leaves out consumers in a state |
//! | GET | `/api/v1/consumers` | `{"consumers": [`[`ConsumerView`]`…]}` |
//! | GET | `/api/v1/watches` | `{"watches": [`[`WatchView`]`…]}` |
//! | POST | `/api/v1/consumers/{name}/commit` | stores the durable offset now: 200 and
//! [`CommitAnswer`]; 404 unknown name; 409 nothing to store; 503 and the reason why it could not be
//! stored |
//!
//! HEAD works wherever GET does. Another method: 405 with `Allow`. Another path: 404 with the
//! list of routes. Errors are JSON: `{"error": "…"}`.
//!
//! Access: there is no password, so `listen` is the loopback address by default, and no answer
//! holds a secret. A POST that a browser sent for a web page (it has an `Origin` or
//! `Sec-Fetch-Site` header, even for its own host or under DNS rebinding) is refused with 403.
//! Anyone who reaches the port may read names and figures.
//!
//! Limits, all named in [`limits`]: number of connections (one more closes the one that has waited
//! longest for its client), time for a request's head and between two requests, size of the head
//! and of the body, duration of a connection, time for a commit. Bodies are never read.
//!
//! The admin server knows the consumers only through an [`Overview`].

pub mod limits;
mod overview;
mod page;
mod probe;
mod ready;
mod routes;
mod server;

pub use overview::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset, WatchView};
pub use probe::{PROBE_TIME_MAX, ProbeError, probe};
pub use server::{ListenError, bind, serve};

#[cfg(test)]
mod tests;
