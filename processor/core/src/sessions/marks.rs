//! Dedup marks of one conversation: which records were seen, for a time by the clock and up to a number.
//!
//! Marks are kept in chunks of 128 under keys of their own, by 10-minute bucket of the clock: a full chunk is never
//! written again, and expiring deletes whole chunks, in log order.

use std::collections::{BTreeSet, VecDeque};

/// Length of a bucket, ms of the partition clock.
pub const BUCKET_MS: i64 = 600_000;
/// Marks in a full chunk.
pub const CHUNK_MARKS: usize = 128;

/// A mark: 128 bits over what makes a record itself.
pub type Mark = [u8; 16];

/// Names a chunk within its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkId {
    /// Start of its bucket, ms.
    pub bucket: i64,
    /// Its number within the bucket.
    pub number: u32,
}

/// The marks of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    seen: BTreeSet<Mark>,
    chunks: VecDeque<(ChunkId, Vec<Mark>)>,
}

/// What adding a mark did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there already: the record is a duplicate.
    Seen,
    /// It is in that chunk now; and if the number of marks went over the limit, another chunk is gone.
    New {
        /// To be written.
        chunk: ChunkId,
        /// Whether it is the first of its bucket.
        first: bool,
        /// To be deleted.
        dropped: Option<ChunkId>,
    },
}

impl Marks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds the mark of a record that came at `clock`.
    pub fn add(&mut self, mark: Mark, clock: i64, marks_max: usize) -> Added {
        if !self.seen.insert(mark) {
            return Added::Seen;
        }
        let bucket = clock - clock.rem_euclid(BUCKET_MS);
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

    /// Forgets the buckets up to and with `bucket`; the chunks that are gone, in order.
    pub fn expire(&mut self, bucket: i64) -> Vec<ChunkId> {
        let mut gone = Vec::new();
        while self.chunks.front().is_some_and(|(id, _)| id.bucket <= bucket) {
            gone.extend(self.drop_first());
        }
        gone
    }

    /// The marks of a chunk, one after another, as written.
    pub fn bytes(&self, id: ChunkId) -> Option<Vec<u8>> {
        let (_, marks) = self.chunks.iter().rev().find(|(other, _)| *other == id)?;
        Some(marks.concat())
    }

    /// Puts a chunk back as it was written; chunks may come in any order.
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
    pub fn buckets(&self) -> BTreeSet<i64> {
        self.chunks.iter().map(|(id, _)| id.bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u128) -> Mark {
        number.to_be_bytes()
    }

    #[test]
    fn chunks_fill_and_are_not_written_again() {
        let mut marks = Marks::default();
        for number in 0..130 {
            let chunk = u32::from(number >= 128);
            let added = marks.add(mark(number), 5, 1_000);
            assert_eq!(
                added,
                Added::New {
                    chunk: ChunkId {
                        bucket: 0,
                        number: chunk
                    },
                    first: number == 0,
                    dropped: None
                }
            );
        }
        assert_eq!(marks.add(mark(3), BUCKET_MS * 2, 1_000), Added::Seen);
        assert_eq!(
            marks
                .bytes(ChunkId { bucket: 0, number: 1 })
                .map(|bytes| bytes.len()),
            Some(32)
        );
    }

    #[test]
    fn oldest_go_first_by_count_and_by_clock() {
        let mut marks = Marks::default();
        (0..256).for_each(|number| {
            marks.add(mark(number), 0, 256);
        });
        let Added::New { dropped, .. } = marks.add(mark(256), BUCKET_MS, 256) else {
            panic!("it is new")
        };
        assert_eq!(dropped, Some(ChunkId { bucket: 0, number: 0 }));
        assert!(
            matches!(marks.add(mark(0), BUCKET_MS, 512), Added::New { .. }),
            "forgotten, so new again"
        );
        assert_eq!(marks.expire(0), vec![ChunkId { bucket: 0, number: 1 }]);
        assert_eq!(marks.buckets(), BTreeSet::from([BUCKET_MS]));
    }

    #[test]
    fn restored_marks_are_the_same() {
        let mut marks = Marks::default();
        (0..300).for_each(|number| {
            marks.add(mark(number), if number < 200 { 0 } else { BUCKET_MS }, 10_000);
        });
        let mut restored = Marks::default();
        for (id, _) in marks.chunks.iter().rev() {
            restored.restore(*id, &marks.bytes(*id).unwrap());
        }
        assert_eq!(restored, marks);
    }
}
