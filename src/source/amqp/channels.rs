//! Ids of a connection's channels, other than the consumer's own.

/// Channel of the consumer; probes use those after it.
pub(super) const MAIN: u16 = 1;

/// Ids that may be used, and those that have been.
pub(super) struct Channels {
    id_max: u16,
    /// Those above were never used.
    used_max: u16,
    /// Closed on both sides.
    free: Vec<u16>,
}

impl Channels {
    /// Ids up to this one.
    pub(super) fn new(id_max: u16) -> Channels {
        Channels { id_max, used_max: MAIN, free: Vec::new() }
    }

    /// An id that is not in use; `None` if all are.
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop().or_else(|| {
            let next = self.used_max.checked_add(1).filter(|id| *id <= self.id_max)?;
            self.used_max = next;
            Some(next)
        })
    }

    /// This channel is closed on both sides: its id may be used again.
    pub(super) fn freed(&mut self, id: u16) {
        if (MAIN + 1..=self.used_max).contains(&id) && !self.free.contains(&id) {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_used_again_once_its_channel_is_closed() {
        let mut channels = Channels::new(3);
        assert_eq!([channels.take(), channels.take(), channels.take()], [Some(2), Some(3), None]);
        for id in [2, 2, MAIN, 0, 4] {
            channels.freed(id);
        }
        assert_eq!([channels.take(), channels.take()], [Some(2), None], "no other one, and once");
        let mut all = Channels::new(u16::MAX);
        let count = std::iter::from_fn(|| all.take()).count();
        assert_eq!(count, usize::from(u16::MAX - MAIN));
    }
}
