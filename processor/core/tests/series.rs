//! The laws of stage `series`: batches and restarts change no row, and windows equal a one-pass sum.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use processor_core::{Applied, Effects, Halt, Input, RawDeltas, Rules, SeriesTask, Task};
use proptest::prelude::*;
use prost::Message;
use schemas::delta::{DeltaEntry, DeltaRecord, Slot};
use schemas::derived::{COMPLETE, Row, WindowRow};
use schemas::id::{Position, TopicPartition};
use schemas::metric::Amount;
use schemas::settings::Seed;
use schemas::stage::Stage;
use schemas::state::Meta;
use schemas::time::{AppendTime, EventTime, PartitionClock, window_start};
use schemas::topic::Topic;
use std::collections::BTreeMap;
use support::{NOON, admit_all, entries, short_times, store};

/// How many sources send deltas.
const SOURCES: usize = 2;

/// What a source adds to a series.
#[derive(Clone, Debug)]
struct Addition {
    source: usize,
    /// How far the source's clock moves before the addition, ms.
    after: i64,
    /// How old the event is by the source's clock, ms.
    ago: i64,
    amount: i64,
    series: usize,
}

const SERIES: [&str; 2] = [
    "tacho_turns_total\u{1f}a\u{1f}\u{1f}\u{1f}\u{1f}\u{1f}\u{1f}\u{1f}",
    "tacho_event_time_clamped_total\u{1f}a",
];

fn additions() -> impl Strategy<Value = Vec<Addition>> {
    let one = (
        0..SOURCES,
        0i64..40_000,
        prop_oneof![0i64..20_000, 0i64..7_500_000],
        1i64..10,
        0..SERIES.len(),
    );
    proptest::collection::vec(
        one.prop_map(|(source, after, ago, amount, series)| Addition {
            source,
            after,
            ago,
            amount,
            series,
        }),
        1..80,
    )
}

fn rules() -> Rules {
    Rules::new(Seed {
        raw_partitions: i32::try_from(SOURCES).unwrap(),
        ..short_times()
    })
}

const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 0,
};

/// A series task with its changelog and the rows that it has published.
struct Merging {
    rules: Rules,
    task: SeriesTask,
    offset: i64,
    rows: Vec<WindowRow>,
    changelog: BTreeMap<String, Vec<u8>>,
    meta: Meta,
}

impl Merging {
    fn new() -> Self {
        let rules = rules();
        let task = SeriesTask::new(DELTAS, &rules, Position(0));
        Self {
            rules,
            task,
            offset: 0,
            rows: Vec::new(),
            changelog: BTreeMap::new(),
            meta: Meta::default(),
        }
    }

    fn merge(&mut self, record: &DeltaRecord) -> Result<Applied, Halt> {
        let merged = self.bytes(record.clock, &record.encode_to_vec());
        self.offset += i64::from(merged.is_ok());
        merged
    }

    fn bytes(&mut self, appended: i64, value: &[u8]) -> Result<Applied, Halt> {
        let input = Input {
            offset: self.offset,
            appended: AppendTime(appended),
            wall: None,
            tick: false,
            epoch: None,
            origin: None,
            key: "",
            value,
        };
        self.task.apply(input, &self.rules)
    }

    fn commit(&mut self, restart: bool) {
        let Effects { changes, rows, .. } = self.task.take(&self.rules);
        self.rows.extend(rows.into_iter().map(|row| match row {
            Row::Window(_, row) => *row,
            Row::Session(_) => panic!("a series task publishes no sessions"),
        }));
        store(&mut self.changelog, &changes);
        let none = processor_core::Deltas::none();
        self.meta = self.task.seal(none, "test", &self.rules).meta;
        if restart {
            self.task = SeriesTask::restore(DELTAS, &self.rules, &self.meta, entries(&self.changelog))
                .expect("the changelog was written by the task itself");
        }
    }
}

/// The sources of deltas: the clock and position of each, and what it has not sent yet.
#[derive(Default)]
struct Sources {
    clocks: [i64; SOURCES],
    positions: [i64; SOURCES],
    sent: [i64; SOURCES],
    unsent: [RawDeltas; SOURCES],
}

