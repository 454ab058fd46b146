//! Open windows, corrections, and the last final window of each size.

use super::{add, entry};
use schemas::changelog::Change;
use schemas::delta::DeltaEntry;
use schemas::metric::Amount;
use schemas::settings::TimeRules;
use schemas::time::{EventTime, window_start};
use std::collections::{BTreeMap, BTreeSet};

/// A window of one of the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Index of its size; 0 is the smallest.
    pub size: usize,
    /// Its start, ms.
    pub start: i64,
}

/// What came too late for a window, by the slot in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Correction {
    /// Start of the slot of arrival, ms of the source's clock.
    pub arrival: i64,
    /// The window that it corrects.
    pub window: Window,
}

type BySeries = BTreeMap<String, Amount>;

#[derive(Clone, Debug)]
pub struct Windows {
    open: BTreeMap<Window, BySeries>,
    corrections: BTreeMap<Correction, BySeries>,
    /// By size: the start of the latest final window, and its rows.
    pub finals: Vec<(i64, BySeries)>,
    /// By size: the end of the latest final window.
    pub final_until: Vec<Option<i64>>,
    dirty_open: BTreeSet<(Window, String)>,
    dirty_corrections: BTreeSet<(Correction, String)>,
    dirty_finals: BTreeSet<(usize, String)>,
}

impl Windows {
    pub fn new(sizes: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            corrections: BTreeMap::new(),
            finals: vec![(i64::MIN, BTreeMap::new()); sizes],
            final_until: vec![None; sizes],
            dirty_open: BTreeSet::new(),
            dirty_corrections: BTreeSet::new(),
            dirty_finals: BTreeSet::new(),
        }
    }

    /// Adds a delta to its window of each size, or to that window's correction where it came too late.
    pub fn merge(&mut self, delta: &DeltaEntry, amount: &Amount, time: &TimeRules) {
        for (size, &size_ms) in time.window_sizes_ms.iter().enumerate() {
            let window = Window {
                size,
                start: window_start(EventTime(delta.slot), size_ms).0,
            };
            let too_late = size < usize::try_from(delta.late).unwrap_or(usize::MAX);
            match delta.arrival {
                Some(arrival) if too_late => {
                    let correction = Correction { arrival, window };
                    add(
                        self.corrections.entry(correction).or_default(),
                        &delta.series,
                        amount,
                    );
                    self.dirty_corrections.insert((correction, delta.series.clone()));
                }
                _ => {
                    add(self.open.entry(window).or_default(), &delta.series, amount);
                    self.dirty_open.insert((window, delta.series.clone()));
                }
            }
        }
    }

    /// Takes out the windows of a size that are final at `watermark`, in order of start.
    pub fn close(
        &mut self,
        size: usize,
        watermark: i64,
        time: &TimeRules,
        touched: &mut BTreeSet<String>,
    ) -> Vec<(Window, BySeries)> {
        let size_ms = time.window_sizes_ms[size];
        let until = window_start(EventTime(watermark.saturating_sub(time.grace_ms)), size_ms).0;
        if self.final_until[size].is_some_and(|before| until <= before) {
            return Vec::new();
        }
        self.final_until[size] = Some(until);
        let range = Window {
            size,
            start: i64::MIN,
        }..Window { size, start: until };
        let due: Vec<Window> = self.open.range(range).map(|(window, _)| *window).collect();
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
            .filter(|(window, _)| window.start == until - size_ms)
            .map(|(_, series)| series.clone());
        let (_, before) = std::mem::replace(
            &mut self.finals[size],
            (until - size_ms, latest.unwrap_or_default()),
        );
        for key in before.keys().chain(self.finals[size].1.keys()) {
            self.dirty_finals.insert((size, key.clone()));
            touched.insert(key.clone());
        }
        closed
    }

    /// Takes out the corrections whose slot of arrival every clock has passed and whose final is out.
    pub fn corrections_due(&mut self, watermark: i64, time: &TimeRules) -> Vec<(Correction, BySeries)> {
        let final_out = |window: Window| {
            let end = window.start + time.window_sizes_ms[window.size];
            self.final_until[window.size].is_some_and(|until| end <= until)
        };
        let passed = |correction: &&Correction| correction.arrival + time.slot_ms <= watermark;
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

    pub fn last_final(&self, series: &str) -> BTreeMap<usize, (i64, Amount)> {
        let of = |(size, (start, by_series)): (usize, &(i64, BySeries))| {
            Some((size, (*start, by_series.get(series)?.clone())))
        };
        self.finals.iter().enumerate().filter_map(of).collect()
    }

    /// Moves what changed into `changes`, in order of keys.
    pub fn take(&mut self, changes: &mut Vec<Change>) {
        for (window, series) in std::mem::take(&mut self.dirty_open) {
            let value = self
                .open
                .get(&window)
                .and_then(|by| by.get(&series))
                .map(|amount| entry(amount, None));
            changes.push(Change {
                key: format!("o/{}/{}/{series}", window.size, window.start),
                value,
            });
        }
        for (Correction { arrival, window }, series) in std::mem::take(&mut self.dirty_corrections) {
            let by = self.corrections.get(&Correction { arrival, window });
            let value = by
                .and_then(|by| by.get(&series))
                .map(|amount| entry(amount, None));
            changes.push(Change {
                key: format!("c/{arrival}/{}/{}/{series}", window.size, window.start),
                value,
            });
        }
        for (size, series) in std::mem::take(&mut self.dirty_finals) {
            let (start, by) = &self.finals[size];
            let value = by.get(&series).map(|amount| entry(amount, Some(*start)));
            changes.push(Change {
                key: format!("f/{size}/{series}"),
                value,
            });
        }
    }

    /// Puts an entry back; `None` if its key is of no known kind.
    pub fn restore(&mut self, key: &str, amount: Amount, start_ms: Option<i64>) -> Option<()> {
        let (kind, rest) = key.split_once('/')?;
        match kind {
            "o" => {
                let (window, series) = window_key(rest)?;
                self.open
                    .entry(window)
                    .or_default()
                    .insert(series.to_owned(), amount);
            }
            "c" => {
                let (arrival, rest) = rest.split_once('/')?;
                let (window, series) = window_key(rest)?;
                let correction = Correction {
                    arrival: arrival.parse().ok()?,
                    window,
                };
                self.corrections
                    .entry(correction)
                    .or_default()
                    .insert(series.to_owned(), amount);
            }
            "f" => {
                let (size, series) = rest.split_once('/')?;
                let last = self.finals.get_mut(size.parse::<usize>().ok()?)?;
                last.0 = start_ms?;
                last.1.insert(series.to_owned(), amount);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Reads `size/start/series`.
fn window_key(text: &str) -> Option<(Window, &str)> {
    let mut parts = text.splitn(3, '/');
    let window = Window {
        size: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
    };
    Some((window, parts.next()?))
}
