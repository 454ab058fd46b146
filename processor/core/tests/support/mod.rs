//! Support of the tests: records as Codex sends them, and a session task that is driven record by record.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it; numbers of tests fit"
)]

pub mod responses;
pub mod websocket;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use processor_core::labels::{DeltaMap, LabelTable};
use processor_core::{Effects, Input, Quarantined, RawDeltas, Rules, SessionTask, Task};
use prost::Message;
use schemas::delta::Series;
use schemas::derived::{Row, SessionRow};
use schemas::id::{Epoch, Position, TopicPartition};
use schemas::metric::Amount;
use schemas::origin::Origin;
use schemas::settings::Seed;
use schemas::state::{Change, Meta, StateKey};
use schemas::time::{AppendTime, EventTime, WallTime, format_rfc3339};
use schemas::topic::Topic;
use std::collections::BTreeMap;

/// Noon of 2026-11-22 in UTC, ms: a multiple of every window size.
pub const NOON: i64 = 1_795_348_800_000;

/// A text as the value of an attribute; Codex sends some counts as texts, and others as integers.
pub fn text(value: impl Into<String>) -> Value {
    Value::StringValue(value.into())
}

pub fn int(value: i64) -> Value {
    Value::IntValue(value)
}

/// The shipped seed with short times, so that a short run meets every rule.
pub fn short_times() -> Seed {
    let mut seed = Seed::shipped();
    seed.delta_partitions = 2;
    seed.settings.session_gap_ms = 60_000;
    seed.settings.reopen_horizon_ms = 300_000;
    seed.time.mark_age_ms = 100_000;
    seed
}

