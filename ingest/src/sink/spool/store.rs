//! The records that wait, on disk: segments that are written at the end and removed from the front.
//!
//! - What [`Store::append`] has confirmed is durable. After a failed write or fsync the segment is closed at
//!   what was durable before: the kernel may have dropped the pages, and a second fsync would not say so. The
//!   next segment's head says where the one before it ends, so what is behind that is never taken for a
//!   record; what was not answered is refused.
//! - Numbers rise for as long as [`Store::id`] is the same, and no number is given twice: after a failure and
//!   at each start [`SKIP`] numbers (2^24) are left out, more than a segment can hold records that were torn
//!   away.
//! - Without a readable state file the id is a new one, and all that is there is drained.
//! - A record that is broken on disk is counted (`tacho_spool_lost_records_total`), and those around it are
//!   drained. Only the end of the last segment may be cut without a word of loss: it was never answered.
//!
//! The tests run the store on a disk in memory that fails, tears and forgets.
//!
//! **Invariant:** what was answered is there after a crash, in the order of its numbers, or counted as lost.

mod recover;

use super::disk::Disk;
use super::segment::{Extent, FRAME_BYTES, Frame, HEAD_BYTES, Head, frame, push};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;

/// The name of the file that says under which id records are numbered, and which are drained.
const STATE: &str = "state.json";
/// The end of a segment's file name, behind its first number.
const SUFFIX: &str = ".seg";
/// The size at which a segment is closed, in bytes; it is closed earlier at an eighth of the store's bound.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// How many numbers are left out where some may have been given already.
const SKIP: u64 = 1 << 24;
/// How many bytes are read at once.
const READ_BYTES: usize = 1 << 20;

/// The content of the state file.
#[derive(Debug, Deserialize, Serialize)]
struct StateFile {
    id: String,
    /// The number of the next record to drain.
    drained: u64,
}

/// The place where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The number of the next record.
    number: u64,
    /// The segment, by the number of its first record.
    segment: u64,
    /// The offset in the segment, in bytes; 0: not known yet.
    at: u64,
}

/// Records to be drained, in order.
#[derive(Debug)]
pub(super) struct Batch {
    /// The number and body of each record.
    pub records: Vec<(u64, Vec<u8>)>,
    /// How many records were there and can't be read.
    pub lost: u64,
    after: Cursor,
}

/// The records on disk.
pub(super) struct Store<D: Disk> {
    disk: D,
    bytes_max: u64,
    id: String,
    segments: VecDeque<Extent>,
    /// The file of the last segment; none where the next record begins another segment.
    open: Option<D::File>,
    next: u64,
    cursor: Cursor,
    lost_at_start: u64,
}

impl<D: Disk> Store<D> {
    /// The place of the first record with that number or a higher one.
    fn at_or_after(&self, number: u64) -> Cursor {
        let segment = self.segments.iter().find(|segment| number < segment.next);
        let (segment, number) =
            segment.map_or((0, number), |segment| (segment.first, number.max(segment.first)));
        // The offset is not known: reading begins at the segment's start, and passes the records before the number.
        Cursor {
            number,
            segment,
            at: 0,
        }
    }

    /// The id of this spool: the numbers of records of one id rise.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many records were found to be lost when the store was opened, at least.
    pub fn lost_at_start(&self) -> u64 {
        self.lost_at_start
    }

