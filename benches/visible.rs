//! Latency from a client's send to the number in `/metrics`, of ingest and processor as processes over a real
//! broker, at half of the highest rate that both keep up with.
//!
//! `cargo bench --bench visible -- [SECONDS]`. A probe is a request of its own, by a team that only probes
//! are of, so that the series of the team shows when the probe became visible. The teams are admitted before
//! the measurement begins. Probes are looked for every [`LOOK_EVERY`], so a latency is too high by up to that
//! time and the time of a scrape.

mod support;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use schemas::time::{EventTime, format_rfc3339};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::process::broker::Broker;
use support::process::{Ingest, PARTITIONS, Processor, now_ms, prepare, used};
use support::requests::Traffic;

/// How many conversations the requests are spread over.
const CONVERSATIONS: u64 = 10_000;
/// How many log records a request has.
const PER_REQUEST: usize = 10;
/// How many clients send at once: so many that only the servers limit the rate.
const CLIENTS: usize = 64;
/// How many requests the run sends that finds the highest rate.
const REQUESTS_FAST: u64 = 40_000;
/// How many probes are sent a second.
const PROBES: u32 = 10;
/// How many teams the probes are of, by turns.
const TEAMS: u32 = 40;
/// How long the load runs before the first probe, so that the broker's code is compiled and most
/// conversations have begun.
const WARM_UP: Duration = Duration::from_secs(8);
/// The time between two scrapes of `/metrics`.
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn main() {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(40);
    let broker = Broker::start(&[("log.retention.check.interval.ms", "600000")]);
    let bootstrap = broker.bootstrap();
    let rate = highest_rate(&bootstrap);
    println!(
        "highest rate that both keep up with: {rate:.0} log records a second, in requests of {PER_REQUEST}"
    );
    at_half(&bootstrap, rate / 2.0, Duration::from_secs(seconds));
}

/// Sends as fast as answers come, waits until all records are counted, and gives the rate in log records a
/// second.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn highest_rate(bootstrap: &str) -> f64 {
    let prefix = "fast.";
    prepare(bootstrap, prefix, PARTITIONS);
    let (processor, ingest) = (
        Processor::start(bootstrap, prefix, 1),
        Ingest::start(bootstrap, prefix),
    );
    let (traffic, next) = (Traffic::recorded(PER_REQUEST), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = client();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= REQUESTS_FAST {
                        return;
                    }
                    post(
                        &client,
                        &ingest,
                        &traffic.message(PER_REQUEST, CONVERSATIONS, now_ms(), turn).value,
                    );
                }
            });
        }
    });
    let records = REQUESTS_FAST * PER_REQUEST as u64;
    processor.wait_for(usize::try_from(records).expect("it fits"));
    records as f64 / began.elapsed().as_secs_f64()
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).build().into()
}

fn post(client: &ureq::Agent, ingest: &Ingest, body: &[u8]) {
    let request = client
        .post(format!("http://{}/v1/logs", ingest.1))
        .header("content-type", "application/x-protobuf");
    request.send(body).expect("ingest takes it");
}

