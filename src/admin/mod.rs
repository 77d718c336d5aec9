//! The daemon's HTTP side: metrics, health, and what each consumer is doing.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | a status page for people: plain HTML, nothing loaded from anywhere |
//! | GET | `/metrics` | every metric, in Prometheus' text format 0.0.4 |
//! | GET | `/livez` | 200 `ok` while every loop turns; 503 and a sentence that names the stuck one |
//! | GET | `/readyz` | 200 while every consumer does its work; 503 with a reason for each that does not. JSON either way: `{"ready": bool, "consumers": [{"name", "stream", "state", "ready", "reason"}]}` |
//! | GET | `/api/v1/consumers` | `{"consumers": [`[`ConsumerView`]`…]}` |
//! | POST | `/api/v1/consumers/{name}/commit` | stores what is durable, now: 200 and [`CommitAnswer`]; 404 unknown name; 409 nothing to store; 503 and why it could not be stored |
//!
//! HEAD works wherever GET does. Another method: 405 with `Allow`. Another path: 404 with the
//! list of routes. Errors are JSON: `{"error": "…"}`.
//!
//! Who may ask: there is no password, so `listen` is the loopback address by default, and no answer
//! holds a secret. A page in somebody's browser may not command: a POST that a browser sent for a
//! page (it carries `Origin` or `Sec-Fetch-Site`, even towards its own host, and DNS rebinding does
//! not change that) is refused with 403. Whoever reaches the port may read names and figures.
//!
//! Limits, all named in [`limits`]: connections at once (one more closes the one
//! that has waited longest for its client), time for a request's head and between two
//! requests, its size, the body's size, the life of a connection, the time for a commit. Bodies are
//! never read.
//!
//! It must not know what runs the consumers: it asks an [`Overview`].

pub mod limits;
mod overview;
mod page;
mod probe;
mod routes;
mod server;

pub use overview::{CommitAnswer, CommitError, ConsumerView, Overview, StoredOffset};
pub use probe::{PROBE_TIME_MAX, ProbeError, probe};
pub use server::{ListenError, bind, serve};

#[cfg(test)]
mod tests;
