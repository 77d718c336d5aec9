//! Contents of records in buffers that they share, so that a record is no allocation of its own: they are made on one
//! thread and dropped on another one, which is what allocators are slowest at.

use bytes::{Bytes, BytesMut};

/// Bytes of a buffer.
const BUFFER_BYTES: usize = 64 << 10;

/// Longer contents have an allocation of their own, so that little of a buffer is left unused.
const SHARED_BYTES_MAX: usize = BUFFER_BYTES / 8;

/// Makes contents.
#[derive(Debug, Default)]
pub struct Contents {
    /// The content that is being written: its length is known only at its end.
    next: Vec<u8>,
    shared: BytesMut,
}

impl Contents {
    /// Where the next content is written to.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.next.clear();
        &mut self.next
    }

    /// What was written since [`begin`](Contents::begin).
    pub fn end(&mut self) -> Bytes {
        if self.next.len() > SHARED_BYTES_MAX {
            // Of exactly its size: as a vector it has up to twice as much room.
            return Bytes::from(std::mem::take(&mut self.next).into_boxed_slice());
        }
        if self.shared.capacity() < self.next.len() {
            self.shared = BytesMut::with_capacity(BUFFER_BYTES);
        }
        self.shared.extend_from_slice(&self.next);
        self.shared.split().freeze()
    }

    /// A copy of this content.
    pub fn copy(&mut self, content: &[u8]) -> Bytes {
        self.begin().extend_from_slice(content);
        self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_stay_what_they_are() {
        let mut contents = Contents::default();
        let made: Vec<(usize, Bytes)> = (0..2_000)
            .map(|nth| {
                let length = if nth % 100 == 99 { SHARED_BYTES_MAX + nth } else { nth % 300 };
                let next = contents.begin();
                while next.len() < length {
                    next.resize(length.min(next.len() + 1_000), nth as u8);
                }
                (length, contents.end())
            })
            .collect();
        for (nth, (length, content)) in made.iter().enumerate() {
            assert_eq!(content.len(), *length, "{nth}");
            assert!(content.iter().all(|byte| *byte == nth as u8), "{nth}");
        }
        // A content of its own has no spare room, which nobody would count.
        for (length, content) in made {
            if length > SHARED_BYTES_MAX {
                assert_eq!(content.try_into_mut().unwrap().capacity(), length);
            }
        }
        assert_eq!(contents.copy(b"abc"), b"abc"[..]);
        assert_eq!(contents.copy(b""), b""[..]);
    }
}
