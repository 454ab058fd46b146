//! Stage `series`: merges the deltas of all sources into totals, final windows and corrections.
//!
//! **Architecture Invariant:** what is published does not depend on how deltas were batched: a window is final when the
//! clock of every source has passed its end and the grace, and each delta says itself for which sizes it came too late.

mod windows;

use crate::{RestoreError, Rules};
use prost::Message;
use schemas::changelog::{Change, Meta, SeriesEntry, SourceState};
use schemas::delta::{AmountBytes, DeltaRecord, Series};
use schemas::derived::WindowRow;
use schemas::metric::{Amount, Kind};
use schemas::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use windows::{Correction, Window, Windows};

/// The topics of final windows, by size, the smallest first.
pub const WINDOW_TOPICS: [Topic; 3] = [Topic::Windows1m, Topic::Windows5m, Topic::Windows1h];

/// What became of a delta record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Merged.
    Applied,
    /// Merged before: dropped.
    Duplicate,
    /// Not a delta record: nothing was merged. The task must stop.
    Undecodable,
    /// A record between the last one and this one is missing: nothing was merged. The task must stop.
    Gap {
        /// The raw partition that it came from.
        source: i32,
        /// The position up to which the source is merged.
        have: i64,
        /// The position at which the record begins.
        previous: i64,
    },
}

/// What follows from the records since the last take, in a fixed order.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// Upserts of the changelog, without the meta record.
    pub changes: Vec<Change>,
    /// Window rows, by size, each with its topic.
    pub rows: Vec<(Topic, WindowRow)>,
    /// The series whose total or last final window changed, ascending.
    pub touched: BTreeSet<String>,
}

/// The state of stage `series` for one deltas partition.
#[derive(Clone, Debug)]
pub struct SeriesTask {
    partition: i32,
    position: i64,
    /// Running maximum of the append times of this deltas partition: the timestamp of the results.
    timestamp: i64,
    sources: BTreeMap<i32, SourceState>,
    totals: BTreeMap<String, Amount>,
    windows: Windows,
    dirty_totals: BTreeSet<String>,
    touched: BTreeSet<String>,
    rows: Vec<(Topic, WindowRow)>,
}

impl SeriesTask {
    /// The task at its first start.
    #[must_use]
    pub fn new(partition: i32, rules: &Rules, position: i64) -> Self {
        Self {
            partition,
            position,
            timestamp: 0,
            sources: BTreeMap::new(),
            totals: BTreeMap::new(),
            windows: Windows::new(rules.seed.time.window_sizes_ms.len()),
            dirty_totals: BTreeSet::new(),
            touched: BTreeSet::new(),
            rows: Vec::new(),
        }
    }

    /// The deltas partition that the task merges.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// The next offset to read.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// The timestamp of the results, ms.
    #[must_use]
    pub const fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// How many series are in state.
    #[must_use]
    pub fn series(&self) -> usize {
        self.totals.len()
    }

    /// The smallest clock of all sources; `None` until each was heard.
    #[must_use]
    pub fn watermark(&self, rules: &Rules) -> Option<i64> {
        let all = usize::try_from(rules.seed.raw_partitions).unwrap_or(usize::MAX);
        if self.sources.len() < all {
            None
        } else {
            self.sources.values().map(|source| source.clock).min()
        }
    }

    /// The largest clock of all sources: how new the newest result is.
    #[must_use]
    pub fn newest_clock(&self) -> Option<i64> {
        self.sources.values().map(|source| source.clock).max()
    }

    /// The cumulative value of a series, for metrics that have one.
    #[must_use]
    pub fn total(&self, series: &str) -> Option<&Amount> {
        self.totals.get(series)
    }

    /// The last final window of a series by size: its start, ms, and its value; only if it is the latest of all.
    #[must_use]
    pub fn last_final(&self, series: &str) -> BTreeMap<usize, (i64, Amount)> {
        self.windows.last_final(series)
    }

    /// The start of the latest final window, by size.
    #[must_use]
    pub fn latest_final(&self, rules: &Rules) -> Vec<Option<i64>> {
        let sizes = &rules.seed.time.window_sizes_ms;
        self.windows
            .final_until
            .iter()
            .zip(sizes)
            .map(|(until, size)| until.map(|until| until - size))
            .collect()
    }

