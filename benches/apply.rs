//! Speed of the fold of stage `sessions`, in log records a second, with a thousand, a hundred thousand and a
//! million conversations open. The same run measures floors: a pass that touches every byte, a scan, and a
//! full decode by prost.
//!
//! Times are CPU times of the thread. An iteration is one commit interval: the task applies its raw records;
//! then their effects are taken, resolved and sealed.

mod support;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use processor_core::{Input, LabelTable, Rules, SessionTask, Task};
use schemas::event::Attr;
use schemas::id::{Position, TopicPartition};
use schemas::otlp::decode::decode;
use schemas::otlp::scan::scan;
use schemas::settings::Seed;
use schemas::time::{AppendTime, WallTime};
use schemas::topic::Topic;
use std::hint::black_box;
use std::time::Duration;
use support::requests::{Raw, START, Traffic};
use support::{CpuTime, cpu_time, touch};

/// How many conversations are open in state.
const OPEN: [u64; 3] = [1_000, 100_000, 1_000_000];
/// How many log records a raw record has: one, and as many as the batch exporter of Codex sends.
const PER_MESSAGE: [usize; 2] = [1, 20];
/// How many log records come between two commits.
const COMMIT_RECORDS: usize = 10_000;
/// How far the log's clock moves between two commits, ms: the default commit interval.
const COMMIT_MS: i64 = 250;
/// The raw records of a commit interval that begins at `time`.
fn interval(traffic: &Traffic, per_message: usize, open: u64, time: i64, turns: &mut u64) -> Vec<Raw> {
    let message = |_| {
        *turns += 1;
        traffic.message(per_message, open, time, *turns)
    };
    (0..COMMIT_RECORDS / per_message).map(message).collect()
}

/// The raw partition that is folded.
const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};

/// A task with open conversations, which is driven as a worker does it.
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
    /// Opens the conversations by the first records of each.
    fn filled(traffic: &Traffic, open: u64) -> Self {
        let rules = Rules::new(Seed::shipped());
        let (task, labels) = (
            SessionTask::new(RAW, &rules, Position(0)),
            LabelTable::new(&rules.seed),
        );
        let mut driven = Self {
            rules,
            task,
            labels,
            open,
            offset: 0,
            clock: START,
            turns: 0,
        };
        let (began, before) = (cpu_time(), resident());
        for number in 0..open {
            driven.apply(&[traffic.opening(number, open, driven.clock)]);
            if number % 10_000 == 9_999 {
                driven.commit();
            }
        }
        driven.commit();
        assert_eq!(driven.task.state_keys() as u64, open);
        let (seconds, grown) = (
            (cpu_time() - began).as_secs_f64(),
            resident().saturating_sub(before),
        );
        println!(
            "{open} conversations opened in {seconds:.1} s; memory grew by {:.1} MB",
            grown as f64 / 1e6
        );
        driven
    }

    fn apply(&mut self, messages: &[Raw]) {
        for Raw { key, value } in messages {
            let (appended, wall) = (AppendTime(self.clock), Some(WallTime(self.clock)));
            let input = Input {
                offset: self.offset,
                appended,
                wall,
                tick: false,
                epoch: None,
                origin: None,
                key,
                value,
            };
            self.task
                .apply(input, &self.rules)
                .expect("the traffic is well-formed");
            self.offset += 1;
        }
    }

    fn commit(&mut self) {
        let effects = self.task.take(&self.rules);
        for (key, value) in self.labels.proposals(&effects.deltas) {
            self.labels.apply(&key, &value);
        }
        black_box((&effects.changes, &effects.rows));
        let deltas = self.labels.resolve(effects.deltas);
        let sealed = self.task.seal(deltas, "bench", &self.rules);
        black_box(&sealed.deltas);
        self.clock += COMMIT_MS;
    }
}

/// The resident set size of this process, bytes; 0 on systems other than Linux.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

fn floors(group: &mut BenchmarkGroup<'_, CpuTime>, traffic: &Traffic, per_message: usize) {
    let messages = interval(traffic, per_message, OPEN[1], START, &mut 0);
    let bytes: usize = messages.iter().map(|message| message.value.len()).sum();
    println!(
        "{per_message} per message: {} bytes a log record",
        bytes / COMMIT_RECORDS
    );
    let mut floor = |name: &str, work: &dyn Fn(&[u8]) -> u64| {
        group.bench_function(format!("{per_message} per message/{name}"), |bencher| {
            bencher.iter(|| {
                messages
                    .iter()
                    .map(|message| work(black_box(&message.value)))
                    .sum::<u64>()
            });
        });
    };
    floor("touch every byte", &touch);
    floor("scan", &|bytes| {
        let mut tokens = 0;
        let records = scan(bytes, |record| {
            tokens += record.attrs.count(Attr::InputTokenCount).unwrap_or(0)
        });
        tokens + records.expect("recorded requests are valid") as u64
    });
    floor("prost decode", &|bytes| {
        black_box(decode(bytes)).map_or(0, |request| request.resource_logs.len() as u64)
    });
}

fn intervals(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    traffic: &Traffic,
    driven: &mut Driven,
    per_message: usize,
) {
    let (mut folding, mut committing) = (Duration::ZERO, Duration::ZERO);
    group.bench_function(
        format!("{per_message} per message/apply, {} open", driven.open),
        |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let messages =
                        interval(traffic, per_message, driven.open, driven.clock, &mut driven.turns);
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
        },
    );
    let share = committing.as_secs_f64() / (folding + committing).as_secs_f64();
    println!("of that, take, resolve and seal: {:.0} %", share * 100.0);
    assert_eq!(
        driven.task.state_keys() as u64,
        driven.open,
        "no conversation was added or ended meanwhile"
    );
}

fn applying(criterion: &mut Criterion<CpuTime>) {
    let traffic = Traffic::recorded(PER_MESSAGE[1]);
    let mut group = criterion.benchmark_group("apply");
    group
        .throughput(Throughput::Elements(COMMIT_RECORDS as u64))
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat);
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
