//! Which partitions of a super stream there should be, by the broker's answers. Pure.
//!
//! - A partition is added as soon as an answer has it.
//! - It is removed when [`MISSES`] answers in a row do not have it: a node that has just started may
//!   know only some.
//! - Nothing else removes one: not an answer without any partition, not a super stream that does not
//!   exist, and not a broker that cannot be asked. A stream that is there still holds its messages,
//!   and one that was deleted is reported by its own consumer.

use indexmap::IndexMap;

use crate::types::StreamName;

/// Answers in a row without a partition after which it counts as removed.
pub(super) const MISSES: u32 = 2;

/// The partitions that are read, each with the number of answers in a row that did not have it.
#[derive(Debug, Default)]
pub(super) struct Present(IndexMap<StreamName, u32>);

/// Consequences of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Partitions that are not read yet.
    pub(super) new: Vec<StreamName>,
    /// Partitions that are not to be read any more.
    pub(super) gone: Vec<StreamName>,
}

impl Present {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, partition: &StreamName) -> bool {
        self.0.contains_key(partition)
    }

    /// Takes an answer that has at least one partition. What is new is to be confirmed by
    /// [`Present::add`].
    pub(super) fn answered(&mut self, partitions: &[StreamName]) -> Changes {
        let new = partitions.iter().filter(|partition| !self.has(partition)).cloned().collect();
        let mut gone = Vec::new();
        self.0.retain(|partition, missed| {
            *missed = if partitions.contains(partition) { 0 } else { *missed + 1 };
            let stays = *missed < MISSES;
            if !stays {
                gone.push(partition.clone());
            }
            stays
        });
        Changes { new, gone }
    }

    /// This partition is read from now on.
    pub(super) fn add(&mut self, partition: &StreamName) {
        self.0.insert(partition.clone(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<StreamName> {
        all.iter().map(|name| StreamName::from(*name)).collect()
    }

    fn take(present: &mut Present, all: &[&str]) -> Changes {
        let changes = present.answered(&names(all));
        changes.new.iter().for_each(|partition| present.add(partition));
        changes
    }

    fn changes(new: &[&str], gone: &[&str]) -> Changes {
        Changes { new: names(new), gone: names(gone) }
    }

    #[test]
    fn partitions_come_at_once_and_go_after_two_answers() {
        let mut present = Present::default();
        assert_eq!(take(&mut present, &["a", "b"]), changes(&["a", "b"], &[]));
        assert_eq!(take(&mut present, &["a", "b", "c"]), changes(&["c"], &[]));
        assert_eq!(take(&mut present, &["a", "c"]), changes(&[], &[]));
        assert_eq!(take(&mut present, &["a", "c"]), changes(&[], &["b"]));
        assert_eq!(take(&mut present, &["a", "c"]), changes(&[], &[]));
        assert_eq!(take(&mut present, &["b", "c"]), changes(&["b"], &[]));
    }

    #[test]
    fn one_answer_without_a_partition_is_forgotten() {
        let mut present = Present::default();
        take(&mut present, &["a", "b"]);
        for _ in 0..3 {
            assert_eq!(take(&mut present, &["a"]), changes(&[], &[]));
            assert_eq!(take(&mut present, &["a", "b"]), changes(&[], &[]));
        }
    }

    #[test]
    fn what_could_not_be_added_is_new_again() {
        let mut present = Present::default();
        assert_eq!(present.answered(&names(&["a"])), changes(&["a"], &[]));
        assert!(present.is_empty());
        assert_eq!(present.answered(&names(&["a"])), changes(&["a"], &[]));
    }
}
