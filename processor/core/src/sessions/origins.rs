//! Origins: how far the records of each inbox partition and spool have come on this raw partition.
//!
//! Ingest drains an inbox at least once. Whatever crashes, is slow or wakes up: on a raw partition the
//! records of one source are runs that each begin at or before the first one that was missing, and go on
//! without a hole. So a record is new exactly if it is above the last one taken, and of a run that comes
//! again only the new end is taken. The log records of what is not above it count as `duplicate`.
//!
//! Header `tacho-origin` of a raw record names the inbox topic and partition, the offset, which part of the
//! request it is (the rank of its last item), and the inbox's stamp. An inbox topic that was deleted and made
//! anew begins at offset 0 again. Its records have later stamps than any of the old one, so a stamp above all
//! that were seen is new too, whatever its offset.
//!
//! The test `processor/core/tests/origins.rs` makes such runs at random.
//!
//! **Invariant:** what is skipped is skipped for good, so the parts of one source must come in order and
//! without a hole (`ingest/src/inbox`).

use schemas::origin::Origin;
use schemas::state::OriginMark;
use std::collections::{BTreeMap, BTreeSet};

/// The most sources that are known; a further one takes the place of the source that was silent for longest.
pub const ORIGINS_MAX: usize = 1024;

/// The last record that was taken from each source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins {
    marks: BTreeMap<String, OriginMark>,
    /// Sources whose mark was changed or dropped since the last call of [`Origins::changes`].
    dirty: BTreeSet<String>,
}

impl Origins {
    /// Takes the raw record at offset `at`, which has that origin, and returns `true`, unless the origin was
    /// taken before.
    pub fn take(&mut self, origin: Origin<'_>, at: i64) -> bool {
        let Origin {
            source,
            offset,
            part,
            stamped_ms,
        } = origin;
        let mark = OriginMark {
            offset,
            part,
            stamped_ms,
            last_offset: at,
        };
        if let Some(known) = self.marks.get_mut(source) {
            if (offset, part) <= (known.offset, known.part) && stamped_ms <= known.stamped_ms {
                return false;
            }
            *known = OriginMark {
                stamped_ms: stamped_ms.max(known.stamped_ms),
                ..mark
            };
        } else {
            self.make_room();
            self.marks.insert(source.to_owned(), mark);
        }
        self.dirty.insert(source.to_owned());
        true
    }

    fn make_room(&mut self) {
        if self.marks.len() < ORIGINS_MAX {
            return;
        }
        let silent = self
            .marks
            .iter()
            .min_by_key(|(_, mark)| mark.last_offset)
            .map(|(source, _)| source.clone());
        if let Some(silent) = silent {
            self.marks.remove(&silent);
            self.dirty.insert(silent);
        }
    }

    /// The marks that changed since the last call, by source; `None` for a source that was dropped.
    pub fn changes(&mut self) -> BTreeMap<String, Option<OriginMark>> {
        let with_mark = |source: String| {
            let mark = self.marks.get(&source).copied();
            (source, mark)
        };
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(with_mark)
            .collect()
    }

    /// Restores a mark from the changelog.
    pub fn restore(&mut self, source: &str, mark: OriginMark) {
        self.marks.insert(source.to_owned(), mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, offset: i64, part: u32, stamped_ms: i64) -> Origin<'_> {
        Origin {
            source,
            offset,
            part,
            stamped_ms,
        }
    }

    #[test]
    fn only_what_is_above_the_mark_is_taken() {
        let mut origins = Origins::default();
        let mut take = |offset, part, stamped| origins.take(origin("a", offset, part, stamped), 0);
        assert_eq!([take(5, 0, 10), take(5, 1, 10), take(9, 0, 12)], [true; 3]);
        // The inbox is drained again from the start, and further than before.
        assert_eq!(
            [take(5, 0, 10), take(5, 1, 10), take(9, 0, 12), take(9, 1, 12)],
            [false, false, false, true]
        );
        // A new leader of the inbox partition has a clock that is behind; then the end is drained again.
        assert_eq!(
            [take(10, 0, 8), take(9, 1, 12), take(10, 0, 8)],
            [true, false, false]
        );
    }

    #[test]
    fn a_topic_that_was_made_anew_is_read_from_its_start() {
        let mut origins = Origins::default();
        let mut take = |offset, stamped| origins.take(origin("a", offset, 0, stamped), 0);
        assert!(take(100, 10));
        assert_eq!([take(0, 20), take(1, 20), take(2, 21)], [true; 3]);
        assert_eq!([take(1, 20), take(2, 21), take(3, 21)], [false, false, true]);
    }

    #[test]
    fn the_source_that_was_silent_for_longest_is_forgotten() {
        let mut origins = Origins::default();
        for number in 0..ORIGINS_MAX {
            assert!(origins.take(
                origin(&number.to_string(), 1, 0, 0),
                i64::try_from(number).unwrap()
            ));
        }
        assert!(origins.take(origin("0", 2, 0, 0), 5_000));
        origins.changes();
        assert!(origins.take(origin("more", 1, 0, 0), 5_001));
        let changes = origins.changes();
        let gone: Vec<&str> = changes
            .iter()
            .filter(|(_, mark)| mark.is_none())
            .map(|(source, _)| source.as_str())
            .collect();
        assert_eq!((gone, changes.len()), (vec!["1"], 2));
        assert!(!origins.take(origin("0", 2, 0, 0), 5_002));
    }
}
