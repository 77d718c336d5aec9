//! AMQP 1.0 messages: every section, every type, read lazily from slices.
//!
//! Facts from OASIS AMQP 1.0, part 1 (types) and part 3, section 3.2 (message format).
//!
//! [`Message::parse`] makes one cheap pass. It checks that the message is a sequence of known
//! sections which fill it exactly, that each holds a value of the right shape (list, map, binary,
//! anything) whose size fits, that no section but `data` and `amqp-sequence` occurs twice, and that
//! the body is of one kind. The content of a section is skipped by its size and checked when it
//! is visited, so every iterator yields results; [`Message::validate`] visits everything.
//!
//! Invariants:
//! - nothing is allocated to parse or to walk, and nothing panics;
//! - a size or a count is used only if enough bytes are there for it: a list's count cannot exceed
//!   its bytes, and an array of elements that take no bytes stops at [`ZERO_WIDTH_MAX`];
//! - nesting stops at [`DEPTH_MAX`], skipping never recurses;
//! - every error names the byte at which it arose, counted from the start of the message.
//!
//! Real producers deviate from the standard. Where no meaning is lost, this decoder accepts it:
//! sections may come in any order, a section's list or map may be null, the body may be missing,
//! lists may be shorter than their fields, symbols may hold UTF-8, strings and symbols may hold
//! bytes that are not UTF-8, a descriptor may be numeric or symbolic.

mod compose;
mod cursor;
mod decimal;
mod error;
mod items;
mod message;
mod properties;
mod value;
mod walk;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use compose::{Plain, compose};
pub use decimal::{Decimal, DecimalParts};
pub use error::AmqpError;
pub use items::{Array, Described, Entries, Items, List, Map};
pub use message::{Body, Data, Message, Sequences, single_data};
pub use properties::{Header, MessageId, Properties};
pub use value::Value;
#[doc(hidden)]
pub use walk::fuzz_message;
pub use write::{Annotation, annotate, append_with_body, carried, carrying, with_body};

/// Most lists, maps, arrays and descriptors that may be nested in one another. Each takes at most
/// two levels in JSON, so that any value stays below the 128 levels at which common JSON parsers
/// give up.
pub const DEPTH_MAX: u8 = 60;

/// Most elements of an array whose elements take no bytes (null, true, false, uint 0, ulong 0,
/// empty list). Without this limit, ten bytes could declare four thousand million elements.
pub const ZERO_WIDTH_MAX: u32 = 4096;
