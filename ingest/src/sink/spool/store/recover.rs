//! Opens a store: finds out what is on the disk, and what of it is lost.

use super::{Cursor, READ_BYTES, SKIP, STATE, SUFFIX, StateFile, Store, name};
use crate::sink::spool::disk::Disk;
use crate::sink::spool::segment::{Extent, FRAME_BYTES, Frame, HEAD_BYTES, Head, frame};
use std::collections::VecDeque;
use std::io;

impl<D: Disk> Store<D> {
    /// Opens a store with what is on the disk. `fresh_id` is used where no earlier id is known.
    ///
    /// # Errors
    /// The disk can't be read or written.
    pub fn open(disk: D, bytes_max: u64, fresh_id: String) -> io::Result<Self> {
        let state = disk
            .read(STATE, 0, READ_BYTES)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<StateFile>(&bytes).ok());
        let mut firsts: Vec<u64> = disk
            .list()?
            .iter()
            .filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok())
            .collect();
        firsts.sort_unstable();
        let mut lost_before = None;
        let state = state.unwrap_or_else(|| {
            lost_before = Some(u64::MAX);
            StateFile {
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
        // Segments without records are removed right now, but the cursor may stand at their numbers.
        let reached = store
            .segments
            .back()
            .map_or(0, |last| last.next)
            .max(store.cursor.number);
        store.clean()?;
        if let Some(last) = store.segments.back() {
            // Records that were written and not yet durable when the process was killed count from now on.
            let mut file = store.disk.open(&name(last.first))?;
            store.disk.sync(&mut file)?;
        }
        store.next = store.next.max(reached) + SKIP;
        Ok(store)
    }

    /// Finds out how far each segment reaches: by the head of the next one, else by reading it. Numbers below `known` are not
    /// counted as lost.
    fn recover(&mut self, firsts: &[u64], mut known: u64) -> io::Result<()> {
        for (index, &first) in firsts.iter().enumerate() {
            let Some(head) = self.head(first)? else {
                tracing::error!(
                    segment = name(first),
                    "a spool segment has no readable head: what it holds is lost"
                );
                // Nobody knows how many records the segment had, so it counts as one.
                self.lost_at_start += 1;
                continue;
            };
            // A segment without records loses nothing, whatever its numbers.
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

    /// The head of a segment; none where it is not readable.
    fn head(&self, first: u64) -> io::Result<Option<Head>> {
        let bytes = self.disk.read(&name(first), 0, HEAD_BYTES)?;
        Ok(Head::parse(&bytes).filter(|head| head.first == first))
    }

    /// Reads a segment up to the first record that is not whole. In the last segment, what is behind that was never answered,
    /// and is cut off.
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
}
