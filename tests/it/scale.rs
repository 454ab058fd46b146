//! Two ingests and three processors as processes. Processors are killed, paused, added and removed under load. Afterwards the
//! results equal those of one pass over the raw topic, and those equal the ledger of the senders.

use crate::support::broker::Broker;
use crate::support::processes::{self, Process};
use crate::support::replay::{Results, inputs, replay_into_view};
use crate::support::samples::{Samples, Series};
use crate::support::traffic::{Random, quick_seed};
use crate::support::{now_ms, otlp};
use nix::sys::signal::Signal;
use processor::sink::prometheus;
use processor::view::{MAIN, View};
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::simulated::SimCluster;
use schemas::id::TopicPartition;
use schemas::metric::{Kind, Metric};
use schemas::record::NewRecord;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strum::VariantArray;

const PREFIX: &str = "scale.";
const CONVERSATIONS: u64 = 500;
/// The least number of records; sending goes on for as long as processors come and go.
const RECORDS: u64 = 200_000;
const CLIENTS: u64 = 4;
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long results may take after the last record to be complete.
const QUIESCENCE: Duration = Duration::from_secs(300);

/// The ledger of the senders: the counts of what was answered with 200.
#[derive(Default)]
struct Ledger {
    counts: Mutex<BTreeMap<&'static str, i64>>,
    records: AtomicU64,
    stop: AtomicBool,
}

impl Ledger {
    fn add(&self, counts: BTreeMap<&'static str, i64>) {
        let records = counts["tacho_log_records_total"];
        let mut all = self.counts.lock().unwrap();
        counts
            .into_iter()
            .for_each(|(name, count)| *all.entry(name).or_default() += count);
        self.records
            .fetch_add(u64::try_from(records).unwrap(), Ordering::Relaxed);
    }

