//! Rillway carries RabbitMQ streams into sinks, and never loses a message.

pub mod admin;
pub mod audit;
pub mod broker;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod faults;
pub(crate) mod files;
pub mod flow;
pub mod oauth;
pub mod otlp;
pub mod republish;
#[cfg(test)]
mod seeds;
pub mod settings;
pub mod sink;
pub mod source;
pub mod supervisor;
pub(crate) mod sync;
pub mod telemetry;
pub mod tls;
pub mod transform;
pub mod types;
pub(crate) mod web;
pub mod wire;
