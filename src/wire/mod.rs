//! Bytes to values and back: the RabbitMQ stream protocol, its chunks, and AMQP 1.0 messages.
//!
//! No tokio, no I/O, no clock and no panic: every decoder takes a slice and returns a value or an
//! error that names what was wrong and where. Nothing is allocated for a count or a length unless
//! enough bytes are there for it. The protocol's facts come from `PROTOCOL.adoc` in
//! `rabbitmq/rabbitmq-server` (deps/rabbitmq_stream/docs) and the osiris log format.

pub mod amqp;
pub mod amqp091;
pub mod block;
pub mod chunk;
pub mod commands;
pub mod compression;
pub mod cursor;
pub mod error;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod keys;
