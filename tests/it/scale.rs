//! Two ingests and three processors as processes of their own; processors are killed, stopped, added and removed under
//! load. Afterwards all results equal those of one pass over the raw topic, and these the ledger of the senders.

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
/// At least so many records, and for as long as processors come and go.
const RECORDS: u64 = 200_000;
const CLIENTS: u64 = 4;
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long results may take to be complete after the last record.
const QUIESCENCE: Duration = Duration::from_secs(300);

/// What the senders know: how much of what was answered with 200.
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

/// One request, of one conversation, and what it adds.
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
        // No two records are equal: equal ones count once.
        *unique += 1;
        record.attributes.push(otlp::attribute(
            "number",
            otlp::int(i64::try_from(*unique).unwrap()),
        ));
        records.push(record);
    }
    (otlp::encode(records), counts)
}

/// Sends to both ingests by turns, until told to stop; every request must be answered with 200.
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

    // Not at the same place in each run: a kill meets whatever the process is just doing.
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

/// Waits until everything is final, and compares.
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
    // All sources' clocks go past the largest window by ticks; then the oracle's last rows are there too.
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

/// The derived counters and histograms of a scrape, which never go down; without the label `log`, which must be that name.
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

/// One scrape of each process; the series that two of them showed, if a partition was handed over in between.
fn all_samples(processors: &[Process]) -> Result<Samples, Series> {
    let mut all = Samples::default();
    for process in processors {
        for (series, value) in process.metrics_when("a scrape", |samples| Ok(samples.clone())).0 {
            // Own metrics are there once for each process.
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
