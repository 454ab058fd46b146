//! Brokers and ingests that die, pause and start again while clients send each request once: what was answered with 200 is in
//! the raw topic, in the order of each client, and counts once.

use crate::support::broker::{Broker, Cluster};
use crate::support::processes::{self, Launch, Process, processor, tacho};
use crate::support::replay::read_topic;
use crate::support::tacho::PROTOBUF;
use crate::support::traffic::Random;
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const CLIENTS: usize = 4;
/// How many records a request has.
const SIZE: usize = 3;
/// How many times ingest is killed, with a spool and without.
const KILLS: usize = 10;

/// The identity of a record: the conversation of its client, and its number there.
type Id = (String, u64);

/// The ledger of the clients: what was sent, what was answered with 200, and other answers.
#[derive(Default)]
struct Ledger {
    sent: BTreeSet<Id>,
    acked: BTreeSet<Id>,
    refused: Vec<String>,
}

/// Clients with a conversation each, which send their requests one after another, and each request once.
struct Clients {
    ledger: Arc<Mutex<Ledger>>,
    answers: Arc<AtomicUsize>,
    /// The next number of each client.
    next: Arc<Vec<Mutex<u64>>>,
    /// The time from which event times are counted, so that each record gets one of its own.
    began_ms: i64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn new() -> Self {
        Self {
            ledger: Arc::default(),
            answers: Arc::default(),
            next: Arc::new((0..CLIENTS).map(|_| Mutex::new(0)).collect()),
            began_ms: now_ms(),
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Starts to send to a process, until that has ended or [`Clients::stop`] is called.
    fn send_to(&mut self, process: &Process) {
        self.stop.store(false, Ordering::Relaxed);
        for client in 0..CLIENTS {
            let (post, began_ms) = (process.poster(), self.began_ms);
            let (ledger, answers, next, stop) = (
                Arc::clone(&self.ledger),
                Arc::clone(&self.answers),
                Arc::clone(&self.next),
                Arc::clone(&self.stop),
            );
            self.threads.push(std::thread::spawn(move || {
                let conversation = format!("client-{client}");
                let mut next = next[client].lock().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let numbers: Vec<u64> = (*next..).take(SIZE).collect();
                    *next += SIZE as u64;
                    let time = |number: &u64| began_ms + i64::try_from(*number).unwrap();
                    let body = otlp::encode(
                        numbers
                            .iter()
                            .map(|number| otlp::prompt(&conversation, time(number)))
                            .collect(),
                    );
                    let ids = numbers.into_iter().map(|number| (conversation.clone(), number));
                    ledger.lock().unwrap().sent.extend(ids.clone());
                    match post("/v1/logs", PROTOBUF, &body) {
                        Ok(200) => {
                            ledger.lock().unwrap().acked.extend(ids);
                            answers.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(status) => ledger.lock().unwrap().refused.push(status.to_string()),
                        // The process has ended.
                        Err(_) => return,
                    }
                }
            }));
        }
    }

    /// Waits for `more` further answers with 200.
    fn wait_for(&self, more: usize, process: &Process) {
        let goal = self.answers.load(Ordering::Relaxed) + more;
        eventually("answers", || match self.answers.load(Ordering::Relaxed) {
            answers if answers >= goal => Ok(()),
            answers => Err(format!(
                "{answers} of {goal}; refused: {:?}; {}",
                self.ledger.lock().unwrap().refused,
                process.said()
            )),
        });
    }

    fn join(&mut self) {
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }

    /// Compares the raw topic with the ledger. Gives the records that the topic holds, and how many it holds more than once.
    fn check(&self, bootstrap: &str, prefix: &str) -> (BTreeSet<Id>, usize) {
        let cluster = processor_log::cluster::Cluster::plain(bootstrap, prefix);
        let mut log = KafkaLog::connect(KafkaConfig::reader(&cluster, "outage-read")).unwrap();
        let mut order: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let (mut kept, mut again) = (BTreeSet::new(), 0);
        for record in read_topic(&mut log, schemas::topic::Topic::RawLogs) {
            let request = ExportLogsServiceRequest::decode(record.value.unwrap_or_default()).unwrap();
            let conversation = record.key.and_then(|key| {
                Some(
                    std::str::from_utf8(&key)
                        .ok()?
                        .strip_prefix("default/")?
                        .to_owned(),
                )
            });
            let scopes = request
                .resource_logs
                .iter()
                .flat_map(|resource| &resource.scope_logs);
            for found in scopes.flat_map(|scope| &scope.log_records) {
                let time_ms = i64::try_from(found.observed_time_unix_nano / 1_000_000).unwrap();
                let id = (
                    conversation.clone().unwrap(),
                    u64::try_from(time_ms - self.began_ms).unwrap(),
                );
                if kept.insert(id.clone()) {
                    order.entry(id.0).or_default().push(id.1);
                } else {
                    again += 1;
                }
            }
        }
        let ledger = self.ledger.lock().unwrap();
        let lost: Vec<_> = ledger.acked.difference(&kept).collect();
        assert!(lost.is_empty(), "records answered with 200 were lost: {lost:?}");
        let made_up: Vec<_> = kept.difference(&ledger.sent).collect();
        assert!(
            made_up.is_empty(),
            "there are records that were never sent: {made_up:?}"
        );
        for (conversation, numbers) in order {
            let wrong = numbers.windows(2).find(|pair| pair[0] > pair[1]);
            assert!(
                wrong.is_none(),
                "{conversation}: the records {wrong:?} are in the wrong order"
            );
        }
        (kept, again)
    }
}

fn apply(bootstrap: &str, prefix: &str, more: &[&str]) {
    let args = [
        "topics",
        "apply",
        "--kafka",
        bootstrap,
        "--prefix",
        prefix,
        "--raw-partitions",
        "3",
    ];
    let output = tacho().args(&args).args(more).run();
    assert!(output.status.success(), "{output:?}");
}

fn ingest(bootstrap: &str, prefix: &str, spool: Option<&Path>) -> Launch {
    let launch = processes::ingest(bootstrap, prefix).set("inbox.enabled", "false");
    match spool {
        Some(directory) => launch.set("spool.directory", directory.to_str().unwrap()),
        None => launch,
    }
}

fn wait_until_drained(process: &Process) {
    process.metrics_when("an empty spool", |samples| {
        let left = ["tacho_spool_active", "tacho_spool_records", "tacho_spool_bytes"]
            .map(|name| samples.sum(name, &[]));
        if left == [0.0; 3] {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

/// Checks that a processor counts each record of the raw topic once.
fn expect_derived(bootstrap: &str, prefix: &str, kept: &BTreeSet<Id>) {
    let worker = processor(bootstrap, prefix, "one").ready();
    worker.wait_for_count("tacho_turns_total", &[], i64::try_from(kept.len()).unwrap());
    worker.signal(Signal::SIGTERM);
    worker.ended();
}

#[test]
fn one_of_three_brokers_dies_and_nobody_is_refused() {
    let mut cluster = Cluster::start();
    let bootstrap = cluster.bootstrap();
    apply(&bootstrap, "", &[]);
    let door = ingest(&bootstrap, "", None).ready();
    let mut clients = Clients::new();
    clients.send_to(&door);
    clients.wait_for(60, &door);
    cluster.nodes[2].kill();
    clients.wait_for(120, &door);
    cluster.nodes[2].restart();
    clients.wait_for(60, &door);
    clients.stop();
    let (kept, again) = clients.check(&bootstrap, "");
    let ledger = clients.ledger.lock().unwrap();
    assert!(
        ledger.refused.is_empty() && ledger.acked == ledger.sent,
        "{:?}",
        ledger.refused
    );
    assert_eq!((kept.len(), again), (ledger.sent.len(), 0));
}

#[test]
fn the_only_broker_is_away_and_the_spool_answers() {
    let mut broker = Broker::start(&[]);
    let bootstrap = broker.bootstrap();
    apply(&bootstrap, "away.", &["--allow-single-broker"]);
    let dir = tempfile::tempdir().unwrap();
    let door = ingest(&bootstrap, "away.", Some(dir.path())).ready();
    let mut clients = Clients::new();
    clients.send_to(&door);
    clients.wait_for(40, &door);
    // The broker is paused, so it may still take the records that it was sent.
    broker.pause();
    clients.wait_for(60, &door);
    broker.resume();
    clients.wait_for(60, &door);
    // While the broker is dead, an ingest that is started is ready by the cluster's state that it remembers.
    broker.kill();
    clients.wait_for(60, &door);
    clients.stop();
    door.signal(Signal::SIGTERM);
    let (status, said) = door.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    let door = ingest(&bootstrap, "away.", Some(dir.path())).ready();
    clients.send_to(&door);
    clients.wait_for(60, &door);
    broker.restart();
    clients.wait_for(60, &door);
    clients.stop();
    wait_until_drained(&door);
    {
        let ledger = clients.ledger.lock().unwrap();
        assert!(
            ledger.refused.is_empty() && ledger.acked == ledger.sent,
            "{:?}",
            ledger.refused
        );
    }
    let (kept, again) = clients.check(&bootstrap, "away.");
    eprintln!(
        "{} records, {again} of them more than once in the raw topic",
        kept.len()
    );
    expect_derived(&bootstrap, "away.", &kept);

    // Ingest is killed again and again, every other time while Kafka is paused.
    apply(&bootstrap, "kills.", &["--allow-single-broker"]);
    let mut random = Random(5);
    let mut clients = Clients::new();
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let door = ingest(&bootstrap, "kills.", Some(dir.path())).ready();
        clients.send_to(&door);
        clients.wait_for(1 + usize::try_from(random.below(20)).unwrap(), &door);
        if kill % 2 == 1 {
            broker.pause();
            clients.wait_for(1 + usize::try_from(random.below(30)).unwrap(), &door);
        }
        door.kill();
        clients.join();
        broker.resume();
    }
    wait_until_drained(&ingest(&bootstrap, "kills.", Some(dir.path())).ready());
    let (kept, _) = clients.check(&bootstrap, "kills.");
    expect_derived(&bootstrap, "kills.", &kept);
}

#[test]
fn an_ingest_that_is_killed_has_lost_nothing_that_it_answered() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "killed.", &["--allow-single-broker"]);
    let mut random = Random(7);
    let mut clients = Clients::new();
    for _ in 0..KILLS {
        let door = ingest(&bootstrap, "killed.", None).ready();
        clients.send_to(&door);
        clients.wait_for(1 + usize::try_from(random.below(40)).unwrap(), &door);
        door.kill();
        clients.join();
    }
    let (kept, again) = clients.check(&bootstrap, "killed.");
    assert_eq!(again, 0, "records of a request were written twice");
    expect_derived(&bootstrap, "killed.", &kept);
}