    /// The size of all segments, in bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// How many bytes of records still fit.
    pub fn room(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes() + HEAD_BYTES as u64)
    }

    /// How many records are not drained.
    pub fn records(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.next.saturating_sub(segment.first.max(self.cursor.number)))
            .sum()
    }

    /// Makes records durable in order, and gives the number of the first one.
    ///
    /// # Errors
    /// The disk failed. None of the records will be read, so nothing may be confirmed.
    pub fn append<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> io::Result<u64> {
        let outcome = self.try_append(bodies);
        if outcome.is_err() {
            self.open = None;
            self.next += SKIP;
            // Refused records should not come back at the next start. They may, where cutting fails too: that does no harm, since
            // a refused request may be in the log all the same.
            if let Some(last) = self.segments.back()
                && let Err(error) = self.disk.truncate(&name(last.first), last.end)
            {
                tracing::warn!(%error, segment = name(last.first), "a spool segment could not be cut to what is durable");
            }
        }
        outcome
    }

    fn try_append<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> io::Result<u64> {
        let limit = SEGMENT_BYTES_MAX.min(self.bytes_max / 8);
        if self.open.is_none() || self.segments.back().is_some_and(|last| last.end >= limit) {
            self.begin_segment()?;
        }
        let first = self.next;
        let mut out = Vec::new();
        let mut next = first;
        for body in bodies {
            push(&mut out, next, body);
            next += 1;
        }
        let (Some(file), Some(last)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is open"));
        };
        self.disk.append(file, &out)?;
        self.disk.sync(file)?;
        (last.end, last.next, self.next) = (last.end + out.len() as u64, next, next);
        Ok(first)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.open = None;
        let first = self.next;
        let gone = Extent {
            first: 0,
            end: 0,
            next: self.cursor.number,
        };
        let head = Head {
            first,
            before: self.segments.back().copied().unwrap_or(gone),
        };
        self.disk.replace(&name(first), &head.to_bytes())?;
        // The segment is kept even where it can't be opened, since it is on disk, and the next head names it.
        self.segments.push_back(Extent {
            first,
            end: HEAD_BYTES as u64,
            next: first,
        });
        self.open = Some(self.disk.open(&name(first))?);
        Ok(())
    }

    /// The next records that are not drained: as many as `bytes` hold, but at least one.
    ///
    /// # Errors
    /// The disk can't be read; no record is passed.
    pub fn read(&self, bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch {
            records: Vec::new(),
            lost: 0,
            after: self.cursor,
        };
        let mut size = 0;
        for segment in self
            .segments
            .iter()
            .filter(|segment| self.cursor.number < segment.next)
        {
            if batch.after.segment != segment.first || batch.after.at == 0 {
                batch.after = Cursor {
                    number: segment.first,
                    segment: segment.first,
                    at: HEAD_BYTES as u64,
                };
            }
            while batch.after.number < segment.next && size < bytes {
                size += self.read_some(segment, &mut batch, bytes - size)?;
            }
            if size >= bytes {
                break;
            }
        }
        Ok(batch)
    }

    /// Reads on in one segment; gives the number of bytes that were passed.
    fn read_some(&self, segment: &Extent, batch: &mut Batch, budget: usize) -> io::Result<usize> {
        let left = usize::try_from(segment.end.saturating_sub(batch.after.at)).unwrap_or(usize::MAX);
        let mut bytes = self
            .disk
            .read(&name(segment.first), batch.after.at, READ_BYTES.min(left))?;
        if let Frame::Short(length) = frame(&bytes, batch.after.number)
            && length <= left
        {
            bytes = self.disk.read(&name(segment.first), batch.after.at, length)?;
        }
        let mut at = 0;
        while at < budget && batch.after.number < segment.next {
            match frame(&bytes[at..], batch.after.number) {
                Frame::Whole(body) => {
                    // Records before the cursor were drained by an earlier process.
                    if batch.after.number >= self.cursor.number {
                        batch.records.push((batch.after.number, body.to_vec()));
                    }
                    at += FRAME_BYTES + body.len();
                    batch.after.number += 1;
                }
                Frame::Short(_) if at > 0 => break,
                // The next read begins here, so that what is behind this record is there too.
                Frame::Broken(_) if at > 0 => break,
                // The record behind this one is whole, so only this one is broken.
                Frame::Broken(Some(length))
                    if bytes.get(length..).is_some_and(|rest| {
                        matches!(frame(rest, batch.after.number + 1), Frame::Whole(_))
                    }) =>
                {
                    batch.lost += u64::from(batch.after.number >= self.cursor.number);
                    at = length;
                    batch.after.number += 1;
                }
                Frame::Short(_) | Frame::Broken(_) => {
                    let from = batch.after.number.max(self.cursor.number);
                    batch.lost += segment.next.saturating_sub(from);
                    batch.after.number = segment.next;
                    at = left;
                }
            }
        }
        batch.after.at += at as u64;
        Ok(at.max(1))
    }

    /// Passes a batch that is durable elsewhere, so that it is not read again.
    ///
    /// # Errors
    /// The disk can't be written; after a restart the batch may be read once more.
    pub fn drained(&mut self, batch: &Batch) -> io::Result<()> {
        self.cursor = batch.after;
        self.clean()
    }

    /// Writes down how far everything is drained, and removes the segments before that.
    fn clean(&mut self) -> io::Result<()> {
        let state = StateFile {
            id: self.id.clone(),
            drained: self.cursor.number,
        };
        let bytes = serde_json::to_vec(&state).map_err(io::Error::other)?;
        self.disk.replace(STATE, &bytes)?;
        let done = |segment: &&Extent| segment.next <= self.cursor.number || segment.next == segment.first;
        while let Some(segment) = self.segments.front().filter(done).copied() {
            if self.segments.len() == 1 {
                self.open = None;
            }
            self.disk.remove(&name(segment.first))?;
            self.segments.pop_front();
        }
        Ok(())
    }
}

/// The file name of the segment that begins with that number.
fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

#[cfg(test)]
mod tests;
