//! What can be wrong with an encoded message, and at which byte.

/// Why a message could not be decoded. `at` counts bytes from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmqpError {
    /// The bytes end, or the enclosing size ends, before the value does.
    #[error("malformed AMQP 1.0 at byte {at}: {what} needs {needed} bytes, {left} are left")]
    Truncated {
        /// Where the missing bytes should start.
        at: usize,
        /// What was being read.
        what: &'static str,
        /// How many bytes it takes.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// A format code that AMQP 1.0 does not define.
    #[error("malformed AMQP 1.0 at byte {at}: 0x{code:02x} is not a type's format code")]
    UnknownType {
        /// Where the code stands.
        at: usize,
        /// The code.
        code: u8,
    },
    /// A section whose descriptor is not one of the nine that AMQP 1.0 defines.
    #[error("malformed AMQP 1.0 at byte {at}: 0x{code:x} is not the descriptor of a section")]
    UnknownSection {
        /// Where the section starts.
        at: usize,
        /// Its descriptor.
        code: u64,
    },
    /// A well-formed value of a type that is not allowed here.
    #[error("malformed AMQP 1.0 at byte {at}: {what} must be {expected}, it is {found}")]
    Unexpected {
        /// Where the value stands.
        at: usize,
        /// What the value stands for.
        what: &'static str,
        /// The types that are allowed.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
    },
    /// Anything else that the format forbids.
    #[error("malformed AMQP 1.0 at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Well-formed so far, but nested deeper or larger than the limits allow.
    #[error("AMQP 1.0 over a limit at byte {at}: {what}; the limit is {limit}")]
    OverLimit {
        /// Where.
        at: usize,
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

impl AmqpError {
    /// Whether the message may be well-formed, and only exceeds a limit of this decoder.
    pub fn is_over_limit(&self) -> bool {
        matches!(self, AmqpError::OverLimit { .. })
    }
}
