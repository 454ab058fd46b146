//! Dedup marks: which records of a conversation were seen, for a time by the partition clock and up to a
//! number.
//!
//! Marks are kept in chunks of 128 with a changelog key each, by 10-minute bucket of the partition clock. A
//! full chunk is never written again, and whole chunks expire, in log order.

use schemas::time::PartitionClock;
use std::collections::{BTreeSet, VecDeque};

/// Length of a bucket, ms of the partition clock.
pub const BUCKET_MS: i64 = 600_000;
/// How many marks a full chunk has.
pub const CHUNK_MARKS: usize = 128;

/// A dedup mark: 128 bits that tell a record from every other one ([`schemas::otlp::mark`]).
pub type Mark = [u8; 16];

/// The identifier of a chunk within its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkId {
    /// Start of the chunk's bucket.
    pub bucket: PartitionClock,
    /// Number of the chunk within its bucket, from 0.
    pub number: u32,
}

/// The marks of one conversation, in chunks in log order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    seen: BTreeSet<Mark>,
    chunks: VecDeque<(ChunkId, Vec<Mark>)>,
}

/// The result of adding a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// The mark was there already: the record is a duplicate.
    Seen,
    /// The mark was added.
    New {
        /// The chunk that the mark went into, which has to be written.
        chunk: ChunkId,
        /// Whether the mark is the first one in its bucket.
        first: bool,
        /// The oldest chunk, if it was dropped because there were too many marks; it has to be deleted.
        dropped: Option<ChunkId>,
    },
}

impl Marks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds the mark of a record that came at `clock`. Drops the oldest chunk if there are more than
    /// `marks_max` marks.
    pub fn add(&mut self, mark: Mark, clock: PartitionClock, marks_max: usize) -> Added {
        if !self.seen.insert(mark) {
            return Added::Seen;
        }
        let bucket = PartitionClock(clock.0 - clock.0.rem_euclid(BUCKET_MS));
        let (chunk, first) = match self.chunks.back() {
            Some((id, marks)) if id.bucket == bucket && marks.len() < CHUNK_MARKS => (*id, false),
            Some((id, _)) if id.bucket == bucket => (
                self.open(ChunkId {
                    bucket,
                    number: id.number + 1,
                }),
                false,
            ),
            _ => (self.open(ChunkId { bucket, number: 0 }), true),
        };
        if let Some((_, marks)) = self.chunks.back_mut() {
            marks.push(mark);
        }
        let over = self.seen.len() > marks_max && self.chunks.len() > 1;
        Added::New {
            chunk,
            first,
            dropped: if over { self.drop_first() } else { None },
        }
    }

    fn open(&mut self, id: ChunkId) -> ChunkId {
        self.chunks.push_back((id, Vec::new()));
        id
    }

    fn drop_first(&mut self) -> Option<ChunkId> {
        let (id, marks) = self.chunks.pop_front()?;
        marks.iter().for_each(|mark| {
            self.seen.remove(mark);
        });
        Some(id)
    }

    /// Drops the chunks of `bucket` and of all earlier buckets, and gives them in order.
    pub fn expire(&mut self, bucket: PartitionClock) -> Vec<ChunkId> {
        let mut gone = Vec::new();
        while self.chunks.front().is_some_and(|(id, _)| id.bucket <= bucket) {
            gone.extend(self.drop_first());
        }
        gone
    }

    /// The marks of a chunk one after another, as the changelog holds them; `None` if there is no such chunk.
    pub fn bytes(&self, id: ChunkId) -> Option<Vec<u8>> {
        let (_, marks) = self.chunks.iter().rev().find(|(other, _)| *other == id)?;
        Some(marks.concat())
    }

    /// Restores a chunk from the changelog; chunks may come in any order.
    pub fn restore(&mut self, id: ChunkId, bytes: &[u8]) {
        let marks: Vec<Mark> = bytes
            .chunks_exact(16)
            .filter_map(|mark| mark.try_into().ok())
            .collect();
        self.seen.extend(marks.iter().copied());
        let at = self.chunks.partition_point(|(other, _)| *other < id);
        self.chunks.insert(at, (id, marks));
    }

    /// The buckets that hold marks, ascending.
    pub fn buckets(&self) -> BTreeSet<PartitionClock> {
        self.chunks.iter().map(|(id, _)| id.bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: PartitionClock = PartitionClock(0);
    const SECOND: PartitionClock = PartitionClock(BUCKET_MS);

    fn mark(number: u128) -> Mark {
        number.to_be_bytes()
    }

    const fn chunk(bucket: PartitionClock, number: u32) -> ChunkId {
        ChunkId { bucket, number }
    }

    #[test]
    fn chunks_fill_and_are_not_written_again() {
        let mut marks = Marks::default();
        for number in 0..130 {
            let added = marks.add(mark(number), PartitionClock(5), 1_000);
            assert_eq!(
                added,
                Added::New {
                    chunk: chunk(FIRST, u32::from(number >= 128)),
                    first: number == 0,
                    dropped: None
                }
            );
        }
        assert_eq!(
            marks.add(mark(3), PartitionClock(BUCKET_MS * 2), 1_000),
            Added::Seen
        );
        assert_eq!(marks.bytes(chunk(FIRST, 1)).map(|bytes| bytes.len()), Some(32));
    }

    #[test]
    fn oldest_go_first_by_count_and_by_clock() {
        let mut marks = Marks::default();
        (0..256).for_each(|number| {
            marks.add(mark(number), FIRST, 256);
        });
        let Added::New { dropped, .. } = marks.add(mark(256), SECOND, 256) else {
            panic!("mark 256 is not new")
        };
        assert_eq!(dropped, Some(chunk(FIRST, 0)));
        assert!(
            matches!(marks.add(mark(0), SECOND, 512), Added::New { .. }),
            "a mark that was dropped is new again"
        );
        assert_eq!(marks.expire(FIRST), vec![chunk(FIRST, 1)]);
        assert_eq!(marks.buckets(), BTreeSet::from([SECOND]));
    }

    #[test]
    fn restored_marks_are_the_same() {
        let mut marks = Marks::default();
        (0..300).for_each(|number| {
            marks.add(mark(number), if number < 200 { FIRST } else { SECOND }, 10_000);
        });
        let mut restored = Marks::default();
        for (id, _) in marks.chunks.iter().rev() {
            restored.restore(*id, &marks.bytes(*id).unwrap());
        }
        assert_eq!(restored, marks);
    }
}
