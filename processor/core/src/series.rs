//! Stage `series`: merges the deltas of all sources into totals, final windows and corrections.
//!
//! **Architecture Invariant:** what is published does not depend on how deltas were batched: a window is
//! final when the clock of every source has passed its end and the grace, and each delta says itself for
//! which sizes it came too late.

mod windows;

use crate::task::{Applied, Effects, Halt, Input, Pending, RestoreError, Sealed, Task};
use crate::{Deltas, Rules};
use prost::Message;
use schemas::delta::{AmountBytes, DeltaEntry, DeltaRecord, Series, entry_bytes_max};
use schemas::derived::{Row, WindowRow, WindowSize};
use schemas::id::{Position, TopicPartition};
use schemas::metric::{Amount, Kind};
use schemas::settings::SEMANTICS;
use schemas::stage::Stage;
use schemas::state::{Change, Meta, SeriesEntry, SeriesKey, SourceState, StateKey};
use schemas::time::{AppendTime, EventTime, PartitionClock};
use std::collections::{BTreeMap, BTreeSet};
use strum::VariantArray;
use windows::{Correction, Window, Windows};

/// The state of stage `series` for one deltas partition.
#[derive(Clone, Debug)]
pub struct SeriesTask {
    partition: i32,
    position: Position,
    /// Running maximum of the append times of the deltas partition: the timestamp of the results.
    timestamp: AppendTime,
    sources: BTreeMap<(Stage, i32), SourceState>,
    /// How many sources send deltas in this log.
    sources_all: usize,
    totals: BTreeMap<String, Amount>,
    windows: Windows,
    dirty_totals: BTreeSet<String>,
    touched: BTreeSet<String>,
    rows: Vec<Row>,
    /// An upper bound of the bytes of `rows` and of the changelog entries of `dirty_totals`.
    pending_bytes: usize,
}

impl Task for SeriesTask {
    fn new(at: TopicPartition, rules: &Rules, from: Position) -> Self {
        Self {
            partition: at.partition,
            position: from,
            timestamp: AppendTime(0),
            sources: BTreeMap::new(),
            sources_all: sources_of(rules),
            totals: BTreeMap::new(),
            windows: Windows::new(rules.seed.time.window_sizes_ms.len()),
            dirty_totals: BTreeSet::new(),
            touched: BTreeSet::new(),
            rows: Vec::new(),
            pending_bytes: 0,
        }
    }

