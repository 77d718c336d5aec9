//! Reading and writing the protocol's primitive types.
//!
//! Big-endian integers; strings behind an `i16` length; bytes behind an `i32` length; -1 is null in
//! both; arrays behind an `i32` count (PROTOCOL.adoc, "Types"). A count is accepted only if enough
//! bytes are left for it, so no allocation is larger than a small multiple of the input.

use bytes::{BufMut, BytesMut};

use super::error::{WireError, WireProblem};

/// Longest string, in bytes, that fits behind an `i16` length.
pub const STRING_MAX: usize = i16::MAX as usize;

/// Reads from a slice; knows the name of the structure and the position in it.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    structure: &'static str,
    bytes: &'a [u8],
    position: usize,
}

macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub fn $name(&mut self) -> Result<$name, WireError> {
                self.array_of().map($name::from_be_bytes)
            }
        )*
    };
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte; errors name `structure`.
    pub fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, bytes, position: 0 }
    }

    /// Number of bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes not read yet.
    pub fn remaining(&self) -> &'a [u8] {
        // `position` never passes the end; an empty slice is what there would be if it did.
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// True if everything was read.
    pub fn is_empty(&self) -> bool {
        self.position == self.bytes.len()
    }

    /// An error at the current position.
    pub fn error(&self, problem: WireProblem) -> WireError {
        WireError::new(self.structure, self.position, problem)
    }

    integers!(
        /// The next byte.
        u8,
        /// The next two bytes.
        u16,
        /// The next two bytes, signed.
        i16,
        /// The next four bytes.
        u32,
        /// The next four bytes, signed.
        i32,
        /// The next eight bytes.
        u64,
        /// The next eight bytes, signed.
        i64
    );

    /// The next `length` bytes, unchanged.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let rest = self.remaining();
        let taken = rest.get(..length).ok_or_else(|| {
            self.error(WireProblem::Truncated { wanted: length, left: rest.len() })
        })?;
        self.position += length;
        Ok(taken)
    }

    /// A string; null is an error.
    pub fn string(&mut self) -> Result<&'a str, WireError> {
        let start = self.clone();
        self.nullable_string()?.ok_or_else(|| start.error(WireProblem::Null))
    }

    /// A string; `None` if it is null.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, WireError> {
        let start = self.clone();
        match self.string_bytes()? {
            None => Ok(None),
            Some(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(start.error(WireProblem::NotUtf8)),
            },
        }
    }

    /// A string for display: null becomes empty, bytes that are not UTF-8 are replaced.
    pub fn string_lossy(&mut self) -> Result<String, WireError> {
        let text = self.string_bytes()?.unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Bytes behind an `i32` length; `None` if null.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let start = self.clone();
        let length = self.i32()?;
        start.take_nullable(length, self)
    }

    /// An array. `item_min` is the least number of bytes of one item: a count that the remaining
    /// bytes cannot hold is an error before anything is allocated. Null becomes empty.
    pub fn array<T>(
        &mut self,
        item_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let start = self.clone();
        let count = match self.i32()? {
            -1 => 0,
            count => {
                u32::try_from(count).map_err(|_| start.error(WireProblem::NegativeLength(count)))?
            }
        };
        let left = self.remaining().len();
        let fits = left / item_min.max(1);
        if count as usize > fits {
            return Err(start.error(WireProblem::CountTooLarge { count, left }));
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// An array of key and value strings, in the order in which they stand.
    pub fn string_pairs(&mut self) -> Result<Vec<(String, String)>, WireError> {
        self.array(4, |c| Ok((c.string_lossy()?, c.string_lossy()?)))
    }

    fn string_bytes(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let start = self.clone();
        let length = i32::from(self.i16()?);
        start.take_nullable(length, self)
    }

    /// Takes `length` bytes from `after`; the length field began at `self`.
    fn take_nullable(&self, length: i32, after: &mut Self) -> Result<Option<&'a [u8]>, WireError> {
        match usize::try_from(length) {
            Ok(length) => after.take(length).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.error(WireProblem::NegativeLength(length))),
        }
    }

    #[inline]
    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.remaining().first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => {
                let left = self.remaining().len();
                Err(self.error(WireProblem::Truncated { wanted: N, left }))
            }
        }
    }
}

/// Writes the protocol's compound types; integers come from [`BufMut`].
pub trait PutExt {
    /// A string of at most [`STRING_MAX`] bytes; errors name `what`.
    fn put_string(&mut self, what: &'static str, text: &str) -> Result<(), WireError>;

    /// Bytes behind an `i32` length; `None` is null.
    fn put_blob(&mut self, what: &'static str, bytes: Option<&[u8]>) -> Result<(), WireError>;

    /// A number of items, written before them.
    fn put_count(&mut self, what: &'static str, count: usize) -> Result<(), WireError>;

    /// An array of key and value strings.
    fn put_string_pairs(
        &mut self,
        what: &'static str,
        pairs: &[(String, String)],
    ) -> Result<(), WireError>;
}

impl PutExt for BytesMut {
    fn put_string(&mut self, what: &'static str, text: &str) -> Result<(), WireError> {
        let length =
            i16::try_from(text.len()).map_err(|_| too_long(self, what, text.len(), STRING_MAX))?;
        self.put_i16(length);
        self.put_slice(text.as_bytes());
        Ok(())
    }

    fn put_blob(&mut self, what: &'static str, bytes: Option<&[u8]>) -> Result<(), WireError> {
        let Some(bytes) = bytes else {
            self.put_i32(-1);
            return Ok(());
        };
        self.put_count(what, bytes.len())?;
        self.put_slice(bytes);
        Ok(())
    }

    fn put_count(&mut self, what: &'static str, count: usize) -> Result<(), WireError> {
        let count =
            i32::try_from(count).map_err(|_| too_long(self, what, count, i32::MAX as usize))?;
        self.put_i32(count);
        Ok(())
    }

    fn put_string_pairs(
        &mut self,
        what: &'static str,
        pairs: &[(String, String)],
    ) -> Result<(), WireError> {
        self.put_count(what, pairs.len())?;
        pairs.iter().try_for_each(|(key, value)| {
            self.put_string(what, key)?;
            self.put_string(what, value)
        })
    }
}

fn too_long(out: &BytesMut, what: &'static str, length: usize, limit: usize) -> WireError {
    WireError::new("outgoing frame", out.len(), WireProblem::TooLong { what, length, limit })
}

#[cfg(test)]
mod tests;
