//! The consumer's decisions, without I/O, tokio, clock or logs.
//!
//! Events and times come in as arguments, decisions go out as values, and the worker carries them out.
//! [`storing`] is the first part: what is durable, what is stored on the broker, and who waits for it.
//! A seeded simulation drives it through failures and lost connections at every step.

#[cfg(test)]
mod defect;
#[cfg(test)]
mod simulation;
mod storing;

pub(super) use storing::{Ending, ReadBack, StoreEnd, Storing};
