//! The fold of stage `sessions` in log records a second, with a thousand, a hundred thousand and a million conversations
//! open; beside the floors of the same run: a pass that touches every byte, a scan, and a full decode by prost.
//!
//! Times are those of the processor, not of the wall. One iteration is one commit interval: apply its raw records, then take, resolve and seal what follows from them.

mod support;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use processor_core::{Input, LabelTable, Rules, SessionTask};
use prost::Message;
use schemas::event::Attr;
use schemas::otlp::decode::decode;
use schemas::otlp::scan::scan;
use schemas::settings::Seed;
use schemas::time::{EventTime, format_rfc3339};
use std::hint::black_box;
use std::time::Duration;
use support::{CpuTime, cpu_time, log_bodies, touch};

/// Open conversations in state.
const OPEN: [u64; 3] = [1_000, 100_000, 1_000_000];
/// Log records in one raw record: alone, and as the batch exporter of Codex sends them.
const PER_MESSAGE: [usize; 2] = [1, 20];
/// Log records between two commits.
const COMMIT_RECORDS: usize = 10_000;
/// By how much the log's clock moves from commit to commit, ms: what the worker's default interval is.
const COMMIT_MS: i64 = 250;
/// Teams among which the conversations are spread: each multiplies the series with that label.
const TEAMS: u64 = 40;
/// When the log begins, ms.
const START: i64 = 1_795_348_800_000;

/// Stand-ins of what each message has of its own; all are as long as the real ones.
const CONVERSATION: &str = "cccccccc-cccc-cccc-cccc-cccccccccccc";
const STAMP: &str = "1999-12-31T23:59:59.999Z";
const NANOS: u64 = 0x7a7b_7c7d_7e7f_6a6b;
const TEAM: &str = "team-xx";

