//! The laws of the core: restoring changes nothing, batching changes nothing, and windows equal a one-pass sum.

#![allow(clippy::unwrap_used, reason = "numbers of tests fit")]

mod support;

use processor_core::{Applied, Effects, Halt, Input, RawDeltas, Rules, SeriesTask, Task};
use proptest::prelude::*;
use prost::Message;
use schemas::control::EpochChange;
use schemas::delta::{DeltaRecord, Slot};
use schemas::derived::{Row, SessionRow, SessionState, WindowRow};
use schemas::id::{Epoch, Position, TopicPartition};
use schemas::metric::Amount;
use schemas::price::{PriceRow, PriceTable};
use schemas::settings::{Seed, Settings};
use schemas::stage::Stage;
use schemas::state::Meta;
use schemas::time::{AppendTime, EventTime, PartitionClock, window_start};
use schemas::topic::Topic;
use std::collections::BTreeMap;
use support::{
    Committed, Driven, Event, NOON, admit_all, entries, event, prompt, request, store, text, tokens,
};

const CONVERSATIONS: [&str; 3] = ["c0", "c1", "c2"];

/// One thing that happens to a raw partition.
#[derive(Clone, Debug)]
enum Step {
    /// `after` ms later, a record of a conversation whose events lie `ago` ms in the past.
    Send {
        after: i64,
        ago: i64,
        conversation: usize,
        what: u8,
    },
    /// `after` ms later, a tick.
    Tick { after: i64 },
    /// A tick that starts an epoch of other prices; and of another session gap, if `gap` says so.
    Epoch { price: i64, gap: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ago = prop_oneof![4 => 0i64..2_000, 2 => 0i64..200_000, 1 => 0i64..8_000_000];
    let send =
        (0i64..20_000, ago, 0..CONVERSATIONS.len(), 0u8..6).prop_map(|(after, ago, conversation, what)| {
            Step::Send {
                after,
                ago,
                conversation,
                what,
            }
        });
    let tick = prop_oneof![3 => 0i64..30_000, 1 => 0i64..590_000].prop_map(|after| Step::Tick { after });
    let epoch = (0i64..50_000_000, any::<bool>()).prop_map(|(price, gap)| Step::Epoch { price, gap });
    proptest::collection::vec(prop_oneof![12 => send, 4 => tick, 1 => epoch], 1..60)
}

/// Small settings, so that a short run meets every rule.
fn seed() -> Seed {
    let mut seed = Seed::shipped();
    seed.raw_partitions = 1;
    seed.delta_partitions = 2;
    seed.settings.session_gap_ms = 60_000;
    seed.settings.reopen_horizon_ms = 300_000;
    seed.time.mark_age_ms = 100_000;
    seed
}

/// Every model of these tests at one price.
fn prices(price: i64) -> PriceTable {
    let row = PriceRow {
        book: "api_usd".to_owned(),
        model: "gpt-5.5".to_owned(),
        tier: "default".to_owned(),
        input: price,
        output: 3 * price,
        source: "test".to_owned(),
        ..PriceRow::default()
    };
    PriceTable {
        rows: vec![row],
        ..PriceTable::default()
    }
}

fn events(what: u8, conversation: &'static str, time: i64) -> Vec<Event> {
    match what {
        0 => vec![
            prompt(conversation, time),
            request(conversation, time + 1, 429, 0),
        ],
        1 => vec![
            request(conversation, time, 200, 0),
            tokens(conversation, time + 1, 900, 300, 40, 10),
        ],
        2 => vec![event(
            conversation,
            time,
            "codex.tool_result",
            vec![("tool_name", text("exec_command")), ("success", text("true"))],
        )],
        3 => vec![event(
            conversation,
            time,
            "codex.turn_ttft",
            vec![("duration_ms", text("250"))],
        )],
        4 => vec![event(
            conversation,
            time,
            "codex.sse_event",
            vec![("event.kind", text("response.created"))],
        )],
        _ => vec![event(conversation, time, "codex.not_yet_known", vec![])],
    }
}

/// What a run has published, with everything that depends on when commits happened left out.
#[derive(Debug, Default, PartialEq)]
struct Published {
    deltas: BTreeMap<String, BTreeMap<Slot, Amount>>,
    ended: Vec<SessionRow>,
    quarantined: usize,
}

/// Runs the steps; after step `i` commits if bit `i` of `commits` is set, and restarts if bit `i` of `restarts` is, too.
fn run(steps: &[Step], commits: u64, restarts: u64) -> (Published, Driven) {
    let mut driven = Driven::new(seed());
    let mut published = Published::default();
    let mut now = NOON;
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Send {
                after,
                ago,
                conversation,
                what,
            } => {
                now += after;
                driven.send(now, &events(*what, CONVERSATIONS[*conversation], now - ago));
            }
            Step::Tick { after } => {
                now += after;
                driven.tick(now);
            }
            Step::Epoch { price, gap } => {
                let epoch = driven.rules.latest().0 + 2;
                let settings = gap.then(|| Settings {
                    session_gap_ms: 20_000 + price % 60_000,
                    ..driven.rules.seed.settings.clone()
                });
                driven.rules.add(
                    Epoch(epoch),
                    EpochChange {
                        settings,
                        prices: Some(prices(*price)),
                        ..EpochChange::default()
                    },
                );
                driven.start_epoch(now, epoch);
            }
        }
        if commits >> (index % 64) & 1 == 1 {
            publish(&mut published, driven.commit());
            if restarts >> (index % 64) & 1 == 1 {
                driven.restart();
            }
        }
    }
    publish(&mut published, driven.commit());
    (published, driven)
}