/// One log record of a conversation.
#[derive(Clone, Debug)]
pub struct Event {
    pub conversation: &'static str,
    pub time: i64,
    pub name: &'static str,
    pub attributes: Vec<(&'static str, Value)>,
}

pub fn event(
    conversation: &'static str,
    time: i64,
    name: &'static str,
    attributes: Vec<(&'static str, Value)>,
) -> Event {
    Event {
        conversation,
        time,
        name,
        attributes,
    }
}

pub fn prompt(conversation: &'static str, time: i64) -> Event {
    event(
        conversation,
        time,
        "codex.user_prompt",
        vec![("prompt_length", text("5"))],
    )
}

pub fn request(conversation: &'static str, time: i64, status: i64, attempt: i64) -> Event {
    let mut attributes = vec![
        ("duration_ms", text("120")),
        ("http.response.status_code", int(status)),
        ("attempt", int(attempt)),
        ("endpoint", text("/responses")),
    ];
    if status >= 400 {
        attributes.push(("error.message", text(format!("http {status}"))));
    }
    event(conversation, time, "codex.api_request", attributes)
}

/// A completed response. `cached` tokens are part of `input`, and `reasoning` tokens are part of `output`.
pub fn tokens(
    conversation: &'static str,
    time: i64,
    input: i64,
    cached: i64,
    output: i64,
    reasoning: i64,
) -> Event {
    let attributes = vec![
        ("event.kind", text("response.completed")),
        ("input_token_count", text(input.to_string())),
        ("output_token_count", text(output.to_string())),
        ("cached_token_count", int(cached)),
        ("reasoning_token_count", int(reasoning)),
        ("tool_token_count", text((input + output).to_string())),
    ];
    event(conversation, time, "codex.sse_event", attributes)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// An OTLP log request with these events.
pub fn encode(events: &[Event]) -> Vec<u8> {
    let record = |event: &Event| {
        let mut attributes = vec![
            attribute("event.name", text(event.name)),
            attribute("event.timestamp", text(format_rfc3339(EventTime(event.time)))),
            attribute("conversation.id", text(event.conversation)),
            attribute("model", text("gpt-5.5")),
        ];
        attributes.extend(
            event
                .attributes
                .iter()
                .map(|(key, value)| attribute(key, value.clone())),
        );
        LogRecord {
            observed_time_unix_nano: u64::try_from(event.time).unwrap() * 1_000_000,
            attributes,
            ..LogRecord::default()
        }
    };
    let scope_logs = vec![ScopeLogs {
        log_records: events.iter().map(record).collect(),
        ..ScopeLogs::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

/// The raw partition that the tests fold.
pub const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};

/// What a commit of a session task holds.
#[derive(Debug, Default)]
pub struct Committed {
    pub changes: Vec<Change>,
    pub rows: Vec<SessionRow>,
    pub deltas: DeltaMap,
    pub quarantined: Vec<Quarantined>,
}

/// A session task with its changelog.
pub struct Driven {
    pub rules: Rules,
    pub task: SessionTask,
    pub offset: i64,
    pub changelog: BTreeMap<String, Vec<u8>>,
    pub meta: Meta,
    /// All that was committed, with its deltas added up.
    committed: Committed,
}

impl Driven {
    pub fn new(seed: Seed) -> Self {
        let rules = Rules::new(seed);
        let task = SessionTask::new(RAW, &rules, Position(0));
        Self {
            rules,
            task,
            offset: 0,
            changelog: BTreeMap::new(),
            meta: Meta::default(),
            committed: Committed::default(),
        }
    }

    /// Commits, and goes on with a task that was restored from the changelog.
    pub fn restart_after_commit(&mut self) {
        self.keep();
        self.restart();
    }

    /// Commits, and gives all that was committed since the beginning.
    pub fn all(&mut self) -> Committed {
        self.keep();
        std::mem::take(&mut self.committed)
    }

    /// Commits, and gives the last row that was ever published.
    pub fn last_row(&mut self) -> SessionRow {
        self.keep();
        self.committed.rows.last().cloned().unwrap()
    }

    fn keep(&mut self) {
        let Committed { rows, deltas, .. } = self.commit();
        self.committed.rows.extend(rows);
        for (series, slots) in deltas {
            let kept = self.committed.deltas.entry(series).or_default();
            for (slot, amount) in slots {
                match (kept.get_mut(&slot), amount) {
                    (Some(Amount::Count(sum)), Amount::Count(count)) => *sum += count,
                    (_, amount) => drop(kept.insert(slot, amount)),
                }
            }
        }
    }

    /// Applies a raw record with events of one conversation, appended at `appended`.
    pub fn send(&mut self, appended: i64, events: &[Event]) {
        let key = format!(
            "default/{}",
            events.first().map_or("none", |event| event.conversation)
        );
        self.raw(appended, &key, &encode(events));
    }

    pub fn raw(&mut self, appended: i64, key: &str, value: &[u8]) {
        self.drained(appended, None, key, value);
    }

    /// Applies a raw record that was drained from an inbox, if it has an origin.
    pub fn drained(&mut self, appended: i64, origin: Option<Origin<'_>>, key: &str, value: &[u8]) {
        let input = Input {
            offset: self.offset,
            appended: AppendTime(appended),
            wall: Some(WallTime(appended)),
            tick: false,
            epoch: None,
            origin,
            key,
            value,
        };
        self.task
            .apply(input, &self.rules)
            .expect("nothing that a client sends halts a session task");
        self.offset += 1;
    }

    pub fn tick(&mut self, appended: i64) {
        self.control(appended, None);
    }

    /// Applies a tick that starts an epoch, which must be in the rules.
    pub fn start_epoch(&mut self, appended: i64, epoch: i64) {
        self.control(appended, Some(Epoch(epoch)));
    }

    fn control(&mut self, appended: i64, epoch: Option<Epoch>) {
        let input = Input {
            offset: self.offset,
            appended: AppendTime(appended),
            wall: Some(WallTime(appended)),
            tick: true,
            epoch,
            origin: None,
            key: "tick",
            value: &[],
        };
        self.task
            .apply(input, &self.rules)
            .expect("nothing that a client sends halts a session task");
        self.offset += 1;
    }

    /// Takes the effects, and applies their changes to the changelog as a log would.
    pub fn commit(&mut self) -> Committed {
        let Effects {
            changes,
            rows,
            deltas,
            quarantined,
            ..
        } = self.task.take(&self.rules);
        store(&mut self.changelog, &changes);
        let raw = deltas.map().clone();
        let labels = LabelTable::new(&self.rules.seed);
        self.meta = self.task.seal(labels.resolve(deltas), "test", &self.rules).meta;
        let session = |row| match row {
            Row::Session(row) => *row,
            Row::Window(..) => panic!("a session task publishes no windows"),
        };
        Committed {
            changes,
            rows: rows.into_iter().map(session).collect(),
            deltas: raw,
            quarantined,
        }
    }

    /// Drops the task and rebuilds it from the changelog.
    pub fn restart(&mut self) {
        let entries = entries(&self.changelog);
        self.task = SessionTask::restore(RAW, &self.rules, &self.meta, entries)
            .expect("the changelog was written by the task itself");
    }
}

/// Folds the events as one raw record each, all at the time of the last one, and gives the results and the last row.
pub fn fold(events: &[Event]) -> (Committed, SessionRow) {
    let mut driven = Driven::new(Seed::shipped());
    let clock = events.iter().map(|event| event.time).max().unwrap();
    for event in events {
        driven.send(clock, std::slice::from_ref(event));
    }
    let committed = driven.commit();
    let row = committed.rows.last().cloned().unwrap();
    (committed, row)
}

/// The entries of a changelog, as a restore gets them.
pub fn entries(changelog: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (StateKey<'_>, &[u8])> {
    changelog.iter().map(|(key, value)| {
        let key = StateKey::parse(key).expect("keys were written by the task itself");
        (key, value.as_slice())
    })
}

pub fn store(changelog: &mut BTreeMap<String, Vec<u8>>, changes: &[Change]) {
    for change in changes {
        match &change.value {
            Some(value) => changelog.insert(change.key.clone(), value.clone()),
            None => changelog.remove(&change.key),
        };
    }
}

/// A label table that admits all values in the deltas.
pub fn admit_all(rules: &Rules, deltas: &RawDeltas) -> LabelTable {
    let mut labels = LabelTable::new(&rules.seed);
    labels
        .proposals(deltas)
        .iter()
        .for_each(|(key, value)| labels.apply(key, value));
    labels
}

/// The sum of a counter's deltas over the series that have all label values in `with`.
pub fn count(deltas: &DeltaMap, metric: &str, with: &[&str]) -> i64 {
    sum(deltas, metric, |series| {
        with.iter().all(|value| series.values.contains(value))
    })
}

/// The sum of a counter's deltas over the series that have all labels in `with`, by name and value.
pub fn labelled(deltas: &DeltaMap, metric: &str, with: &[(&str, &str)]) -> i64 {
    let has = |series: &Series<'_>, wanted: (&str, &str)| {
        series
            .labels()
            .any(|(label, value)| (label.def().name, value) == wanted)
    };
    sum(deltas, metric, |series| {
        with.iter().all(|wanted| has(series, *wanted))
    })
}

fn sum(deltas: &DeltaMap, metric: &str, wanted: impl Fn(&Series<'_>) -> bool) -> i64 {
    let wanted = |key: &&String| {
        let series = Series::parse(key).expect("deltas are under known series");
        series.metric.def().name == metric && wanted(&series)
    };
    let amounts = deltas.keys().filter(wanted).flat_map(|key| deltas[key].values());
    amounts
        .map(|amount| {
            if let Amount::Count(count) = amount {
                *count
            } else {
                panic!("{metric} is not a counter")
            }
        })
        .sum()
}
