//! A place in an encoded message, and the steps that never leave it.
//!
//! A cursor's slice starts at the message's first byte and ends where the enclosing value does, so
//! its position is the absolute one that errors name, and no step can run past the enclosing size.

use super::{AmqpError, DEPTH_MAX};

#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A copy of this cursor at another position.
    pub(super) fn moved_to(self, at: usize) -> Self {
        Self { at: at.min(self.bytes.len()), ..self }
    }

    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], AmqpError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.get(..n) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => Err(AmqpError::Truncated { at: self.at, what, needed: n, left: rest.len() }),
        }
    }

    #[inline]
    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<&'a [u8; N], AmqpError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(taken)
            }
            None => Err(AmqpError::Truncated { at: self.at, what, needed: N, left: rest.len() }),
        }
    }

    #[inline]
    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, AmqpError> {
        self.array::<1>(what).map(|b| b[0])
    }

    /// Reads a size or a count, in one byte or four.
    #[inline]
    pub(super) fn length(&mut self, wide: bool, what: &'static str) -> Result<u32, AmqpError> {
        if wide {
            self.array(what).map(|b| u32::from_be_bytes(*b))
        } else {
            self.byte(what).map(u32::from)
        }
    }

    /// A cursor over the next `n` bytes; this one moves behind them.
    #[inline]
    pub(super) fn region(&mut self, n: u32, what: &'static str) -> Result<Cursor<'a>, AmqpError> {
        let at = self.at;
        self.take(n as usize, what)?;
        Ok(Cursor { bytes: self.bytes.get(..self.at).unwrap_or_default(), at })
    }

    /// Moves over a constructor and its descriptors. Returns the format code, which gives the
    /// layout of the payload. A loop with a counter, since a descriptor can itself be described.
    #[inline]
    pub(super) fn constructor(&mut self) -> Result<u8, AmqpError> {
        let mut seen = 0;
        let mut open = 0;
        loop {
            let at = self.at;
            match self.byte("a format code")? {
                0 if seen == DEPTH_MAX => {
                    return Err(AmqpError::OverLimit {
                        at,
                        what: "descriptors nested too deep",
                        limit: DEPTH_MAX.into(),
                    });
                }
                0 => {
                    seen += 1;
                    open += 1;
                }
                code if open == 0 => return Ok(code),
                code => {
                    self.skip_payload(code, at)?;
                    open -= 1;
                }
            }
        }
    }

    /// Moves over the payload of the format code `code`, which was read at `code_at`.
    #[inline]
    pub(super) fn skip_payload(&mut self, code: u8, code_at: usize) -> Result<(), AmqpError> {
        let size = match payload_width(code) {
            Some(Width::Fixed(n)) => n,
            Some(Width::Sized { wide }) => self.length(wide, "a size")?,
            None => return Err(AmqpError::UnknownType { at: code_at, code }),
        };
        self.take(size as usize, "a value").map(drop)
    }

    /// Moves over one value.
    #[inline]
    pub(super) fn skip_value(&mut self) -> Result<(), AmqpError> {
        let at = self.at;
        let code = self.constructor()?;
        self.skip_payload(code, at)
    }
}

/// Length of a payload, given by the upper half of the format code (part 1, 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Fixed(u32),
    Sized { wide: bool },
}

impl Width {
    /// The fewest bytes that a payload of this width takes.
    pub(super) fn least(self) -> u32 {
        match self {
            Width::Fixed(n) => n,
            Width::Sized { wide } => {
                if wide {
                    4
                } else {
                    1
                }
            }
        }
    }
}

#[inline]
pub(super) fn payload_width(code: u8) -> Option<Width> {
    Some(match code >> 4 {
        0x4 => Width::Fixed(0),
        n @ 0x5..=0x9 => Width::Fixed(1 << (n - 5)),
        0xa | 0xc | 0xe => Width::Sized { wide: false },
        0xb | 0xd | 0xf => Width::Sized { wide: true },
        _ => return None,
    })
}