fn publish(published: &mut Published, effects: Committed) {
    for (series, slots) in effects.deltas {
        let into = published.deltas.entry(series).or_default();
        for (slot, amount) in slots {
            into.entry(slot)
                .and_modify(|sum| sum.merge(&amount))
                .or_insert(amount);
        }
    }
    published.ended.extend(
        effects
            .rows
            .into_iter()
            .filter(|row| row.state == SessionState::Ended),
    );
    published.quarantined += effects.quarantined.len();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn commits_and_restarts_change_nothing(steps in steps(), commits: u64, restarts: u64) {
        let (once, _) = run(&steps, 0, 0);
        let (often, _) = run(&steps, commits, restarts);
        prop_assert_eq!(once, often);
    }

    #[test]
    fn restored_state_writes_itself_again(steps in steps(), commits: u64) {
        let (_, mut driven) = run(&steps, commits, 0);
        let before = driven.task.latest_rows(usize::MAX);
        driven.restart();
        prop_assert_eq!(before, driven.task.latest_rows(usize::MAX));
        prop_assert!(driven.commit().changes.iter().all(|change| change.key.starts_with("s/")), "restoring touches no marks");
    }

    #[test]
    fn changelog_values_stay_small(steps in steps(), commits: u64) {
        let (_, driven) = run(&steps, commits, 0);
        for (key, value) in &driven.changelog {
            prop_assert!(value.len() <= 4096, "{} has {} bytes", key, value.len());
        }
    }
}

/// A small world of stage `series`: sources with clocks, each sending deltas in its own batches.
#[derive(Clone, Debug)]
struct Addition {
    source: i32,
    /// How far the source's clock moves on before.
    after: i64,
    /// How long ago the event was, by that clock.
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
        0i32..2,
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

fn world() -> Rules {
    let mut seed = seed();
    seed.raw_partitions = 2;
    Rules::new(seed)
}

const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 0,
};

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
        let rules = world();
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

/// Sends the additions in batches that end where `cuts` has a bit, commits after each; then moves all clocks far on.
fn stage(additions: &[Addition], cuts: u64, restart: bool) -> (Vec<WindowRow>, BTreeMap<String, Amount>) {
    let mut stage = Merging::new();
    let mut clocks = [NOON; 2];
    let mut sent = [0i64; 2];
    let mut counts = [0i64; 2];
    let mut open: [RawDeltas; 2] = [RawDeltas::default(), RawDeltas::default()];
    let flush = |source: usize,
                 stage: &mut Merging,
                 open: &mut RawDeltas,
                 clock: i64,
                 sent: &mut i64,
                 position: i64| {
        if position == *sent {
            return;
        }
        let deltas = std::mem::take(open);
        let labels = admit_all(&stage.rules, &deltas);
        let mut record = DeltaRecord {
            source: i32::try_from(source).unwrap(),
            previous: *sent,
            position,
            clock,
            deltas: Vec::new(),
            ..DeltaRecord::default()
        };
        for (series, slots) in labels.resolve(deltas).into_inner() {
            for (slot, amount) in slots {
                let entry = schemas::delta::DeltaEntry {
                    series: series.clone(),
                    slot: slot.start.0,
                    late: slot.late,
                    arrival: slot.arrival.map(|arrival| arrival.0),
                    amount: Some((&amount).into()),
                };
                record.deltas.push(entry);
            }
        }
        *sent = position;
        assert_eq!(stage.merge(&record), Ok(Applied::Folded));
        assert_eq!(
            stage.merge(&record),
            Ok(Applied::Duplicate),
            "a record that comes twice counts once"
        );
    };
    for (index, addition) in additions.iter().enumerate() {
        let source = usize::try_from(addition.source).unwrap();
        clocks[source] += addition.after;
        counts[source] += 1;
        let slot = slot_of(clocks[source] - addition.ago, clocks[source], &stage.rules);
        open[source].add(SERIES[addition.series], slot, Amount::Count(addition.amount));
        if cuts >> (index % 64) & 1 == 1 {
            flush(
                source,
                &mut stage,
                &mut open[source],
                clocks[source],
                &mut sent[source],
                counts[source],
            );
            stage.commit(restart);
        }
    }
    for source in 0..2 {
        let position = counts[source] + 1;
        flush(
            source,
            &mut stage,
            &mut open[source],
            clocks[source].max(NOON) + 20_000_000,
            &mut sent[source],
            position,
        );
    }
    stage.commit(restart);
    let totals = SERIES
        .iter()
        .filter_map(|series| Some(((*series).to_owned(), stage.task.total(series)?.clone())))
        .collect();
    stage
        .rows
        .sort_by_key(|row| (row.series(), row.size_ms, row.start_ms, row.arrival_ms));
    (stage.rows, totals)
}

