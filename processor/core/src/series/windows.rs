//! Open windows, corrections that are due, and the last final window of each size.
//!
//! ```text
//!  delta, late level 0 ──► open window ── every source clock ≥ end + grace ──► final, published once
//!  delta, late level n ──► open windows of larger sizes, and corrections of the n smallest sizes
//!                          correction ── every source clock past its arrival minute, the final is out ──► published once
//! ```
//!
//! A source is a partition of a stage that emits deltas. A window is final when the clocks of all sources
//! have passed its end and the grace; a source that was not heard yet keeps every window open. A correction
//! is keyed by the minute of arrival on the partition that it came by, and is published beside the final,
//! never in place of it: final and corrections add up. Totals take every delta at once and are no concern of
//! this module.
//!
//! Readers of rows can't see that a window without a row for their series is final, so each window is also told to be
//! *complete*, after its rows, from the first window with a row on.
//!
//! **Invariant:** a window that was published as final is never opened again, and the same deltas give the
//! same rows however they were batched.

use super::{add, entry};
use crate::task::Pending;
use schemas::delta::{DeltaEntry, entry_bytes_max};
use schemas::metric::Amount;
use schemas::settings::TimeRules;
use schemas::state::{Change, SeriesKey};
use schemas::time::{EventTime, PartitionClock, window_start};
use std::collections::{BTreeMap, BTreeSet};

/// A window of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Index of its size; 0 is the smallest.
    pub size: usize,
    /// The start of the window.
    pub start: EventTime,
}

/// A correction of a window: the deltas that came too late for it and arrived in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Correction {
    /// Start of the slot of arrival, by the source's clock.
    pub arrival: PartitionClock,
    /// The window that is corrected.
    pub window: Window,
}

type BySeries = BTreeMap<String, Amount>;

/// How many windows of a size are told to be complete with one record; further ones follow with the next records, where a
/// log stood still for months.
const COMPLETE_MAX: i64 = 10_000;

/// The start of a window before all others.
const NEVER: EventTime = EventTime(i64::MIN);

/// The windows and corrections of one deltas partition.
#[derive(Clone, Debug)]
pub struct Windows {
    open: BTreeMap<Window, BySeries>,
    corrections: BTreeMap<Correction, BySeries>,
    /// The start of the latest final window of each size, and the amounts of the series in it.
    pub finals: Vec<(EventTime, BySeries)>,
    /// The end of the latest final window of each size; `None` before the first one.
    pub final_until: Vec<Option<EventTime>>,
    /// The end of the latest window of each size that was told to be complete; `None` before the first final window with a
    /// row.
    pub complete_until: Vec<Option<EventTime>>,
    dirty_open: BTreeSet<(Window, String)>,
    dirty_corrections: BTreeSet<(Correction, String)>,
    dirty_finals: BTreeSet<(usize, String)>,
    /// An upper bound of the bytes of the changelog entries that changed.
    pending_bytes: usize,
}

