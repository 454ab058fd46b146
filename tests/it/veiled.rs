//! A cluster that reports no brokers for moments: no client may be cut off by that for good.

use crate::support::processes::{Process, ingest, processor, tacho};
use crate::support::replay::read_topic;
use crate::support::tacho::PROTOBUF;
use crate::support::veil::Veil;
use crate::support::{eventually, now_ms, otlp};
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::record::HEADER_POLICY;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// How many times brokers are hidden. The fault that the test looks for is a race, which shows in nearly every run with so many
/// times.
const TIMES: usize = 12;
/// How long brokers are hidden, so that each client asks for them meanwhile.
const HIDDEN: Duration = Duration::from_millis(700);
/// How long brokers are shown in between, so that each client finds them again.
const SHOWN: Duration = Duration::from_millis(800);

/// A request with a prompt, to be sent to ingest or to the inbox. No two are equal.
fn prompt(way: &str, number: &mut i64) -> Vec<u8> {
    *number += 1;
    let mut record = otlp::prompt(way, now_ms());
    record
        .attributes
        .push(otlp::attribute("number", otlp::int(*number)));
    otlp::encode(vec![record])
}

fn command(args: &[&str], bootstrap: &str) -> String {
    let output = tacho().args(args).args(&["--kafka", bootstrap]).run();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn reader(bootstrap: &str) -> KafkaLog {
    KafkaLog::connect(KafkaConfig::reader(&Cluster::plain(bootstrap, ""), "veiled")).unwrap()
}

/// Waits until each prompt in the raw topic is counted once.
fn wait_until_counted(worker: &Process, log: &mut KafkaLog) {
    worker.metrics_when("all prompts", |samples| {
        let kept = read_topic(log, Topic::RawLogs)
            .iter()
            .filter(|record| record.header("tacho-tick").is_none())
            .count();
        match samples.count("tacho_turns_total", &[]) {
            counted if usize::try_from(counted) == Ok(kept) => Ok(()),
            counted => Err(format!("{counted} of {kept}")),
        }
    });
}

#[test]
fn a_cluster_without_brokers_for_a_moment_cuts_nobody_off() {
    let veil = Veil::start();
    let bootstrap = veil.bootstrap();
    command(
        &[
            "topics",
            "apply",
            "--allow-single-broker",
            "--raw-partitions",
            "3",
        ],
        &bootstrap,
    );
    let door = ingest(&bootstrap, "").ready();
    let worker = processor(&bootstrap, "", "one")
        .set("group.session_timeout", "6s")
        .ready();
    let mut number = 0;
    door.logs(&prompt("ingest", &mut number));
    wait_until_counted(&worker, &mut reader(&bootstrap));

    for _ in 0..TIMES {
        veil.let_down(true);
        thread::sleep(HIDDEN);
        veil.let_down(false);
        thread::sleep(SHOWN);
    }
    assert!(
        veil.hidden() > TIMES,
        "clients asked for brokers {} times while there were none",
        veil.hidden()
    );

    // Reads and writes from now on use every client: that of the control topic, that of the sink, and the two of the inbox.
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "[privacy.default]\nprompt = \"keep\"\n").unwrap();
    let said = command(&["control", "apply", policy.to_str().unwrap()], &bootstrap);
    let epoch: i64 = said
        .strip_prefix("epoch ")
        .and_then(|said| said.split(':').next())
        .unwrap()
        .parse()
        .unwrap();
    let inbox: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .create()
        .unwrap();
    let mut log = reader(&bootstrap);
    eventually("records of both ways under the new policy", || {
        let answer = door.post("/v1/logs", PROTOBUF, &prompt("ingest", &mut number));
        let value = prompt("inbox", &mut number);
        inbox
            .send(BaseRecord::<(), [u8]>::to(Topic::InboxLogs.name()).payload(&value))
            .map_err(|(error, _)| error)
            .unwrap();
        inbox.flush(Duration::from_secs(30)).unwrap();
        let records = read_topic(&mut log, Topic::RawLogs);
        let new = records
            .iter()
            .filter(|record| record.header_number(HEADER_POLICY) == Some(epoch));
        let ways: BTreeSet<&str> = new
            .map(|record| std::str::from_utf8(record.key.as_deref().unwrap()).unwrap())
            .collect();
        match ways.len() {
            2 => Ok(()),
            _ => Err(format!("{ways:?}; {answer:?}; {}", door.said())),
        }
    });
    wait_until_counted(&worker, &mut log);
}
