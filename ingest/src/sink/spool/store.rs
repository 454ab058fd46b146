//! The records that wait, on disk: segments that are written at the end and removed from the front.
//!
//! - What [`Store::append`] has confirmed is durable. After a failed write or fsync the segment is closed at what was
//!   durable before: the kernel may have dropped the pages, and a second fsync would not say so. The next segment's head
//!   says where the one before it ends, so what is behind that is never taken for a record.
//! - Numbers rise for as long as [`Store::id`] is the same, and no number is given twice: after a failure and at each start
//!   [`SKIP`] numbers are left out, more than a segment can hold records that were torn away.
//! - Without a readable state file the id is a new one, and all that is there is drained.

use super::disk::Disk;
use super::segment::{Extent, FRAME_BYTES, Frame, HEAD_BYTES, Head, frame, push};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;

/// Which records are drained, and under which name.
const STATE: &str = "state.json";
const SUFFIX: &str = ".seg";
/// A segment is closed at that size, or at an eighth of the bound.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// So many numbers are left out where some may have been used already.
const SKIP: u64 = 1 << 24;
/// So much is read at once.
const READ_BYTES: usize = 1 << 20;

/// What a state file holds.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    id: String,
    drained: u64,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The number of the next record.
    number: u64,
    /// The segment, by its first number, and the place in it.
    segment: u64,
    at: u64,
}

/// Records in order, to be drained.
#[derive(Debug)]
pub(super) struct Batch {
    /// Numbers and bodies.
    pub records: Vec<(u64, Vec<u8>)>,
    /// Records that were there and can't be read.
    pub lost: u64,
    after: Cursor,
}

/// Records on disk.
pub(super) struct Store<D: Disk> {
    disk: D,
    bytes_max: u64,
    id: String,
    segments: VecDeque<Extent>,
    /// The last segment's file; none: the next record begins another one.
    open: Option<D::File>,
    next: u64,
    cursor: Cursor,
    lost_at_start: u64,
}