impl Sources {
    /// Sends what a source has not sent yet, twice, if its position has moved since it last sent.
    fn send(&mut self, source: usize, stage: &mut Merging) {
        if self.positions[source] == self.sent[source] {
            return;
        }
        let deltas = std::mem::take(&mut self.unsent[source]);
        let labels = admit_all(&stage.rules, &deltas);
        let mut record = DeltaRecord {
            source: i32::try_from(source).unwrap(),
            previous: self.sent[source],
            position: self.positions[source],
            clock: self.clocks[source],
            deltas: Vec::new(),
            ..DeltaRecord::default()
        };
        for (series, slots) in labels.resolve(deltas).into_inner() {
            for (slot, amount) in slots {
                let entry = DeltaEntry {
                    series: series.clone(),
                    slot: slot.start.0,
                    late: slot.late,
                    arrival: slot.arrival.map(|arrival| arrival.0),
                    amount: Some((&amount).into()),
                };
                record.deltas.push(entry);
            }
        }
        self.sent[source] = self.positions[source];
        assert_eq!(stage.merge(&record), Ok(Applied::Folded));
        assert_eq!(
            stage.merge(&record),
            Ok(Applied::Duplicate),
            "a record that comes twice is merged once"
        );
    }
}

/// Sends the additions in batches, one of which ends after addition `i` if bit `i` of `cuts` is set, and
/// commits after each. Then moves all clocks so far that every window is final. Gives the rows in a fixed
/// order, and the totals.
fn publish(additions: &[Addition], cuts: u64, restart: bool) -> (Vec<WindowRow>, BTreeMap<String, Amount>) {
    let mut stage = Merging::new();
    let mut sources = Sources {
        clocks: [NOON; SOURCES],
        ..Sources::default()
    };
    for (index, addition) in additions.iter().enumerate() {
        let source = addition.source;
        sources.clocks[source] += addition.after;
        sources.positions[source] += 1;
        let clock = sources.clocks[source];
        let slot = slot_of(clock - addition.ago, clock, &stage.rules);
        sources.unsent[source].add(SERIES[addition.series], slot, Amount::Count(addition.amount));
        if cuts >> (index % 64) & 1 == 1 {
            sources.send(source, &mut stage);
            stage.commit(restart);
        }
    }
    for source in 0..SOURCES {
        sources.positions[source] += 1;
        sources.clocks[source] += 20_000_000;
        sources.send(source, &mut stage);
    }
    stage.commit(restart);
    let totals = SERIES
        .iter()
        .filter_map(|series| Some(((*series).to_owned(), stage.task.total(series)?.clone())))
        .collect();
    expect_complete(&stage.rows);
    stage
        .rows
        .sort_by_key(|row| (row.series(), row.size_ms, row.start_ms, row.arrival_ms));
    (stage.rows, totals)
}

/// Checks that each window is told to be complete once, in order, behind its finals, and from the first window with a row on.
fn expect_complete(rows: &[WindowRow]) {
    let mut until: BTreeMap<i64, i64> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if row.metric == COMPLETE {
            let first = || {
                rows.iter()
                    .filter(|other| is_final_of(other, row.size_ms))
                    .map(|other| other.start_ms)
            };
            let expected = until.get(&row.size_ms).copied().or_else(|| first().min());
            assert_eq!(Some(row.start_ms), expected, "{row:?}");
            let behind = rows[index..]
                .iter()
                .filter(|other| is_final_of(other, row.size_ms));
            assert!(
                behind
                    .map(|other| other.start_ms)
                    .all(|start| start >= row.end_ms)
            );
            until.insert(row.size_ms, row.end_ms);
        }
    }
    for row in rows.iter().filter(|row| row.arrival_ms.is_none()) {
        assert!(until[&row.size_ms] >= row.end_ms, "{row:?}");
    }
}

fn is_final_of(row: &WindowRow, size_ms: i64) -> bool {
    row.metric != COMPLETE && row.size_ms == size_ms && row.arrival_ms.is_none()
}

/// The slot of an event: the rule of lateness, implemented a second time from its definition.
fn slot_of(time: i64, clock: i64, rules: &Rules) -> Slot {
    let time_rules = &rules.seed.time;
    let mut late = 0;
    for size in &time_rules.window_sizes_ms {
        if clock >= window_start(EventTime(time), *size).0 + size + time_rules.grace_ms {
            late += 1;
        }
    }
    let arrival = PartitionClock(window_start(EventTime(clock), time_rules.slot_ms).0);
    let arrival = (late > 0).then_some(arrival);
    Slot {
        start: window_start(EventTime(time), time_rules.slot_ms),
        late,
        arrival,
    }
}