/// The rule of lateness, written again from the definition.
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

/// One pass over the additions, with its own arithmetic: every window and correction that there must be.
fn oracle(additions: &[Addition]) -> BTreeMap<(usize, i64, i64, Option<i64>), i64> {
    let rules = world();
    let mut clocks = [NOON; 2];
    let mut expected = BTreeMap::new();
    for addition in additions {
        let source = usize::try_from(addition.source).unwrap();
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
        let (rows, totals) = stage(&additions, cuts, restart);
        let mut found = BTreeMap::new();
        for row in &rows {
            let series = usize::from(row.metric != "tacho_turns_total");
            let schemas::derived::WindowValue::Count { count } = row.value else { panic!("both are counters") };
            let before = found.insert((series, row.size_ms, row.start_ms, row.arrival_ms), count);
            prop_assert!(before.is_none(), "each window and each correction is published once");
        }
        prop_assert_eq!(found, oracle(&additions));
        let sum: i64 = additions.iter().map(|addition| addition.amount).sum();
        let total: i64 = totals.values().map(|amount| if let Amount::Count(count) = amount { *count } else { 0 }).sum();
        prop_assert_eq!(total, sum);
    }

    #[test]
    fn batches_and_restarts_change_no_row(additions in additions(), cuts: u64) {
        prop_assert_eq!(stage(&additions, cuts, true), stage(&additions, u64::MAX, false));
    }
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
    assert_eq!(
        stage.merge(&record(7, 9)),
        Err(Halt::Gap {
            stage: Stage::Sessions,
            source_partition: 0,
            have: 5,
            previous: 7
        })
    );
    assert_eq!(stage.bytes(NOON, b"\xff"), Err(Halt::Foreign));
    assert_eq!(stage.task.position(), Position(1), "neither moved the task");
}

/// A delta record whose parts come one by one, with a restart after each.
#[test]
fn a_record_counts_with_its_last_part_and_each_part_once() {
    let mut stage = Merging::new();
    let part = |part, of, previous, position| DeltaRecord {
        source: 0,
        previous,
        position,
        clock: NOON,
        deltas: vec![schemas::delta::DeltaEntry {
            series: SERIES[0].to_owned(),
            slot: NOON,
            amount: Some((&Amount::Count(1)).into()),
            ..Default::default()
        }],
        part,
        of,
        ..DeltaRecord::default()
    };
    let gap = |have, previous| {
        Err(Halt::Gap {
            stage: Stage::Sessions,
            source_partition: 0,
            have,
            previous,
        })
    };
    let total = |stage: &Merging| stage.task.total(SERIES[0]).cloned();
    assert_eq!(
        stage.merge(&part(1, 3, 0, 5)),
        gap(0, 0),
        "the first part is missing"
    );
    assert_eq!(stage.merge(&part(0, 3, 0, 5)), Ok(Applied::Folded));
    stage.commit(true);
    assert_eq!(
        stage.task.newest_clock(),
        None,
        "clock and position come with the last part"
    );
    assert_eq!(stage.merge(&part(0, 3, 0, 5)), Ok(Applied::Duplicate));
    assert_eq!(
        stage.merge(&part(2, 3, 0, 5)),
        gap(0, 0),
        "the second part is missing"
    );
    assert_eq!(
        stage.merge(&part(0, 0, 0, 7)),
        gap(0, 0),
        "another record comes between the parts"
    );
    assert_eq!(stage.merge(&part(1, 3, 0, 5)), Ok(Applied::Folded));
    stage.commit(true);
    assert_eq!(stage.merge(&part(2, 3, 0, 5)), Ok(Applied::Folded));
    assert_eq!(stage.task.newest_clock(), Some(PartitionClock(NOON)));
    assert_eq!(
        stage.merge(&part(1, 3, 0, 5)),
        Ok(Applied::Duplicate),
        "all of the record is merged"
    );
    assert_eq!(stage.merge(&part(0, 0, 5, 6)), Ok(Applied::Folded));
    assert_eq!(total(&stage), Some(Amount::Count(4)));
}

#[test]
fn a_source_that_can_be_none_is_foreign() {
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
