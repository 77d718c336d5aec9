//! The daemon's HTTP server: metrics, health, and the state of each consumer.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | a status page for people: plain HTML, nothing loaded from other hosts |
//! | GET | `/metrics` | every metric, in Prometheus' text format 0.0.4 |
//! | GET | `/livez` | 200 `ok` while every loop makes progress; 503 and a sentence that names the
//! stuck one |
//! | GET | `/readyz` | 200 while every consumer does its work; 503 with a reason for each that does not. JSON either way: `{"ready": bool, "consumers": [{"name", "stream", "state", "ready", "reason"}]}` |
//! | GET | `/api/v1/consumers` | `{"consumers": [`[`ConsumerView`]`…]}` |
//! | GET | `/api/v1/watches` | `{"watches": [`[`WatchView`]`…]}` |
//! | POST | `/api/v1/consumers/{name}/commit` | stores the durable offset now: 200 and
//! [`CommitAnswer`]; 404 unknown name; 409 nothing to store; 503 and the reason why it could not be
//! stored |
//!
//! HEAD works wherever GET does. Another method: 405 with `Allow`. Another path: 404 with the
//! list of routes. Without the token that it needs: 401; refused whatever it presents: 403. Errors are
//! JSON: `{"error": "…"}`.
//!
//! Access: [`door`]. Commands need the token of the configuration, or the loopback interface; reading is
//! open, unless the configuration says otherwise. No answer holds a secret. The connection may be encrypted
//! ([`Tls`]).
//!
//! Limits, all named in [`limits`]: number of connections (one more closes the one that has waited
//! longest for its client), time for a TLS handshake, for a request's head and between two requests, for its
//! body, size of the head and of the body, duration of a connection, time for a commit.
//!
//! The admin server knows the consumers only through an [`Overview`].

mod answer;
mod body;
mod client;
mod door;
pub mod limits;
mod overview;
mod page;
mod routes;
mod server;
mod tls;

pub use client::{Client, PROBE_TIME_MAX, ProbeError};
pub use door::Door;
pub use overview::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset, WatchView};
pub use server::{Entrance, ListenError, bind, serve};
pub use tls::Tls;

#[cfg(test)]
mod tests;
