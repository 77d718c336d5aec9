//! The tests that need more than the crate itself: brokers, other clients, the built binary.
//!
//! One file per question, all in one binary: it is linked only once, and one shared broker per version
//! serves all of them. Both `make test` and plain `cargo test` run them; they start what they need by
//! themselves.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where and stop"
)]

mod common;

mod admin;
mod alerts;
mod amqp;
mod any_message;
mod architecture;
mod check;
mod cluster;
mod codecs;
mod commits;
mod control;
mod create;
mod crowd;
mod dashboard;
mod dead_letters;
mod docs;
mod every_test_runs;
mod faults;
mod filters;
mod harness;
mod http;
mod isolation;
mod journal;
mod lag;
mod logs;
mod long_names;
mod memory;
mod memory_decoded;
mod metrics_sink;
mod moving_set;
mod oauth;
mod object;
mod odd_messages;
#[cfg(feature = "otel")]
mod otel;
mod page;
mod positions;
mod postgres;
mod publish;
mod refusals;
mod replay;
mod resume;
mod rights;
mod shutdown;
mod silence;
mod single_active;
mod smoke;
mod source;
mod sqlite;
mod start_positions;
mod state_dir;
mod stdout_settling;
mod stream_sink;
mod super_stream;
mod systemd;
mod tail;
mod tls;
mod torture;
mod transforms;
mod upsert;
mod verify;
mod versions;
mod watch;
mod words;