/// The windows and corrections that must be published, by series, size, start and arrival: one pass over the
/// additions with arithmetic of its own.
fn oracle(additions: &[Addition]) -> BTreeMap<(usize, i64, i64, Option<i64>), i64> {
    let rules = rules();
    let mut clocks = [NOON; SOURCES];
    let mut expected = BTreeMap::new();
    for addition in additions {
        let source = addition.source;
        clocks[source] += addition.after;
        let (clock, time) = (clocks[source], clocks[source] - addition.ago);
        for &size in &rules.seed.time.window_sizes_ms {
            let start = time - time.rem_euclid(size);
            let arrival = (clock >= start + size + rules.seed.time.grace_ms)
                .then(|| clock - clock.rem_euclid(rules.seed.time.slot_ms));
            *expected
                .entry((addition.series, size, start, arrival))
                .or_insert(0) += addition.amount;
        }
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn windows_equal_a_one_pass_sum(additions in additions(), cuts: u64, restart: bool) {
        let (rows, totals) = publish(&additions, cuts, restart);
        let mut found = BTreeMap::new();
        for row in rows.iter().filter(|row| row.metric != COMPLETE) {
            let series = usize::from(row.metric != "tacho_turns_total");
            let schemas::derived::WindowValue::Count { count } = row.value else { panic!("a row of a counter holds no count") };
            let before = found.insert((series, row.size_ms, row.start_ms, row.arrival_ms), count);
            prop_assert!(before.is_none(), "a window or a correction was published twice");
        }
        prop_assert_eq!(found, oracle(&additions));
        let sum: i64 = additions.iter().map(|addition| addition.amount).sum();
        let total: i64 = totals.values().map(|amount| if let Amount::Count(count) = amount { *count } else { 0 }).sum();
        prop_assert_eq!(total, sum);
    }

    #[test]
    fn batches_and_restarts_change_no_row(additions in additions(), cuts: u64) {
        prop_assert_eq!(publish(&additions, cuts, true), publish(&additions, u64::MAX, false));
    }
}

fn gap(have: i64, previous: i64) -> Result<Applied, Halt> {
    Err(Halt::Gap {
        stage: Stage::Sessions,
        source_partition: 0,
        have: Position(have),
        previous: Position(previous),
    })
}

#[test]
fn a_missing_record_is_a_gap_and_merges_nothing() {
    let mut stage = Merging::new();
    let record = |previous, position| DeltaRecord {
        source: 0,
        previous,
        position,
        clock: NOON,
        deltas: Vec::new(),
        ..DeltaRecord::default()
    };
    assert_eq!(stage.merge(&record(0, 5)), Ok(Applied::Folded));
    assert_eq!(stage.merge(&record(7, 9)), gap(5, 7));
    assert_eq!(stage.bytes(NOON, b"\xff"), Err(Halt::Foreign));
    assert_eq!(
        stage.task.position(),
        Position(1),
        "a record that was refused moved the task"
    );
}

/// The parts of a delta record come one by one, with restarts between them.
#[test]
fn a_record_counts_with_its_last_part_and_each_part_once() {
    let mut stage = Merging::new();
    let part = |part, of, previous, position| DeltaRecord {
        source: 0,
        previous,
        position,
        clock: NOON,
        deltas: vec![DeltaEntry {
            series: SERIES[0].to_owned(),
            slot: NOON,
            amount: Some((&Amount::Count(1)).into()),
            ..Default::default()
        }],
        part,
        of,
        ..DeltaRecord::default()
    };
    let total = |stage: &Merging| stage.task.total(SERIES[0]).cloned();
    assert_eq!(
        stage.merge(&part(1, 3, 0, 5)),
        gap(0, 0),
        "the second part is merged without the first"
    );
    assert_eq!(stage.merge(&part(0, 3, 0, 5)), Ok(Applied::Folded));
    stage.commit(true);
    assert_eq!(
        stage.task.newest_clock(),
        None,
        "the clock counts with the last part only"
    );
    assert_eq!(stage.merge(&part(0, 3, 0, 5)), Ok(Applied::Duplicate));
    assert_eq!(
        stage.merge(&part(2, 3, 0, 5)),
        gap(0, 0),
        "the third part is merged without the second"
    );
    assert_eq!(
        stage.merge(&part(0, 0, 0, 7)),
        gap(0, 0),
        "another record is merged between the parts"
    );
    assert_eq!(stage.merge(&part(1, 3, 0, 5)), Ok(Applied::Folded));
    stage.commit(true);
    assert_eq!(stage.merge(&part(2, 3, 0, 5)), Ok(Applied::Folded));
    assert_eq!(stage.task.newest_clock(), Some(PartitionClock(NOON)));
    assert_eq!(
        stage.merge(&part(1, 3, 0, 5)),
        Ok(Applied::Duplicate),
        "a part is merged again after the last one"
    );
    assert_eq!(stage.merge(&part(0, 0, 5, 6)), Ok(Applied::Folded));
    assert_eq!(total(&stage), Some(Amount::Count(4)));
}

#[test]
fn a_record_of_a_stage_that_sends_no_deltas_is_foreign() {
    let mut stage = Merging::new();
    let of = |stage| DeltaRecord {
        position: 5,
        stage,
        ..DeltaRecord::default()
    };
    let unknown = Stage::Series.def().code + 1_000;
    for code in [Stage::Series.def().code, unknown] {
        assert_eq!(stage.merge(&of(code)), Err(Halt::Foreign), "stage {code}");
    }
}
