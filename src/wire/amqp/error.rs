//! Errors of the AMQP 1.0 decoder, each with the byte at which it arose.

/// Error of the AMQP 1.0 decoder. `at` counts bytes from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmqpError {
    /// The bytes end, or the enclosing size ends, before the value does.
    #[error("malformed AMQP 1.0 at byte {at}: {what} needs {needed} bytes, {left} are left")]
    Truncated {
        /// Byte at which the missing bytes should start.
        at: usize,
        /// Name of the item that was being read.
        what: &'static str,
        /// Bytes that the item takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A format code that AMQP 1.0 does not define.
    #[error("malformed AMQP 1.0 at byte {at}: 0x{code:02x} is not a type's format code")]
    UnknownType {
        /// Position of the code in bytes.
        at: usize,
        /// The code.
        code: u8,
    },
    /// A section whose descriptor is not one of the nine that AMQP 1.0 defines.
    #[error("malformed AMQP 1.0 at byte {at}: 0x{code:x} is not the descriptor of a section")]
    UnknownSection {
        /// Byte at which the section starts.
        at: usize,
        /// Its descriptor.
        code: u64,
    },
    /// A well-formed value of a type that is not allowed here.
    #[error("malformed AMQP 1.0 at byte {at}: {what} must be {expected}, it is {found}")]
    Unexpected {
        /// Position of the value in bytes.
        at: usize,
        /// Field that the value belongs to.
        what: &'static str,
        /// The types that are allowed.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
    /// Anything else that the format forbids.
    #[error("malformed AMQP 1.0 at byte {at}: {what}")]
    Malformed {
        /// Byte at which the error was found.
        at: usize,
        /// Description of the error.
        what: &'static str,
    },
    /// Well-formed so far, but nested deeper or larger than the limits allow.
    #[error("AMQP 1.0 over a limit at byte {at}: {what}; the limit is {limit}")]
    OverLimit {
        /// Byte at which the limit was passed.
        at: usize,
        /// Name of the limited quantity.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl AmqpError {
    /// True if the message only exceeds a limit of this decoder and may still be well-formed.
    pub fn is_over_limit(&self) -> bool {
        matches!(self, AmqpError::OverLimit { .. })
    }
}