impl<D: Disk> Store<D> {
    /// Takes what is there. `fresh_id` is used where no earlier one is known.
    ///
    /// # Errors
    /// The disk.
    pub fn open(disk: D, bytes_max: u64, fresh_id: String) -> io::Result<Self> {
        let state = disk
            .read(STATE, 0, READ_BYTES)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
        let mut firsts: Vec<u64> = disk
            .list()?
            .iter()
            .filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok())
            .collect();
        firsts.sort_unstable();
        let mut lost_before = None;
        let state = state.unwrap_or_else(|| {
            lost_before = Some(u64::MAX);
            State {
                id: fresh_id,
                drained: 0,
            }
        });
        let mut store = Self {
            disk,
            bytes_max,
            id: state.id,
            segments: VecDeque::new(),
            open: None,
            next: state.drained,
            cursor: Cursor {
                number: state.drained,
                segment: 0,
                at: 0,
            },
            lost_at_start: 0,
        };
        store.recover(&firsts, lost_before.unwrap_or(state.drained))?;
        store.cursor = store.at_or_after(state.drained);
        // Also of segments that hold nothing and go right now: the cursor may stand at their numbers.
        let reached = store
            .segments
            .back()
            .map_or(0, |last| last.next)
            .max(store.cursor.number);
        store.clean()?;
        if let Some(last) = store.segments.back() {
            // What was written but not yet durable when the process was killed counts from now on.
            let mut file = store.disk.open(&name(last.first))?;
            store.disk.sync(&mut file)?;
        }
        store.next = store.next.max(reached) + SKIP;
        Ok(store)
    }

    /// Finds out how far each segment goes: by the head of the next one, else by reading it. Below `known` nothing is missed.
    fn recover(&mut self, firsts: &[u64], mut known: u64) -> io::Result<()> {
        for (index, &first) in firsts.iter().enumerate() {
            let Some(head) = self.head(first)? else {
                tracing::error!(
                    segment = name(first),
                    "a spool segment has no readable head: what it holds is lost"
                );
                // At least one: how many is not known.
                self.lost_at_start += 1;
                continue;
            };
            // (An empty one holds nothing, whatever its numbers.)
            if head.before.next > known && head.before.first != head.before.next {
                tracing::error!(
                    from = known,
                    to = head.before.next,
                    "spooled records are lost: their segment is gone"
                );
                self.lost_at_start += head.before.next - known;
            }
            let said = match firsts.get(index + 1) {
                Some(&next) => self
                    .head(next)?
                    .map(|head| head.before)
                    .filter(|before| before.first == first),
                None => None,
            };
            let extent = match said {
                Some(extent) => extent,
                None => self.scan(first, index + 1 == firsts.len())?,
            };
            self.segments.push_back(extent);
            known = extent.next.max(if known == u64::MAX { 0 } else { known });
        }
        Ok(())
    }

    fn head(&self, first: u64) -> io::Result<Option<Head>> {
        let bytes = self.disk.read(&name(first), 0, HEAD_BYTES)?;
        Ok(Head::parse(&bytes).filter(|head| head.first == first))
    }

    /// Reads up to the first record that is not whole; what is behind that was never answered, in the last segment.
    fn scan(&self, first: u64, is_last: bool) -> io::Result<Extent> {
        let mut extent = Extent {
            first,
            end: HEAD_BYTES as u64,
            next: first,
        };
        let mut need = READ_BYTES;
        loop {
            let bytes = self.disk.read(&name(first), extent.end, need)?;
            let mut at = 0;
            let stop = loop {
                match frame(&bytes[at..], extent.next) {
                    Frame::Whole(body) => {
                        at += FRAME_BYTES + body.len();
                        extent.next += 1;
                    }
                    other => break other,
                }
            };
            extent.end += at as u64;
            match stop {
                _ if at > 0 => need = READ_BYTES,
                Frame::Short(length) if bytes.len() == need => need = length,
                Frame::Short(_) if bytes.is_empty() => return Ok(extent),
                _ => break,
            }
        }
        let torn = self.disk.read(&name(first), extent.end, READ_BYTES)?.len();
        if is_last {
            tracing::warn!(
                segment = name(first),
                bytes = torn,
                "the last write to the spool was cut short; it was never answered"
            );
            self.disk.truncate(&name(first), extent.end)?;
        } else {
            tracing::error!(
                segment = name(first),
                at = extent.end,
                "a spool segment is broken: records behind that place are lost"
            );
        }
        Ok(extent)
    }

    /// The place of the first record from that number on.
    fn at_or_after(&self, number: u64) -> Cursor {
        let segment = self.segments.iter().find(|segment| number < segment.next);
        let (segment, number) =
            segment.map_or((0, number), |segment| (segment.first, number.max(segment.first)));
        // Records before the number are passed by reading them.
        Cursor {
            number,
            segment,
            at: 0,
        }
    }

    /// The name of this spool: numbers of one name rise.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Records that were found to be lost at the start, at least.
    pub fn lost_at_start(&self) -> u64 {
        self.lost_at_start
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Bytes of records that still fit.
    pub fn room(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes() + HEAD_BYTES as u64)
    }

    /// Records that are not drained.
    pub fn records(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.next.saturating_sub(segment.first.max(self.cursor.number)))
            .sum()
    }

    /// Makes records durable, in order, and gives the number of the first one; all of them, or none that is ever read.
    ///
    /// # Errors
    /// The disk: nothing may be answered.
    pub fn append<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> io::Result<u64> {
        let outcome = self.try_append(bodies);
        if outcome.is_err() {
            self.open = None;
            self.next += SKIP;
            // What was refused should not come back at the next start. Where even that fails, it may: nobody was told that it
            // would not.
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
        // Kept even where it can't be opened: it is on disk, and the next head speaks of it.
        self.segments.push_back(Extent {
            first,
            end: HEAD_BYTES as u64,
            next: first,
        });
        self.open = Some(self.disk.open(&name(first))?);
        Ok(())
    }

    /// The next records that are not drained, within `bytes`, or one.
    ///
    /// # Errors
    /// The disk; nothing is passed.
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

    /// Reads on in one segment: bytes that were passed.
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
                    // Those before were drained in an earlier life.
                    if batch.after.number >= self.cursor.number {
                        batch.records.push((batch.after.number, body.to_vec()));
                    }
                    at += FRAME_BYTES + body.len();
                    batch.after.number += 1;
                }
                Frame::Short(_) if at > 0 => break,
                // Read again from here, with what is behind it.
                Frame::Broken(_) if at > 0 => break,
                // The one behind it is whole: only this one is broken.
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

    /// The batch is durable elsewhere: it is not read again.
    ///
    /// # Errors
    /// The disk: after a restart it may be read once more.
    pub fn drained(&mut self, batch: &Batch) -> io::Result<()> {
        self.cursor = batch.after;
        self.clean()
    }

    /// Notes how far all is drained, and removes what is behind that.
    fn clean(&mut self) -> io::Result<()> {
        let state = State {
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

fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

#[cfg(test)]
mod tests;