impl Windows {
    pub fn new(sizes: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            corrections: BTreeMap::new(),
            finals: vec![(NEVER, BTreeMap::new()); sizes],
            final_until: vec![None; sizes],
            complete_until: vec![None; sizes],
            dirty_open: BTreeSet::new(),
            dirty_corrections: BTreeSet::new(),
            dirty_finals: BTreeSet::new(),
            pending_bytes: 0,
        }
    }

    /// Adds a delta to its window of each size, or to a correction of that window if it came too late for it.
    pub fn merge(&mut self, delta: &DeltaEntry, amount: &Amount, time: &TimeRules) {
        let series = &delta.series;
        for (size, &size_ms) in time.window_sizes_ms.iter().enumerate() {
            let start = window_start(EventTime(delta.slot), size_ms);
            let window = Window { size, start };
            let too_late = size < usize::try_from(delta.late).unwrap_or(usize::MAX);
            match delta.arrival {
                Some(arrival) if too_late => {
                    let arrival = PartitionClock(arrival);
                    let correction = Correction { arrival, window };
                    let sum = add(self.corrections.entry(correction).or_default(), series, amount);
                    if self.dirty_corrections.insert((correction, series.clone())) {
                        self.pending_bytes += entry_bytes_max(series, sum);
                    }
                }
                _ => {
                    let sum = add(self.open.entry(window).or_default(), series, amount);
                    if self.dirty_open.insert((window, series.clone())) {
                        self.pending_bytes += entry_bytes_max(series, sum);
                    }
                }
            }
        }
    }

    /// How much the next [`Windows::take`] gives.
    pub fn pending(&self) -> Pending {
        Pending {
            entries: self.dirty_open.len() + self.dirty_corrections.len() + self.dirty_finals.len(),
            bytes: self.pending_bytes,
        }
    }

    /// Takes out the windows of a size that have become final at `watermark`, in the order of their starts.
    /// Adds to `touched` the series that were or are in the latest final window.
    pub fn close(
        &mut self,
        size: usize,
        watermark: PartitionClock,
        time: &TimeRules,
        touched: &mut BTreeSet<String>,
    ) -> Vec<(Window, BySeries)> {
        let size_ms = time.window_sizes_ms[size];
        let until = window_start(EventTime(watermark.0.saturating_sub(time.grace_ms)), size_ms);
        if self.final_until[size].is_some_and(|before| until <= before) {
            return Vec::new();
        }
        self.final_until[size] = Some(until);
        let range = Window { size, start: NEVER }..Window { size, start: until };
        let latest_start = EventTime(until.0.saturating_sub(size_ms));
        let due: Vec<Window> = self.open.range(range).map(|(window, _)| *window).collect();
        if self.complete_until[size].is_none() {
            self.complete_until[size] = due.first().map(|window| window.start);
        }
        let mut closed = Vec::new();
        for window in due {
            let Some(series) = self.open.remove(&window) else {
                continue;
            };
            self.dirty_open
                .extend(series.keys().map(|key| (window, key.clone())));
            closed.push((window, series));
        }
        let latest = closed
            .last()
            .filter(|(window, _)| window.start == latest_start)
            .map(|(_, series)| series.clone());
        let (_, before) =
            std::mem::replace(&mut self.finals[size], (latest_start, latest.unwrap_or_default()));
        for key in before.keys().chain(self.finals[size].1.keys()) {
            self.dirty_finals.insert((size, key.clone()));
            touched.insert(key.clone());
        }
        closed
    }

    /// The starts of at most [`COMPLETE_MAX`] final windows of a size that were not told to be complete, in their order.
    pub fn complete(&mut self, size: usize, time: &TimeRules) -> Vec<EventTime> {
        let size_ms = time.window_sizes_ms[size];
        let (Some(until), Some(told)) = (self.final_until[size], self.complete_until[size]) else {
            return Vec::new();
        };
        let ends = (1..=COMPLETE_MAX).map(|number| told.0.saturating_add(number * size_ms));
        let ends: Vec<i64> = ends.take_while(|end| *end <= until.0).collect();
        if let Some(end) = ends.last() {
            self.complete_until[size] = Some(EventTime(*end));
        }
        ends.into_iter().map(|end| EventTime(end - size_ms)).collect()
    }

    /// Takes out the corrections whose slot of arrival is over by the clock of every source and whose window
    /// is final.
    pub fn corrections_due(
        &mut self,
        watermark: PartitionClock,
        time: &TimeRules,
    ) -> Vec<(Correction, BySeries)> {
        let final_out = |window: Window| {
            let end = window.start.0.saturating_add(time.window_sizes_ms[window.size]);
            self.final_until[window.size].is_some_and(|until| end <= until.0)
        };
        let passed =
            |correction: &&Correction| correction.arrival.0.saturating_add(time.slot_ms) <= watermark.0;
        let due: Vec<Correction> = self
            .corrections
            .keys()
            .take_while(passed)
            .copied()
            .filter(|correction| final_out(correction.window))
            .collect();
        let mut out = Vec::new();
        for correction in due {
            let Some(series) = self.corrections.remove(&correction) else {
                continue;
            };
            self.dirty_corrections
                .extend(series.keys().map(|key| (correction, key.clone())));
            out.push((correction, series));
        }
        out
    }

    /// The series' value in the latest final window of each size, with the window's start.
    pub fn last_final(&self, series: &str) -> BTreeMap<usize, (EventTime, Amount)> {
        let of = |(size, (start, by_series)): (usize, &(EventTime, BySeries))| {
            Some((size, (*start, by_series.get(series)?.clone())))
        };
        self.finals.iter().enumerate().filter_map(of).collect()
    }

    /// Moves the entries that changed since the last call into `changes`, in a fixed order.
    pub fn take(&mut self, changes: &mut Vec<Change>) {
        self.pending_bytes = 0;
        let mut change = |key: SeriesKey<'_>, amount: Option<&Amount>, start| {
            let key = key.to_string();
            let value = amount.map(|amount| entry(amount, start));
            changes.push(Change { key, value });
        };
        for (window, series) in std::mem::take(&mut self.dirty_open) {
            let by = self.open.get(&window);
            let key = SeriesKey::OpenWindow {
                size: window.size,
                start: window.start.0,
                series: &series,
            };
            change(key, by.and_then(|by| by.get(&series)), None);
        }
        for (correction, series) in std::mem::take(&mut self.dirty_corrections) {
            let by = self.corrections.get(&correction);
            let Correction { arrival, window } = correction;
            let key = SeriesKey::Correction {
                arrival: arrival.0,
                size: window.size,
                start: window.start.0,
                series: &series,
            };
            change(key, by.and_then(|by| by.get(&series)), None);
        }
        for (size, series) in std::mem::take(&mut self.dirty_finals) {
            let (start, by) = &self.finals[size];
            let key = SeriesKey::LastFinal {
                size,
                series: &series,
            };
            change(key, by.get(&series), Some(*start));
        }
    }

    /// Restores an entry; `None` if its key is not that of a window, or names a size that the seed does not
    /// have.
    pub fn restore(&mut self, key: SeriesKey<'_>, amount: Amount, start_ms: Option<i64>) -> Option<()> {
        let (by, series) = match key {
            SeriesKey::OpenWindow { size, start, series } => {
                let window = self.window(size, start)?;
                (self.open.entry(window).or_default(), series)
            }
            SeriesKey::Correction {
                arrival,
                size,
                start,
                series,
            } => {
                let window = self.window(size, start)?;
                let arrival = PartitionClock(arrival);
                let correction = Correction { arrival, window };
                (self.corrections.entry(correction).or_default(), series)
            }
            SeriesKey::LastFinal { size, series } => {
                let (start, by) = self.finals.get_mut(size)?;
                *start = EventTime(start_ms?);
                (by, series)
            }
            SeriesKey::Total { .. } => return None,
        };
        by.insert(series.to_owned(), amount);
        Some(())
    }

    /// The window of that size and start; `None` for a size that the seed does not have.
    fn window(&self, size: usize, start: i64) -> Option<Window> {
        let start = EventTime(start);
        (size < self.finals.len()).then_some(Window { size, start })
    }
}