    fn wait_for(&self, records: u64) {
        let deadline = Instant::now() + QUIESCENCE;
        while self.records.load(Ordering::Relaxed) < records {
            assert!(
                Instant::now() < deadline,
                "{} of {records} records",
                self.records.load(Ordering::Relaxed)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A request of one conversation, and the counts that it adds.
fn request(random: &mut Random, unique: &mut u64) -> (Vec<u8>, BTreeMap<&'static str, i64>) {
    let conversation = format!("c{}", random.below(CONVERSATIONS));
    let size = if random.chance(50) {
        1 + random.below(4)
    } else {
        20 + random.below(60)
    };
    let mut counts = BTreeMap::new();
    let mut records = Vec::new();
    for _ in 0..size {
        let age = if random.chance(4) {
            i64::try_from(random.below(9_000)).unwrap()
        } else {
            i64::try_from(random.below(300)).unwrap()
        };
        let time = now_ms() - age;
        let mut add = |name, count| *counts.entry(name).or_insert(0) += count;
        add("tacho_log_records_total", 1);
        let mut record = match random.below(4) {
            0 => {
                add("tacho_turns_total", 1);
                otlp::prompt(&conversation, time)
            }
            1 => {
                let (input, output) = (
                    i64::try_from(random.below(9_000)).unwrap(),
                    i64::try_from(random.below(500)).unwrap(),
                );
                add("tacho_tokens_total", input + output);
                otlp::tokens(&conversation, time, input, output)
            }
            _ => {
                add("tacho_api_requests_total", 1);
                let model = if random.chance(50) { "gpt-a" } else { "gpt-b" };
                let status = if random.chance(90) { 200 } else { 500 };
                otlp::request(
                    &conversation,
                    time,
                    model,
                    status,
                    &(1 + random.below(90_000)).to_string(),
                )
            }
        };
        // No two records are equal, since equal ones count once.
        *unique += 1;
        record.attributes.push(otlp::attribute(
            "number",
            otlp::int(i64::try_from(*unique).unwrap()),
        ));
        records.push(record);
    }
    (otlp::encode(records), counts)
}

/// Sends to both ingests by turns until `stop` is set. Every request must be answered with 200.
fn client(number: u64, ingests: &[String], ledger: &Arc<Ledger>) -> std::thread::JoinHandle<()> {
    let (ingests, ledger) = (ingests.to_vec(), Arc::clone(ledger));
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    std::thread::spawn(move || {
        let mut random = Random(number);
        let mut unique = number << 40;
        for turn in 0.. {
            if ledger.stop.load(Ordering::Relaxed) {
                return;
            }
            let (body, counts) = request(&mut random, &mut unique);
            let to = &ingests[turn % ingests.len()];
            let answer = agent
                .post(format!("http://{to}/v1/logs"))
                .content_type("application/x-protobuf")
                .send(&body[..]);
            assert_eq!(answer.unwrap().status().as_u16(), 200);
            ledger.add(counts);
        }
    })
}

fn processor(name: &str, bootstrap: &str) -> Process {
    let timeout = format!("{}s", SESSION_TIMEOUT.as_secs());
    processes::processor(bootstrap, PREFIX, name)
        .set("group.session_timeout", &timeout)
        .ready()
}

fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    let (status, said) = process.ended();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn processors_are_killed_stopped_added_and_removed() {
    let bootstrap = Broker::shared().bootstrap();
    let cluster = Cluster::plain(&bootstrap, PREFIX);
    let seed = Seed {
        raw_partitions: 12,
        delta_partitions: 8,
        ..quick_seed()
    };
    topics::prepare(&cluster, &seed).unwrap();
    let mut reader = KafkaLog::connect(KafkaConfig::reader(&cluster, &format!("{PREFIX}reader"))).unwrap();
    let control = TopicPartition {
        topic: Topic::Control,
        partition: 0,
    };
    reader
        .append(vec![NewRecord {
            to: control,
            key: Some("seed".into()),
            value: Some(seed.to_json().into()),
            headers: vec![],
        }])
        .unwrap();

    let mut processors: Vec<Process> = ["a", "b", "c"]
        .iter()
        .map(|name| processor(name, &bootstrap))
        .collect();
    let ingests: Vec<Process> = (0..2)
        .map(|_| processes::ingest(&bootstrap, PREFIX).ready())
        .collect();
    let doors: Vec<String> = ingests
        .iter()
        .map(|ingest| ingest.at("http").to_owned())
        .collect();
    let ledger = Arc::new(Ledger::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| client(number, &doors, &ledger))
        .collect();

    // The time of each kill differs between runs, so that it meets different work of the process.
    let mut random = Random(u64::try_from(now_ms()).unwrap());
    for round in 0..3 {
        ledger.wait_for(RECORDS * (round + 1) / 10 + random.below(RECORDS / 20));
        let victim = usize::try_from(random.below(3)).unwrap();
        let name = ["a", "b", "c"][victim];
        processors[victim].signal(Signal::SIGKILL);
        processors[victim] = processor(name, &bootstrap);
    }
    ledger.wait_for(RECORDS / 2);
    processors[0].signal(Signal::SIGSTOP);
    std::thread::sleep(SESSION_TIMEOUT * 2);
    processors[0].signal(Signal::SIGCONT);
    processors.push(processor("d", &bootstrap));
    ledger.wait_for(RECORDS * 7 / 10);
    end(processors.remove(1));
    ledger.wait_for(RECORDS);
    ledger.stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());

    expect_all(&mut reader, &seed, &processors, &ledger);
    ingests.into_iter().chain(processors).for_each(end);
}

/// Waits until everything is final, and compares the results with those of one pass.
fn expect_all(reader: &mut KafkaLog, seed: &Seed, processors: &[Process], ledger: &Ledger) {
    let wanted = ledger.counts.lock().unwrap().clone();
    let deadline = Instant::now() + QUIESCENCE;
    loop {
        let shown = all_samples(processors);
        let counts = shown.as_ref().map(|shown| {
            wanted
                .keys()
                .map(|name| (*name, shown.count(name, &[])))
                .collect::<BTreeMap<_, _>>()
        });
        if counts.as_ref() == Ok(&wanted)
            && shown
                .as_ref()
                .is_ok_and(|shown| shown.count("tacho_sessions_active", &[]) == 0)
        {
            break;
        }
        assert!(Instant::now() < deadline, "shown: {counts:?}\nsent:  {wanted:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    // Ticks move the clocks of all sources past the largest window, so that the one pass has its last rows too.
    let alone = SimCluster::new(0, seed);
    std::thread::sleep(Duration::from_millis(
        u64::try_from(2 * seed.time.window_sizes_ms[2] + 20_000).unwrap(),
    ));
    let shown = all_samples(processors).expect("nothing is handed over any more, so nothing is shown twice");
    let derived = Results::of(reader, &View::default());
    alone.import(inputs(reader)).unwrap();
    let (oracle, view) = replay_into_view(alone.log("worker"), seed, 1_000).unwrap();
    let totals = counters(&Samples::parse(&text_of(&view)), MAIN);
    let shown = counters(&shown, PREFIX);
    assert_eq!(shown.len(), totals.len());
    for (series, value) in &totals {
        assert_eq!(shown.get(series), Some(value), "{series:?}");
    }
    let (windows, corrections, sessions) = (
        derived.windows.len(),
        derived.corrections(),
        derived.sessions.len(),
    );
    let enough = windows > 1_000 && corrections > 50 && sessions >= usize::try_from(CONVERSATIONS).unwrap();
    assert!(
        enough,
        "too little to compare: {windows} windows, {corrections} of them corrections, {sessions} sessions"
    );
    derived.assert_same(
        &Results {
            totals: BTreeMap::new(),
            ..oracle
        },
        "processors and one pass",
    );
}

/// The counters and histograms of results in a scrape, which never decrease. Label `log`, which must be there with the value
/// `log`, is removed.
fn counters(samples: &Samples, log: &str) -> BTreeMap<Series, String> {
    let of_log = samples.0.iter().filter(|((name, _), _)| is_counter(name));
    of_log
        .map(|((name, labels), value)| {
            let mut labels = labels.clone();
            assert_eq!(labels.remove("log").as_deref(), Some(log), "{name} {labels:?}");
            ((name.clone(), labels), value.to_string())
        })
        .collect()
}

fn is_counter(name: &str) -> bool {
    let totals = Metric::VARIANTS.iter().map(|metric| metric.def());
    let mut totals = totals.filter(|def| matches!(def.kind, Kind::Counter | Kind::Histogram { .. }));
    totals.any(|def| {
        name.strip_prefix(def.name)
            .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
    })
}

/// Scrapes each process once. The error holds a series that two of them showed, as happens during a hand-over.
fn all_samples(processors: &[Process]) -> Result<Samples, Series> {
    let mut all = Samples::default();
    for process in processors {
        for (series, value) in process.metrics_when("a scrape", |samples| Ok(samples.clone())).0 {
            // Only results are checked, since every process has metrics of its own under the same names.
            if is_counter(&series.0) && all.0.contains_key(&series) {
                return Err(series);
            }
            all.0.insert(series, value);
        }
    }
    Ok(all)
}

fn text_of(view: &View) -> String {
    String::from_utf8(prometheus::body(view, "", prometheus::Format::Text)).unwrap()
}
