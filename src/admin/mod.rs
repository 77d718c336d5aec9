//! The daemon's HTTP server: metrics, health, and the state of each consumer.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | a status page for people: one document, nothing loaded from other hosts |
//! | GET | `/metrics` | every metric, in Prometheus' text format 0.0.4 |
//! | GET | `/livez` | 200 `ok` while every loop makes progress; 503 and a sentence that names the
//! stuck one |
//! | GET | `/readyz` | 200 while every consumer does its work; 503 with a reason for each that does not. JSON either way: `{"ready": bool, "consumers": [{"name", "stream", "state", "ready", "reason"}]}`. `?exclude=halted` leaves out consumers in a state |
//! | GET | `/api/v1/consumers` | `{"consumers": [`[`ConsumerView`]`…]}` |
//! | GET | `/api/v1/status` | the [`Status`](status::Status): everything in order, what is wrong first |
//! | GET | `/api/v1/history` | the last hour of each consumer: `{"every_seconds", "consumers": [{"name", "stream", "age_seconds": […], …}]}` |
//! | GET | `/api/v1/openapi.json` | the [description](../../../docs/openapi.json) of all this, in OpenAPI 3.1 |
//! | GET | `/api/v1/watches` | `{"watches": [`[`WatchView`]`…]}` |
//! | GET | `/api/v1/config` | the configuration in use: [`ConfigurationView`] |
//! | GET, PUT | `/api/v1/log-level` | the filter of the log, `{"filter": "…"}`; PUT replaces it by the one in the
//! body: 400 and the reason if it is none |
//! | POST | `/api/v1/consumers/{name}/{pause,resume,restart}` | changes the consumer: 200 and [`Changed`] when it is
//! done, 202 and the same if not within `wait`; 404 unknown name or stream; 409 the daemon shuts down |
//! | POST | `/api/v1/consumers/{name}/commit` | stores the durable offset now: 200 and
//! [`CommitAnswer`]; 404 unknown name or stream; 409 nothing to store; 503 and the reason why it could not be
//! stored |
//! | POST | `/api/v1/consumers/{name}/skip` | leaves out the message at which the consumer has halted, once, and starts
//! it. The body is `{"offset": 7, "stream": "s", "dead_letter": true}`, of which only the offset is needed. 200 and
//! [`Changed`], 202 if it does not work again within `wait`; 409 if it has not halted there |
//! | POST | `/api/v1/consumers/{name}/seek` | moves the consumer's position ([`SeekTo`]); the body is JSON: `{"to":
//! "first" \| "last" \| "next" \| {"offset": N} \| {"timestamp": "…"}, "stream": "…", "dry_run": bool}`. 200 and
//! [`Sought`]; 202 if it is not done within `wait`; 400 no such request; 404 unknown name or stream; 409 it cannot be
//! moved there; 503 and the reason why it was not |
//! | POST | `/api/v1/reload` | reads the configuration again: 200 and [`Reloaded`], 202 if not all consumers are
//! replaced within `wait`; 422 with every problem if it cannot be used; 409 the daemon shuts down |
//! | POST | `/api/v1/drain` | ends the daemon as SIGTERM does: 202 |
//!
//! The commands take `?wait=10s` (at most 60 s; `0s` does not wait), and those for a consumer
//! `?stream=STREAM`, for one partition of a super stream. Another key is refused with 400.
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
//! body, size of the head and of the body, duration of a connection, time for a command's effect.
//!
//! The admin server knows the consumers only through an [`Overview`], and changes them through a
//! [`Control`].

mod answer;
mod body;
mod client;
mod commands;
mod control;
mod door;
pub mod limits;
mod overview;
mod page;
mod ready;
mod routes;
mod seek;
mod server;
pub mod status;
mod tls;
pub mod units;

pub use client::{Client, PROBE_TIME_MAX, ProbeError};
pub use control::{
    Changed, ConfigurationView, Control, ControlError, Draining, LastReload, NotReloaded,
    ProblemView, Reloaded, Seek, SeekError, SeekTo, SkipOrder, Sought, StreamState, Target, Verb,
};
pub use door::Door;
pub use overview::{
    CommitAnswer, CommitError, ConsumerView, HistoryView, Overview, PointView, StoredOffset,
    WatchView,
};
pub use server::{Entrance, ListenError, bind, serve};
pub use tls::Tls;

#[cfg(test)]
mod tests;