    fn restore<'c>(
        at: TopicPartition,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (StateKey<'c>, &'c [u8])>,
    ) -> Result<Self, RestoreError> {
        let mut task = Self::new(at, rules, Position(meta.position));
        task.timestamp = AppendTime(meta.clock.unwrap_or(0));
        for source in &meta.sources {
            let stage = Stage::by_code(source.stage).ok_or(RestoreError::Source { stage: source.stage })?;
            task.sources.insert((stage, source.source), *source);
        }
        let windows = &mut task.windows;
        let ends = [
            (&mut windows.final_until, &meta.final_until),
            (&mut windows.complete_until, &meta.complete_until),
        ];
        for (until, meta) in ends
            .into_iter()
            .flat_map(|(until, meta)| until.iter_mut().zip(meta))
        {
            *until = (*meta != i64::MIN).then_some(EventTime(*meta));
        }
        for (key, value) in entries {
            task.restore_entry(key, value)?;
        }
        Ok(task)
    }

    /// Merges one record of the deltas partition: its deltas first, then its clock, which can make windows
    /// final.
    fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt> {
        let record = DeltaRecord::decode(input.value).map_err(|_| Halt::Foreign)?;
        let stage = Stage::by_code(record.stage)
            .filter(|stage| stage.def().emits_deltas)
            .ok_or(Halt::Foreign)?;
        let known = self.sources.get(&(stage, record.source)).copied();
        let have = known.unwrap_or(SourceState::unheard(stage, record.source));
        let applied = follows(&have, &record).ok_or(Halt::Gap {
            stage,
            source_partition: record.source,
            have: Position(have.position),
            previous: Position(record.previous),
        })?;
        self.timestamp = self.timestamp.max(input.appended);
        self.position = input.position();
        if applied == Applied::Folded {
            record.deltas.iter().for_each(|delta| self.merge(delta, rules));
            let heard = if record.is_last_part() {
                SourceState {
                    position: record.position,
                    clock: record.clock,
                    parts: 0,
                    parts_position: 0,
                    ..have
                }
            } else {
                SourceState {
                    parts: record.part.saturating_add(1),
                    parts_position: record.position,
                    ..have
                }
            };
            // A part that is not the last one leaves the source's position and clock as they were.
            self.sources.insert((stage, record.source), heard);
            if record.is_last_part() {
                self.close(rules);
            }
        }
        Ok(applied)
    }

    fn take(&mut self, _: &Rules) -> Effects {
        let mut changes = Vec::new();
        for series in std::mem::take(&mut self.dirty_totals) {
            let value = self.totals.get(&series).map(|amount| entry(amount, None));
            let key = SeriesKey::Total { series: &series }.to_string();
            changes.push(Change { key, value });
        }
        self.windows.take(&mut changes);
        self.pending_bytes = 0;
        Effects {
            changes,
            rows: std::mem::take(&mut self.rows),
            touched: std::mem::take(&mut self.touched),
            ..Effects::default()
        }
    }

    fn seal(&mut self, _: Deltas, writer: &str, _: &Rules) -> Sealed {
        let meta = Meta {
            position: self.position.0,
            epoch: 0,
            semantics: SEMANTICS,
            writer: writer.to_owned(),
            clock: Some(self.timestamp.0),
            sent: Vec::new(),
            marked: None,
            final_until: ends(&self.windows.final_until),
            sources: self.sources.values().copied().collect(),
            complete_until: ends(&self.windows.complete_until),
        };
        Sealed {
            deltas: Vec::new(),
            meta,
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn pending(&self) -> Pending {
        Pending {
            entries: self.dirty_totals.len() + self.rows.len(),
            bytes: self.pending_bytes,
        }
        .plus(self.windows.pending())
    }
}

impl SeriesTask {
    /// The deltas partition that the task merges.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// The timestamp of the results: running maximum of the append times of the deltas partition.
    #[must_use]
    pub const fn timestamp(&self) -> AppendTime {
        self.timestamp
    }

    /// How many series have a total in state.
    #[must_use]
    pub fn state_keys(&self) -> usize {
        self.totals.len()
    }

    /// The smallest clock of all sources; `None` until every source has sent a whole record.
    #[must_use]
    pub fn watermark(&self) -> Option<PartitionClock> {
        let clocks = || self.clocks();
        if clocks().count() < self.sources_all {
            None
        } else {
            clocks().min()
        }
    }

    /// The largest clock of all sources; `None` until a source has sent a whole record.
    #[must_use]
    pub fn newest_clock(&self) -> Option<PartitionClock> {
        self.clocks().max()
    }

    fn clocks(&self) -> impl Iterator<Item = PartitionClock> {
        let heard = |source: &&SourceState| source.position > 0;
        self.sources
            .values()
            .filter(heard)
            .map(|source| PartitionClock(source.clock))
    }

    /// The total of a series; `None` for a series that is not in state, or whose metric has no totals.
    #[must_use]
    pub fn total(&self, series: &str) -> Option<&Amount> {
        self.totals.get(series)
    }

    /// The series' value in the latest final window of each size, with the window's start; sizes are left out
    /// where the series has no value in that window.
    #[must_use]
    pub fn last_final(&self, series: &str) -> BTreeMap<usize, (EventTime, Amount)> {
        self.windows.last_final(series)
    }

    /// The start of the latest final window of each size; `None` before the first one.
    #[must_use]
    pub fn latest_final(&self, rules: &Rules) -> Vec<Option<EventTime>> {
        let sizes = &rules.seed.time.window_sizes_ms;
        let start = |(until, size): (&Option<EventTime>, &i64)| until.map(|until| EventTime(until.0 - size));
        self.windows.final_until.iter().zip(sizes).map(start).collect()
    }

    /// The keys of all series with a total or a value in a latest final window, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let finals = self.windows.finals.iter().flat_map(|(_, series)| series.keys());
        let all: BTreeSet<&str> = self.totals.keys().chain(finals).map(String::as_str).collect();
        all.into_iter()
    }

    fn merge(&mut self, delta: &DeltaEntry, rules: &Rules) {
        let Some(amount) = delta.amount.as_ref().map(Amount::from) else {
            return;
        };
        if has_total(&delta.series) {
            let total = add(&mut self.totals, &delta.series, &amount);
            if !self.dirty_totals.contains(&delta.series) {
                self.pending_bytes += entry_bytes_max(&delta.series, total);
                self.dirty_totals.insert(delta.series.clone());
                self.touched.insert(delta.series.clone());
            }
        }
        self.windows.merge(delta, &amount, &rules.seed.time);
    }

    /// Emits the rows of windows that have become final, each followed by the row that it is complete, and of corrections that
    /// are due.
    fn close(&mut self, rules: &Rules) {
        let Some(watermark) = self.watermark() else {
            return;
        };
        let time = &rules.seed.time;
        for (size, &size_ms) in time.window_sizes_ms.iter().enumerate() {
            for (Window { start, .. }, series) in self.windows.close(size, watermark, time, &mut self.touched)
            {
                self.publish(size, size_ms, start, None, &series);
            }
            for start in self.windows.complete(size, time) {
                self.row(size, WindowRow::complete(size_ms, start.0));
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
        start: EventTime,
        arrival: Option<PartitionClock>,
        series: &BTreeMap<String, Amount>,
    ) {
        let arrival = arrival.map(|arrival| arrival.0);
        for (key, amount) in series {
            if let Some(row) = WindowRow::new(key, size_ms, start.0, arrival, amount) {
                self.row(size, row);
            }
        }
    }

    fn row(&mut self, size: usize, row: WindowRow) {
        let Some(named) = WindowSize::at(size) else { return };
        let row = Row::Window(named, Box::new(row));
        self.pending_bytes += row.bytes_about();
        self.rows.push(row);
    }

    fn restore_entry(&mut self, key: StateKey<'_>, value: &[u8]) -> Result<(), RestoreError> {
        let foreign = || RestoreError::Stage {
            key: key.to_string(),
            stage: Stage::Series.def().name,
        };
        let StateKey::Series(own) = key else {
            return Err(foreign());
        };
        let found = SeriesEntry::decode(value).map_err(|source| RestoreError::Entry {
            key: key.to_string(),
            source,
        })?;
        let amount = found.amount.as_ref().map_or(Amount::Count(0), Amount::from);
        if let SeriesKey::Total { series } = own {
            self.totals.insert(series.to_owned(), amount);
            return Ok(());
        }
        self.windows
            .restore(own, amount, found.start_ms)
            .ok_or_else(foreign)
    }
}

/// How many sources send deltas: the input partitions of all stages that emit them.
fn sources_of(rules: &Rules) -> usize {
    let emitting = Stage::VARIANTS
        .iter()
        .map(|stage| stage.def())
        .filter(|def| def.emits_deltas);
    emitting
        .map(|def| usize::try_from(rules.seed.partitions(def.input)).unwrap_or(0))
        .sum()
}

/// Whether a record is the next one of its source, or was merged already; `None` if one before it is missing.
fn follows(have: &SourceState, record: &DeltaRecord) -> Option<Applied> {
    if record.position <= have.position {
        return Some(Applied::Duplicate);
    }
    if record.previous != have.position {
        return None;
    }
    let merged = if have.parts_position == record.position {
        have.parts
    } else if have.parts == 0 {
        0
    } else {
        // Parts of an earlier record are merged, and the last part of it is missing.
        return None;
    };
    match record.part.cmp(&merged) {
        std::cmp::Ordering::Less => Some(Applied::Duplicate),
        std::cmp::Ordering::Equal => Some(Applied::Folded),
        std::cmp::Ordering::Greater => None,
    }
}

/// Whether a series has a total. Metrics that are shown by their last final window alone have none.
fn has_total(series: &str) -> bool {
    match Series::parse(series).map(|series| series.metric.def().kind) {
        Some(Kind::WindowRatio | Kind::WindowQuantiles) => false,
        Some(Kind::Counter | Kind::UpDown | Kind::Histogram { .. }) | None => true,
    }
}

/// Adds an amount to that of a series, and gives the sum.
fn add<'m>(map: &'m mut BTreeMap<String, Amount>, series: &str, amount: &Amount) -> &'m Amount {
    // The map is searched twice for a new key, so that a known one is not copied.
    if !map.contains_key(series) {
        map.insert(series.to_owned(), amount.clone());
        return &map[series];
    }
    let sum = map.get_mut(series).expect("it was found just now");
    sum.merge(amount);
    sum
}

/// The ends of windows by size, as they are written.
fn ends(until: &[Option<EventTime>]) -> Vec<i64> {
    let written = |until: &Option<EventTime>| until.map_or(i64::MIN, |until| until.0);
    until.iter().map(written).collect()
}

/// The value of a changelog entry.
fn entry(amount: &Amount, start: Option<EventTime>) -> Vec<u8> {
    SeriesEntry {
        amount: Some(AmountBytes::from(amount)),
        start_ms: start.map(|start| start.0),
    }
    .encode_to_vec()
}