/// A request with a prompt by the team of that number.
fn probe(number: u32) -> Vec<u8> {
    let team = format!("probe-{:04}", number % TEAMS);
    let attribute = |key: &str, text: &str| {
        let value = Some(AnyValue {
            value: Some(Value::StringValue(text.to_owned())),
        });
        KeyValue {
            key: key.to_owned(),
            value,
            ..KeyValue::default()
        }
    };
    let now = now_ms();
    let record = LogRecord {
        observed_time_unix_nano: now.unsigned_abs() * 1_000_000,
        attributes: vec![
            attribute("event.name", "codex.user_prompt"),
            attribute("event.timestamp", &format_rfc3339(EventTime(now))),
            attribute(
                "conversation.id",
                &format!("0198f5a0-0000-7000-8000-{number:012x}"),
            ),
        ],
        ..LogRecord::default()
    };
    let resource = Resource {
        attributes: vec![attribute("team.id", &team)],
        ..Resource::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs,
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

/// Measures the latency of probes while requests are sent at that rate, in log records a second.
fn at_half(bootstrap: &str, rate: f64, length: Duration) {
    let prefix = "half.";
    prepare(bootstrap, prefix, PARTITIONS);
    let (processor, ingest) = (
        Processor::start(bootstrap, prefix, 1),
        Ingest::start(bootstrap, prefix),
    );
    let warm_up = client();
    (0..TEAMS).for_each(|number| post(&warm_up, &ingest, &probe(number)));
    processor.wait_for(TEAMS as usize);
    let traffic = Traffic::recorded(PER_REQUEST);
    let (next, over, sent) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU32::new(0));
    let every = Duration::from_secs_f64(PER_REQUEST as f64 / rate);
    let began = Instant::now();
    let latencies = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = client();
                while !over.load(Ordering::Relaxed) {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let due = every.mul_f64(turn as f64);
                    thread::sleep(due.saturating_sub(began.elapsed()));
                    post(
                        &client,
                        &ingest,
                        &traffic.message(PER_REQUEST, CONVERSATIONS, now_ms(), turn).value,
                    );
                }
            });
        }
        let (ingest, sent, over) = (&ingest, &sent, &over);
        let probes = scope.spawn(move || send_probes(ingest, sent, began, length));
        let seen = watch(&processor, sent, || probes.is_finished());
        over.store(true, Ordering::Relaxed);
        let starts = probes.join().expect("the probes end");
        let mut latencies: Vec<Duration> = starts
            .iter()
            .zip(seen)
            .map(|(start, seen)| seen.duration_since(*start))
            .collect();
        latencies.sort();
        latencies
    });
    let records = next.load(Ordering::Relaxed) * PER_REQUEST as u64;
    report(&latencies, records, began.elapsed().as_secs_f64());
    let seconds = || began.elapsed().as_secs_f64();
    println!(
        "{:.1} commits a second",
        processor.sum("tacho_transactions_total{") / seconds()
    );
    for (name, pid) in [("processor", processor.0.id()), ("ingest", ingest.0.id())] {
        println!(
            "{name}: {:.2} CPU seconds a second",
            used(&pid.to_string()).0 / seconds()
        );
    }
}

/// Sends probes for that length after the warm-up, counts them in `sent`, and gives when each was sent.
fn send_probes(ingest: &Ingest, sent: &AtomicU32, began: Instant, length: Duration) -> Vec<Instant> {
    let client = client();
    let mut starts = Vec::new();
    thread::sleep(WARM_UP);
    while began.elapsed() < WARM_UP + length {
        let number = u32::try_from(starts.len()).expect("there are few probes");
        let body = probe(TEAMS + number);
        starts.push(Instant::now());
        post(&client, ingest, &body);
        sent.store(number + 1, Ordering::Relaxed);
        let due = WARM_UP + Duration::from_secs(1) * (number + 1) / PROBES;
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    starts
}

/// Prints percentiles of the latencies, which ascend, and the rate that was reached.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn report(latencies: &[Duration], records: u64, seconds: f64) {
    let at = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1].as_millis();
    println!(
        "at half of it ({:.0} a second), from send to visible, {} probes, ms:",
        records as f64 / seconds,
        latencies.len()
    );
    println!(
        "p50 {}, p90 {}, p95 {}, p99 {}, most {}",
        at(50),
        at(90),
        at(95),
        at(99),
        at(100)
    );
}

/// Waits until all probes that were sent are visible, and gives when each became so, in their order.
fn watch(processor: &Processor, sent: &AtomicU32, are_over: impl Fn() -> bool) -> Vec<Instant> {
    let mut seen: Vec<Option<Instant>> = Vec::new();
    loop {
        let is_last = are_over();
        let text = processor.metrics();
        let now = Instant::now();
        for line in text.lines().filter(|line| line.starts_with("tacho_turns_total{")) {
            let Some((_, rest)) = line.split_once("team=\"probe-") else {
                continue;
            };
            let team: usize = rest[..4].parse().expect("teams of probes end in four digits");
            let value = rest
                .rsplit_once('}')
                .and_then(|(_, rest)| rest.split_whitespace().next());
            let count: usize = value
                .and_then(|value| value.parse().ok())
                .expect("a counter is an integer");
            // The first prompt of each team was sent before the measurement.
            for number in (0..count.saturating_sub(1)).map(|nth| nth * TEAMS as usize + team) {
                seen.resize(seen.len().max(number + 1), None);
                seen[number].get_or_insert(now);
            }
        }
        let all = sent.load(Ordering::Relaxed) as usize;
        if is_last && seen.len() == all && seen.iter().all(Option::is_some) {
            return seen.into_iter().flatten().collect();
        }
        thread::sleep(LOOK_EVERY);
    }
}