    /// All series keys in state.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let finals = self.windows.finals.iter().flat_map(|(_, series)| series.keys());
        let all: BTreeSet<&str> = self.totals.keys().chain(finals).map(String::as_str).collect();
        all.into_iter()
    }

    /// Merges one record of the deltas partition: first its deltas, then its clock.
    #[must_use = "after a gap the task must stop"]
    pub fn apply(&mut self, offset: i64, appended: i64, value: &[u8], rules: &Rules) -> Merged {
        let Ok(record) = DeltaRecord::decode(value) else {
            return Merged::Undecodable;
        };
        let have = self
            .sources
            .get(&record.source)
            .map_or(0, |source| source.position);
        let merged = if record.position <= have {
            Merged::Duplicate
        } else if record.previous != have {
            return Merged::Gap {
                source: record.source,
                have,
                previous: record.previous,
            };
        } else {
            Merged::Applied
        };
        self.timestamp = self.timestamp.max(appended);
        self.position = offset + 1;
        if merged == Merged::Applied {
            record.deltas.iter().for_each(|delta| self.merge(delta, rules));
            let source = SourceState {
                source: record.source,
                position: record.position,
                clock: record.clock,
            };
            self.sources.insert(record.source, source);
            self.close(rules);
        }
        merged
    }

    fn merge(&mut self, delta: &schemas::delta::DeltaEntry, rules: &Rules) {
        let Some(amount) = delta.amount.as_ref().map(Amount::from) else {
            return;
        };
        if has_total(&delta.series) {
            add(&mut self.totals, &delta.series, &amount);
            self.dirty_totals.insert(delta.series.clone());
            self.touched.insert(delta.series.clone());
        }
        self.windows.merge(delta, &amount, &rules.seed.time);
    }

    /// Publishes what has become final.
    fn close(&mut self, rules: &Rules) {
        let Some(watermark) = self.watermark(rules) else {
            return;
        };
        let time = &rules.seed.time;
        for (size, &size_ms) in time.window_sizes_ms.iter().enumerate() {
            for (Window { start, .. }, series) in self.windows.close(size, watermark, time, &mut self.touched)
            {
                self.publish(size, size_ms, start, None, &series);
            }
        }
        for (Correction { arrival, window }, series) in self.windows.corrections_due(watermark, time) {
            let size_ms = time.window_sizes_ms[window.size];
            self.publish(window.size, size_ms, window.start, Some(arrival), &series);
        }
    }

    fn publish(
        &mut self,
        size: usize,
        size_ms: i64,
        start: i64,
        arrival: Option<i64>,
        series: &BTreeMap<String, Amount>,
    ) {
        for (key, amount) in series {
            if let Some(row) = WindowRow::new(key, size_ms, start, arrival, amount) {
                self.rows.push((WINDOW_TOPICS[size], row));
            }
        }
    }

    /// Takes what follows from the records since the last take.
    pub fn take(&mut self) -> Effects {
        let mut changes = Vec::new();
        for series in std::mem::take(&mut self.dirty_totals) {
            let value = self.totals.get(&series).map(|amount| entry(amount, None));
            changes.push(Change {
                key: format!("t/{series}"),
                value,
            });
        }
        self.windows.take(&mut changes);
        Effects {
            changes,
            rows: std::mem::take(&mut self.rows),
            touched: std::mem::take(&mut self.touched),
        }
    }

    /// The meta record that goes with the commit.
    #[must_use]
    pub fn meta(&self, writer: &str, rules: &Rules) -> Meta {
        Meta {
            position: self.position,
            epoch: 0,
            semantics: rules.seed.settings.semantics,
            writer: writer.to_owned(),
            clock: Some(self.timestamp),
            sent: Vec::new(),
            marked: None,
            final_until: self
                .windows
                .final_until
                .iter()
                .map(|until| until.unwrap_or(i64::MIN))
                .collect(),
            sources: self.sources.values().copied().collect(),
        }
    }

    /// Rebuilds a task from its changelog: the meta record and the latest value of every other key, in any order.
    ///
    /// # Errors
    /// An entry that can't be read, or is of no known kind.
    pub fn restore<'c>(
        partition: i32,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (&'c str, &'c [u8])>,
    ) -> Result<Self, RestoreError> {
        let mut task = Self::new(partition, rules, meta.position);
        task.timestamp = meta.clock.unwrap_or(0);
        task.sources = meta
            .sources
            .iter()
            .map(|source| (source.source, *source))
            .collect();
        for (until, meta) in task.windows.final_until.iter_mut().zip(&meta.final_until) {
            *until = (*meta != i64::MIN).then_some(*meta);
        }
        for (key, value) in entries {
            let found = SeriesEntry::decode(value).map_err(|source| RestoreError::Entry {
                key: key.to_owned(),
                source,
            })?;
            let amount = found.amount.as_ref().map_or(Amount::Count(0), Amount::from);
            let known = match key.strip_prefix("t/") {
                Some(series) => task.totals.insert(series.to_owned(), amount).is_none(),
                None => task.windows.restore(key, amount, found.start_ms).is_some(),
            };
            if !known {
                return Err(RestoreError::Key { key: key.to_owned() });
            }
        }
        Ok(task)
    }
}

/// Whether a series has a cumulative value: those shown by their last final window alone have none.
fn has_total(series: &str) -> bool {
    let kind = Series::parse(series).map(|series| series.metric.def().kind);
    !matches!(kind, Some(Kind::WindowRatio | Kind::WindowQuantiles))
}

fn add(map: &mut BTreeMap<String, Amount>, series: &str, amount: &Amount) {
    match map.get_mut(series) {
        Some(sum) => sum.merge(amount),
        None => {
            map.insert(series.to_owned(), amount.clone());
        }
    }
}

fn entry(amount: &Amount, start_ms: Option<i64>) -> Vec<u8> {
    SeriesEntry {
        amount: Some(AmountBytes::from(amount)),
        start_ms,
    }
    .encode_to_vec()
}