/// Spreads a number over 64 bits (splitmix64): which conversation comes next has to look random, and be the same again.
const fn spread(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A conversation's id: a UUID of version 7, as those of Codex, from the half hour before the log begins.
fn conversation(number: u64, open: u64) -> String {
    let born = START.unsigned_abs() - 1_800_000 + number * 1_800_000 / open;
    let tail = spread(number);
    format!("{:08x}-{:04x}-7{:03x}-a{:03x}-{:012x}", born >> 16, born & 0xffff, tail >> 52, tail >> 40 & 0xfff, tail & 0xffff_ffff_ffff)
}

/// An encoded request, and where in it the stand-ins are.
struct Template {
    bytes: Vec<u8>,
    conversations: Vec<usize>,
    stamps: Vec<usize>,
    nanos: Vec<usize>,
    teams: Vec<usize>,
}

fn places(bytes: &[u8], of: &[u8]) -> Vec<usize> {
    (0..bytes.len() - of.len()).filter(|at| bytes[*at..].starts_with(of)).collect()
}

impl Template {
    fn new(resource: &Resource, log_records: &[LogRecord]) -> Self {
        let scope_logs = vec![ScopeLogs { log_records: log_records.to_vec(), ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { resource: Some(resource.clone()), scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        let find = |of: &[u8]| places(&bytes, of);
        let (conversations, stamps) = (find(CONVERSATION.as_bytes()), find(STAMP.as_bytes()));
        let (nanos, teams) = (find(&NANOS.to_le_bytes()), find(TEAM.as_bytes()));
        assert_eq!((conversations.len(), teams.len()), (log_records.len(), 1), "every record has a conversation to replace");
        Self { bytes, conversations, stamps, nanos, teams }
    }

    /// The request of a conversation at a time; `turn` makes its records differ from all others.
    fn request(&self, conversation: &str, team: &str, time: i64, turn: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut put = |at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
        let stamp = format_rfc3339(EventTime(time));
        self.conversations.iter().for_each(|at| put(*at, conversation.as_bytes()));
        self.stamps.iter().for_each(|at| put(*at, stamp.as_bytes()));
        self.teams.iter().for_each(|at| put(*at, team.as_bytes()));
        for (number, at) in (0..).zip(&self.nanos) {
            let nanos = time.unsigned_abs() * 1_000_000 + (turn * 100 + number) % 1_000_000;
            put(*at, &nanos.to_le_bytes());
        }
        bytes
    }
}

fn text(record: &LogRecord, attr: Attr) -> Option<&str> {
    let found = record.attributes.iter().find(|attribute| attribute.key == attr.key())?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Recorded records that belong to a conversation, their ids and times replaced by stand-ins; and a resource.
fn recorded() -> (Resource, Vec<LogRecord>) {
    let mut records = Vec::new();
    let mut resource = Resource::default();
    let bodies = log_bodies();
    for resource_logs in bodies.iter().flat_map(|body| decode(body).expect("recorded requests are valid").resource_logs) {
        resource = resource_logs.resource.unwrap_or(resource);
        records.extend(resource_logs.scope_logs.into_iter().flat_map(|scope| scope.log_records));
    }
    records.retain(|record| text(record, Attr::ConversationId).is_some());
    for record in &mut records {
        record.observed_time_unix_nano = NANOS;
        for attribute in &mut record.attributes {
            let stand_in = match attribute.key.as_str() {
                "conversation.id" => CONVERSATION,
                "event.timestamp" => STAMP,
                _ => continue,
            };
            attribute.value = Some(AnyValue { value: Some(Value::StringValue(stand_in.to_owned())) });
        }
    }
    resource.attributes.push(attribute(Attr::TeamId.key(), TEAM));
    (resource, records)
}

/// A raw record of the log.
struct Raw {
    key: String,
    value: Vec<u8>,
}

/// Where messages come from: recorded records in their order, for conversations drawn at random.
struct Traffic {
    fill: Template,
    alone: Vec<Template>,
    batched: Vec<Template>,
}

impl Traffic {
    fn recorded() -> Self {
        let (resource, records) = recorded();
        let first = |wanted: &dyn Fn(&&LogRecord) -> bool| records.iter().find(wanted).cloned();
        let named = |name: &'static str| first(&move |record| text(record, Attr::EventName) == Some(name));
        let completed = first(&|record| record.attributes.iter().any(|attribute| attribute.key == Attr::InputTokenCount.key()));
        let opening = [named("codex.conversation_starts"), named("codex.user_prompt"), completed];
        let opening: Vec<_> = opening.into_iter().map(|record| record.expect("a recorded run has one")).collect();
        let templates = |size: usize| records.chunks_exact(size).map(|some| Template::new(&resource, some)).collect();
        Self { fill: Template::new(&resource, &opening), alone: templates(PER_MESSAGE[0]), batched: templates(PER_MESSAGE[1]) }
    }

    fn raw(template: &Template, number: u64, open: u64, time: i64, turn: u64) -> Raw {
        let id = conversation(number, open);
        let team = format!("team-{:02}", number % TEAMS);
        Raw { value: template.request(&id, &team, time, turn), key: format!("default/{id}") }
    }

    /// The messages of one commit interval that begins at `time`.
    fn interval(&self, per_message: usize, open: u64, time: i64, turns: &mut u64) -> Vec<Raw> {
        let templates = if per_message == 1 { &self.alone } else { &self.batched };
        let message = |_| {
            *turns += 1;
            let template = &templates[usize::try_from(*turns).unwrap_or(0) % templates.len()];
            Self::raw(template, spread(*turns) % open, open, time, *turns)
        };
        (0..COMMIT_RECORDS / per_message).map(message).collect()
    }
}

/// A task with so many open conversations, driven as the worker does.
struct Driven {
    rules: Rules,
    task: SessionTask,
    labels: LabelTable,
    open: u64,
    offset: i64,
    clock: i64,
    turns: u64,
}

impl Driven {
    /// Opens the conversations, each by its first records.
    fn filled(traffic: &Traffic, open: u64) -> Self {
        let rules = Rules::new(Seed::shipped());
        let (task, labels) = (SessionTask::new(0, &rules, 0), LabelTable::new(&rules.seed));
        let mut driven = Self { rules, task, labels, open, offset: 0, clock: START, turns: 0 };
        let (began, before) = (cpu_time(), resident());
        for number in 0..open {
            driven.apply(&[Traffic::raw(&traffic.fill, number, open, driven.clock, 0)]);
            if number % 10_000 == 9_999 {
                driven.commit();
            }
        }
        driven.commit();
        assert_eq!(driven.task.conversations() as u64, open);
        let (seconds, grown) = ((cpu_time() - began).as_secs_f64(), resident().saturating_sub(before));
        println!("{open} conversations opened in {seconds:.1} s; memory grew by {:.1} MB", grown as f64 / 1e6);
        driven
    }

    fn apply(&mut self, messages: &[Raw]) {
        for Raw { key, value } in messages {
            let (appended, wall) = (self.clock, Some(self.clock));
            let input = Input { offset: self.offset, appended, wall, tick: false, epoch: None, key, value };
            self.task.apply(input, &self.rules);
            self.offset += 1;
        }
    }

    fn commit(&mut self) {
        let effects = self.task.take(&self.rules);
        for (key, value) in self.labels.proposals(&effects.deltas) {
            self.labels.apply(&key, &value);
        }
        black_box((&effects.changes, &effects.rows));
        black_box(self.task.seal(self.labels.resolve(effects.deltas), &self.rules));
        self.clock += COMMIT_MS;
    }
}

/// Bytes of this process in memory; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn floors(group: &mut BenchmarkGroup<'_, CpuTime>, traffic: &Traffic, per_message: usize) {
    let messages = traffic.interval(per_message, OPEN[1], START, &mut 0);
    let bytes: usize = messages.iter().map(|message| message.value.len()).sum();
    println!("{per_message} per message: {} bytes a log record", bytes / COMMIT_RECORDS);
    let mut floor = |name: &str, work: &dyn Fn(&[u8]) -> u64| {
        group.bench_function(format!("{per_message} per message/{name}"), |bencher| {
            bencher.iter(|| messages.iter().map(|message| work(black_box(&message.value))).sum::<u64>());
        });
    };
    floor("touch every byte", &touch);
    floor("scan", &|bytes| {
        let mut tokens = 0;
        let records = scan(bytes, |record| tokens += record.attrs.count(Attr::InputTokenCount).unwrap_or(0));
        tokens + records.expect("recorded requests are valid") as u64
    });
    floor("prost decode", &|bytes| black_box(decode(bytes)).map_or(0, |request| request.resource_logs.len() as u64));
}

fn intervals(group: &mut BenchmarkGroup<'_, CpuTime>, traffic: &Traffic, driven: &mut Driven, per_message: usize) {
    let (mut folding, mut committing) = (Duration::ZERO, Duration::ZERO);
    group.bench_function(format!("{per_message} per message/apply, {} open", driven.open), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let messages = traffic.interval(per_message, driven.open, driven.clock, &mut driven.turns);
                let began = cpu_time();
                driven.apply(&messages);
                let folded = cpu_time() - began;
                driven.commit();
                let whole = cpu_time() - began;
                folding += folded;
                committing += whole - folded;
                total += whole;
            }
            total
        });
    });
    let share = committing.as_secs_f64() / (folding + committing).as_secs_f64();
    println!("of that, take, resolve and seal: {:.0} %", share * 100.0);
    assert_eq!(driven.task.conversations() as u64, driven.open, "no conversation was added or ended meanwhile");
}

fn applying(criterion: &mut Criterion<CpuTime>) {
    let traffic = Traffic::recorded();
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMIT_RECORDS as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    for per_message in PER_MESSAGE {
        floors(&mut group, &traffic, per_message);
    }
    for open in OPEN {
        let mut driven = Driven::filled(&traffic, open);
        for per_message in PER_MESSAGE {
            intervals(&mut group, &traffic, &mut driven, per_message);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = applying
}
criterion_main!(benches);
